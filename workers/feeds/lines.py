"""The lines of a feed as text, one bad line never costing its neighbours."""

import re
from collections.abc import Iterator

from msgspec import Struct

from workers.feeds.encoding import UTF8_BOM, guess_narrow, sniff_wide, to_utf8
from workers.feeds.source import Source
from workers.feeds.types import MAX_RECORD_BYTES, FeedReport

_HALF_A_LETTER = re.compile(rb"[\xc2-\xf4][\x80-\xbf]{0,2}\Z")


class BadLine(Struct, frozen=True, kw_only=True):
    """A line that cannot be used: ``text`` is what can be shown of it, empty where it was too long to keep."""

    code: str
    message: str
    text: str


TOO_LONG = BadLine(
    code="line_too_long", message=f"The line is longer than {MAX_RECORD_BYTES:,} bytes and was skipped.", text=""
)


def iter_byte_lines(blocks: Iterator[bytes], *, any_newline: bool) -> Iterator[bytes | None]:
    """The lines with their ends; None stands for a line above ``MAX_RECORD_BYTES``.

    ``any_newline``: a lone carriage return ends a line as well, as in files of old spreadsheets.
    """
    carry, skipping = b"", False
    for fresh in blocks:
        block = carry + fresh
        lines = block.splitlines(keepends=True) if any_newline else _split(block)
        # A carriage return at the end of a block may be the first half of \r\n.
        carry = b"" if lines[-1].endswith(b"\n") else lines.pop()
        for line in lines:
            if skipping:
                skipping = False
                yield None
            elif len(line) > MAX_RECORD_BYTES:
                yield None
            else:
                yield line
        if len(carry) > MAX_RECORD_BYTES:
            # Only what may be half of \r\n is kept of a line that is skipped.
            carry, skipping = carry[-1:], True
    if skipping or len(carry) > MAX_RECORD_BYTES:
        yield None
    elif carry:
        yield carry


def _split(block: bytes) -> list[bytes]:
    lines = block.split(b"\n")
    last = lines.pop()
    whole = [line + b"\n" for line in lines]
    if last or not whole:
        whole.append(last)
    return whole


def iter_lines(source: Source, report: FeedReport, *, any_newline: bool, guess: bool) -> Iterator[str | BadLine]:
    """The feed's lines as text, ends included, the byte order mark left out.

    UTF-8 and UTF-16 are told by themselves; with ``guess`` Windows-1251 and 1252 are told from UTF-8 by the first
    letters that are not ASCII. ``report.encoding`` is set when it is known. A line that holds a NUL or is not of
    the feed's encoding comes as a ``BadLine``, every other one as it is.
    """
    wide, mark = sniff_wide(source.head)
    blocks = source.blocks()
    report.encoding = "utf-8" if wide is None else wide
    if wide is not None and wide != "utf-8":
        blocks = to_utf8(blocks, wide, mark)
        guess = False
    blocks = _noting_encoding(blocks, report) if guess and wide is None else blocks
    first = True
    for line in iter_byte_lines(blocks, any_newline=any_newline):
        if line is None:
            yield TOO_LONG
            continue
        text, first = (line.removeprefix(UTF8_BOM) if first else line), False
        try:
            decoded = text.decode(report.encoding if wide is None else "utf-8")
        except UnicodeDecodeError as problem:
            yield BadLine(
                code="bad_encoding",
                message=f"The line is not {_name(report.encoding)} from its byte {problem.start + 1} on; "
                "save the file as UTF-8.",
                text=text.decode("utf-8", "replace"),
            )
            continue
        if "\0" in decoded:
            yield BadLine(
                code="nul_byte",
                message="The line holds a NUL character, which no text may have; export the file anew.",
                text=decoded,
            )
            continue
        yield decoded


def _name(encoding: str) -> str:
    return encoding.upper() if encoding.startswith("utf") else encoding.capitalize()


def _noting_encoding(blocks: Iterator[bytes], report: FeedReport) -> Iterator[bytes]:
    # Until a letter beyond ASCII is seen, every candidate reads the bytes alike. A letter cut by the end of its
    # block would speak against UTF-8, so it waits for its other half.
    known, half = False, b""
    for block in blocks:
        if not known:
            sample = half + block
            cut = _HALF_A_LETTER.search(sample)
            half = b"" if cut is None else cut.group()
            sample = sample[: len(sample) - len(half)]
            if not sample.isascii():
                report.encoding, known = guess_narrow(sample), True
        yield block
    if not known and half:
        report.encoding = guess_narrow(half)
