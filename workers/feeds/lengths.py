"""How long the API takes its texts, and how a feed's longer ones are cut.

A shop cannot mend its supplier's titles, so a feed's text is cut and told of, where the API refuses it. Ids and
addresses are never cut: another id is another product.
"""

import unicodedata
from collections.abc import Mapping
from typing import Final

MAX_CHARACTERS: Final[Mapping[str, int]] = {
    "title": 1000,
    "description": 50_000,
    "brand": 256,
    "categories": 512,
    "tags": 128,
}
"""Of one value; in code points, as the API counts."""

MAX_VALUES: Final[Mapping[str, int]] = {"images": 10, "categories": 50, "tags": 100, "attributes": 200}

_JOINER: Final = "\u200d"
_BETWEEN: Final = " > "


def cut(text: str, limit: int) -> str:
    """The first `limit` code points at most, without half a character: an accent stays with its letter."""
    if len(text) <= limit:
        return text
    end = limit
    while end and (_belongs_to_the_one_before(text[end]) or text[end - 1] == _JOINER):
        end -= 1
    # A text of nothing but marks has no better place.
    return text[: end or limit].rstrip()


def cut_path(path: str, limit: int) -> str:
    """A category path without its deepest levels; a single level that is too long is cut as text."""
    if len(path) <= limit:
        return path
    kept, parted, _ = path[: limit + len(_BETWEEN)].rpartition(_BETWEEN)
    return kept if parted else cut(path, limit)


def _belongs_to_the_one_before(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc", "Me") or character == _JOINER
