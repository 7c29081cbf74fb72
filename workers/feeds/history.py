"""Readers of an event history: CSV with a header, or NDJSON of events as the API takes them; packed or not.

A CSV has one line of one event per record; its amounts are in major units, as people write them. NDJSON is the API's
own form, in minor units. Whatever cannot be read costs its own line alone.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import msgspec

from tenants.catalog.imports import HistoryFormat
from workers.feeds.convert import ConversionError, to_currency, to_datetime, to_money
from workers.feeds.delimited import DelimitedReader
from workers.feeds.lines import BadLine, iter_lines
from workers.feeds.source import Source
from workers.feeds.types import FeedFault, FeedReport, FeedRow, error

_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "type": ("type", "event", "event type", "event name", "action", "behavior", "behaviour"),
    "event_id": ("event id",),
    "user_id": ("user id", "user", "customer id", "customer", "userid", "household key"),
    "visitor_id": ("visitor id", "visitor", "anonymous id", "client id"),
    "session_id": ("session id", "session"),
    "item_id": ("item id", "item", "product id", "product", "sku", "stockcode", "stock code", "article", "variant id"),
    "quantity": ("quantity", "qty"),
    "price": ("price", "unit price"),
    "value": ("value", "revenue", "total", "sales value"),
    "currency": ("currency", "currency code"),
    "order_id": ("order id", "order", "invoice", "invoice no", "invoiceno", "transaction id", "basket id"),
    "recommendation_id": ("recommendation id",),
    "position": ("position",),
    "placement": ("placement",),
    "rating": ("rating", "score", "stars"),
    "ts": ("ts", "timestamp", "time", "date", "datetime", "event time", "created at", "invoice date", "invoicedate"),
}
"""Column names in lower case, `_` and `-` as blanks; the best first."""


def read_history(
    stream: BinaryIO, *, format: HistoryFormat, default_currency: str, default_type: str | None, report: FeedReport
) -> Iterator[FeedRow | FeedFault]:
    """The events of a file as plain data, each a `FeedRow`, and what could not be read. `format` may be `auto`."""
    source = Source(stream)
    if format == "auto":
        format = "ndjson" if source.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else "csv"
    report.format = format
    read = _ndjson if format == "ndjson" else _csv
    yield from read(source, report, default_currency, default_type)
    if source.broken is not None:
        yield error(0, source.broken.code, source.broken.message)


def _ndjson(
    source: Source, report: FeedReport, default_currency: str, default_type: str | None
) -> Iterator[FeedRow | FeedFault]:
    number = 0
    for line in iter_lines(source, report, any_newline=False, guess=False):
        number += 1
        if isinstance(line, BadLine):
            yield error(number, line.code, line.message)
            continue
        if not line.strip() or (not line.endswith("\n") and source.broken is not None):
            continue
        try:
            plain = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            plain = None
        if not isinstance(plain, dict):
            yield error(number, "bad_json", "The line is not one JSON object.")
            continue
        if default_type is not None:
            plain.setdefault("type", default_type)
        yield FeedRow(line=number, item=plain)


def _csv(
    source: Source, report: FeedReport, default_currency: str, default_type: str | None
) -> Iterator[FeedRow | FeedFault]:
    reader = DelimitedReader(source, report)
    fault = reader.read_header()
    if fault is not None:
        yield fault
        return
    columns = _plan(reader.header, report)
    for record in reader.records():
        if isinstance(record, FeedFault):
            yield record
            continue
        line, cells = record
        row = _row(line, cells, reader.header, columns, default_currency)
        if isinstance(row, FeedRow) and default_type is not None:
            row.item.setdefault("type", default_type)
        yield row


def _plan(header: list[str], report: FeedReport) -> list[tuple[str, int]]:
    """Our fields and the place of the column that each is read from; the currency first, which amounts need."""
    places: dict[str, int] = {}
    for at, name in enumerate(header):
        places.setdefault(" ".join(name.casefold().replace("_", " ").replace("-", " ").split()), at)
    columns: list[tuple[str, int]] = []
    for field, names in _ALIASES.items():
        found = next((places[name] for name in names if name in places), None)
        if found is not None and all(found != at for _, at in columns):
            columns.append((field, found))
            report.map(header[found], field)
    taken = {at for _, at in columns}
    for at, name in enumerate(header):
        if at not in taken:
            report.drop(name, "An event has no such field.")
    return sorted(columns, key=lambda column: column[0] != "currency")


def _row(
    line: int, cells: list[str], header: list[str], columns: list[tuple[str, int]], default_currency: str
) -> FeedRow | FeedFault:
    event: dict[str, object] = {}
    currency = default_currency
    for field, at in columns:
        text = cells[at].strip()
        if not text:
            continue
        try:
            if field == "currency":
                currency = to_currency(text)
                event[field] = currency
            elif field in ("price", "value"):
                event[field] = to_money(text, currency).amount
            else:
                event[field] = _READ.get(field, str)(text)
        except ConversionError as problem:
            # Not quoted: what stands in the wrong column may be a person's id.
            return error(line, f"bad_{field}", f"The value {problem}", header[at])
    return FeedRow(line=line, item=event)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConversionError("is not a number.") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConversionError("is not a whole number.") from None


def moment(text: str) -> datetime:
    """A time as exports write it: RFC 3339 and its relatives, or seconds, milliseconds or microseconds since 1970.

    Raises ConversionError.
    """
    plain = text.removesuffix(".0")
    if plain.isascii() and plain.isdigit() and 9 <= len(plain) <= 16:
        scale = 1 if len(plain) <= 11 else 1_000 if len(plain) <= 14 else 1_000_000
        return datetime.fromtimestamp(int(plain) / scale, UTC)
    return to_datetime(text)


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "quantity": _number,
    "rating": _number,
    "position": _whole,
    "ts": moment,
    "type": lambda text: text.lower().replace(" ", "_").replace("-", "_"),
}
