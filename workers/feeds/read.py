"""Any product feed as items and faults: the one door to the readers of each format."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Literal

from workers.feeds import csv, google_merchant, ndjson, shopify_csv, woocommerce_csv, yml
from workers.feeds.build import ItemBuilder
from workers.feeds.convert import ConversionError, to_currency
from workers.feeds.delimited import choose_delimiter
from workers.feeds.encoding import sniff_wide
from workers.feeds.fields import normalised
from workers.feeds.source import Source, unpack_head
from workers.feeds.types import FeedFault, FeedFormat, FeedReport, FeedRow, error

_READERS = {
    "ndjson": (ndjson.read_ndjson, ndjson.STYLE),
    "csv": (csv.read_csv, csv.STYLE),
    "google_merchant": (google_merchant.read_google_merchant, google_merchant.STYLE),
    "shopify_csv": (shopify_csv.read_shopify_csv, shopify_csv.STYLE),
    "woocommerce_csv": (woocommerce_csv.read_woocommerce_csv, woocommerce_csv.STYLE),
    "yml": (yml.read_yml, yml.STYLE),
}
_UNKNOWN = "Send NDJSON, CSV, Google Merchant RSS or TSV, Shopify CSV, WooCommerce CSV or Yandex YML."
_BINARY = (
    (b"PK\x03\x04", "The file is a zip archive or an Excel workbook; save it as CSV in UTF-8, or pack it with gzip."),
    (b"\xd0\xcf\x11\xe0", "The file is an old Excel workbook; save it as CSV in UTF-8."),
    (b"%PDF", f"The file is a PDF. {_UNKNOWN}"),
    (b"BZh", "The file is packed with bzip2; pack it with gzip, or not at all."),
    (b"\xfd7zXZ", "The file is packed with xz; pack it with gzip, or not at all."),
    (b"\x28\xb5\x2f\xfd", "The file is packed with zstd; pack it with gzip, or not at all."),
    (b"\x89PNG", f"The file is a picture. {_UNKNOWN}"),
    (b"\xff\xd8\xff", f"The file is a picture. {_UNKNOWN}"),
)


def read_feed(
    stream: BinaryIO,
    *,
    format: FeedFormat | Literal["auto"],
    file_name: str | None,
    default_currency: str,
    report: FeedReport | None = None,
    now: datetime | None = None,
) -> Iterator[FeedRow | FeedFault]:
    """Reads a feed of any size in bounded memory, as items and faults in the feed's order.

    No content of the feed raises: what cannot be read becomes a fault, and reading goes on after it. gzip is told by
    its magic number. Where the bytes end early, everything before is given, then one fault ``truncated`` (or
    ``corrupt_gzip``, ``gzip_bomb``).

    Args:
        stream: the bytes; read forward only, in blocks of 256 KiB.
        format: ``auto`` looks at the beginning of the file, then at its name.
        file_name: the file's name or address, where one is known; only a hint.
        default_currency: ISO 4217, for prices that name no currency.
        report: counters to keep up to date while reading; see ``FeedReport``.
        now: the moment that decides whether a sale price with dates holds; the clock's where not given.

    Raises:
        ConversionError: ``default_currency`` is no currency.
        OSError: what the stream itself raises.
    """
    report = FeedReport() if report is None else report
    currency = to_currency(default_currency)
    now = datetime.now(UTC) if now is None else now
    found = _read(stream, format, file_name=file_name, currency=currency, report=report, now=now)
    return _counted(found, report)


def _counted(found: Iterator[FeedRow | FeedFault], report: FeedReport) -> Iterator[FeedRow | FeedFault]:
    for one in found:
        if isinstance(one, FeedFault):
            report.count(one)
        yield one


def _read(
    stream: BinaryIO,
    format: FeedFormat | Literal["auto"],
    *,
    file_name: str | None,
    currency: str,
    report: FeedReport,
    now: datetime,
) -> Iterator[FeedRow | FeedFault]:
    source = Source(stream)
    if not source.head and source.broken is None:
        yield error(0, "empty_feed", "The file is empty.")
        return
    if source.head:
        known = detect_format(source.head, file_name) if format == "auto" else format
        problem = _refusal(source.head, known)
        if known is None or problem is not None:
            yield error(0, "unknown_format", problem or f"The file is no feed that we know. {_UNKNOWN}")
            return
        report.format = known
        read, style = _READERS[known]
        yield from read(source, ItemBuilder(currency, report, style, now))
    if source.broken is not None:
        yield error(0, source.broken.code, source.broken.message)


def _refusal(head: bytes, known: FeedFormat | None) -> str | None:
    for magic, message in _BINARY:
        if head.startswith(magic):
            return message
    if known != "ndjson" and _HTML.match(_text(head)):
        return f"The file is a web page, not a feed; check the address. {_UNKNOWN}"
    return None


_HTML = re.compile(r"\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_GOOGLE_RSS = re.compile(r"<(?:\w+:)?(?:rss|feed|RDF)[\s>]|base\.google\.com")
_YML = re.compile(r"<yml_catalog[\s>]|<!DOCTYPE\s+yml_catalog|<offers>\s*<offer\s")


def detect_format(head: bytes, file_name: str | None = None) -> FeedFormat | None:
    """The format that the beginning of a file shows (gzip or not); its name decides only where the beginning does not.

    None where it is none of ours: a picture, a web page, some other XML.
    """
    head = unpack_head(head)
    text = _text(head).lstrip("\ufeff \t\r\n\0")
    name = (file_name or "").split("?")[0].lower().removesuffix(".gz")
    if any(head.startswith(magic) for magic, _ in _BINARY):
        return None
    if text.startswith("<"):
        return _detect_xml(text, name)
    if text.startswith(("{", "[")) or name.endswith((".ndjson", ".jsonl", ".json")):
        return "ndjson"
    return _detect_delimited(text) if text else None


def _detect_xml(text: str, name: str) -> FeedFormat | None:
    if _YML.search(text) or name.endswith(".yml"):
        return "yml"
    if _HTML.match(text):
        return None
    return "google_merchant" if _GOOGLE_RSS.search(text) else None


def _detect_delimited(text: str) -> FeedFormat:
    lines = [line for line in text[:20_000].splitlines()[:5] if line.strip() and not line.startswith("sep=")]
    header = lines[0] if lines else ""
    delimiter = choose_delimiter(header)
    names = {normalised(cell.strip().strip('"')) for cell in header.split(delimiter)}
    if names & {"handle", "url handle"} and names & _SHOPIFY:
        return "shopify_csv"
    if {"type", "name"} <= names and len(names & _WOOCOMMERCE) >= 2:
        return "woocommerce_csv"
    if {"id", "title", "link"} <= names and names & {"image link", "google product category", "item group id"}:
        return "google_merchant"
    return "csv"


_SHOPIFY = {"variant sku", "variant price", "body html", "option1 name", "option1 value", "image src", "variant grams"}
_WOOCOMMERCE = {"sku", "regular price", "in stock", "parent", "images", "visibility in catalog", "is featured"}


def _text(head: bytes) -> str:
    wide, mark = sniff_wide(head)
    return head[mark:].decode(wide or "utf-8", "replace")


__all__ = ["ConversionError", "detect_format", "read_feed"]
