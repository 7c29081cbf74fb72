"""The text of an item: the versioned recipe by which a product becomes the one text that is encoded."""

import html
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from tenants.catalog.item import AttributeValue, Item, digest

RECIPE: Final = 1
"""Version of `item_text`. It is part of the text's hash, so a new recipe encodes every item anew."""

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

_encode = msgspec.json.Encoder().encode

_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
_LETTER = re.compile(r"[^\W\d_]")


def item_text(item: Item) -> str:
    """Title, brand, category paths, chosen attributes and description of `item`, in this order.

    The order puts what matters first, because a pack reads only its first 128
    to 512 tokens. Chosen attributes are those whose value is words (not codes,
    numbers, yes/no or prose), sorted by name so that the text does not depend
    on the order in which they were sent. Markup in the description is dropped.
    `""` when there is nothing to encode.
    """
    parts = [
        _clean(item.title),
        _clean(item.brand),
        "; ".join(filter(None, map(_clean, item.categories))),
        _attributes(item.attributes) if item.attributes else "",
        _clean(item.description),
    ]
    text = ". ".join(part.rstrip(" .") for part in parts if part.rstrip(" ."))
    return text[:_LONGEST].rstrip()


def _attributes(attributes: dict[str, AttributeValue]) -> str:
    """`color: blue; size: S, M` of the attributes that describe."""
    chosen = []
    for name in sorted(attributes):
        if name.casefold() in _CODES:
            continue
        values: Iterable[str] = map(_clean, _strings(attributes[name]))
        values = [v for v in values if _LETTER.search(v) and "://" not in v]
        joined = ", ".join(values)
        if joined and len(joined) <= _ATTRIBUTE_LENGTH:
            chosen.append(f"{_clean(name).replace('_', ' ')}: {joined}")
        if len(chosen) == _ATTRIBUTES:
            break
    return "; ".join(chosen)


def _strings(value: AttributeValue) -> list[str]:
    singles = value if isinstance(value, list) else [value]
    return [single for single in singles if isinstance(single, str)]


def _clean(value: str | None) -> str:
    """Markup out, entities resolved, white space to single blanks."""
    if not value:
        return ""
    text = value[: 4 * _LONGEST]
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    return " ".join(text.replace("\x00", " ").split())


def text_hash(item: Item) -> bytes:
    """Hash of the fields that the text is made of, and of the recipe; 16 zero bytes where there are none.

    Of the fields rather than of the text: a bulk write needs it for every
    row, and hashing costs a tenth of cleaning.
    """
    if not (item.title or item.description or item.brand or item.categories or item.attributes):
        return bytes(16)
    fields = (RECIPE, item.title, item.brand, item.categories, item.attributes, item.description, item.language)
    return digest(_encode(fields))
