"""What no log of a real process may hold, whatever the tests did to it. Each process that a test starts is held to it.

Texts of items and ids of people look like any other word: tests/e2e/test_privacy.py sends words of its own and looks
for those.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

_FORBIDDEN: Final = {
    "an API key": re.compile(r"\b(?:sk|pk)_[0-9A-Za-z]{12,}"),
    "the secret of a webhook": re.compile(r"\bwhsec_[0-9A-Za-z+/=]{12,}"),
    "an e-mail address": re.compile(r"[\w.+\-]+(?:@|%40)[\w\-]+\.[a-z]{2,}"),
    "a password in an address": re.compile(r"\w://[^\s:/@]*:(?!\[redacted\])[^\s/@]+@"),
}
_IP: Final = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")


def check_logs(*paths: Path) -> None:
    """Fails where one of these files tells what it must not."""
    for path in paths:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            found = list(_told(line))
            assert not found, f"{path}:{number} tells {', '.join(found)}: {line[:500]}"


def _told(line: str) -> Iterator[str]:
    for what, pattern in _FORBIDDEN.items():
        if pattern.search(line):
            yield what
    for match in _IP.finditer(line):
        try:
            address = ip_address(match[0])
        except ValueError:
            continue
        if not address.is_loopback and not address.is_unspecified:
            yield f"the address {match[0]}"
