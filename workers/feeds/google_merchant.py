"""Google Merchant Center feeds: RSS 2.0 or Atom, and tab separated (Product data specification)."""

import re
from collections.abc import Iterator

from workers.feeds.build import ItemBuilder, Raw, Style
from workers.feeds.csv import missing_id_column
from workers.feeds.delimited import DelimitedReader
from workers.feeds.fields import add_pair
from workers.feeds.markup import Element, read_elements, unreadable
from workers.feeds.source import Source
from workers.feeds.types import FeedFault, FeedReport, FeedRow, error

# Google's categories may hold commas and bars; each cell is one path.
STYLE = Style(html=True, category_separators="")

FIELDS = {
    "id": "id",
    "item_group_id": "group_id",
    "title": "title",
    "structured_title": "title",
    "description": "description",
    "link": "url",
    "canonical_link": "url",
    "image_link": "images",
    "additional_image_link": "images",
    "product_type": "categories",
    "google_product_category": "categories",
    "brand": "brand",
    "external_seller_id": "seller_id",
    "price": "price",
    "sale_price": "sale_price",
    "availability": "availability",
    "gtin": "gtin",
    "content_language": "language",
    "expiration_date": "expires_at",
    "sale_price_effective_date": "sale_dates",
    "product_detail": "attributes",
    "product_highlight": "attributes",
}
DROPPED = {
    **dict.fromkeys(
        ("tax", "tax_category", "shipping", "shipping_label", "shipping_weight", "shipping_length", "shipping_width",
         "shipping_height", "ships_from_country", "max_handling_time", "min_handling_time", "transit_time_label",
         "free_shipping_threshold", "delivery", "loyalty_program", "installment", "subscription_cost"),
        "delivery, tax and instalments play no part in recommendations",
    ),
    **dict.fromkeys(
        ("cost_of_goods_sold", "auto_pricing_min_price", "maximum_retail_price"),
        "it is the shop's own figure, which must not reach shoppers",
    ),
    **dict.fromkeys(
        ("ads_redirect", "mobile_link", "link_template", "mobile_link_template", "checkout_link_template",
         "excluded_destination", "included_destination", "shopping_ads_excluded_country", "identifier_exists",
         "lifestyle_image_link", "virtual_model_link", "promotion_id"),
        "it steers Google's own service",
    ),
}  # fmt: skip
# The order that API.md wants: the shop's own path says more than Google's.
_LISTS = {"images": ("image_link", "additional_image_link"), "categories": ("product_type", "google_product_category")}
_PREFIXES = frozenset(("", "g", "atom", "c"))
_NUMERIC = re.compile(r"\d{1,7}")


def read_google_merchant(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    """Items of a Merchant Center feed; XML is told from tabs by its first character."""
    head = source.head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    if head.startswith(b"<"):
        yield from _read_xml(source, builder)
    else:
        yield from _read_tabs(source, builder)


def _read_xml(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    found_any = False
    for found in read_elements(source, builder.report, frozenset(("item", "entry"))):
        found_any = True
        if isinstance(found, FeedFault):
            yield found
            continue
        line, item = found
        bad = unreadable(line, item)
        if bad is not None:
            yield builder.reject(bad)
            continue
        values: dict[str, list[str]] = {}
        details: dict[str, object] = {}
        for child in item.children:
            name = _name(child, builder.report)
            if name == "product_detail":
                parts = {_local(part): part.text for part in child.children}
                add_pair(details, parts.get("attribute_name", ""), parts.get("attribute_value", ""))
                builder.report.map(child.tag, "attributes")
            elif name is not None:
                text = child.attributes.get("href", "") if name == "link" and not child.text else child.text
                if text:
                    values.setdefault(name, []).append(text)
        size = sum(len(text) for texts in values.values() for text in texts)
        row, faults = builder.build(line, _raw(values, details), _tags(item), size=size)
        yield from faults
        if row is not None:
            yield row
    if not found_any and source.broken is None:
        yield error(0, "empty_feed", "The file holds no <item> and no <entry>.")


def _read_tabs(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    reader = DelimitedReader(source, builder.report)
    fault = reader.read_header()
    if fault is not None:
        yield fault
        return
    report = builder.report
    names: list[str | None] = []
    columns: dict[str, str] = {}
    for column in reader.header:
        # "image link" and "image_link(2)" are accepted by Google as well.
        name = column.lower().partition("(")[0].strip().removeprefix("g:").replace(" ", "_")
        names.append(name if _note(column, name, report) else None)
        columns.setdefault(FIELDS.get(name, name), column)
    if "id" not in names:
        yield missing_id_column(reader.header, "id")
        return
    for record in reader.records():
        if isinstance(record, FeedFault):
            yield record
            continue
        line, cells = record
        values: dict[str, list[str]] = {}
        for known, cell in zip(names, cells, strict=True):
            if known and cell.strip():
                values.setdefault(known, []).append(cell.strip())
        if "additional_image_link" in values:
            parts = [re.split(r",(?=\s*https?:)", text) for text in values["additional_image_link"]]
            values["additional_image_link"] = [url for part in parts for url in part]
        details: dict[str, object] = {}
        for text in values.pop("product_detail", []):
            # section:name:value, several parted by commas.
            for detail in text.split(","):
                _, _, pair = detail.partition(":")
                what, _, value = pair.partition(":")
                add_pair(details, what.strip(), value.strip())
        row, faults = builder.build(line, _raw(values, details), columns, size=sum(map(len, cells)))
        yield from faults
        if row is not None:
            yield row


def _raw(values: dict[str, list[str]], details: dict[str, object]) -> Raw:
    raw: Raw = {}
    for field, names in _LISTS.items():
        texts = [text for name in names for text in values.pop(name, [])]
        if field == "categories":
            # A bare number is a key of Google's taxonomy, which says nothing by itself.
            numbers = [text for text in texts if _NUMERIC.fullmatch(text)]
            texts = [text for text in texts if not _NUMERIC.fullmatch(text)]
            if numbers:
                details = {**details, "google_product_category": numbers[0]}
        if texts:
            raw[field] = texts
    if gtins := values.pop("gtin", None):
        raw["gtin"] = gtins
    for name, texts in values.items():
        known = FIELDS.get(name)
        if known == "sale_dates":
            raw["sale_from"], _, raw["sale_until"] = texts[0].partition("/")
        elif known is None or known == "attributes":
            details[name] = texts[0] if len(texts) == 1 else list(texts)
        else:
            raw.setdefault(known, texts[0])
    if details:
        raw["attributes"] = details
    return raw


def _local(element: Element) -> str:
    return element.tag.rpartition(":")[2].lower()


def _name(element: Element, report: FeedReport) -> str | None:
    prefix, _, name = element.tag.rpartition(":")
    name = name.lower()
    if prefix not in _PREFIXES:
        report.drop(element.tag, "it is not of Google's namespace")
        return None
    if element.children and name != "product_detail":
        report.drop(element.tag, DROPPED.get(name, "it has parts of its own"))
        return None
    return name if _note(element.tag, name, report) else None


def _note(column: str, name: str, report: FeedReport) -> bool:
    if name in DROPPED:
        report.drop(column, DROPPED[name])
        return False
    field = FIELDS.get(name)
    if field is None:
        report.keep(column, name)
    else:
        report.map(column, "sale_price" if field == "sale_dates" else field)
    return bool(name)


def _tags(item: Element) -> dict[str, str]:
    columns: dict[str, str] = {}
    for child in item.children:
        name = _local(child)
        columns.setdefault(FIELDS.get(name, name), child.tag)
    return columns
