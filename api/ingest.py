"""Group commit: the events of whoever is waiting are stored together, by one statement of the ingest role.

When nobody waits a batch is stored at once; those that come while one is being stored are the next group. An answer
is given after the commit, so what is acknowledged is durable. A group that PostgreSQL refuses is halved until what it
refuses stands alone: one shop's bad row fails nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import asyncpg
import msgspec
import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.clock import Clock
from infra.db import Database, driver
from infra.errors import Overloaded
from infra.telemetry import Children, counter, histogram
from tenants.events.event import EventRow

MAX_WAITING_BYTES: Final = 16_000_000
"""Of encoded rows that wait; beyond it a request is told to come again."""

GROUP_BYTES: Final = 1_000_000
"""A group is closed when it has as many: longer statements are no faster and hold their locks longer."""

_ATTEMPTS: Final = 3
_TAKE: Final = "select event_no::text, same_body from take_events($1::text::jsonb, $2)"
_TAKE_OWN: Final = "select event_no::text, same_body from take_own_events($1::text::jsonb, $2)"

_groups = histogram("events_group_rows", "Rows stored by one statement.", buckets=(1, 3, 10, 30, 100, 300, 1000, 3000))
_seconds = histogram("events_group_seconds", "Time to store a group.")
_refused: Final = Children(counter("events_refused_total", "Events that could not be stored.", ["reason"]))

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


class IngestBusy(Overloaded):
    """More events wait to be stored than this process holds."""

    code = "ingest_busy"
    title = "Too many events are waiting"


class Outcome(Struct, kw_only=True):
    """What became of a batch, by the number of the event; those that are named nowhere were stored.

    `repeats`: the event_id was taken before; True where the body was the same. `unstorable`: the database refused it.
    """

    repeats: dict[str, bool]
    unstorable: dict[str, str]


class _Batch:
    """The events of one request."""

    __slots__ = ("bytes", "encoded", "events", "future", "outcome")

    def __init__(self, events: Sequence[Sequence[EventRow]]) -> None:
        self.events = events
        self.encoded = _rows_json(events)
        self.bytes = len(self.encoded)
        self.outcome = Outcome(repeats={}, unstorable={})
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class _Part(Struct, frozen=True):
    """Events of one batch inside a group: all of them, unless PostgreSQL refused some."""

    batch: _Batch
    events: Sequence[Sequence[EventRow]]
    encoded: bytes


def _rows_json(events: Sequence[Sequence[EventRow]]) -> bytes:
    """The rows as JSON, without the brackets around them, so that batches can be joined."""
    return _encode([row for rows in events for row in rows])[1:-1]


_Run = Callable[[str, datetime], Awaitable[Sequence[asyncpg.Record]]]
"""Has these rows stored, as JSON, at that moment; the repeats among them."""


class Ingest:
    """Stores batches of events; one statement is under way at a time."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: deque[_Batch] = deque()
        self._waiting_bytes = 0
        self._running: asyncio.Task[None] | None = None

    async def take(self, events: Sequence[Sequence[EventRow]]) -> Outcome:
        """Store the rows of these events; returns when they are durable.

        Raises IngestBusy, and what asyncpg raises when the database is away: then none of them, or all, are stored.
        """
        batch = _Batch(events)
        if self._waiting_bytes and self._waiting_bytes + batch.bytes > MAX_WAITING_BYTES:
            _refused("busy").inc(len(events))
            raise IngestBusy("Events come faster than they can be stored. Nothing of this call was; send it again.")
        self._waiting.append(batch)
        self._waiting_bytes += batch.bytes
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await batch.future

    async def take_inside(self, conn: AsyncConnection, events: Sequence[Sequence[EventRow]]) -> Outcome:
        """The same apart from any group, inside the transaction of the tenant's session `conn`, and committed with it.

        What belongs to the events, such as the answer to be repeated, then stands or falls with them.
        """
        raw = await driver(conn)

        async def run(document: str, moment: datetime) -> Sequence[asyncpg.Record]:
            async with raw.transaction():  # a savepoint: what is refused is halved here too
                records: Sequence[asyncpg.Record] = await raw.fetch(_TAKE_OWN, document, moment)
                return records

        batch = _Batch(events)
        await self._store([_Part(batch, batch.events, batch.encoded)], run)
        return batch.outcome

    async def close(self) -> None:
        """Store what waits."""
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft()]
                size = group[0].bytes
                while self._waiting and size + self._waiting[0].bytes <= GROUP_BYTES:
                    size += self._waiting[0].bytes
                    group.append(self._waiting.popleft())
                self._waiting_bytes -= size
                await self._settle(group)
        finally:
            self._running = None

    async def _settle(self, group: Sequence[_Batch]) -> None:
        try:
            await self._store([_Part(batch, batch.events, batch.encoded) for batch in group], self._run_group)
        except Exception as error:
            for batch in group:
                if not batch.future.done():
                    batch.future.set_exception(error)
                    # A client that hung up asks no more.
                    batch.future.exception()
            return
        for batch in group:
            if not batch.future.done():
                batch.future.set_result(batch.outcome)

    async def _store(self, parts: list[_Part], run: _Run) -> None:
        try:
            repeats = await self._take(parts, run)
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] not in _POISON:
                raise
            await self._halve(parts, run, error)
            return
        for number, same in repeats:
            for part in parts:
                # Few: a repeat is rare, and a group has a few dozen parts at most.
                if len(parts) == 1 or any(rows[0].e == number for rows in part.events):
                    part.batch.outcome.repeats[number] = same
                    break

    async def _halve(self, parts: list[_Part], run: _Run, error: asyncpg.PostgresError) -> None:
        """Store the halves of what was refused, apart."""
        if len(parts) > 1:
            middle = len(parts) // 2
            await self._store(parts[:middle], run)
            await self._store(parts[middle:], run)
            return
        (part,) = parts
        if len(part.events) > 1:
            middle = len(part.events) // 2
            for half in (part.events[:middle], part.events[middle:]):
                await self._store([_Part(part.batch, half, _rows_json(half))], run)
            return
        # Defects of ours: what PostgreSQL refuses is to be refused by the checks.
        _log.error("events.unstorable", error=type(error).__name__, sqlstate=error.sqlstate)
        _refused("unstorable").inc()
        part.batch.outcome.unstorable[part.events[0][0].e] = error.sqlstate or "unknown"

    async def _take(self, parts: list[_Part], run: _Run) -> list[tuple[str, bool]]:
        document = b"[" + b",".join([part.encoded for part in parts]) + b"]"
        _groups.observe(sum(len(part.events) for part in parts))
        with _seconds.time():
            records = await run(document.decode(), self._clock())
        return [(record["event_no"], bool(record["same_body"])) for record in records]

    async def _run_group(self, document: str, moment: datetime) -> Sequence[asyncpg.Record]:
        for _ in range(1, _ATTEMPTS):
            # Another process may have counted the same minutes, or seen the same ids, in the same moment.
            with suppress(asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                return await self._fetch(document, moment)
        return await self._fetch(document, moment)

    async def _fetch(self, document: str, moment: datetime) -> Sequence[asyncpg.Record]:
        records: Sequence[asyncpg.Record] = await self._database.ingest.fetch(_TAKE, document, moment)
        return records


_POISON: Final = frozenset({"22", "23", "54"})
"""Classes of SQLSTATE that are about the data itself: of a value, a constraint (no partition), a limit."""
