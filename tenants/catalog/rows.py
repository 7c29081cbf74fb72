"""An item as the rows of the catalogue's tables: what is stored of it, made without the database."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from tenants.catalog.document import text_hash
from tenants.catalog.filters import attribute_text
from tenants.catalog.item import AVAILABILITY_CODE, Item, category_ancestors, image_hash
from tenants.catalog.words import binary_tsvector, lexemes

ABSENT: Final = bytes(16).hex()
"""The hash, in hexadecimal, of a text or a list of photos that is not there."""

_FOREVER_AGO: Final = "-infinity"
_CACHED_PATH: Final = 128
"""Characters: longer paths are not kept, so that the cache is small whatever is sent."""

_encode_rows = msgspec.json.Encoder().encode

_Attribute = tuple[str, str | None, float | None]


class Write(NamedTuple):
    """An item that is to be written, and where it stood in the call."""

    at: int
    item: Item
    encoded: bytes
    content_hash: bytes


class _Row(Struct):
    """One changed item on its way into the statement; short names, as they travel per row."""

    n: int
    d: msgspec.Raw
    c: str
    t: str
    m: str
    g: str | None
    b: str | None
    s: str | None
    p: int | None
    q: int | None
    u: str
    v: int
    h: bool
    f: str
    e: str
    l: str | None  # noqa: E741
    k: str | None


class Payload(NamedTuple):
    """A chunk as the statement takes it: the rows as JSON, words and attributes as columns."""

    rows: str
    numbers: list[int]
    words: list[bytes]
    attributes: tuple[list[int], list[str], list[str | None], list[float | None]]


def payload(chunk: Sequence[Write], numbers: Mapping[str, int], currency: str) -> Payload:
    """The rows of these items; `numbers` are the items' own, by id, and `currency` is that of items without one."""
    rows = []
    item_nos: list[int] = []
    words: list[bytes] = []
    attributes: tuple[list[int], list[str], list[str | None], list[float | None]] = ([], [], [], [])
    for write in chunk:
        item_no = numbers[write.item.id]
        found = _attributes(write.item)
        rows.append(_row(write, item_no, currency))
        item_nos.append(item_no)
        words.append(_words(write.item, found))
        for name, text, number in found:
            attributes[0].append(item_no)
            attributes[1].append(name)
            attributes[2].append(text)
            attributes[3].append(number)
    return Payload(_encode_rows(rows).decode(), item_nos, words, attributes)


def _words(item: Item, attributes: Sequence[_Attribute]) -> bytes:
    described = [f"{name} {value}" for name, value, _ in attributes if value and name[0] == "a"]
    rest = " ".join([item.brand or "", *item.categories, *item.tags, *described, item.description or ""])
    return binary_tsvector(lexemes(item.title, rest))


def _row(write: Write, item_no: int, currency: str) -> _Row:
    item = write.item
    return _Row(
        n=item_no,
        d=msgspec.Raw(write.encoded),
        c=write.content_hash.hex(),
        t=text_hash(item).hex(),
        m=image_hash(item).hex(),
        g=item.group_id,
        b=item.brand,
        s=item.seller_id,
        p=item.price,
        q=item.sale_price,
        u=item.currency or currency,
        v=AVAILABILITY_CODE[item.availability],
        h=item.hidden,
        f=_FOREVER_AGO if item.available_from is None else item.available_from.astimezone(UTC).isoformat(),
        e="infinity" if item.expires_at is None else item.expires_at.astimezone(UTC).isoformat(),
        l=item.language,
        k=item.gtin,
    )


def _attributes(item: Item) -> list[_Attribute]:
    """The many-valued fields as rows: name, text, number."""
    paths = item.categories
    if len(paths) == 1 and len(paths[0]) <= _CACHED_PATH:
        rows = list(_one_category(paths[0]))
    else:
        rows = _categories(paths) if paths else []
    if item.tags:
        rows += [("tags", tag, None) for tag in dict.fromkeys(item.tags)]
    for name, value in item.attributes.items():
        column = f"attributes.{name}"
        if isinstance(value, list):
            rows += [_attribute(column, single) for single in value]
        else:
            rows.append(_attribute(column, value))
    return rows


def _categories(given_paths: Sequence[str]) -> list[_Attribute]:
    paths = dict.fromkeys(ancestor for path in given_paths for ancestor in category_ancestors(path))
    given = {" > ".join(part.strip() for part in path.split(">")) for path in given_paths}
    # 1 marks a path as given, so that `same` can tell it from an ancestor.
    return [("categories", path, 1.0 if path in given else None) for path in paths]


@lru_cache(maxsize=1024)
def _one_category(path: str) -> tuple[_Attribute, ...]:
    """The same for one path. A shop has few, and most items are in one."""
    return tuple(_categories([path]))


def _attribute(name: str, value: str | bool | int | float) -> _Attribute:
    if isinstance(value, str | bool):
        return name, attribute_text(value), None
    try:
        return name, None, float(value)
    except OverflowError:  # an integer beyond 1e308 is kept in the document and matched by no filter
        return name, None, None
