"""HTML of a product description as the text that a shopper would read."""

import re
from html import unescape

# The standard library's parser takes quadratic time over some broken HTML (25 s for 60 KB of "<a b="), which a feed
# may hold in every row. Here every pattern stops at the next "<", so the work is linear.
_TOKEN = re.compile(
    r"""<!--.*?(?:-->|\Z)"""
    r"""|<!\[CDATA\[|\]\]>"""
    r"""|<(?P<end>/?)(?P<tag>[A-Za-z][A-Za-z0-9]*)(?:[^<>"']++|"[^"<]*+"|'[^'<]*+'|["'])*+>"""
    r"""|<[!?/][^<>]*+>""",
    re.DOTALL,
)
_SILENT = frozenset(("script", "style", "template", "noscript", "iframe", "svg", "head", "title"))
_BLOCKS = frozenset(
    ("p", "br", "div", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "tr", "section", "article",
     "blockquote", "pre", "hr", "dl", "dt", "dd", "center")
)  # fmt: skip
_CELLS = frozenset(("td", "th"))
# Python refuses to read whole numbers of thousands of digits, and no character has so high a number.
_ABSURD_REFERENCE = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9A-Fa-f]{8,});?")
_SPACES = re.compile(r"\s+")
_LINES = re.compile(r" ?\n[ \n]*")
_BREAK = "\ufdd0"


def html_to_text(text: str) -> str:
    """The visible text, one line per paragraph, list item or table row; entities become their characters.

    Scripts and styles are left out. Broken HTML is read as well as it goes, in linear time, and never raises.
    """
    parts: list[str] = []
    at = 0
    while (token := _TOKEN.search(text, at)) is not None:
        parts.append(text[at : token.start()])
        at = token.end()
        tag = (token["tag"] or "").lower()
        if tag in _BLOCKS:
            parts.append(_BREAK)
        elif tag in _CELLS:
            parts.append(" ")
        elif tag in _SILENT and not token["end"] and not token.group().endswith("/>"):
            end = re.compile(f"</{tag}", re.IGNORECASE).search(text, at)
            at = end.start() if end is not None else len(text)
    parts.append(text[at:])
    plain = unescape(_ABSURD_REFERENCE.sub("\ufffd", "".join(parts)))
    # Line breaks of the source are blanks; those of the layout were marked.
    return _LINES.sub("\n", _SPACES.sub(" ", plain).replace(_BREAK, "\n")).strip()
