"""Asks the encode worker for the vectors of search queries: the messages, their framing, and the client.

A frame is a 4-byte big-endian length and that many bytes of MessagePack. One connection carries many
requests at once; answers come in any order and name their request's `id`.
"""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from infra.errors import Invalid, Overloaded

FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of one frame: a 10 MB photo fits, a broken length does not fill the memory."""

_BUDGET_S = 0.15
_PHOTO_BUDGET_S = 5.0
_PAUSE_S = 0.25


class EncoderUnavailable(Overloaded):
    """The encode worker is away, too busy, or did not answer within the budget. Answer by words alone."""

    code = "encoder_unavailable"
    title = "The encoder is not available"


class QueryNotEncodable(Invalid):
    """The query's photo cannot be read. The detail says why, in words for a shop owner."""

    code = "query_not_encodable"
    title = "The query cannot be encoded"


class EncodeRequest(msgspec.Struct, frozen=True, kw_only=True, tag="request", omit_defaults=True):
    """Texts, or one photo (its bytes or its address), to encode into `space`.

    `budget_ms` is how long the answer is of use: the server drops what has waited longer.
    """

    id: int
    space: str
    texts: list[str] = []
    photo: bytes | None = None
    photo_url: str | None = None
    role: Literal["document", "query"] = "query"
    budget_ms: int = 150


class EncodeAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """`vectors` holds little-endian float32, row after row, `dim` to a row."""

    id: int
    space: str
    dim: int
    vectors: bytes

    def rows(self) -> NDArray[np.float32]:
        """The vectors as `float32[n, dim]`."""
        return np.frombuffer(self.vectors, "<f4").reshape(-1, self.dim)


class EncodeFault(msgspec.Struct, frozen=True, kw_only=True, tag="fault"):
    """Why there is no answer: `overloaded`, `late`, `unknown_space`, `bad_photo`, `bad_request`, `failed`."""

    id: int
    code: str
    detail: str


_requests = msgspec.msgpack.Decoder(EncodeRequest)
_replies = msgspec.msgpack.Decoder(EncodeAnswer | EncodeFault)
_encoder = msgspec.msgpack.Encoder()


def pack_frame(message: EncodeRequest | EncodeAnswer | EncodeFault) -> bytes:
    """A message as one frame."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame's body; None at the end of the stream. Raises `ConnectionError` for a bad length."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > FRAME_LIMIT:
            raise ConnectionError(f"a frame of {size} bytes")
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        return None


def decode_request(body: bytes) -> EncodeRequest:
    """A request from its frame. Raises `msgspec.DecodeError`."""
    try:
        return _requests.decode(body)
    except UnicodeDecodeError as error:  # which msgspec lets through
        raise msgspec.DecodeError(str(error)) from error


def parse_address(address: str) -> tuple[str, str, int]:
    """`("unix", path, 0)` of `unix:///path`, `("tcp", host, port)` of `tcp://127.0.0.1:port`.

    Raises `ValueError` for anything else: the server trusts whoever reaches it, so TCP is loopback only.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return "unix", rest, 0
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host in {"127.0.0.1", "localhost", "[::1]"} and port.isdecimal():
        return "tcp", host.strip("[]"), int(port)
    raise ValueError(f"{address!r} is no encoder address; use unix:///path or tcp://127.0.0.1:port")


class EncoderClient:
    """One multiplexed connection to the encode worker, made at first use and again when it breaks.

    Belongs to one event loop. After a connection fails, calls fail at once for 250 ms instead of each
    waiting for its own refusal.
    """

    def __init__(self, address: str, *, budget_s: float = _BUDGET_S) -> None:
        """`address` as `parse_address` takes it; `budget_s` is the time a call for texts may take."""
        self._kind, self._place, self._port = parse_address(address)
        self._budget_s = budget_s
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[EncodeAnswer | EncodeFault]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._refused_at = float("-inf")

    async def encode_texts(
        self, texts: Sequence[str], space: str, *, role: Literal["document", "query"] = "query"
    ) -> NDArray[np.float32]:
        """`float32[len(texts), dim]` in `space`. Raises `EncoderUnavailable` within the budget."""
        budget_ms = int(self._budget_s * 1000)
        request = EncodeRequest(id=next(self._ids), space=space, texts=list(texts), role=role, budget_ms=budget_ms)
        return await self._call(request, self._budget_s)

    async def encode_photo(
        self,
        space: str,
        *,
        photo: bytes | None = None,
        url: str | None = None,
        budget_s: float = _PHOTO_BUDGET_S,
    ) -> NDArray[np.float32]:
        """`float32[1, dim]` of one photo, by its bytes or by a public address that the worker fetches.

        Raises `QueryNotEncodable` where the photo cannot be read, else `EncoderUnavailable`.
        """
        request = EncodeRequest(
            id=next(self._ids), space=space, photo=photo, photo_url=url, budget_ms=int(budget_s * 1000)
        )
        return await self._call(request, budget_s)

    async def close(self) -> None:
        """Close the connection; calls that wait get `EncoderUnavailable`."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        self._drop()

    async def _call(self, request: EncodeRequest, budget_s: float) -> NDArray[np.float32]:
        try:
            async with asyncio.timeout(budget_s):
                reply = await self._ask(request)
        except TimeoutError:
            raise EncoderUnavailable(f"The encode worker did not answer within {budget_s * 1000:.0f} ms.") from None
        except OSError as error:
            raise EncoderUnavailable(f"The encode worker cannot be reached ({error}).") from error
        if isinstance(reply, EncodeFault):
            if reply.code in {"bad_photo", "bad_request"}:
                raise QueryNotEncodable(reply.detail)
            raise EncoderUnavailable(reply.detail)
        return reply.rows()

    async def _ask(self, request: EncodeRequest) -> EncodeAnswer | EncodeFault:
        writer = await self._connect()
        frame = pack_frame(request)
        if len(frame) > FRAME_LIMIT:
            raise QueryNotEncodable("The query is too large to be encoded; 10 MB is the limit for a photo.")
        reply: asyncio.Future[EncodeAnswer | EncodeFault] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = reply
        try:
            writer.write(frame)
            await writer.drain()
            return await reply
        finally:
            self._waiting.pop(request.id, None)

    async def _connect(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is not None and not self._writer.is_closing():
                return self._writer
            loop = asyncio.get_running_loop()
            if loop.time() - self._refused_at < _PAUSE_S:
                raise ConnectionError("it was away a moment ago")
            try:
                if self._kind == "unix":
                    reader, writer = await asyncio.open_unix_connection(self._place)
                else:
                    reader, writer = await asyncio.open_connection(self._place, self._port)
            except OSError:
                self._refused_at = loop.time()
                raise
            self._writer = writer
            self._reading = asyncio.create_task(self._read(reader, writer))
            return writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (body := await read_frame(reader)) is not None:
                reply = _replies.decode(body)
                waiting = self._waiting.get(reply.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            pass  # the same as the end of the stream: everyone who waits is told below
        finally:
            if self._writer is writer:
                self._drop()

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the connection broke"))
