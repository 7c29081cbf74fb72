"""An item as a shop gives it: the fields, their limits, its text, its hashes.

The document that is stored is exactly this struct, encoded again, so that two
spellings of one item have one hash.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from infra.decode import faults
from infra.errors import FieldError, NotFound

MAX_ITEM_BYTES: Final = 65_536
MAX_PHOTOS: Final = 10
INDEXED_CHARS: Final = 256
"""Attribute values are compared by filters on their first 256 characters."""

# "$" alone would let a newline stand at the end.
_PLAIN = r"^[^\x00-\x1f\x7f-\x9f]+$(?!\n)"

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=_PLAIN, description="1 to 128 characters.")]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Money = Annotated[int, Meta(ge=0, le=9_007_199_254_740_991, description="In minor units of the currency.")]
Moment = Annotated[datetime, Meta(tz=True)]
PhotoUrl = Annotated[str, Meta(max_length=2048, pattern=r"^https?://[^\s]+$(?!\n)")]
CategoryPath = Annotated[str, Meta(min_length=1, max_length=512, examples=["Home > Lamps > Desk lamps"])]
Tag = Annotated[str, Meta(min_length=1, max_length=128)]
AttributeName = Annotated[str, Meta(min_length=1, max_length=128, pattern=_PLAIN)]
AttributeValue = str | bool | int | float | list[str | int | float]
Availability = Literal["in_stock", "out_of_stock", "preorder", "backorder"]

AVAILABILITY_CODE: Final[dict[str, int]] = {"in_stock": 0, "preorder": 1, "backorder": 2, "out_of_stock": 3}
"""As stored; below 3 can be recommended."""


class ItemNotFound(NotFound):
    """No item of this tenant has that id."""

    code = "item_not_found"
    title = "There is no such item"


class Item(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One product or variant. Only `id` is required; text and photos make it recommendable by content."""

    id: Id
    group_id: Id | None = None
    title: Annotated[str, Meta(max_length=1000)] | None = None
    description: Annotated[str, Meta(max_length=50_000)] | None = None
    url: Annotated[str, Meta(max_length=2048)] | None = None
    images: Annotated[list[PhotoUrl], Meta(max_length=MAX_PHOTOS)] = []
    categories: Annotated[list[CategoryPath], Meta(max_length=50)] = []
    brand: Name | None = None
    seller_id: Id | None = None
    price: Money | None = None
    sale_price: Money | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)", description="ISO 4217.")] | None = None
    availability: Availability = "in_stock"
    gtin: Annotated[str, Meta(max_length=64)] | None = None
    language: Annotated[str, Meta(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$(?!\n)")] | None = None
    tags: Annotated[list[Tag], Meta(max_length=100)] = []
    attributes: Annotated[dict[AttributeName, AttributeValue], Meta(max_length=200)] = {}
    available_from: Moment | None = None
    expires_at: Moment | None = None
    hidden: bool = False


_encode = msgspec.json.Encoder().encode


def document(item: Item) -> bytes:
    """The stored JSON of an item."""
    return _encode(item)


def too_large_or_unstorable(item: Item, encoded: bytes) -> FieldError | None:
    """What the struct's own limits cannot say: 64 KB in all, and no NUL, which PostgreSQL does not store."""
    if len(encoded) > MAX_ITEM_BYTES:
        return FieldError(
            pointer="", code="item_too_large", message=f"The item has {len(encoded)} bytes; 65,536 are allowed."
        )
    if b"\\u0000" in encoded and "\0" in _strings(item):
        return FieldError(
            pointer="", code="nul_character", message="The item holds a NUL character (\\u0000); remove it."
        )
    return None


def _strings(value: object) -> str:
    """All strings inside `value`, joined; only called when a NUL is suspected."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, dict):
        return "\x01".join(_strings(part) for pair in plain.items() for part in pair)
    if isinstance(plain, list):
        return "\x01".join(_strings(part) for part in plain)
    return ""


def check_items(rows: Sequence[object]) -> tuple[list[Item | None], list[FieldError]]:
    """Convert plain rows one by one; a bad row becomes None and its faults, with `index` set."""
    items: list[Item | None] = []
    found: list[FieldError] = []
    for index, row in enumerate(rows):
        try:
            items.append(msgspec.convert(row, Item))
        except msgspec.ValidationError:
            items.append(None)
            found += [msgspec.structs.replace(fault, index=index) for fault in faults(row, Item)]
    return items, found


def digest(data: bytes) -> bytes:
    """The 16-byte content hash used throughout the catalogue (BLAKE2b, RFC 7693)."""
    return blake2b(data, digest_size=16).digest()


def image_hash(item: Item) -> bytes:
    """Hash of the photo addresses; 16 zero bytes where there are none."""
    return digest("\n".join(item.images).encode()) if item.images else bytes(16)


def category_ancestors(path: str) -> list[str]:
    """`A > B > C` -> `A`, `A > B`, `A > B > C`: a filter on a category finds its descendants."""
    if ">" not in path:
        return [path.strip()]
    parts = [part.strip() for part in path.split(">")]
    return [" > ".join(parts[: depth + 1]) for depth in range(len(parts)) if parts[depth]]
