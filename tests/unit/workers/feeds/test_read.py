"""Any product feed as items and faults."""

import gzip
import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.feeds.convert import ConversionError
from workers.feeds.read import detect_format, read_feed
from workers.feeds.types import FORMATS, FeedFault, FeedReport, FeedRow

Read = Callable[..., Any]

YML = '<?xml version="1.0"?><yml_catalog date="2026"><shop><offers><offer id="1"/></offers></shop></yml_catalog>'
RSS = '<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><item><g:id>1</g:id></item></channel></rss>'


@pytest.mark.parametrize(
    ("text", "name", "format"),
    [
        ('{"id": 1}\n', None, "ndjson"),
        ('\n [{"id": 1}]', None, "ndjson"),
        ("id,title\n1,a\n", None, "csv"),
        ("id;title\n", "x.ndjson.csv", "csv"),
        (YML, None, "yml"),
        (RSS, None, "google_merchant"),
        ("id\ttitle\tlink\timage_link\n", None, "google_merchant"),
        ("id,title,link,image link\n", "feed.txt", "google_merchant"),
        ("Handle,Title,Variant SKU\n", None, "shopify_csv"),
        ("URL handle,Title,Option1 name\n", None, "shopify_csv"),
        ('ID,Type,SKU,Name,Published,"In stock?"\n', None, "woocommerce_csv"),
        ("<shop/>", "catalogue.yml", "yml"),
        ("<html><body>404</body></html>", "feed.csv", None),
        ("<!DOCTYPE html><p>", None, None),
        ("<other/>", None, None),
        ("", None, None),
        ("PK\x03\x04rest", "feed.csv", None),
        ("not json", "feed.jsonl", "ndjson"),
    ],
)
def test_the_format_shows_at_the_beginning(text: str, name: str | None, format: str | None) -> None:
    """The content tells; the name only where the content does not. Packing and wide letters change nothing."""
    assert detect_format(text.encode(), name) == format
    assert detect_format(gzip.compress(text.encode()), f"{name}.gz" if name else None) == format
    if text and not text.startswith("PK"):
        assert detect_format(text.encode("utf-16"), name) == format


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty_feed", "empty"),
        (b"PK\x03\x04xxxx", "unknown_format", "Excel"),
        (b"<html><body>Not found</body></html>", "unknown_format", "web page"),
        (b"\x89PNG\r\n", "unknown_format", "picture"),
        (b"<a/>", "unknown_format", "Google Merchant"),
        (gzip.compress(b"", mtime=0), "empty_feed", "empty"),
    ],
)
def test_what_is_no_feed_is_told_in_one_fault(read: Read, data: bytes, code: str, words: str) -> None:
    """The fault says what was sent and what to send instead."""
    reading = read(data)
    assert reading.codes == [code]
    assert words in reading.fault.message


@pytest.mark.parametrize("format", ["csv", "ndjson", "google_merchant"])
def test_a_truncated_gzip_gives_its_rows_and_one_fault(read: Read, format: str) -> None:
    """Whole rows before the break are items; the break is one fault, the cut row none."""
    rows = {
        "csv": ["id,title\n", *(f"{n},title {n * 7919}\n" for n in range(5000))],
        "ndjson": [f'{{"id": {n}, "title": "title {n * 7919}"}}\n' for n in range(5000)],
        "google_merchant": [
            "<rss><channel>",
            *(f"<item><id>{n}</id><title>{n * 7919}</title></item>\n" for n in range(5000)),
        ],
    }[format]
    packed = gzip.compress("".join(rows).encode())
    reading = read(packed[: len(packed) // 2], format)
    assert 1000 < len(reading.rows) < 5000
    assert reading.ids == [str(n) for n in range(len(reading.rows))]
    assert reading.codes == ["truncated"]
    assert reading.report.rows == len(reading.rows)


def test_a_gzip_feed_is_read_like_a_plain_one(read: Read) -> None:
    """Packing is told by its magic number, not by the name."""
    assert read(gzip.compress(b"id,title\n1,Lamp\n"), file_name="feed.csv").items == read("id,title\n1,Lamp\n").items


def test_the_report_is_kept_up_to_date_while_reading() -> None:
    """A progress bar may look at the counters between two rows."""
    report = FeedReport()
    found = read_feed(
        io.BytesIO(b"id,price\n1,5\n2,x\n3,6\n"), format="csv", file_name=None, default_currency="USD", report=report
    )
    next(found)
    assert (report.rows, report.converted) == (1, 1)
    list(found)
    assert (report.rows, report.converted, report.rejected, report.faults) == (3, 2, 1, {"bad_price": 1})


def test_a_default_that_is_no_currency_is_the_callers_mistake() -> None:
    """It is said at once, not row by row."""
    with pytest.raises(ConversionError):
        read_feed(io.BytesIO(b""), format="csv", file_name=None, default_currency="dollars")


def test_a_failing_stream_is_the_callers() -> None:
    """A broken connection is no fault of the feed: it passes through, so that the job is tried again."""

    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("reset")

    with pytest.raises(OSError, match="reset"):
        list(read_feed(Broken(), format="csv", file_name=None, default_currency="USD"))


LONG = b"lamp" * 9000


class Endless(io.RawIOBase):
    """Repeats a piece until so many bytes have been given."""

    def __init__(self, head: bytes, piece: bytes, total: int) -> None:
        self._head = head
        self._block = piece * (65_536 // len(piece) + 1)
        self._left = total

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._left <= 0:
            return b""
        self._left -= len(self._block)
        return self._block


@pytest.mark.parametrize(
    ("format", "head", "piece"),
    [
        ("csv", b"id,title\n", b"1," + LONG + b"\n"),
        ("csv", b"id,title\n", LONG),
        ("csv", b'id,title\n1,"', LONG + b"\n"),
        ("ndjson", b"", b'{"id": "1", "title": "' + LONG + b'"}\n'),
        ("ndjson", b"", b'{"id": ' + LONG),
        ("ndjson", b'[{"id": "', LONG),
        ("ndjson", b"[", b'{"id": "1", "title": "' + LONG + b'"},'),
        ("google_merchant", b"<rss>", b"<item><id>1</id><title>" + LONG + b"</title></item>"),
        ("google_merchant", b"<rss><item><id>", LONG),
        ("google_merchant", b"<rss><item ", LONG),
        ("shopify_csv", b"Handle,Title,Variant SKU\n", b"same," + LONG + b",s\n"),
        ("woocommerce_csv", b"ID,Type,SKU,Name\n", b"1,variable,s," + LONG + b"\n"),
        ("yml", b"<yml_catalog>", b'<category id="1">' + LONG + b"</category>"),
    ],
)
def test_memory_does_not_grow_with_the_feed(format: str, head: bytes, piece: bytes) -> None:
    """Ten megabytes of rows, or of one row, are read in much less."""
    stream = Endless(head, piece, 10_000_000)
    tracemalloc.start()
    try:
        for _ in read_feed(stream, format=format, file_name=None, default_currency="USD"):  # type: ignore[arg-type]
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 7_000_000


SEEDS = st.sampled_from(
    [
        b"id,title,price\n1,a,9.99\n2,\"b\nc\",5\n",
        b'{"id": 1, "price": 9.5}\n{"id": 2}\n',
        b'[{"id": 1}, {"id": 2}]',
        YML.encode(),
        RSS.encode(),
        b"Handle,Title,Variant SKU,Option1 Value\na,T,s,x\na,,t,y\n",
        b"ID,Type,SKU,Name,In stock?,Parent\n1,variable,A,Shirt,1,\n2,variation,B,,1,id:1\n",
        b"id\ttitle\tlink\timage_link\n1\ta\thttp://a.example\thttp://a.example/b.jpg\n",
    ]
)  # fmt: skip
JUNK = st.sampled_from(
    [b'"', b"\n", b"\r", b"\0", b",", b"{", b"}", b"[", b"<", b"&", b"\xff", b"\xd0", b"\\", b"\\u0000", b"\x1f\x8b",
     b"\xff\xfe", b"<![CDATA[", b"<offer>", b"</offer>", b"<!ENTITY a 'b'>", b"1e999", b"sep=;\n"]
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A feed with junk put into it, cut somewhere, packed or not."""
    data = draw(SEEDS)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(JUNK | st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
    data = data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data
    if draw(st.integers(0, 5)) == 0:
        packed = gzip.compress(data)
        data = packed[: draw(st.integers(2, len(packed)))]
    return data


@settings(max_examples=200, deadline=None)
@given(spoilt() | st.binary(max_size=200), st.sampled_from(["auto", "auto", *FORMATS]))
def test_any_bytes_end_in_rows_and_faults(data: bytes, format: Any) -> None:
    """No byte string raises or hangs; rows are items the API can hold, and the counters add up."""
    report = FeedReport()
    rows = faults = 0
    for one in read_feed(io.BytesIO(data), format=format, file_name=None, default_currency="USD", report=report):
        if isinstance(one, FeedRow):
            rows += 1
            assert 1 <= len(str(one.item["id"])) <= 128
            msgspec.json.encode(one.item)
        else:
            assert isinstance(one, FeedFault)
            faults += 1
    assert rows == report.converted
    assert report.rows == report.converted + report.rejected
    assert faults == sum(report.faults.values())
