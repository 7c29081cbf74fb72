"""The bytes of a feed."""

import gzip
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.feeds import source as source_module
from workers.feeds.source import BLOCK_BYTES, HEAD_BYTES, Source, unpack_head


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, as sockets do."""

    def __init__(self, data: bytes, step: int) -> None:
        self._inner = io.BytesIO(data)
        self._step = step

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(self._step, size) if size > 0 else self._step)


def whole(data: bytes, step: int = BLOCK_BYTES) -> tuple[bytes, str | None]:
    source = Source(Trickle(data, step))  # type: ignore[arg-type]
    got = b"".join(source.blocks())
    assert source.head == got[:HEAD_BYTES]
    return got, source.broken.code if source.broken else None


NOISE = random.Random(5).randbytes(300_000)


@given(st.binary(max_size=300).filter(lambda b: not b.startswith(b"\x1f\x8b")), st.integers(1, 50))
def test_plain_bytes_come_as_they_are(data: bytes, step: int) -> None:
    """Any block size of the stream gives the same bytes."""
    assert whole(data, step) == (data, None)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=3), st.integers(1, 50), st.integers(0, 9))
def test_gzip_is_unpacked_member_by_member(parts: list[bytes], step: int, zeros: int) -> None:
    """Files joined after packing, and padded with zeros, unpack to all their parts."""
    packed = b"".join(map(gzip.compress, parts)) + b"\0" * zeros
    assert whole(packed, step) == (b"".join(parts), None)


@pytest.mark.parametrize("missing", [1, 8, 9, 1000, 250_000])
def test_a_truncated_gzip_gives_what_is_there(missing: int) -> None:
    """Everything up to the break is given, then the break is told."""
    got, broken = whole(gzip.compress(NOISE)[:-missing])
    assert NOISE.startswith(got)
    assert len(got) >= len(NOISE) - missing - 10_000 or missing < 10
    assert broken == "truncated"


def test_a_damaged_gzip_stops_there() -> None:
    """A wrong byte ends the reading with its own code."""
    packed = bytearray(gzip.compress(NOISE * 2))
    packed[-3] ^= 0xFF
    got, broken = whole(bytes(packed))
    assert (NOISE * 2).startswith(got)
    assert len(got) > len(NOISE)
    assert broken == "corrupt_gzip"


def test_a_gzip_bomb_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that unpacks to far more than any feed's ratio is cut off."""
    monkeypatch.setattr(source_module, "BOMB_BYTES", 1_000_000)
    got, broken = whole(gzip.compress(b"\0" * 20_000_000))
    assert broken == "gzip_bomb"
    assert len(got) < 7_000_000


def test_a_block_is_never_larger_than_its_bound() -> None:
    """Unpacking hands out small blocks, however dense the pack."""
    source = Source(io.BytesIO(gzip.compress(b"x" * 3_000_000)))
    assert max(map(len, source.blocks())) <= BLOCK_BYTES


def test_the_head_of_a_pack_is_unpacked() -> None:
    """Looking at the beginning works on packed and plain files."""
    assert unpack_head(gzip.compress(b"id,title\n")) == b"id,title\n"
    assert unpack_head(b"id,title\n") == b"id,title\n"
    assert unpack_head(b"\x1f\x8bnonsense") == b""
