"""Records of comma, semicolon, tab or bar separated files, one bad record never costing its neighbours."""

import csv
from collections.abc import Iterator
from itertools import chain

from workers.feeds.lines import BadLine, iter_lines
from workers.feeds.source import Source
from workers.feeds.types import MAX_RECORD_BYTES, FeedFault, FeedReport, error, warning

DELIMITERS = ",;\t|"
MAX_COLUMNS = 5_000

Record = tuple[int, list[str]]
"""Where the record begins (1-based) and its cells, as many as the header has."""


def choose_delimiter(line: str) -> str:
    """The delimiter that parts most cells of a header line, quoted text left out; a comma where none does."""
    outside = "".join(line.split('"')[::2])
    return max(DELIMITERS, key=outside.count)


class DelimitedReader:
    """Reads a header, then records as long as it.

    Quoting is RFC 4180's, lenient as spreadsheets are: a quote in the middle of a bare cell is text. A line
    ``sep=;`` before the header names the delimiter.
    """

    def __init__(self, source: Source, report: FeedReport, *, guess: bool = True) -> None:
        self.header: list[str] = []
        """The column names; empty until ``read_header`` has found them."""
        self._source = source
        self._report = report
        self._lines = iter_lines(source, report, any_newline=True, guess=guess)
        self._number = 0
        self._delimiter = ","
        self._pending: list[tuple[int, str]] = []
        self._pending_size = 0
        self._bad: BadLine | None = None
        self._bad_at = 0
        self._ended = False
        # Unlike a generator, this goes on after an exception.
        self._lines_left: Iterator[str] = iter(self._next_line, None)
        self._last = ""

    def read_header(self) -> FeedFault | None:
        """Finds the header; a fault where there is none to be read."""
        while (line := self._next_line()) is not None:
            named = line[:4].casefold() == "sep=" and len(line.strip()) == 5
            if named:
                self._delimiter = self._report.delimiter = line[4]
            elif line.strip():
                break
            self._forget()
        else:
            return error(0, "empty_feed", "The file holds no rows.")
        if self._report.delimiter is None:
            self._delimiter = self._report.delimiter = choose_delimiter(line)
        number = self._number
        try:
            cells = next(csv.reader(chain([line], self._lines_left), delimiter=self._delimiter), [])
        except (csv.Error, _TooLongError):
            cells = []
        bad = self._bad
        self._forget()
        if bad is not None or not 0 < len(cells) <= MAX_COLUMNS:
            detail = bad.message if bad is not None else "Its quotes do not close, or it has too many columns."
            return error(number, "bad_header", f"The line of column names cannot be read. {detail}")
        self.header = [cell.strip() for cell in cells]
        while self.header and not self.header[-1]:
            self.header.pop()
        return None

    def records(self) -> Iterator[Record | FeedFault]:
        """The records after the header, in order, and a fault for each that is not one.

        A record that lacks cells at its end is filled up with a warning. Every record given as an error is counted
        as rejected; those given as cells are counted by whoever builds the item.
        """
        width = len(self.header)
        # Strict parsing finds the quote that is never closed before it joins two rows into a plausible third.
        reader = csv.reader(self._lines_left, delimiter=self._delimiter, strict=True)
        while True:
            try:
                cells = next(reader, None)
            except (csv.Error, _TooLongError) as problem:
                if self._ended:
                    yield from self._unclosed(width)
                    return
                yield from self._unreadable(width, problem)
                continue
            if cells is None:
                return
            pending, bad, bad_at = self._pending, self._bad, self._bad_at
            self._forget()
            if bad is not None:
                yield self._rejected(error(bad_at, bad.code, bad.message))
            elif len(cells) == width:
                if self._source.broken is not None and self._unfinished():
                    return
                if any(cells):
                    yield pending[0][0], cells
            elif any(cell.strip() for cell in cells):
                if self._source.broken is not None and self._unfinished():
                    return
                yield from self._ragged(pending, cells, width)

    def _next_line(self) -> str | None:
        line = next(self._lines, None)
        if line is None:
            self._ended = True
            return None
        self._number += 1
        if isinstance(line, BadLine):
            if self._bad is None:
                self._bad, self._bad_at = line, self._number
            line = line.text or "\n"
        self._pending.append((self._number, line))
        self._pending_size += len(line)
        self._last = line
        if self._pending_size > MAX_RECORD_BYTES:
            raise _TooLongError
        return line

    def _forget(self) -> None:
        self._pending = []
        self._pending_size = 0
        self._bad = None

    def _rejected(self, fault: FeedFault) -> FeedFault:
        self._report.rows += 1
        self._report.rejected += 1
        return fault

    def _unfinished(self) -> bool:
        """Whether the line just read has no end: in a broken file nobody knows how much of it is missing."""
        return not self._last.endswith(("\n", "\r"))

    def _ragged(self, pending: list[tuple[int, str]], cells: list[str], width: int) -> Iterator[Record | FeedFault]:
        line, extra, missing = pending[0][0], cells[width:], width - len(cells)
        if extra and not any(cell.strip() for cell in extra):
            yield line, cells[:width]
        elif extra:
            yield self._rejected(
                error(
                    line,
                    "too_many_cells",
                    f"The row has {len(cells)} cells and the header {width}; put cells that hold the delimiter "
                    f"{self._delimiter!r} in quotes.",
                )
            )
            yield from self._one_by_one(pending[1:], width)
        elif self._unfinished():
            yield self._rejected(
                error(line, "truncated", f"The file stops within its last row, {missing} cells short. Send it whole.")
            )
        elif len(pending) > 1:
            yield self._rejected(
                error(
                    line,
                    "too_few_cells",
                    f"The row goes over {len(pending)} lines and has {len(cells)} cells, the header {width}; "
                    "a quote in it may not be closed.",
                )
            )
            yield from self._one_by_one(pending[1:], width)
        else:
            yield warning(
                line,
                "missing_cells",
                f"The row has {len(cells)} cells and the header {width}; the last {missing} were taken as empty.",
            )
            yield line, cells + [""] * missing

    def _unreadable(self, width: int, problem: Exception) -> Iterator[Record | FeedFault]:
        pending, bad = self._pending, self._bad
        self._forget()
        number, text = pending[0]
        if bad is not None and len(pending) == 1:
            yield self._rejected(error(number, bad.code, bad.message))
            return
        too_large = isinstance(problem, _TooLongError) or "field limit" in str(problem)
        if len(pending) == 1 and not too_large:
            # Quotes within quotes, not doubled: a spreadsheet reads the row all the same.
            cells = next(csv.reader([text], delimiter=self._delimiter), [])
            if len(cells) == width:
                yield number, cells
                return
        if too_large:
            what = "is too large (a cell above 128 KB or a row above 1 MB), or a quote in it is never closed"
        else:
            what = "has a quote that is never closed, or quotes within quotes that are not doubled"
        yield self._rejected(
            error(number, "record_too_large" if too_large else "bad_quotes", f"The row that begins here {what}.")
        )
        yield from self._one_by_one(pending[1:], width)

    def _unclosed(self, width: int) -> Iterator[Record | FeedFault]:
        pending = self._pending
        self._forget()
        if not pending:
            return
        rest = list(self._one_by_one(pending[1:], width))
        if self._source.broken is None:
            code = "bad_quotes" if rest else "truncated"
            what = "in this row is never closed" if rest else "is still open where the file stops; send it whole"
            yield self._rejected(error(pending[0][0], code, f"A quote {what}."))
        yield from rest

    def _one_by_one(self, pending: list[tuple[int, str]], width: int) -> Iterator[Record]:
        """The lines that a quote left open had swallowed, each on its own; only whole records are believed."""
        for number, text in pending:
            try:
                cells = next(csv.reader([text], delimiter=self._delimiter, strict=True), [])
            except csv.Error:
                continue
            if len(cells) == width > 1 and any(cells) and "\0" not in text and "\ufffd" not in text:
                yield number, cells


class _TooLongError(Exception):
    """A record grew beyond what is kept in memory."""
