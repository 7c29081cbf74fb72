"""Ranges of bytes (RFC 9110, 14): a download that broke off goes on where it was."""

from api.problems import RangeNotSatisfiable

Range = tuple[int, int]
"""The first byte, and the one after the last."""


def parse_range(header: str | None, size: int) -> Range | None:
    """The one range of bytes that a header asks for (RFC 9110, 14.2): None for the whole file.

    What is no range of bytes, or several of them, is answered with the whole file, as the RFC allows. Raises
    RangeNotSatisfiable.
    """
    unit, _, spec = (header or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not _digits(first) or not _digits(last) or not (first or last):
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(f"The file has {size:,} bytes; ask for a range within them.")
    return start, end


def _digits(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) < 19)
