"""The lines of a feed as text."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.feeds.lines import BadLine, iter_byte_lines, iter_lines
from workers.feeds.source import Source
from workers.feeds.types import MAX_RECORD_BYTES, FeedReport


def lines(data: bytes, *, guess: bool = True, any_newline: bool = True) -> tuple[list[str], FeedReport]:
    report = FeedReport()
    found = iter_lines(Source(io.BytesIO(data)), report, any_newline=any_newline, guess=guess)
    return [line.code if isinstance(line, BadLine) else line for line in found], report


@given(st.lists(st.binary(max_size=9), max_size=20), st.booleans())
def test_lines_do_not_depend_on_blocks(blocks: list[bytes], any_newline: bool) -> None:
    """However the bytes are cut, the lines are those of the whole."""
    data = b"".join(blocks)
    got = list(iter_byte_lines(iter([block for block in blocks if block]), any_newline=any_newline))
    expected = data.splitlines(True) if any_newline else io.BytesIO(data).readlines()
    assert got == expected


@pytest.mark.parametrize("step", [10_000, 262_144, 5_000_000])
def test_a_line_too_long_is_one_gap(step: int) -> None:
    """A line beyond the limit is one None, whatever the blocks, and its neighbours are whole."""
    data = b"a\n" + b"x" * (2 * MAX_RECORD_BYTES) + b"\r\nb\n" + b"y" * (MAX_RECORD_BYTES + 1)
    blocks = (data[i : i + step] for i in range(0, len(data), step))
    assert list(iter_byte_lines(blocks, any_newline=True)) == [b"a\n", None, b"b\n", None]


def test_the_alphabet_is_told_by_the_first_letters_beyond_ascii() -> None:
    """A head of plain ASCII decides nothing; the letters that come later do."""
    got, report = lines(b"id\n" * 200_000 + "Лампа\n".encode("cp1251"))
    assert got[-1] == "Лампа\n"
    assert report.encoding == "windows-1251"


def test_a_letter_cut_by_a_block_is_no_foreign_alphabet() -> None:
    """Half a letter of UTF-8 at the end of a block waits for its other half."""
    data = b"a" * (256 * 1024 - 1) + "é\nd\n".encode()
    got, report = lines(data)
    assert report.encoding == "utf-8"
    assert got[1] == "d\n"


def test_a_last_accent_without_a_line_end_is_read() -> None:
    """Windows-1252 is told even when its only accent is the file's last byte."""
    assert lines(b"id,title\n1,caf\xe9")[0] == ["id,title\n", "1,café"]


def test_the_byte_order_mark_is_no_text() -> None:
    """The first column's name does not begin with an invisible letter."""
    assert lines("id\n".encode("utf-8-sig"))[0] == ["id\n"]
    assert lines("id\n".encode("utf-16"))[0] == ["id\n"]


def test_without_guessing_a_foreign_line_is_bad() -> None:
    """JSON is UTF-8, so other bytes are a fault of their line."""
    assert lines("ok\nЛампа\nok\n".encode("cp1251"), guess=False)[0] == ["ok\n", "bad_encoding", "ok\n"]
