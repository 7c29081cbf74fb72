"""Shopify's product export: several rows per handle, one per variant or photo; what is common stands on the first."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from urllib.parse import quote

from msgspec import Struct

from workers.feeds.build import ItemBuilder, Raw, Style
from workers.feeds.convert import MAX_ID_CHARACTERS
from workers.feeds.csv import missing_id_column
from workers.feeds.delimited import DelimitedReader
from workers.feeds.fields import WHY_PRIVATE, normalised
from workers.feeds.source import Source
from workers.feeds.types import FeedFault, FeedReport, FeedRow, error, warning

STYLE = Style(html=True, category_separators="", tag_separators=",")

MAX_ROWS_OF_PRODUCT = 5_000
MAX_CHARACTERS_OF_PRODUCT = 4_000_000
"""Shopify allows 2,048 variants and 250 photos. Rows of one handle beyond these are read in portions, each with the
first row's cells and its own photos."""

# The names of both of Shopify's templates, that before 2025 and the present one.
COLUMNS = {
    "handle": "handle",
    "url handle": "handle",
    "title": "title",
    "body html": "description",
    "description": "description",
    "vendor": "brand",
    "product category": "category",
    "standard product type": "category",
    "google shopping google product category": "google_category",
    "type": "type",
    "custom product type": "type",
    "tags": "tags",
    "published": "published",
    "published on online store": "published",
    "status": "status",
    "variant sku": "sku",
    "sku": "sku",
    "variant inventory tracker": "tracker",
    "inventory tracker": "tracker",
    "variant inventory qty": "quantity",
    "inventory quantity": "quantity",
    "variant inventory policy": "policy",
    "continue selling when out of stock": "policy",
    "variant price": "price",
    "price": "price",
    "variant compare at price": "compare_at",
    "compare at price": "compare_at",
    "variant barcode": "barcode",
    "barcode": "barcode",
    "image src": "image",
    "product image url": "image",
    "image position": "position",
    "variant image": "variant_image",
    "variant image url": "variant_image",
    **{
        f"option{n} {part}": f"option{n}_{part}" for n in (1, 2, 3) for part in ("name", "value")
    },
}  # fmt: skip
ATTRIBUTES = {
    "google shopping gender": "gender",
    "google shopping age group": "age_group",
    "google shopping mpn": "mpn",
    "google shopping condition": "condition",
    "google shopping custom label 0": "custom_label_0",
    "google shopping custom label 1": "custom_label_1",
    "google shopping custom label 2": "custom_label_2",
    "google shopping custom label 3": "custom_label_3",
    "google shopping custom label 4": "custom_label_4",
}
_REPORTED = {
    "handle": "id", "sku": "id", "category": "categories", "google_category": "categories", "type": "categories",
    "status": "hidden", "published": "hidden", "tracker": "availability", "quantity": "availability",
    "policy": "availability", "barcode": "gtin", "image": "images", "position": "images", "variant_image": "images",
    "compare_at": "price",
}  # fmt: skip
_SHOP_ONLY = (
    "variant grams", "variant weight unit", "variant weight", "variant fulfillment service", "fulfillment service",
    "variant requires shipping", "requires shipping", "variant taxable", "charge tax", "variant tax code", "tax code",
    "image alt text", "gift card", "seo title", "seo description", "weight value grams", "weight unit for display",
    "google shopping adwords grouping", "google shopping adwords labels", "google shopping custom product",
    "unit price total measure", "unit price total measure unit", "unit price base measure",
    "unit price base measure unit",
)  # fmt: skip
_PRICES_ELSEWHERE = ("price ", "compare at price ", "included ")


class _Header(Struct, frozen=True, kw_only=True):
    """Column positions: by their role in Shopify, and those kept as attributes."""

    at: dict[str, int]
    attributes: list[tuple[int, str]]
    columns: dict[str, str]

    def cell(self, cells: list[str], role: str) -> str:
        """The cell of a role, empty where the file has no such column."""
        index = self.at.get(role)
        return cells[index].strip() if index is not None else ""


def read_shopify_csv(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    """Items of a Shopify export: each variant is one, grouped by its handle.

    The id is ``handle/sku``, ``handle/option values`` where a variant has no SKU, the handle alone where there is
    neither. Rows of a product must follow each other, as Shopify writes them.
    """
    reader = DelimitedReader(source, builder.report)
    fault = reader.read_header()
    if fault is not None:
        yield fault
        return
    header = _plan(reader.header, builder.report)
    if "handle" not in header.at:
        yield missing_id_column(reader.header, "Handle")
        return
    product = _Product("", header)
    for record in reader.records():
        if isinstance(record, FeedFault):
            yield record
            continue
        handle = record[1][header.at["handle"]].strip()
        if handle != product.handle or not handle:
            yield from product.items(builder)
            product = _Product(handle, header)
        elif product.is_full:
            yield from product.items(builder)
        product.add(record)
    yield from product.items(builder)


class _Product:
    """The rows of one handle."""

    def __init__(self, handle: str, header: _Header) -> None:
        self.handle = handle
        self._header = header
        self._first: tuple[int, list[str]] | None = None
        self._rows: list[tuple[int, list[str]]] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether no more rows may be kept."""
        return len(self._rows) >= MAX_ROWS_OF_PRODUCT or self._size > MAX_CHARACTERS_OF_PRODUCT

    def add(self, row: tuple[int, list[str]]) -> None:
        """Keeps one more row."""
        self._first = self._first or row
        self._rows.append(row)
        self._size += sum(map(len, row[1]))

    def items(self, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
        """The variants among the rows kept, which are then forgotten but for what the first row says."""
        rows, self._rows, self._size = self._rows, [], 0
        if rows and self._first is not None:
            yield from _items(self.handle, self._first, rows, self._header, builder)


def _plan(names: Sequence[str], report: FeedReport) -> _Header:
    at: dict[str, int] = {}
    attributes: list[tuple[int, str]] = []
    columns: dict[str, str] = {}
    for index, name in enumerate(names):
        word = normalised(name)
        role = COLUMNS.get(word)
        if role is not None and role not in at:
            at[role] = index
            field = _REPORTED.get(role, "attributes" if role.startswith("option") else role)
            columns.setdefault(field, name)
            report.map(name, field)
        elif word == "cost per item":
            report.drop(name, WHY_PRIVATE)
        elif role is not None or not word:
            report.drop(name, "another column has the same meaning" if role else "it has no name")
        elif word in _SHOP_ONLY or word.startswith(_PRICES_ELSEWHERE):
            report.drop(name, "delivery, tax, search engines and other markets play no part in recommendations")
        else:
            # "Fabric (product.metafields.custom.fabric)" is called Fabric.
            attribute = ATTRIBUTES.get(word) or name.partition(" (product.metafields.")[0].strip()
            attributes.append((index, attribute))
            report.keep(name, attribute)
    columns.update({"price": names[at["price"]]} if "price" in at else {})
    return _Header(at=at, attributes=attributes, columns=columns)


def _items(
    handle: str,
    first_row: tuple[int, list[str]],
    rows: list[tuple[int, list[str]]],
    header: _Header,
    builder: ItemBuilder,
) -> Iterator[FeedRow | FeedFault]:
    if not handle:
        for line, _ in rows:
            yield builder.reject(
                error(line, "missing_id", "The row has no handle; every product needs one.", header.columns["id"])
            )
        return

    cell = header.cell
    line, first = first_row
    if "title" in header.at and not cell(first, "title") and rows[0] is first_row:
        message = f'The first row of "{handle[:60]}" has no title; the rows of a product must follow each other.'
        yield warning(line, "missing_title", message, header.columns.get("title", "Title"))
    variants = [row for row in rows if any(cell(row[1], role) for role in ("price", "sku", "option1_value"))] or rows[
        :1
    ]
    common = _common(handle, first, rows, header)
    names = [cell(first, f"option{n}_name") for n in (1, 2, 3)]
    for line, cells in variants:
        values = [cell(cells, f"option{n}_value") for n in (1, 2, 3)]
        options = {
            name: value
            for name, value in zip(names, values, strict=True)
            if name and value and value.casefold() != "default title"
        }
        attributes = {name: cells[index].strip() or first[index].strip() for index, name in header.attributes}
        raw: Raw = {
            **common,
            "id": _id(handle, cell(cells, "sku"), list(options.values())),
            "price": cell(cells, "price"),
            "compare_at": cell(cells, "compare_at"),
            "gtin": cell(cells, "barcode"),
            "availability": _availability(
                cell(cells, "tracker"), cell(cells, "quantity"), cell(cells, "policy"), tracked="tracker" in header.at
            ),
            "attributes": {**{name: value for name, value in attributes.items() if value}, **options},
        }
        own = cell(cells, "variant_image")
        if own:
            photos = raw.get("images")
            raw["images"] = [own, *(photos if isinstance(photos, list) else [])]
        row, faults = builder.build(line, raw, header.columns, size=sum(map(len, cells)) + sum(map(len, first)))
        yield from faults
        if row is not None:
            yield row


def _common(handle: str, first: list[str], rows: list[tuple[int, list[str]]], header: _Header) -> Raw:
    """What all variants of a product share: the first row's cells and the photos of all rows, by position."""
    photos: list[tuple[int, int, str]] = []
    for number, (_, cells) in enumerate(rows):
        photo = header.cell(cells, "image")
        if photo:
            position = header.cell(cells, "position")
            photos.append((int(position) if position.isdecimal() and len(position) < 6 else 10**6, number, photo))
    categories = [header.cell(first, role) for role in ("category", "type", "google_category")]
    raw: Raw = {
        "group_id": handle,
        "title": header.cell(first, "title"),
        "description": header.cell(first, "description"),
        "url": f"/products/{quote(handle)}",
        "brand": header.cell(first, "brand"),
        "categories": [category for category in categories if category and not category.isdecimal()],
        "tags": header.cell(first, "tags"),
        "images": [photo for _, _, photo in sorted(photos)],
    }
    status, published = header.cell(first, "status"), header.cell(first, "published")
    # Both must say yes: an active product may still be taken off the online store.
    raw["published"] = status if status and status.casefold() != "active" else published or status
    return raw


def _id(handle: str, sku: str, options: list[str]) -> str:
    tail = sku.lstrip("'") or " ".join(" ".join(options).split())
    if not tail:
        return handle
    name = f"{handle}/{tail}"
    if sku or len(name) <= MAX_ID_CHARACTERS:
        return name
    # Long option texts are told apart by a hash, the same at every import.
    return f"{name[: MAX_ID_CHARACTERS - 17]}-{sha256(name.encode()).hexdigest()[:16]}"


def _availability(tracker: str, quantity: str, policy: str, *, tracked: bool) -> str:
    """Empty where the export does not say; a quantity that is no number is handed on, to be named as a fault."""
    if tracked and not tracker:
        return "in_stock"
    try:
        in_stock = float(quantity) > 0
    except ValueError:
        return quantity
    if in_stock:
        return "in_stock"
    return "backorder" if policy.casefold() in {"continue", "true", "yes"} else "out_of_stock"
