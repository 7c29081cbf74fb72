"""The file that an import reads: opened from the blob store, gone on with where it stopped, told of line by line."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import BinaryIO, Final

from msgspec import Struct

from infra.blob import BlobMissing, BlobStore
from infra.errors import FieldError, Invalid
from tenants.jobs import JobFault
from workers.feeds.types import FeedFault, FeedReport, FeedRow

ROWS: Final = 1000
"""Rows and faults of one transaction."""

_MOST_OPEN: Final = 4
_CUT_SHORT: Final = frozenset({"truncated", "corrupt_gzip", "gzip_bomb"})

Rows = Sequence[FeedRow | FeedFault]
Reader = Callable[[BinaryIO, FeedReport], Iterator[FeedRow | FeedFault]]
"""Reads a file, and notes in the report what it is. Called in a thread."""


class FeedGone(Invalid):
    """The uploaded feed is not in the blob store any more."""

    code = "feed_gone"
    title = "The uploaded feed is gone"


class Block(Struct, frozen=True, kw_only=True):
    """Rows and faults of one transaction. `ended`: there are no more; `let_go`: another shop's import has its turn."""

    rows: Rows
    ended: bool
    let_go: bool


class OpenSource:
    """A file that is being read; `taken` counts the rows and faults that were read of it, `size` its bytes."""

    def __init__(self, stack: AsyncExitStack, stream: BinaryIO, size: int) -> None:
        self._stack = stack
        self._stream = stream
        self._rows: Iterator[FeedRow | FeedFault] = iter(())
        self.size = size
        self.taken = 0
        self.report = FeedReport()

    def begin(self, reader: Reader, taken: int) -> None:
        """Go to where the last worker was. Runs in a thread."""
        self._rows = reader(self._stream, self.report)
        while self.taken < taken and self._next(min(ROWS, taken - self.taken)):
            pass

    def _next(self, count: int) -> list[FeedRow | FeedFault]:
        rows = list(itertools.islice(self._rows, count))
        self.taken += len(rows)
        return rows

    @property
    def bytes_read(self) -> int:
        """How far into the file it is."""
        return min(self._stream.tell(), self.size)

    async def blocks(self, most: int) -> AsyncIterator[Block]:
        """The next blocks, `most` at most."""
        for at in range(1, most + 1):
            rows = await asyncio.to_thread(self._next, ROWS)
            ended = len(rows) < ROWS
            yield Block(rows=rows, ended=ended, let_go=at == most and not ended)
            if ended:
                return

    async def aclose(self) -> None:
        """Close the file."""
        await self._stack.aclose()


class OpenSources:
    """The files of the jobs that a worker reads by turns, kept open: the next piece need not skip what was read."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._open: dict[object, OpenSource] = {}

    def find(self, job_id: object, taken: int) -> OpenSource | None:
        """The job's file, where it is open and at that place."""
        source = self._open.get(job_id)
        return source if source is not None and source.taken == taken else None

    async def open(self, job_id: object, key: str, reader: Reader, taken: int) -> OpenSource:
        """Open the blob and go to that place; the file that was opened first makes room. Raises FeedGone."""
        await self.close(job_id)
        while len(self._open) >= _MOST_OPEN:
            await self.close(next(iter(self._open)))
        stack = AsyncExitStack()
        try:
            path = await stack.enter_async_context(self._blobs.local_path(key))
            stream = stack.enter_context(await asyncio.to_thread(path.open, "rb"))
            source = OpenSource(stack, stream, path.stat().st_size)
            await asyncio.to_thread(source.begin, reader, taken)
        except BlobMissing:
            await stack.aclose()
            raise FeedGone("The uploaded file is not there any more. Start the import again.") from None
        except BaseException:
            await stack.aclose()
            raise
        self._open[job_id] = source
        return source

    async def read(
        self,
        job_id: object,
        opening: Awaitable[OpenSource],
        most: int,
        store: Callable[[OpenSource, Block], Awaitable[None]],
    ) -> None:
        """Store the next blocks of the file that `opening` gives, `most` at most. At its end it is closed, and when
        something fails: it may have read more than was stored, and the next attempt begins at the last commit.
        """
        ended = False
        try:
            source = await opening
            async for block in source.blocks(most):
                await store(source, block)
                ended = block.ended
        except BaseException:
            await self.close(job_id)
            raise
        if ended:
            await self.close(job_id)

    async def close(self, job_id: object) -> None:
        """Close the job's file, if it is open."""
        source = self._open.pop(job_id, None)
        if source is not None:
            await source.aclose()

    async def close_all(self) -> None:
        """Close all that are open."""
        for job_id in list(self._open):
            await self.close(job_id)


def find_problem(faults: Sequence[JobFault], *, nothing: bool, empty: str) -> str | None:
    """What makes an import as a whole a failure: the file stops early, or it ended and there was `nothing` in it, of
    which the first error says why, or `empty`.
    """
    cut = next((fault for fault in faults if fault.code in _CUT_SHORT), None)
    if cut is not None:
        return cut.message
    if not nothing:
        return None
    first = next((fault for fault in faults if fault.severity == "error"), None)
    return first.message if first else empty


def feed_fault(fault: FeedFault) -> JobFault:
    """A fault of the file as the job keeps it."""
    return JobFault(
        line=fault.line or None,
        item_id=None if fault.item_id is None else _storable(fault.item_id),
        severity=fault.severity,
        code=fault.code,
        pointer=_storable(fault.pointer),
        message=_storable(fault.message),
    )


def row_fault(row: FeedRow, fault: FieldError, *, item_id: object = None) -> JobFault:
    """A fault of a row as the job keeps it; `item_id` whose row it is, where that may be told."""
    return JobFault(
        line=row.line,
        item_id=_storable(item_id)[:128] if isinstance(item_id, str) else None,
        severity="error",
        code=fault.code,
        pointer=_storable(fault.pointer),
        message=_storable(fault.message),
    )


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL, and a fault may quote one."""
    return text.replace("\0", "\ufffd")
