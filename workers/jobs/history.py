"""Imports of old events: a thousand lines to a transaction, each of which says how far it got.

A worker that dies loses the lines since its last commit; whoever takes the job up skips what was committed. An event
is stored once, however often its file is imported: by its id and time, and where it has no id by all that it says.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from infra.blob import BlobMissing, BlobStore
from infra.db import Database, driver
from infra.decode import faults
from infra.errors import FieldError
from infra.partitions import floor_to, make_partition
from tenants.audience.shoppers import number_ids
from tenants.catalog.imports import HistoryRequest
from tenants.events.agents import is_bot
from tenants.events.event import BOT, Event, check, ids_of, numbered, rows_of
from tenants.events.history import history_window, store_history
from tenants.jobs import LEASE, ClaimedJob, JobFault, advance, finish
from tenants.lifecycle import load_tenant
from workers.feeds.history import read_history
from workers.feeds.types import ColumnUse, FeedFault, FeedReport, FeedRow
from workers.jobs.encode import Clock, utc_now
from workers.jobs.imports import FeedGone

log = structlog.get_logger(__name__)

ROWS: Final = 1000
PIECE: Final = 50
"""Transactions after which another shop's import has its turn."""

_OPEN_FILES: Final = 4
_CUT_SHORT: Final = frozenset({"truncated", "corrupt_gzip", "gzip_bomb"})

_encode = msgspec.json.Encoder().encode


class HistoryState(Struct, kw_only=True):
    """How far an import got; `taken`: lines and faults of the file that are committed."""

    taken: int = 0
    read: bool = False
    problem: str | None = None
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    bots: int = 0
    types: dict[str, int] = {}
    earliest: datetime | None = None
    latest: datetime | None = None


class HistoryReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a shop is told of its history. `types` counts all good events; `duplicate`: those that were there before."""

    stored: int
    duplicate: int
    rejected: int
    bots: int
    types: dict[str, int]
    earliest: datetime | None
    latest: datetime | None
    format: str | None
    columns: dict[str, ColumnUse] = {}


class _OpenFile:
    """A file that is being read; `taken` counts what was read of it."""

    def __init__(self, stack: AsyncExitStack, currency: str) -> None:
        self.stack = stack
        self.currency = currency
        self.taken = 0
        self.report = FeedReport()
        self.rows: Iterator[FeedRow | FeedFault] = iter(())

    def next_rows(self, count: int) -> list[FeedRow | FeedFault]:
        """The next lines and faults, fewer than `count` only at the end. Runs in a thread."""
        rows = list(itertools.islice(self.rows, count))
        self.taken += len(rows)
        return rows

    def skip(self, count: int) -> None:
        """Go to where the last worker was. Runs in a thread."""
        while self.taken < count and self.next_rows(min(ROWS, count - self.taken)):
            pass


class _Checked(Struct):
    """The good events of some lines, the line of each, and the faults of the others."""

    events: list[Event]
    flags: list[int]
    faults: list[JobFault]


class HistoryImports:
    """The handler of imports of events."""

    def __init__(self, database: Database, blobs: BlobStore, *, clock: Clock = utc_now, piece: int = PIECE) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._piece = piece
        self._open: dict[object, _OpenFile] = {}
        self._months: set[datetime] = set()

    async def close(self) -> None:
        """Close the files that are still open."""
        for job_id in list(self._open):
            await self._close(job_id)

    async def __call__(self, job: ClaimedJob) -> None:
        """Read and store a piece of the file."""
        request = msgspec.json.decode(job.payload, type=HistoryRequest)
        state = msgspec.json.decode(job.state, type=HistoryState)
        if not state.read:
            try:
                file = await self._file(job, request, state)
                for at in range(1, self._piece + 1):
                    rows = await asyncio.to_thread(file.next_rows, ROWS)
                    state.read = len(rows) < ROWS
                    await self._store(job, state, file, rows, let_go=at == self._piece and not state.read)
                    if state.read:
                        break
            except BaseException:
                # It may have read more than it stored: the next attempt begins at the last commit.
                await self._close(job.job_id)
                raise
            if not state.read:
                return
            await self._close(job.job_id)
        await self._blobs.delete(request.source.key)
        async with self._database.tenant_session(job.tenant_id) as conn:
            await finish(
                conn,
                job,
                "done" if state.problem is None else "failed",
                now=self._clock(),
                error=state.problem,
            )
        log.info("history.ended", stored=state.stored, duplicate=state.duplicate, rejected=state.rejected)

    async def _file(self, job: ClaimedJob, request: HistoryRequest, state: HistoryState) -> _OpenFile:
        file = self._open.get(job.job_id)
        if file is not None and file.taken == state.taken:
            return file
        await self._close(job.job_id)
        while len(self._open) >= _OPEN_FILES:
            await self._close(next(iter(self._open)))
        async with self._database.tenant_session(job.tenant_id) as conn:
            tenant = await load_tenant(conn, job.tenant_id)
        stack = AsyncExitStack()
        try:
            path = await stack.enter_async_context(self._blobs.local_path(request.source.key))
            stream = stack.enter_context(await asyncio.to_thread(path.open, "rb"))
            file = _OpenFile(stack, tenant.currency)
            file.rows = read_history(
                stream,
                format=request.format,
                default_currency=tenant.currency,
                default_type=request.default_type,
                report=file.report,
            )
            await asyncio.to_thread(file.skip, state.taken)
        except BlobMissing:
            await stack.aclose()
            raise FeedGone("The uploaded file is not there any more. Start the import again.") from None
        except BaseException:
            await stack.aclose()
            raise
        self._open[job.job_id] = file
        return file

    async def _close(self, job_id: object) -> None:
        file = self._open.pop(job_id, None)
        if file is not None:
            await file.stack.aclose()

    async def _store(
        self,
        job: ClaimedJob,
        state: HistoryState,
        file: _OpenFile,
        rows: Sequence[FeedRow | FeedFault],
        *,
        let_go: bool,
    ) -> None:
        """One transaction: the events, the faults, and how far the job got; before it the numbers and partitions."""
        now = self._clock()
        checked = await asyncio.to_thread(_check, rows, job.started_at)
        events = checked.events
        await self._make_months({floor_to("month", event.ts) for event in events if event.ts is not None})
        shoppers, items = ids_of(events)
        async with self._database.tenant_session(job.tenant_id) as conn:
            # A transaction of its own: a live visitor who is new must not wait for a thousand rows.
            shopper_nos, item_nos = await number_ids(await driver(conn), job.tenant_id, sorted(shoppers), sorted(items))
        made = await asyncio.to_thread(
            rows_of,
            job.tenant_id,
            events,
            numbered(len(events)),
            checked.flags,
            shoppers=shopper_nos,
            items=item_nos,
            now=now,
            secret=None,
        )
        async with self._database.tenant_session(job.tenant_id) as conn:
            new = await store_history(await driver(conn), job.tenant_id, made)
            rejected = sum(fault.severity == "error" for fault in checked.faults if not _of_the_file(fault))
            state.taken = file.taken
            state.stored += new
            state.duplicate += len(events) - new
            state.rejected += rejected
            state.bots += sum(flag != 0 for flag in checked.flags)
            state.types = dict((Counter(state.types) + Counter(event.type for event in events)).most_common(50))
            times = [event.ts for event in events if event.ts is not None]
            state.earliest = min([*times, *([state.earliest] if state.earliest else [])], default=None)
            state.latest = max([*times, *([state.latest] if state.latest else [])], default=None)
            _note_problem(state, checked.faults)
            await advance(
                conn,
                job,
                now=now,
                done=len(events),
                failed=rejected,
                total=state.stored + state.duplicate + state.rejected if state.read else None,
                state=state,
                report=_report(state, file.report),
                faults=checked.faults,
                lease=timedelta(0) if let_go else LEASE,
            )

    async def _make_months(self, months: set[datetime]) -> None:
        missing = sorted(months - self._months)
        if not missing:
            return
        async with self._database.system_session(reason="partitions of an imported history") as system:
            raw = await driver(system)
            for first in missing:
                await make_partition(raw, "events", "month", first)
        self._months |= months


def _check(rows: Sequence[FeedRow | FeedFault], started_at: datetime) -> _Checked:
    """The good events; the window is that of the import's beginning, so that taking it up again changes nothing."""
    window = history_window(started_at)
    made = _Checked([], [], [])
    for row in rows:
        if isinstance(row, FeedFault):
            made.faults.append(_feed_fault(row))
            continue
        try:
            event = msgspec.convert(row.item, Event)
        except msgspec.ValidationError:
            made.faults += [_row_fault(row, fault) for fault in faults(row.item, Event)[:10]]
            continue
        found = check(event, window, texts=True)
        if event.ts is None:
            found.append(FieldError(pointer="/ts", code="missing_field", message="An old event says when it was."))
        if found:
            made.faults += [_row_fault(row, fault) for fault in found]
            continue
        if event.event_id is None:
            digest = blake2b(_encode(event), digest_size=12).hexdigest()
            event = msgspec.structs.replace(event, event_id=f"line-{digest}")
        agent = event.context.get("user_agent")
        made.events.append(event)
        made.flags.append(BOT if isinstance(agent, str) and is_bot(agent) else 0)
    return made


def _note_problem(state: HistoryState, found: Sequence[JobFault]) -> None:
    """What makes the import as a whole a failure: the file stops early, or holds no event."""
    if state.problem is not None:
        return
    cut = next((fault for fault in found if fault.code in _CUT_SHORT), None)
    if cut is not None:
        state.problem = cut.message
    elif state.read and not state.stored and not state.duplicate:
        first = next((fault for fault in found if fault.severity == "error"), None)
        state.problem = first.message if first else "The file holds no events."


def _report(state: HistoryState, read: FeedReport) -> HistoryReport:
    return HistoryReport(
        stored=state.stored,
        duplicate=state.duplicate,
        rejected=state.rejected,
        bots=state.bots,
        types=state.types,
        earliest=state.earliest,
        latest=state.latest,
        format=read.format,
        columns=dict(itertools.islice(read.columns.items(), 200)),
    )


def _of_the_file(fault: JobFault) -> bool:
    return fault.line is None


def _feed_fault(fault: FeedFault) -> JobFault:
    return JobFault(
        line=fault.line or None,
        item_id=None,
        severity=fault.severity,
        code=fault.code,
        pointer=_storable(fault.pointer),
        message=_storable(fault.message),
    )


def _row_fault(row: FeedRow, fault: FieldError) -> JobFault:
    # No id of a shopper: faults are kept for a month, and an erasure does not look for them.
    return JobFault(
        line=row.line,
        item_id=None,
        severity="error",
        code=fault.code,
        pointer=_storable(fault.pointer),
        message=_storable(fault.message),
    )


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL, and a fault may quote one."""
    return text.replace("\0", "\ufffd")
