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
Reply = EncodeAnswer | EncodeFault

_log = structlog.get_logger(__name__)

_QUEUE = 256
_BATCH = 32
_TEXTS = 64
"""Texts of one request: this server is for queries, catalogues are encoded by the worker itself."""


_UNREAD = 8 * 1024 * 1024
"""Bytes of answers that a client may leave unread."""


class _Waiting(msgspec.Struct, eq=False):
    """A request in the queue, with whom to answer and when it came (the loop's clock)."""

    request: EncodeRequest
    writer: asyncio.StreamWriter
    arrived: float
    photo: bytes | None = None


class _Lane:
    """A bounded queue and the thread that empties it, batch by batch.

    Texts and photos have one each, so that decoding a large photo delays no query in words.
    """

    def __init__(self, work: Callable[[list[_Waiting]], list[Reply]], *, limit: int, batch: int) -> None:
        self._work = work
        self._limit = limit
        self._batch = batch
        self._queue: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode-queries")
        self._runner = asyncio.create_task(self._run())

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        return len(self._queue) >= self._limit

    def put(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        self._idle.clear()
        self._more.set()

    async def close(self) -> None:
        """Answer what is in the queue, then end the thread."""
        await self._idle.wait()
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)
        self._pool.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._queue:
                await self._step()
            self._idle.set()

    async def _step(self) -> None:
        """Work off what waits, up to one batch; what came in meanwhile is the next one."""
        loop = asyncio.get_running_loop()
        groups: dict[tuple[str, str], list[_Waiting]] = {}
        for _ in range(min(self._batch, len(self._queue))):
            waiting = self._queue.popleft()
            request = waiting.request
            if loop.time() - waiting.arrived > request.budget_ms / 1000:
                _answer(waiting, _fault(waiting, "late", "The encode worker was too busy to answer in time."))
                continue
            groups.setdefault((request.space, request.role), []).append(waiting)
        for (space, _), group in groups.items():
            try:
                replies = await loop.run_in_executor(self._pool, self._work, group)
            except Exception:
                _log.exception("encoder.failed", space=space)
                detail = "The encode worker failed. The failure is in its log."
                replies = [_fault(waiting, "failed", detail) for waiting in group]
            for waiting, reply in zip(group, replies, strict=True):
                _answer(waiting, reply)


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
        self._lanes: dict[bool, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._path: str | None = None

    async def start(self, address: str) -> None:
        """Listen on `address`. A socket file that nobody answers at is replaced. Raises `OSError`."""
        kind, place, port = parse_address(address)
        for is_text, work in ((True, self._encode_texts), (False, self._encode_photos)):
            self._lanes[is_text] = _Lane(work, limit=self._limit, batch=self._batch)
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

    @property
    def port(self) -> int:
        """The TCP port in use, for an address with port 0."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, answer what is in the queue, then close every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._lanes.values():
            await lane.close()
        for writer in list(self._writers):
            writer.close()
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
        if self._lanes[not has_photo].full or len(self._tasks) >= self._limit:
            detail = "The encode worker has too many queries waiting. Try again in a moment."
            return _answer(waiting, _fault(waiting, "overloaded", detail))
        if request.photo_url is not None and request.photo is None:
            task = asyncio.create_task(self._fetch(waiting, request.photo_url))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return None
        self._lanes[not has_photo].put(waiting)
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
        self._lanes[False].put(waiting)
        return None

    def _encode_texts(self, group: list[_Waiting]) -> list[Reply]:
        texts = [text for waiting in group for text in waiting.request.texts]
        rows = self._texts[group[0].request.space].encode(texts, role=group[0].request.role)
        replies: list[Reply] = []
        start = 0
        for waiting in group:
            end = start + len(waiting.request.texts)
            replies.append(_vectors(waiting, rows[start:end]))
            start = end
        return replies

    def _encode_photos(self, group: list[_Waiting]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        photos: list[Photo] = []
        readable: list[int] = []
        for index, waiting in enumerate(group):
            try:
                photos.append(self._decode_photo(waiting.photo or b""))
                readable.append(index)
            except KindredError as error:
                replies[index] = _fault(waiting, "bad_photo", error.detail)
        if photos:
            rows = self._photos[group[0].request.space].encode(photos)
            for row, index in enumerate(readable):
                replies[index] = _vectors(group[index], rows[row : row + 1])
        return [replies[index] for index in range(len(group))]


def _vectors(waiting: _Waiting, rows: FloatArray) -> EncodeAnswer:
    data = np.ascontiguousarray(rows, "<f4").tobytes()
    return EncodeAnswer(id=waiting.request.id, space=waiting.request.space, dim=rows.shape[1], vectors=data)


def _fault(waiting: _Waiting, code: str, detail: str) -> EncodeFault:
    return EncodeFault(id=waiting.request.id, code=code, detail=detail)


def _answer(waiting: _Waiting, reply: Reply) -> None:
    """Send a reply. One that nobody reads is dropped with its connection rather than kept in memory."""
    writer = waiting.writer
    if writer.is_closing():
        return
    if writer.transport.get_write_buffer_size() > _UNREAD:
        _log.warning("encoder.connection_dropped", reason="answers are not read")
        writer.transport.abort()
        return
    writer.write(pack_frame(reply))


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
