"""The elements of one JSON array, cut out of a stream of bytes without holding more than one of them."""

import re
from collections.abc import Iterator

from msgspec import Struct

from workers.feeds.types import MAX_RECORD_BYTES

# Atomic repeats: a string that is never closed costs one pass, not one per letter.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]"]', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_BETWEEN = re.compile(rb"[\s,]*")
_SCALAR = re.compile(rb'[^,\]{"\[]+')
_OPENERS = {1: re.compile(rb"\s*\["), 2: re.compile(rb'\s*\{\s*"[^"\\]{1,100}"\s*:\s*\[')}


class Element(Struct, frozen=True):
    """One element: where it begins, and its JSON; ``text`` is None where it is too large or never ends."""

    line: int
    text: bytes | None
    too_large: bool = False


class ArrayElements:
    """Iterates over the elements of the array that opens at nesting ``depth`` (2: within an object's first key).

    An element that is not closed is given up where another begins at the start of a line, indented as the first
    was. ``closed`` tells, at the end, whether the array's own end was seen.
    """

    def __init__(self, blocks: Iterator[bytes], depth: int) -> None:
        self.closed = False
        self._blocks = blocks
        self._depth = depth
        self._buffer = b""
        self._at = 0
        self._line = 1
        self._next_element: re.Pattern[bytes] | None = None

    def __iter__(self) -> Iterator[Element]:
        opener = _OPENERS[self._depth]
        while (opened := opener.match(self._buffer)) is None:
            if len(self._buffer) > MAX_RECORD_BYTES or not self._refill():
                return
        self._advance(opened.end())
        while True:
            start = self._skip_blanks()
            if start is None:
                return
            first = self._buffer[start : start + 1]
            if first == b"]":
                self.closed = True
                return
            if first in {b"{", b"["}:
                if self._next_element is None:
                    self._learn_indent()
                yield self._container()
            else:
                yield self._scalar()

    def _refill(self) -> bool:
        """Takes one more block behind what is left of the buffer; false at the end."""
        block = next(self._blocks, None)
        if block is None:
            return False
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        return True

    def _advance(self, to: int) -> None:
        self._line += self._buffer.count(b"\n", self._at, to)
        self._at = to

    def _skip_blanks(self) -> int | None:
        while True:
            blank = _BETWEEN.match(self._buffer, self._at)
            if blank is not None:
                self._advance(blank.end())
            if self._at < len(self._buffer):
                return self._at
            if not self._refill():
                return None

    def _learn_indent(self) -> None:
        before = self._buffer[max(0, self._at - 100) : self._at]
        newline = before.rfind(b"\n")
        indent = before[newline + 1 :]
        # An array on one line gives no hint of where elements begin.
        known = newline >= 0 and not indent.strip()
        self._next_element = re.compile(b"\n" + indent + rb"\{" if known else rb"(?!)")

    def _container(self) -> Element:
        line = self._line
        depth, place = 0, self._at
        while True:
            for token in _TOKEN.finditer(self._buffer, place):
                place = token.end()
                kind = token.group()
                if kind in {b"{", b"["}:
                    depth += 1
                elif kind in {b"}", b"]"}:
                    depth -= 1
                    if depth == 0:
                        text = self._buffer[self._at : place]
                        self._advance(place)
                        if len(text) > MAX_RECORD_BYTES:
                            return Element(line, None, too_large=True)
                        return Element(line, text)
                elif kind == b'"':
                    # Not closed within the buffer: it is read again with what follows.
                    place = token.start()
                    break
            else:
                place = len(self._buffer)
            if len(self._buffer) - self._at > MAX_RECORD_BYTES:
                return self._given_up(line) or self._too_large(line, depth, place)
            done = place - self._at
            if not self._refill():
                return self._given_up(line) or self._unfinished(line)
            place = done

    def _given_up(self, line: int) -> Element | None:
        following = self._next_element.search(self._buffer, self._at) if self._next_element else None
        if following is None:
            return None
        self._advance(following.end() - 1)
        return Element(line, None)

    def _unfinished(self, line: int) -> Element:
        self._advance(len(self._buffer))
        return Element(line, None)

    def _too_large(self, line: int, depth: int, place: int) -> Element:
        """Reads on to the end of an element that is not kept."""
        in_string = False
        while True:
            if in_string:
                inside = _IN_STRING.match(self._buffer, place)
                place = inside.end() if inside is not None else place
                if self._buffer[place : place + 1] == b'"':
                    in_string, place = False, place + 1
            if not in_string:
                for token in _TOKEN.finditer(self._buffer, place):
                    place = token.end()
                    kind = token.group()
                    depth += (kind in {b"{", b"["}) - (kind in {b"}", b"]"})
                    if depth == 0:
                        self._advance(place)
                        return Element(line, None, too_large=True)
                    if kind == b'"':
                        in_string = True
                        break
                else:
                    place = len(self._buffer)
                if in_string:
                    continue
            self._advance(place)
            if not self._refill():
                return self._unfinished(line)
            place = 0

    def _scalar(self) -> Element:
        line = self._line
        while True:
            if self._buffer[self._at : self._at + 1] == b'"':
                token = _TOKEN.match(self._buffer, self._at)
                end = token.end() if token is not None and len(token.group()) > 1 else None
            else:
                scalar = _SCALAR.match(self._buffer, self._at)
                end = scalar.end() if scalar is not None and scalar.end() < len(self._buffer) else None
                if scalar is None:
                    # A stray brace or bracket: step over it, or nothing would ever move.
                    end = self._at + 1
            if end is not None:
                text = self._buffer[self._at : end].strip()
                self._advance(end)
                return Element(line, text)
            if len(self._buffer) - self._at > MAX_RECORD_BYTES or not self._refill():
                return self._unfinished(line)
