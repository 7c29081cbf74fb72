"""HTML of a product description as the text that a shopper would read."""

import re
from html import unescape
from html.parser import HTMLParser

MAX_PARSED_CHARACTERS = 50_000
"""The parser takes quadratic time over some broken HTML; longer texts only have their tags cut out."""

_SILENT = frozenset(("script", "style", "template", "noscript", "iframe", "svg", "head", "title"))
_BLOCKS = frozenset(
    ("p", "br", "div", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "tr", "section", "article",
     "blockquote", "pre", "hr", "dl", "dt", "dd", "center")
)  # fmt: skip
_CELLS = frozenset(("td", "th"))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silent is None and tag in _SILENT:
            self._silent = tag
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in _CELLS:
            self.parts.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # <script/> has no end to wait for.
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = None
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if self._silent is None:
            self.parts.append(data)

    def unknown_decl(self, data: str) -> None:
        # A CDATA section inside HTML: exporters wrap twice.
        if data.startswith("CDATA["):
            self.parts.append(data[6:])


_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n[ \n]*")
_MARKUP = re.compile(r"<[^<>]*>")


def html_to_text(text: str) -> str:
    """The visible text, one line per paragraph, list item or table row; entities become their characters.

    Scripts and styles are left out. Broken HTML is read as a browser would, and never raises.
    """
    # A carriage return is white space in HTML, and so are line breaks of the source.
    text = text.replace("\r", " ").replace("\n", " ")
    if len(text) > MAX_PARSED_CHARACTERS:
        return _squeezed(unescape(_MARKUP.sub(" ", text)))
    reader = _Reader()
    try:
        reader.feed(text)
        reader.close()
        plain = "".join(reader.parts)
    except (AssertionError, ValueError):
        # html.parser gives up on some broken declarations, such as "<![if".
        plain = _MARKUP.sub(" ", text)
    return _squeezed(plain)


def _squeezed(plain: str) -> str:
    return _LINES.sub("\n", _SPACES.sub(" ", plain)).strip()
