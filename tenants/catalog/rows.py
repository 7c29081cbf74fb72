"""An item as the rows of the catalogue's tables: what is stored of it, made without the database."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from infra.clock import within_reach
from tenants.catalog.document import text_hash
from tenants.catalog.filters import attribute_text
from tenants.catalog.item import AVAILABILITY_CODE, Item, category_ancestors, image_hash
from tenants.catalog.words import binary_tsvector, lexemes

ABSENT: Final = bytes(16)
"""The hash of a text or a list of photos that is not there."""

_CACHED_PATH: Final = 128
"""Characters: longer paths are not kept, so that the cache is small whatever is sent."""

_Attribute = tuple[str, str | None, float | None]


class Write(NamedTuple):
    """An item that is to be written, and where it stood in the call."""

    at: int
    item: Item
    encoded: bytes
    content_hash: bytes


Column = Sequence[Any] | None
"""A value per row; None where every row's is null, which then costs nothing on its way."""


class Payload(NamedTuple):
    """A chunk as the statement takes it, by columns: as rows of JSON, PostgreSQL takes twice as long to read it."""

    numbers: Column
    documents: tuple[Column, ...]
    facets: tuple[Column | str, ...]
    """The columns, and the currency of items without one."""
    words: Column
    attributes: tuple[Column | str, ...]
    """The items' numbers as a literal of the array, which takes the driver a tenth of the time; the columns."""


def payload(chunk: Sequence[Write], numbers: Mapping[str, int], currency: str) -> Payload:
    """The rows of these items; `numbers` are the items' own, by id, and `currency` is that of items without one."""
    item_nos = [numbers[write.item.id] for write in chunk]
    words: list[bytes] = []
    owners: list[str] = []
    attributes: list[_Attribute] = []
    for write, item_no in zip(chunk, item_nos, strict=True):
        found = _attributes(write.item)
        words.append(_words(write.item, found))
        owners.append(f"{item_no}," * len(found))
        attributes += found
    return Payload(
        numbers=item_nos,
        documents=_columns([_document(write) for write in chunk], 4),
        facets=(*_columns([_facets(write.item) for write in chunk], 12), currency),
        words=words,
        attributes=(f"{{{''.join(owners)[:-1]}}}", *_columns(attributes, 3)),
    )


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> tuple[Column, ...]:
    if not rows:
        return (None,) * width
    return tuple(None if column.count(None) == len(column) else column for column in zip(*rows, strict=True))


def _words(item: Item, attributes: Sequence[_Attribute]) -> bytes:
    described = [f"{name} {value}" for name, value, _ in attributes if value and name[0] == "a"]
    rest = " ".join([item.brand or "", *item.categories, *item.tags, *described, item.description or ""])
    return binary_tsvector(lexemes(item.title, rest))


def _document(write: Write) -> tuple[str, bytes, bytes, bytes]:
    """The JSON, and the hashes of all, of the text and of the photos."""
    return write.encoded.decode(), write.content_hash, text_hash(write.item), image_hash(write.item)


def _facets(item: Item) -> tuple[Any, ...]:
    """The columns of `item_facets`, in the order of the statement; None for what most items have."""
    return (
        item.group_id,
        item.brand,
        item.seller_id,
        item.price,
        item.sale_price,
        item.currency,
        AVAILABILITY_CODE[item.availability] or None,
        item.hidden or None,
        None if item.available_from is None else within_reach(item.available_from),
        None if item.expires_at is None else within_reach(item.expires_at),
        item.language,
        item.gtin,
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
