"""Records of delimited files, one bad record never costing its neighbours."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.feeds.delimited import DelimitedReader, choose_delimiter
from workers.feeds.source import Source
from workers.feeds.types import FeedFault, FeedReport


def records(text: str | bytes) -> tuple[list[str], list[Any]]:
    data = text.encode() if isinstance(text, str) else text
    reader = DelimitedReader(Source(io.BytesIO(data)), FeedReport())
    fault = reader.read_header()
    if fault is not None:
        return [], [fault.code]
    return reader.header, [r.code if isinstance(r, FeedFault) else r for r in reader.records()]


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("a,b,c", ","), ("a;b,c;d", ";"), ("a\tb", "\t"), ("a|b|c", "|"), ("id", ","), ('"a,b";c', ";")],
)
def test_the_delimiter_parts_most_cells(header: str, delimiter: str) -> None:
    """Quoted text does not count."""
    assert choose_delimiter(header) == delimiter


def test_a_spreadsheets_hint_names_the_delimiter() -> None:
    """Excel writes sep=; before the header."""
    assert records("sep=;\na;b,c\n1;2\n") == (["a", "b,c"], [(3, ["1", "2"])])


def test_a_record_may_go_over_several_lines() -> None:
    """Line numbers are those where records begin."""
    assert records('a,b\n1,"x\ny"\n2,z\n')[1] == [(2, ["1", "x\ny"]), (4, ["2", "z"])]


def test_missing_last_cells_are_filled_up() -> None:
    """Spreadsheets leave out empty cells at the end; a warning says so."""
    assert records("a,b,c\n1,2\n3,4,5\n")[1] == ["missing_cells", (2, ["1", "2", ""]), (3, ["3", "4", "5"])]


def test_too_many_cells_are_an_error_of_their_row() -> None:
    """A bare delimiter within a cell moves all that follows, so nothing of the row is believed."""
    assert records("a,b\n1,2,3\n4,5\n")[1] == ["too_many_cells", (3, ["4", "5"])]


def test_empty_cells_too_many_are_nothing() -> None:
    """Trailing delimiters carry no value."""
    assert records("a,b\n1,2,,\n")[1] == [(2, ["1", "2"])]


def test_a_nul_costs_its_row() -> None:
    """A row with a NUL is a fault, the next is read."""
    assert records("a,b\n1,\x002\n3,4\n")[1] == ["nul_byte", (3, ["3", "4"])]


def test_a_nul_within_quotes_costs_the_whole_record() -> None:
    """The second half of a broken record is not taken for a row."""
    assert records('a,b\n1,"x\x00\n2,y"\n3,4\n')[1] == ["nul_byte", (4, ["3", "4"])]


def test_broken_utf_8_costs_its_row() -> None:
    """In a file of UTF-8, a row that is not is a fault."""
    data = "a,b\nё,ж\n".encode() + b"1,\xff\xfe\n3,4\n"
    assert records(data)[1] == [(2, ["ё", "ж"]), "bad_encoding", (4, ["3", "4"])]


def test_a_quote_left_open_does_not_swallow_the_next_rows() -> None:
    """Rows behind an open quote are found again, each on its own."""
    assert records('a,b,c\n1,"open,2\n3,"x",4\n5,6,7\n')[1] == [
        "bad_quotes",
        (3, ["3", "x", "4"]),
        (4, ["5", "6", "7"]),
    ]


def test_a_quote_open_to_the_end_does_not_swallow_the_rest() -> None:
    """Whole rows before the end of the file are found again."""
    assert records('a,b\n1,"open\n3,4\n5,6\n')[1] == ["bad_quotes", (3, ["3", "4"]), (4, ["5", "6"])]


def test_quotes_within_quotes_are_read_where_the_row_stays_whole() -> None:
    """Spreadsheets forgive inner quotes that are not doubled."""
    assert records('a,b\n1,"5" screen"\n')[1] == [(2, ["1", '5 screen"'])]


def test_a_file_that_stops_within_a_quote_is_truncated() -> None:
    """The rows before stay, the last is told as cut."""
    assert records('a,b\n1,2\n3,"half of a sent')[1] == [(2, ["1", "2"]), "truncated"]


def test_a_file_that_stops_within_a_row_is_truncated() -> None:
    """Missing cells are only forgiven where the line has an end."""
    assert records("a,b,c\n1,2,3\n4,5")[1] == [(2, ["1", "2", "3"]), "truncated"]


def test_a_last_row_without_a_line_end_is_whole() -> None:
    """Many editors write none."""
    assert records("a,b\n1,2")[1] == [(2, ["1", "2"])]


def test_a_row_too_large_is_skipped() -> None:
    """A cell beyond the parser's limit is a fault, and reading goes on."""
    assert records("a,b\n1," + "x" * 200_000 + "\n3,4\n")[1] == ["record_too_large", (3, ["3", "4"])]


def test_a_line_too_long_is_skipped() -> None:
    """A line beyond 1 MB is never kept."""
    assert records("a,b\n1," + "x" * 3_000_000 + "\n3,4\n")[1] == ["line_too_long", (3, ["3", "4"])]


def test_an_open_quote_over_a_megabyte_is_given_up() -> None:
    """The rows that it swallowed are found again as far as they were kept, and all that follow."""
    rows = "".join(f"{n},{'y' * 90}\n" for n in range(30_000))
    got = records('a,b\n0,"open\n' + rows)[1]
    assert got[0] == "record_too_large"
    assert [r[1][0] for r in got[1:]] == [str(n) for n in range(30_000)]


def test_pathological_quotes_take_linear_work() -> None:
    """Lines that each open a quote anew are given up megabyte by megabyte, not line by line."""
    got = records("a,b\n" + 'a","\n' * 200_000)[1]
    assert 1 <= len([code for code in got if isinstance(code, str)]) <= 10


def test_blank_rows_are_no_rows() -> None:
    """Empty lines and lines of delimiters are passed over."""
    assert records("a,b\n\n,\n1,2\n  \n")[1] == [(4, ["1", "2"])]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_no_header_is_an_empty_feed(text: str) -> None:
    """A file of nothing is told as empty."""
    assert records(text)[1] == ["empty_feed"]


@pytest.mark.parametrize("text", ["\x00a,b\n1,2\n", "," * 6000 + "\n"])
def test_a_header_that_cannot_be_read_ends_the_feed(text: str) -> None:
    """Without column names no cell means anything."""
    assert records(text)[1] == ["bad_header"]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=3, max_size=3).filter(any), max_size=8), st.sampled_from(",;\t|"))
def test_written_records_read_back(rows: list[list[str]], delimiter: str) -> None:
    """What the standard writer quotes is read as it was, line breaks and quotes included."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "b", "c"], *rows])
    header, got = records(out.getvalue())
    assert header == ["id", "b", "c"]
    assert [cells for _, cells in got] == rows


def test_semicolons_and_windows_1251(read: Callable[..., Any]) -> None:
    """A Russian spreadsheet's CSV is read without being told what it is."""
    reading = read("id;название;цена\n1;Умная лампочка;1490,50\n".encode("cp1251"), currency="RUB")
    assert reading.item == {"id": "1", "title": "Умная лампочка", "price": 149050, "currency": "RUB"}
    assert (reading.report.encoding, reading.report.delimiter) == ("windows-1251", ";")
