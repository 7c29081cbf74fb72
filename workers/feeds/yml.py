"""Yandex YML: one <offer> per product or variant, categories as a tree."""

import re
from collections.abc import Iterator

from workers.feeds.build import ItemBuilder, Raw, Style
from workers.feeds.fields import WHY_PRIVATE, add_pair
from workers.feeds.markup import Element, read_elements, unreadable
from workers.feeds.source import Source
from workers.feeds.types import FeedFault, FeedReport, FeedRow, error, show, warning

STYLE = Style(html=True, category_separators="")
MAX_CATEGORIES = 100_000
MAX_LEVELS = 20

FIELDS = {
    "name": "title",
    "description": "description",
    "url": "url",
    "vendor": "brand",
    "price": "price",
    "oldprice": "compare_at",
    "currencyId": "currency",
    "picture": "images",
    "barcode": "gtin",
    "categoryId": "categories",
    "count": "quantity",
    "disabled": "hidden",
    "group_id": "group_id",
}
_TITLE_PARTS = ("typePrefix", "model", "author", "title", "artist")
_DELIVERY = "delivery and payment play no part in recommendations"
DROPPED = {
    **dict.fromkeys(
        ("delivery", "delivery-options", "pickup", "pickup-options", "store", "local_delivery_cost", "sales_notes",
         "credit-template", "outlets", "enable_auto_discounts", "bid", "cbid", "fee", "cpa", "min-quantity",
         "step-quantity", "vat", "period-of-validity-days", "service-life-days", "warranty-days"),
        _DELIVERY,
    ),
    **dict.fromkeys(("purchase_price", "cofinance_price", "additional_expenses"), WHY_PRIVATE),
}  # fmt: skip
_SHOWN_AS = {"compare_at": "price", "quantity": "availability"}
_NUMBER = re.compile(r"-?\d{1,12}(?:[.,]\d{1,6})?", re.ASCII)


def read_yml(source: Source, builder: ItemBuilder) -> Iterator[FeedRow | FeedFault]:
    """Items of a YML catalogue; its categories must stand before its offers, as YML wants them."""
    tree = _Categories()
    offers = False
    for found in read_elements(source, builder.report, frozenset(("category", "offer"))):
        if isinstance(found, FeedFault):
            yield found
            continue
        line, element = found
        if element.tag == "category":
            tree.add(element)
            continue
        offers = True
        bad = unreadable(line, element)
        if bad is not None:
            yield builder.reject(bad)
            continue
        offer = _Offer(line, element, tree, builder.report)
        row, faults = builder.build(line, offer.raw, offer.columns, size=_size(element))
        yield from offer.faults
        yield from faults
        if row is not None:
            yield row
    if not offers and builder.report.rows == 0 and source.broken is None:
        yield error(0, "empty_feed", "The file holds no <offer>.")


class _Categories:
    """The tree of categories: number -> path."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, str]] = {}
        self._paths: dict[str, str] = {}

    def add(self, element: Element) -> None:
        number = element.attributes.get("id", "").strip()
        # A level named "A > B" would look like two.
        name = element.text.replace(">", "›")
        if number and name and len(number) <= 64 and len(name) <= 200 and len(self._names) < MAX_CATEGORIES:
            self._names[number] = (name, element.attributes.get("parentId", "").strip())
            self._paths.clear()

    def path(self, number: str) -> str | None:
        """The path from the root as ``A > B``; None where the number is unknown. A ring ends where it closes."""
        known = self._paths.get(number)
        if known is not None:
            return known
        levels: list[str] = []
        seen: set[str] = set()
        at = number
        while at in self._names and at not in seen and len(levels) < MAX_LEVELS:
            seen.add(at)
            name, at = self._names[at]
            levels.append(name)
        if not levels:
            return None
        path = self._paths[number] = " > ".join(reversed(levels))
        return path


class _Offer:
    """One offer in the making."""

    def __init__(self, line: int, offer: Element, tree: _Categories, report: FeedReport) -> None:
        self.raw: Raw = {}
        self.columns: dict[str, str] = {}
        self.faults: list[FeedFault] = []
        self._line = line
        self._tree = tree
        self._report = report
        self._attributes: dict[str, object] = {}
        self._titles: dict[str, str] = {}
        for name, field in (("id", "id"), ("group_id", "group_id"), ("available", "availability")):
            self._set(f"offer@{name}", field, offer.attributes.get(name, "").strip())
        for child in offer.children:
            self._take(child)
        if not self.raw.get("title"):
            self.raw["title"] = _title(self._titles, str(self.raw.get("brand", "")))
            self.columns["title"] = "model"
        elif "model" in self._titles:
            self._attributes.setdefault("model", self._titles["model"])
        if self._attributes:
            self.raw["attributes"] = self._attributes

    def _set(self, column: str, field: str, value: object) -> None:
        if value:
            self._report.map(column, _SHOWN_AS.get(field, field))
            self.columns.setdefault(field, column)
            self.raw.setdefault(field, value)

    def _extend(self, column: str, field: str, values: list[str]) -> None:
        self._report.map(column, field)
        self.columns.setdefault(field, column)
        before = self.raw.setdefault(field, [])
        if isinstance(before, list):
            before.extend(values)

    def _take(self, child: Element) -> None:
        tag, text = child.tag, child.text
        field = FIELDS.get(tag)
        if tag in DROPPED:
            self._report.drop(tag, DROPPED[tag])
        elif tag == "param":
            self._param(child)
        elif tag in _TITLE_PARTS:
            self._report.map(tag, "title")
            if text:
                self._titles.setdefault(tag, text)
        elif field == "categories":
            self._category(tag, text)
        elif field in {"images", "gtin"}:
            self._extend(tag, field, text.split(",") if field == "gtin" else [text])
        elif field is not None:
            self._set(tag, field, text)
        elif child.children and tag != "condition":
            self._report.drop(tag, "it has parts of its own")
        else:
            # <condition type="preowned"> says in its attribute what counts.
            self._report.keep(tag, tag)
            add_pair(self._attributes, tag, child.attributes.get("type", "") or text)

    def _category(self, tag: str, number: str) -> None:
        path = self._tree.path(number)
        if path is not None:
            self._extend(tag, "categories", [path])
        elif number:
            message = f"The category {show(number)} is not among <categories>; the offer was taken without it."
            self.faults.append(warning(self._line, "unknown_category", message, tag))

    def _param(self, param: Element) -> None:
        name = param.attributes.get("name", "").strip()
        unit = param.attributes.get("unit", "").strip()
        if not name:
            self._report.drop("param", "a param without a name says nothing")
            return
        text = param.text
        self._report.keep(f"param:{name}", name)
        if unit and _NUMBER.fullmatch(text):
            # A number with a unit is one to compare by; the unit goes to the name.
            number = float(text.replace(",", "."))
            self._attributes.setdefault(f"{name}, {unit}", int(number) if number.is_integer() else number)
        elif text:
            add_pair(self._attributes, name, f"{text} {unit}" if unit else text)


def _title(parts: dict[str, str], vendor: str) -> str:
    """typePrefix, vendor and model in this order; the vendor once, though many models begin with it."""
    model = parts.get("model", "")
    if vendor and model.casefold().startswith(vendor.casefold()):
        vendor = ""
    named = [parts.get("typePrefix", ""), vendor, model] if model else [parts.get("title", "")]
    title = " ".join(part for part in named if part)
    maker = parts.get("author") or parts.get("artist")
    return f"{maker}: {title}" if maker and title and not model else title


def _size(element: Element) -> int:
    return sum(map(len, element.parts)) + sum(64 + _size(child) for child in element.children)
