"""One item out of the raw values that a format found for our fields, every bad value named."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeVar, cast

import msgspec
from msgspec import Struct

from workers.feeds import convert
from workers.feeds.convert import ConversionError
from workers.feeds.lengths import MAX_CHARACTERS, MAX_VALUES, cut, cut_path
from workers.feeds.types import FeedFault, FeedReport, FeedRow, error, show, warning

MAX_ITEM_BYTES = 64 * 1024
MAX_ATTRIBUTE_NAME = 100

T = TypeVar("T")

Raw = dict[str, object]
"""What a format found, by our field: cell text, a JSON value, or a list of these.

Beyond API.md's fields: ``compare_at`` (the price before), ``quantity``, ``published`` (the opposite of
``hidden``), ``sale_from`` and ``sale_until`` (when ``sale_price`` holds), ``prices`` (currency -> amount).
"""


class Style(Struct, frozen=True, kw_only=True):
    """How a format writes its values."""

    html: bool = False
    """Descriptions are HTML by the format's rules."""
    category_separators: str = "|;"
    """What parts several paths within one cell."""
    tag_separators: str = ",;|"
    whole_numbers_are_minor: bool = False
    """A JSON whole number is money in minor units, as in the API."""


class ItemBuilder:
    """Turns ``Raw`` into a ``FeedRow`` and keeps the report's counts of rows."""

    def __init__(self, default_currency: str, report: FeedReport, style: Style, now: datetime) -> None:
        self.report = report
        self.style = style
        self._default_currency = default_currency
        self._now = now

    def build(
        self, line: int, raw: Raw, columns: Mapping[str, str], *, size: int = MAX_ITEM_BYTES
    ) -> tuple[FeedRow | None, list[FeedFault]]:
        """The item, or None with at least one error; and every fault of the record.

        Args:
            line: where the record begins.
            raw: values by our field; empty texts and None count as absent.
            columns: our field -> the feed's name for it, for the faults.
            size: characters read for this record, to spare small items the measuring.
        """
        row = _Row(line, columns, self.style)
        item = row.item
        self._identity(row, raw)
        for name, convert_to in _TEXTS:
            value = raw.get(name)
            if value:
                convert_to(row, name, value)
        if "images" in raw:
            row.images(raw["images"])
        if "categories" in raw:
            row.categories(raw["categories"])
        if "tags" in raw:
            row.tags(raw["tags"])
        self._money(row, raw)
        self._availability(row, raw)
        for name in _MOMENTS:
            if raw.get(name):
                row.optional(name, raw[name], convert.to_timestamp)
        self._hidden(row, raw)
        attributes = cast(dict[str, object], raw.get("attributes"))
        if attributes:
            row.attributes(attributes)
        # UTF-8 takes at most 4 bytes for a character, and the keys of an item a few hundred.
        if size > MAX_ITEM_BYTES // 8 and not row.failed:
            row.fit()
        self.report.rows += 1
        if row.failed:
            self.report.rejected += 1
            item_id = cast(str | None, item.get("id"))
            return None, [msgspec.structs.replace(fault, item_id=item_id) for fault in row.faults]
        self.report.converted += 1
        return FeedRow(line=line, item=item, local_images=row.local_images), row.faults

    def reject(self, fault: FeedFault) -> FeedFault:
        """Counts one record that could not even be read."""
        self.report.rows += 1
        self.report.rejected += 1
        return fault

    def _identity(self, row: "_Row", raw: Raw) -> None:
        value = raw.get("id")
        if value is None or value == "":
            row.fail("missing_id", "The row has no id; every item needs one of 1 to 128 characters.", "id")
        else:
            row.required("id", value, convert.to_id, "bad_id")
        if raw.get("group_id"):
            # A wrong group would only show two variants side by side, which is no reason to lose the item.
            row.optional("group_id", raw["group_id"], convert.to_id)

    def _money(self, row: "_Row", raw: Raw) -> None:
        prices = raw.get("prices")
        if isinstance(prices, dict) and raw.get("price") in (None, ""):
            raw = self._with_price_of(raw, prices)
        named = raw.get("currency")
        currency: str | None = None
        if named:
            currency = row.convert("currency", named, lambda v: convert.to_currency(str(v)), "bad_currency")
            if currency is None:
                return
            row.item["currency"] = currency
        price = row.money("price", raw.get("price"), currency, self._default_currency)
        currency = currency or cast(str | None, row.item.get("currency"))
        sale = row.money("sale_price", raw.get("sale_price"), currency, self._default_currency)
        before = row.money("compare_at", raw.get("compare_at"), currency, self._default_currency)
        if row.failed:
            return
        if sale is not None and not self._sale_holds(row, raw):
            sale = None
        if before is not None and price is not None and sale is None and before > price:
            price, sale = before, price
        if price is None and sale is not None:
            price, sale = sale, None
        if sale is not None and price is not None and sale >= price:
            if sale > price:
                row.warn("sale_not_lower", "sale_price", "The sale price is above the price and was left out.")
            sale = None
        if price is not None:
            row.item["price"] = price
            row.item.setdefault("currency", self._default_currency)
            if sale is not None:
                row.item["sale_price"] = sale

    def _with_price_of(self, raw: Raw, prices: dict[str, object]) -> Raw:
        """One of several prices: in the item's own currency, else the tenant's, else the first."""
        named = raw.get("currency")
        for wanted in (named, self._default_currency, next(iter(prices), None)):
            if isinstance(wanted, str) and prices.get(wanted) not in (None, ""):
                return {**raw, "price": prices[wanted], "currency": wanted}
        return raw

    def _sale_holds(self, row: "_Row", raw: Raw) -> bool:
        # A feed may name a past or coming sale; its price must not be shown now.
        for name, over in (("sale_from", False), ("sale_until", True)):
            if not raw.get(name):
                continue
            moment = row.convert(name, raw[name], convert.to_datetime, "bad_date", is_error=False)
            if moment is None or (moment <= self._now) == over:
                row.warn("sale_not_running", name, "The sale price does not hold now and was left out.")
                return False
        return True

    def _availability(self, row: "_Row", raw: Raw) -> None:
        name = "availability" if raw.get("availability") not in (None, "") else "quantity"
        value = raw.get(name)
        if value is None or value == "":
            return
        if isinstance(value, bool):
            row.item["availability"] = "in_stock" if value else "out_of_stock"
            return
        found = row.convert(name, value, _available, "bad_availability")
        if found is not None:
            row.item["availability"] = found

    def _hidden(self, row: "_Row", raw: Raw) -> None:
        hidden = False
        given = False
        for name, is_hidden in (("hidden", True), ("published", False)):
            value = raw.get(name)
            if value is None or value == "":
                continue
            # To show what a shop hides is as wrong as a wrong price.
            found = row.convert(name, value, convert.to_bool if is_hidden else convert.to_published, "bad_boolean")
            if found is not None:
                given, hidden = True, hidden or found == is_hidden
        if given:
            row.item["hidden"] = hidden


def _available(value: object) -> str:
    return convert.to_availability(value if isinstance(value, str) else repr(value))


class _Row:
    """The item in the making: fields that are right, faults of those that are not."""

    def __init__(self, line: int, columns: Mapping[str, str], style: Style) -> None:
        self.item: dict[str, object] = {}
        self.local_images: list[str] = []
        self.faults: list[FeedFault] = []
        self.failed = False
        self._line = line
        self._columns = columns
        self._style = style

    def fail(self, code: str, message: str, name: str = "") -> None:
        self.failed = True
        self.faults.append(error(self._line, code, message, self._columns.get(name, name)))

    def warn(self, code: str, name: str, message: str) -> None:
        self.faults.append(warning(self._line, code, message, self._columns.get(name, name)))

    def convert(
        self, name: str, value: object, to: Callable[[object], T], code: str, *, is_error: bool = True
    ) -> T | None:
        try:
            return to(value)
        except ConversionError as problem:
            column = self._columns.get(name, name)
            message = f'The column "{column}": {show(value)} {problem}'
            if is_error:
                self.fail(code, message, name)
            else:
                self.faults.append(warning(self._line, code, f"{message} It was left out.", column))
            return None

    def required(self, name: str, value: object, to: Callable[[object], object], code: str) -> None:
        found = self.convert(name, value, to, code)
        if found is not None:
            self.item[name] = found

    def optional(self, name: str, value: object, to: Callable[[object], object]) -> None:
        found = self.convert(name, value, to, _CODES.get(name, "bad_date"), is_error=False)
        if found is not None:
            self.item[name] = found

    def money(self, name: str, value: object, currency: str | None, default_currency: str) -> int | None:
        """The amount; where the value itself names a currency it becomes the item's."""
        if value is None or value == "":
            return None
        unit = currency or default_currency

        def to_amount(value: object) -> convert.Money:
            if isinstance(value, str):
                return convert.to_money(value, unit)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConversionError("is not a price; write a number.")
            if isinstance(value, int) and self._style.whole_numbers_are_minor:
                return convert.Money(convert.minor_units(value), None)
            return convert.Money(convert.number_to_money(value, unit), None)

        found = self.convert(name, value, to_amount, "bad_price")
        if found is None:
            return None
        if found.currency is not None:
            if currency is not None and currency != found.currency:
                self.fail(
                    "currency_conflict",
                    f"The item names two currencies, {currency} and {found.currency}; write one.",
                    name,
                )
                return None
            self.item["currency"] = found.currency
        return found.amount

    def text(self, name: str, value: object) -> None:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = repr(value)
        if not isinstance(value, str):
            self.warn("bad_text", name, f'The column "{self._columns.get(name, name)}" is not a text; it was left out.')
            return
        text = convert.to_text(value, html=self._style.html and name == "description")
        if name != "description":
            text = " ".join(text.split())
        if len(text) > MAX_CHARACTERS[name]:
            text = cut(text, MAX_CHARACTERS[name])
            self.too_long(name)
        if text:
            self.item[name] = text

    def too_long(self, name: str) -> None:
        column = self._columns.get(name, name)
        limit = f"{MAX_CHARACTERS[name]:,}"
        self.warn("too_long", name, f'The column "{column}" has more than {limit} characters; the rest was cut.')

    def fit(self) -> None:
        """Cut the description so that the item has its 64 KB; where that is not enough, the item fails."""
        excess = len(msgspec.json.encode(self.item)) - MAX_ITEM_BYTES
        if excess <= 0:
            return
        description = self.item.get("description")
        # A character takes a byte at least.
        while excess > 0 and isinstance(description, str) and description:
            share = 1 - excess / len(msgspec.json.encode(description))
            description = cut(description, min(len(description) - 1, int(len(description) * share)))
            self.item["description"] = description
            excess = len(msgspec.json.encode(self.item)) - MAX_ITEM_BYTES
        if description:
            self.warn("too_long", "description", "The item is larger than 64 KB; its description was cut.")
        else:
            self.fail("item_too_large", "The item is larger than 64 KB; shorten its texts or leave columns out.")

    def few(self, name: str, values: list[str]) -> list[str]:
        """Texts of a list, each of its length, no more of them than there may be, and no two alike."""
        longest = MAX_CHARACTERS[name]
        if any(len(value) > longest for value in values):
            by = cut_path if name == "categories" else cut
            values = list(dict.fromkeys(by(value, longest) for value in values))
            self.too_long(name)
        most = MAX_VALUES[name]
        if len(values) > most:
            self.warn(f"too_many_{name}", name, f"An item may have {most} {name}; {len(values) - most} were left out.")
        return values[:most]

    def images(self, value: object) -> None:
        urls: dict[str, None] = {}
        names: dict[str, None] = {}
        left_out = 0
        for photo in _photos(value):
            local = convert.is_local_photo(photo)
            found = self.convert("images", photo, _photo_name if local else _photo_url, "bad_photo", is_error=False)
            into = names if local else urls
            if found is None or found in into:
                continue
            if len(urls) + len(names) >= MAX_VALUES["images"]:
                left_out += 1
                continue
            into[found] = None
        if left_out:
            self.warn(
                "too_many_images",
                "images",
                f"An item may have {MAX_VALUES['images']} photos; {left_out} were left out.",
            )
        if urls:
            self.item["images"] = list(urls)
        self.local_images.extend(names)

    def categories(self, value: object) -> None:
        found: dict[str, None] = {}
        parts = value if isinstance(value, list) else [value]
        separators = "" if isinstance(value, list) else self._style.category_separators
        for part in parts:
            if isinstance(part, str):
                clean = convert.to_text(part, html=False) if "&" in part or "<" in part else part
                found.update(dict.fromkeys(convert.split_categories(clean, separators)))
            elif part is not None:
                self.warn("bad_category", "categories", f"{show(part)} is not a category path; it was left out.")
        if found:
            self.item["categories"] = self.few("categories", list(found))

    def tags(self, value: object) -> None:
        parts: Iterable[object] = value if isinstance(value, list) else [value]
        if isinstance(value, str):
            parts = _pieces(value, self._style.tag_separators)
        found: dict[str, None] = {}
        for part in parts:
            if isinstance(part, (str, int, float)) and not isinstance(part, bool):
                text = " ".join(convert.to_text(str(part), html=False).split())
                if text:
                    found[text] = None
            elif part is not None:
                self.warn("bad_tag", "tags", f"{show(part)} is not a tag; it was left out.")
        if found:
            self.item["tags"] = self.few("tags", list(found))

    def attributes(self, given: dict[str, object]) -> None:
        kept: dict[str, object] = {}
        for key, value in given.items():
            name = " ".join(key.split()) if key else ""
            if not name or convert.CONTROL.search(name) or len(name) > MAX_ATTRIBUTE_NAME:
                self.warn("bad_attribute", key, f"{show(key)} is not the name of an attribute; it was left out.")
                continue
            clean = _attribute(value)
            if clean is None:
                if not _is_empty(value):
                    self.warn(
                        "bad_attribute", key, f"The attribute {show(key)} is neither a value nor a list of values."
                    )
                continue
            if len(kept) >= MAX_VALUES["attributes"]:
                self.warn(
                    "too_many_attributes",
                    "attributes",
                    f"An item may have {MAX_VALUES['attributes']} attributes; the rest was left out.",
                )
                break
            kept[name] = clean
        if kept:
            self.item["attributes"] = kept


def _attribute(value: object) -> object:
    """The value as the API takes it: a scalar, or a list of texts and numbers; None where it is neither or empty."""
    if isinstance(value, str):
        return convert.to_text(value, html=False) or None
    if isinstance(value, (bool, int)):
        # What a double cannot hold, no filter can compare.
        return value if isinstance(value, bool) or abs(value) < 2**53 else str(value)[:40]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        clean = [_attribute(part) for part in value]
        if any(isinstance(part, (bool, list)) for part in clean) or None in clean:
            clean = [part for part in clean if part is not None and not isinstance(part, (bool, list))]
        return clean or None
    return None


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def _photos(value: object) -> Iterable[str]:
    if isinstance(value, str):
        # Commas and semicolons may be part of an address, so there they part only before another address.
        text = _BLANKS.sub(" ", value)
        return _pieces_re(_BETWEEN_ADDRESSES if "//" in text else _BETWEEN_NAMES, text)
    photos: list[str] = []
    for part in value if isinstance(value, list) else [value]:
        photo = (part.get("url") or part.get("src")) if isinstance(part, dict) else part
        if isinstance(photo, str) and photo.strip():
            photos.append(photo.strip())
    return photos


_BLANKS = re.compile(r"[^\S\n]+")
_BETWEEN_ADDRESSES = re.compile(r"[|\n]|[,; ](?= ?(?:https?:)?//)")
_BETWEEN_NAMES = re.compile(r"[|;,\n]")


def _pieces(text: str, separators: str) -> list[str]:
    for other in separators[1:]:
        text = text.replace(other, separators[0])
    return text.split(separators[0])


def _pieces_re(between: re.Pattern[str], text: str) -> list[str]:
    return [piece for part in between.split(text) if (piece := part.strip())]


def _photo_name(value: object) -> str:
    return convert.to_photo_name(str(value))


def _photo_url(value: object) -> str:
    return convert.to_url(str(value))


def _url(value: object) -> str:
    text = str(value).strip()
    # Shopify's pages are known by their path alone.
    if text.startswith("/") and not text.startswith("//") and not convert.CONTROL.search(text):
        return text
    return convert.to_url(text)


_CODES = {
    "group_id": "bad_id",
    "seller_id": "bad_id",
    "url": "bad_url",
    "gtin": "bad_gtin",
    "language": "bad_language",
}
_MOMENTS = ("available_from", "expires_at")
_TEXTS: tuple[tuple[str, Callable[[_Row, str, object], None]], ...] = (
    ("title", _Row.text),
    ("description", _Row.text),
    ("url", lambda row, name, value: row.optional(name, value, _url)),
    ("brand", _Row.text),
    ("seller_id", lambda row, name, value: row.optional(name, value, convert.to_id)),
    ("gtin", lambda row, name, value: row.optional(name, value, _gtin)),
    ("language", lambda row, name, value: row.optional(name, value, convert.to_language)),
)


def _gtin(value: object) -> str:
    # A product may have several; the first that is right names it as well as any.
    candidates = value if isinstance(value, list) else str(value).split(",")
    for candidate in candidates[:-1]:
        try:
            return convert.to_gtin(candidate)
        except ConversionError:
            continue
    return convert.to_gtin(candidates[-1])
