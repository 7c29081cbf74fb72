"""WooCommerce's product export: simple and variable products, and variations that name their parent."""

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from msgspec import Struct

from workers.feeds.build import ItemBuilder, Raw, Style
from workers.feeds.csv import missing_id_column
from workers.feeds.delimited import DelimitedReader
from workers.feeds.fields import normalised
from workers.feeds.source import Source
from workers.feeds.types import FeedFault, FeedReport, FeedRow

STYLE = Style(html=True, category_separators=",", tag_separators=",")

COLUMNS = {
    "id": "id",
    "type": "type",
    "sku": "sku",
    "gtin upc ean or isbn": "gtin",
    "name": "title",
    "published": "published",
    "visibility in catalog": "visibility",
    "short description": "short_description",
    "description": "description",
    "date sale price starts": "sale_from",
    "date sale price ends": "sale_until",
    "in stock": "in_stock",
    "stock": "stock",
    "backorders allowed": "backorders",
    "sale price": "sale_price",
    "regular price": "price",
    "categories": "categories",
    "tags": "tags",
    "images": "images",
    "parent": "parent",
    "external url": "url",
    "brands": "brand",
}
_REPORTED = {
    "sku": "id", "visibility": "hidden", "published": "hidden", "short_description": "description",
    "in_stock": "availability", "stock": "availability", "backorders": "availability", "parent": "group_id",
    "sale_from": "sale_price", "sale_until": "sale_price", "type": "group_id",
}  # fmt: skip
_SHOP_ONLY = frozenset((
    "is featured", "tax status", "tax class", "low stock amount", "sold individually", "weight kg", "weight lbs",
    "weight g", "weight oz", "length cm", "width cm", "height cm", "length in", "width in", "height in",
    "allow customer reviews", "purchase note", "shipping class", "download limit", "download expiry days",
    "grouped products", "upsells", "cross sells", "button text", "position",
))  # fmt: skip
_ATTRIBUTE = re.compile(r"attribute (\d{1,3}) (name|value s|visible|global|default)")
_DOWNLOAD = re.compile(r"download \d{1,3} (id|name|url)")
_LIST_COMMA = re.compile(r"(?<!\\),")

PARENTS_CHARACTERS = 16_000_000
"""How much text of variable products is remembered for their variations; the oldest are forgotten."""


class _Header(Struct, frozen=True, kw_only=True):
    at: dict[str, int]
    pairs: list[tuple[int, int]]
    attributes: list[tuple[int, str]]
    columns: dict[str, str]


class _Parents:
    """Variable products seen so far, by id and by SKU, for the variations that come after them."""

    def __init__(self) -> None:
        self._raws: OrderedDict[str, tuple[str, Raw, int]] = OrderedDict()
        self._size = 0

    def add(self, number: str, sku: str, raw: Raw, size: int) -> None:
        for key in {f"id:{number}", sku} - {"", "id:"}:
            if key in self._raws:
                self._size -= self._raws.pop(key)[2]
            self._raws[key] = (number or sku, raw, size)
            self._size += size
        while self._size > PARENTS_CHARACTERS:
            self._size -= self._raws.popitem(last=False)[1][2]

    def find(self, name: str) -> tuple[str, Raw]:
        """The id and values of the product that a variation calls ``name``; the name itself where it is not known."""
        known = self._raws.get(name) or self._raws.get(f"id:{name}")
        if known is not None:
            return known[0], known[1]
        return name.removeprefix("id:"), {}


def read_woocommerce_csv(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    """Items of a WooCommerce export.

    The id is the ID, the SKU where there is none. A variation is grouped with its parent and takes from it what it
    does not say itself (title, texts, categories, tags, brand, photos); a variable product is an item of the same
    group. A parent must stand before its variations, as WooCommerce writes them.
    """
    reader = DelimitedReader(source, builder.report)
    fault = reader.read_header()
    if fault is not None:
        yield fault
        return
    header = _plan(reader.header, builder.report)
    if "id" not in header.at and "sku" not in header.at:
        yield missing_id_column(reader.header, "ID or SKU")
        return
    parents = _Parents()
    for record in reader.records():
        if isinstance(record, FeedFault):
            yield record
            continue
        line, cells = record
        size = sum(map(len, cells))
        raw = _raw(cells, header, parents, size)
        row, faults = builder.build(line, raw, header.columns, size=2 * size)
        yield from faults
        if row is not None:
            yield row


def _plan(names: Sequence[str], report: FeedReport) -> _Header:
    header = _Header(at={}, pairs=[], attributes=[], columns={})
    halves: dict[str, dict[str, int]] = {}
    for index, name in enumerate(names):
        word = normalised(name)
        role = COLUMNS.get(word)
        attribute = _ATTRIBUTE.fullmatch(word)
        if role is not None and role not in header.at:
            header.at[role] = index
            field = _REPORTED.get(role, role)
            header.columns.setdefault(field, name)
            report.map(name, field)
        elif attribute is not None and attribute[2] in {"name", "value s"}:
            halves.setdefault(attribute[1], {})[attribute[2]] = index
            report.map(name, "attributes")
        elif attribute is not None or word in _SHOP_ONLY or _DOWNLOAD.fullmatch(word) or not word or role is not None:
            report.drop(name, "it plays no part in recommendations")
        elif name.lower().startswith("meta:"):
            report.drop(name, "plugins keep their own data there")
        else:
            header.attributes.append((index, name.strip()))
            report.keep(name, name.strip())
    for half in halves.values():
        if len(half) == 2:
            header.pairs.append((half["name"], half["value s"]))
    return header


def _raw(cells: list[str], header: _Header, parents: _Parents, size: int) -> Raw:
    def cell(role: str) -> str:
        index = header.at.get(role)
        return cells[index].strip() if index is not None else ""

    number, sku, parent = cell("id"), cell("sku"), cell("parent")
    kinds = {kind.strip() for kind in cell("type").lower().split(",")}
    # Line breaks are exported as the two characters \n.
    texts = [cell(role).replace("\\n", "\n") for role in ("description", "short_description")]
    raw: Raw = {
        "id": number or sku,
        "title": cell("title"),
        "description": texts[0] or texts[1],
        "url": cell("url"),
        "brand": cell("brand"),
        "price": cell("price"),
        "sale_price": cell("sale_price"),
        "sale_from": cell("sale_from"),
        "sale_until": cell("sale_until"),
        "availability": _availability(cell("in_stock"), cell("stock"), cell("backorders")),
        "gtin": cell("gtin"),
        "categories": cell("categories").replace("\\,", "‚"),
        "tags": cell("tags"),
        "images": cell("images"),
        "published": cell("published"),
        "hidden": "true" if cell("visibility").lower() == "hidden" else "",
        "attributes": _attributes(cells, header),
    }
    if "variation" in kinds and parent:
        group, inherited = parents.find(parent)
        raw["group_id"] = group
        for field in ("title", "description", "brand", "categories", "tags", "images"):
            raw[field] = raw[field] or inherited.get(field, "")
    elif "variable" in kinds:
        raw["group_id"] = number or sku
        parents.add(number, sku, raw, size)
    return raw


def _attributes(cells: list[str], header: _Header) -> dict[str, object]:
    attributes: dict[str, object] = {}
    for index, name in header.attributes:
        if cells[index].strip():
            attributes[name] = cells[index].strip()
    for name_at, value_at in header.pairs:
        name = cells[name_at].strip()
        values = [value.replace("\\,", ",").strip() for value in _LIST_COMMA.split(cells[value_at])]
        values = [value for value in values if value]
        if name and values:
            attributes[name] = values[0] if len(values) == 1 else values
    return attributes


def _availability(in_stock: str, stock: str, backorders: str) -> str:
    """Our word for the three columns; what cannot be read is handed on, to be named as a fault."""
    word = in_stock.lower()
    if word == "backorder":
        return "backorder"
    try:
        sold_out = bool(stock) and float(stock) <= 0
    except ValueError:
        # "parent": the product keeps the stock for all its variations.
        sold_out = False
    if sold_out and word in {"", "1"}:
        return "backorder" if backorders.lower() in {"1", "notify", "yes"} else "out_of_stock"
    return in_stock or ("in_stock" if stock else "")
