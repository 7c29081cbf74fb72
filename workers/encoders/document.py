"""The text of an item: the versioned recipe by which a product becomes the one text that is encoded."""

import html
import re
from collections.abc import Mapping

RECIPE = 1
"""Version of `item_text`. It is part of an item's content hash, so a new recipe re-encodes every item."""

_LONGEST = 6_000
"""Characters kept. Far more than any pack reads, and it keeps a 64 KB description off the tokenizer."""

_ATTRIBUTES = 16
"""Attributes kept, by name: a product with 200 columns would otherwise push its description out."""

_ATTRIBUTE_LENGTH = 80
"""Longer values are prose, lists of codes or markup rather than a property."""

_CODES = frozenset(
    {"id", "sku", "mpn", "ean", "upc", "gtin", "isbn", "asin", "barcode", "hs_code", "vendorcode"}
    | {"model_number", "url", "link", "image", "slug", "handle"}
)
"""Attribute names whose values identify a product and say nothing about it."""

_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
_SPACE = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")


def item_text(item: Mapping[str, object]) -> str:
    """Title, brand, category paths, chosen attributes and description of `item`, in this order.

    `item` has the fields of the public API. The order puts what matters first, because a pack reads only
    its first 128 to 512 tokens. Chosen attributes are those whose value is words (not codes, numbers, yes/no
    or prose), sorted by name so that the text does not depend on the order in which a database returns
    them. Markup in the description is dropped. `""` when there is nothing to encode.
    """
    parts = [_clean(item.get("title")), _clean(item.get("brand"))]
    parts.append("; ".join(filter(None, (_clean(path) for path in _strings(item.get("categories"))))))
    parts.append(_attributes(item.get("attributes")))
    parts.append(_clean(item.get("description")))
    text = ". ".join(part.rstrip(" .") for part in parts if part.rstrip(" ."))
    return text[:_LONGEST].rstrip()


def _attributes(attributes: object) -> str:
    """`color: blue; size: S, M` of the attributes that describe."""
    if not isinstance(attributes, Mapping):
        return ""
    chosen = []
    for name in sorted(attributes, key=str):
        if str(name).casefold() in _CODES:
            continue
        values = [_clean(value) for value in _strings(attributes[name])]
        values = [v for v in values if _LETTER.search(v) and "://" not in v]
        joined = ", ".join(values)
        if joined and len(joined) <= _ATTRIBUTE_LENGTH:
            chosen.append(f"{_clean(name).replace('_', ' ')}: {joined}")
        if len(chosen) == _ATTRIBUTES:
            break
    return "; ".join(chosen)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return [v for v in value if isinstance(v, str)]
    return []


def _clean(value: object) -> str:
    """Markup out, entities resolved, white space to single blanks."""
    if not isinstance(value, str):
        return ""
    text = value[: 4 * _LONGEST]
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    return _SPACE.sub(" ", text.replace("\x00", " ")).strip()
