"""The bytes of a feed: unpacks gzip, notices when the file stops half-way, never holds more than a block."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct

BLOCK_BYTES = 256 * 1024
HEAD_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"

# Product feeds pack 5 to 30 fold. Deflate reaches 1,032 fold on runs of one byte, which no shop sends.
BOMB_BYTES = 64 * 1024 * 1024
BOMB_RATIO = 300


class Breakage(Struct, frozen=True, kw_only=True):
    """Why the bytes ended before their time."""

    code: str
    message: str


class Source:
    """A feed's unpacked bytes.

    ``head`` is the beginning (at most 64 KiB), for looking before reading. ``blocks`` may be taken once and
    starts at the beginning. ``broken`` is set when the bytes ended early; it is final once ``blocks`` is
    exhausted. Errors of the stream itself (``OSError``) are the caller's and pass through.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.broken: Breakage | None = None
        self._stream = stream
        self._unpacked = self._open()
        self._waiting: list[bytes] = []
        head = b""
        while len(head) < HEAD_BYTES:
            block = next(self._unpacked, None)
            if block is None:
                break
            self._waiting.append(block)
            head += block
        self.head = head[:HEAD_BYTES]

    def blocks(self) -> Iterator[bytes]:
        """The unpacked bytes in order, in non-empty blocks of at most 256 KiB."""
        while self._waiting:
            yield self._waiting.pop(0)
        yield from self._unpacked

    def _open(self) -> Iterator[bytes]:
        first = self._read()
        if first.startswith(GZIP_MAGIC):
            yield from self._gunzip(first)
            return
        while first:
            yield first
            first = self._read()

    def _read(self) -> bytes:
        # A socket may answer with a few bytes at a time; whatever joins blocks to lines would then copy for ever.
        parts: list[bytes] = []
        size = 0
        while size < HEAD_BYTES and (part := self._stream.read(BLOCK_BYTES - size)):
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _gunzip(self, packed: bytes) -> Iterator[bytes]:
        taken, given = len(packed), 0
        inflate: zlib._Decompress | None = zlib.decompressobj(wbits=31)
        while True:
            if not packed:
                packed = self._read()
                taken += len(packed)
            at_end = not packed
            if inflate is None:
                # gzip members may follow each other (RFC 1952 2.2); tools also pad the end with zeros.
                packed = packed.lstrip(b"\0")
                if not packed:
                    if at_end:
                        return
                    continue
                if not GZIP_MAGIC.startswith(packed[:2]):
                    return
                inflate = zlib.decompressobj(wbits=31)
            try:
                block = inflate.decompress(packed, BLOCK_BYTES)
            except zlib.error:
                self.broken = Breakage(
                    code="corrupt_gzip",
                    message="The gzip file is damaged from here on; pack it again and send it whole.",
                )
                return
            if block:
                given += len(block)
                yield block
            if given > BOMB_BYTES and given > BOMB_RATIO * taken:
                self.broken = Breakage(
                    code="gzip_bomb",
                    message="The gzip file unpacks to more than 300 times its size; send it unpacked.",
                )
                return
            if inflate.eof:
                packed, inflate = inflate.unused_data, None
                continue
            packed = inflate.unconsumed_tail
            # zlib may still hold output when the input is used up, so the end is where it gives no more.
            if at_end and not block:
                self.broken = Breakage(
                    code="truncated",
                    message="The gzip file stops half-way; what came before was read. Send it whole.",
                )
                return


def unpack_head(head: bytes) -> bytes:
    """The beginning of a file as it reads unpacked, at most 64 KiB; empty where it cannot be unpacked."""
    if not head.startswith(GZIP_MAGIC):
        return head[:HEAD_BYTES]
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""
