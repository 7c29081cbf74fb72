"""Frames of the query encoder."""

import asyncio
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.encoder import EncodeAnswer, EncodeRequest, decode_request, pack_frame, parse_address, read_frame

requests = st.builds(
    EncodeRequest,
    id=st.integers(0, 2**53),
    space=st.text(max_size=20),
    texts=st.lists(st.text(max_size=30), max_size=4),
    photo=st.none() | st.binary(max_size=50),
    photo_url=st.none() | st.text(max_size=20),
    role=st.sampled_from(["document", "query"]),
    budget_ms=st.integers(0, 10_000),
)


def read_all(data: bytes) -> list[bytes]:
    """The bodies of every whole frame in `data`."""

    async def main() -> list[bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        bodies = []
        while (body := await read_frame(reader)) is not None:
            bodies.append(body)
        return bodies

    return asyncio.run(main())


@given(st.lists(requests, max_size=4))
def test_requests_survive_the_wire(sent: list[EncodeRequest]) -> None:
    """Any requests, one after the other in one stream, come out as they went in."""
    bodies = read_all(b"".join(map(pack_frame, sent)))
    assert [decode_request(body) for body in bodies] == sent


@given(requests, st.data())
def test_a_cut_frame_is_the_end(request_: EncodeRequest, data: st.DataObject) -> None:
    """A stream that ends inside a frame ends like one that ended before it."""
    frame = pack_frame(request_)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert read_all(frame[:cut]) == []


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    """Nothing but msgspec's own error comes out of a strange body."""
    with suppress(msgspec.DecodeError):
        assert isinstance(decode_request(body), EncodeRequest)


def test_text_that_is_not_utf_8_is_refused_like_any_other() -> None:
    """Broken UTF-8 inside a message raises msgspec's error, which ends the connection."""
    frame = pack_frame(EncodeRequest(id=1, space="s", texts=["zzz"]))
    with pytest.raises(msgspec.DecodeError):
        decode_request(frame[4:].replace(b"zzz", b"\xff\xff\xff"))


def test_an_absurd_length_is_refused() -> None:
    """A broken length is not waited for."""
    with pytest.raises(ConnectionError, match="4294967295 bytes"):
        read_all(b"\xff\xff\xff\xff")


def test_rows_are_float32_of_their_width() -> None:
    """An answer's bytes are its rows."""
    rows = np.arange(6, dtype="<f4").reshape(2, 3)
    answer = EncodeAnswer(id=1, space="s", dim=3, vectors=rows.tobytes())
    assert answer.rows().tolist() == rows.tolist()


def test_addresses_are_told_apart() -> None:
    """A socket's path, and a loopback port."""
    assert parse_address("unix:///run/kindred/e.sock") == ("unix", "/run/kindred/e.sock", 0)
    assert parse_address("tcp://127.0.0.1:8100") == ("tcp", "127.0.0.1", 8100)
    assert parse_address("tcp://[::1]:8100") == ("tcp", "::1", 8100)
