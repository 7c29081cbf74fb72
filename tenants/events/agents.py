"""Programs that say in their User-Agent that they are none of the shoppers."""

import re
from typing import Final

AGENTS: Final = (
    "bot",
    "crawl",
    "spider",
    "slurp",
    "headless",
    "phantomjs",
    "puppeteer",
    "playwright",
    "selenium",
    "lighthouse",
    "pagespeed",
    "pingdom",
    "uptime",
    "facebookexternalhit",
    "whatsapp",
    "preview",
    "archiver",
    "scrapy",
    "python-requests",
    "python-urllib",
    "aiohttp",
    "httpx",
    "curl/",
    "wget/",
    "go-http-client",
    "okhttp",
    "java/",
    "libwww",
)
"""Parts of User-Agents, in lower case. Of a browser's own requests: a shop's server may well be python-requests."""

# Cubot makes telephones.
_AGENT: Final = re.compile("(?<!cu)(?:" + "|".join(re.escape(agent) for agent in AGENTS) + ")", re.IGNORECASE)


def is_bot(agent: str | None) -> bool:
    """Whether a program says in its User-Agent that it is one; a browser always sends some."""
    return agent is None or not agent.strip() or _AGENT.search(agent) is not None
