"""Encodes search queries for the API processes, over a Unix socket or loopback TCP.

Requests that arrive while the session is busy form the next batch, so a lone query waits for nothing and
many share a run. The queue is bounded: a query too many is told `overloaded` and answered by words.
"""

import asyncio
import os
import socket
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
import numpy as np
import structlog

from infra.encoder import (
    EncodeAnswer,
    EncodeFault,
    EncodeRequest,
    decode_request,
    pack_frame,
    parse_address,
    read_frame,
)
from infra.errors import Invalid, KindredError
from workers.encoders.types import FloatArray, ImageEncoder, Photo, TextEncoder

FetchPhoto = Callable[[str], Awaitable[bytes]]
DecodePhoto = Callable[[bytes], Photo]

_log = structlog.get_logger(__name__)

_QUEUE = 256
_BATCH = 32
_TEXTS = 64
"""Texts of one request: this server is for queries, catalogues are encoded by the worker itself."""


class _Waiting(msgspec.Struct, eq=False):
    """A request in the queue, with whom to answer and when it came (the loop's clock)."""

    request: EncodeRequest
    writer: asyncio.StreamWriter
    arrived: float
    photo: bytes | None = None


class EncodeServer:
    """Serves the encoders given, each under its space's name.

    `texts` and `photos` are read at each request, so spaces may be added and removed while it runs.
    """

    def __init__(
        self,
        *,
        texts: Mapping[str, TextEncoder],
        photos: Mapping[str, ImageEncoder],
        fetch_photo: FetchPhoto | None = None,
        decode_photo: DecodePhoto | None = None,
        queue: int = _QUEUE,
        batch: int = _BATCH,
    ) -> None:
        """`queue` requests may wait, `batch` share one run. Without `fetch_photo` no address is fetched."""
        self._texts = texts
        self._photos = photos
        self._fetch_photo = fetch_photo
        self._decode_photo = decode_photo or _safe_decoder()
        self._limit = queue
        self._batch = batch
        self._queue: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode-queries")
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._runner: asyncio.Task[None] | None = None
        self._path: str | None = None

    async def start(self, address: str) -> None:
        """Listen on `address`. A socket file that nobody answers at is replaced. Raises `OSError`."""
        kind, place, port = parse_address(address)
        if kind == "unix":
            _remove_stale(place)
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, place)
            finally:
                os.umask(before)
            self._path = place
        else:
            self._server = await asyncio.start_server(self._serve, place, port)
        self._runner = asyncio.create_task(self._run())

    @property
    def port(self) -> int:
        """The TCP port in use, for an address with port 0."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, answer what is in the queue, then close every connection."""
        if self._server is not None:
            self._server.close()
        while self._queue:
            await self._step()
        tasks = [*self._tasks, *([self._runner] if self._runner else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.close()
        self._pool.shutdown(wait=False)
        if self._path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (body := await read_frame(reader)) is not None:
                self._take(decode_request(body), writer)
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("encoder.connection_refused", reason=str(error))
        except asyncio.CancelledError:
            pass  # close() ends the connections; asyncio's own callback would log this as an error
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(self, request: EncodeRequest, writer: asyncio.StreamWriter) -> None:
        """Put a request into the queue, or refuse it."""
        waiting = _Waiting(request, writer, asyncio.get_running_loop().time(), request.photo)
        has_photo = request.photo is not None or request.photo_url is not None
        if has_photo == bool(request.texts) or len(request.texts) > _TEXTS:
            return _answer(waiting, _fault(waiting, "bad_request", f"Send 1 to {_TEXTS} texts, or one photo."))
        if request.space not in (self._photos if has_photo else self._texts):
            detail = f"The encode worker has no space {request.space}; it may still be loading."
            return _answer(waiting, _fault(waiting, "unknown_space", detail))
        if len(self._queue) + len(self._tasks) >= self._limit:
            detail = "The encode worker has too many queries waiting. Try again in a moment."
            return _answer(waiting, _fault(waiting, "overloaded", detail))
        if request.photo_url is not None and request.photo is None:
            task = asyncio.create_task(self._fetch(waiting, request.photo_url))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return None
        self._queue.append(waiting)
        self._more.set()
        return None

    async def _fetch(self, waiting: _Waiting, address: str) -> None:
        """Get the photo first, so that a slow image server holds nobody else up."""
        try:
            if self._fetch_photo is None:
                raise Invalid("Photos by address are not fetched here; send the photo itself.")
            async with asyncio.timeout(waiting.request.budget_ms / 1000):
                waiting.photo = await self._fetch_photo(address)
        except KindredError as error:
            return _answer(waiting, _fault(waiting, "bad_photo", error.detail))
        except TimeoutError:
            return _answer(waiting, _fault(waiting, "late", "The photo's server was too slow."))
        self._queue.append(waiting)
        self._more.set()
        return None

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._queue:
                await self._step()

    async def _step(self) -> None:
        """Encode what waits, up to one batch."""
        now = asyncio.get_running_loop().time()
        groups: dict[tuple[str, str, bool], list[_Waiting]] = {}
        for _ in range(min(self._batch, len(self._queue))):
            waiting = self._queue.popleft()
            request = waiting.request
            if now - waiting.arrived > request.budget_ms / 1000:
                _answer(waiting, _fault(waiting, "late", "The encode worker was too busy to answer in time."))
                continue
            groups.setdefault((request.space, request.role, bool(request.texts)), []).append(waiting)
        loop = asyncio.get_running_loop()
        for (space, _, is_text), group in groups.items():
            try:
                encode = self._encode_texts if is_text else self._encode_photos
                replies = await loop.run_in_executor(self._pool, encode, space, group)
            except Exception:
                _log.exception("encoder.failed", space=space)
                detail = "The encode worker failed. The failure is in its log."
                replies = [_fault(waiting, "failed", detail) for waiting in group]
            for waiting, reply in zip(group, replies, strict=True):
                _answer(waiting, reply)

    def _encode_texts(self, space: str, group: list[_Waiting]) -> list[EncodeAnswer | EncodeFault]:
        texts = [text for waiting in group for text in waiting.request.texts]
        rows = self._texts[space].encode(texts, role=group[0].request.role)
        replies: list[EncodeAnswer | EncodeFault] = []
        start = 0
        for waiting in group:
            end = start + len(waiting.request.texts)
            replies.append(_vectors(waiting, rows[start:end]))
            start = end
        return replies

    def _encode_photos(self, space: str, group: list[_Waiting]) -> list[EncodeAnswer | EncodeFault]:
        replies: dict[int, EncodeAnswer | EncodeFault] = {}
        photos: list[Photo] = []
        readable: list[int] = []
        for index, waiting in enumerate(group):
            try:
                photos.append(self._decode_photo(waiting.photo or b""))
                readable.append(index)
            except KindredError as error:
                replies[index] = _fault(waiting, "bad_photo", error.detail)
        if photos:
            rows = self._photos[space].encode(photos)
            for row, index in enumerate(readable):
                replies[index] = _vectors(group[index], rows[row : row + 1])
        return [replies[index] for index in range(len(group))]


def _vectors(waiting: _Waiting, rows: FloatArray) -> EncodeAnswer:
    data = np.ascontiguousarray(rows, "<f4").tobytes()
    return EncodeAnswer(id=waiting.request.id, space=waiting.request.space, dim=rows.shape[1], vectors=data)


def _fault(waiting: _Waiting, code: str, detail: str) -> EncodeFault:
    return EncodeFault(id=waiting.request.id, code=code, detail=detail)


def _answer(waiting: _Waiting, reply: EncodeAnswer | EncodeFault) -> None:
    """Send a reply. Replies are small and few, so the buffer is not waited for; a gone client is nobody's."""
    if not waiting.writer.is_closing():
        waiting.writer.write(pack_frame(reply))


def _safe_decoder() -> DecodePhoto:
    from workers.encoders.photo import decode_photo

    return decode_photo


def _remove_stale(path: str) -> None:
    """Remove the socket file that a killed worker left; one that answers is in use and stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(f"{path} exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
    raise OSError(f"another encode worker listens on {path}")
