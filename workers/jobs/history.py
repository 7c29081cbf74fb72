"""Imports of old events: a thousand lines to a transaction, each of which says how far it got.

A worker that dies loses the lines since its last commit; whoever takes the job up skips what was committed. An event
is stored once, however often its file is imported: by its id and time, and where it has no id by all that it says.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Set
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import BinaryIO, Final

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.entitlements import Mode, plan_for
from billing.quotas import use_month
from infra.blob import BlobStore
from infra.clock import Clock, utc_now
from infra.db import Database, driver
from infra.decode import faults
from infra.errors import FieldError, Overloaded
from infra.partitions import floor_to, make_partition
from infra.secret import Secret
from tenants.audience.shoppers import USER, VISITOR, number_ids
from tenants.audience.users import erased_since, subject_hash
from tenants.catalog.imports import HistoryRequest, uploaded_at
from tenants.events.agents import is_bot
from tenants.events.event import BOT, Event, check, ids_of, numbered, rows_of, shopper_of
from tenants.events.history import history_window, store_history
from tenants.jobs import LEASE, ClaimedJob, JobFault, advance, finish
from tenants.lifecycle import load_tenant
from workers.feeds.history import read_history
from workers.feeds.types import ColumnUse, FeedFault, FeedReport, FeedRow
from workers.jobs.open_source import Block, OpenSource, OpenSources, Rows, feed_fault, find_problem, row_fault

log = structlog.get_logger(__name__)

PIECE: Final = 50
"""Transactions after which another shop's import has its turn."""

_encode = msgspec.json.Encoder().encode


class ErasedMeanwhile(Overloaded):
    """A person in an imported file was erased in the moment in which the file was read."""

    code = "erased_meanwhile"
    title = "A person was erased meanwhile"


class HistoryState(Struct, kw_only=True):
    """How far an import got; `taken`: lines and faults of the file that are committed."""

    taken: int = 0
    read: bool = False
    problem: str | None = None
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    bots: int = 0
    erased: int = 0
    types: dict[str, int] = {}
    earliest: datetime | None = None
    latest: datetime | None = None


class HistoryReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a shop is told of its history. `types` counts all good events; `duplicate`: those that were there before;
    `erased`: those of people who were erased after the file was sent, which are not stored.
    """

    stored: int
    duplicate: int
    rejected: int
    bots: int
    types: dict[str, int]
    earliest: datetime | None
    latest: datetime | None
    format: str | None
    columns: dict[str, ColumnUse] = {}
    erased: int = 0


class _Checked(Struct):
    """The good events of some lines, the line of each, and the faults of the others."""

    events: list[Event]
    flags: list[int]
    faults: list[JobFault]


class HistoryImports:
    """The handler of imports of events."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        secret: Secret,
        mode: Mode = "licence",
        clock: Clock = utc_now,
        piece: int = PIECE,
    ) -> None:
        """`secret`: what erased ids are hashed with."""
        self._secret = secret
        self._database = database
        self._blobs = blobs
        self._mode: Mode = mode
        self._clock = clock
        self._piece = piece
        self._sources = OpenSources(blobs)
        self._months: set[datetime] = set()

    async def close(self) -> None:
        """Close the files that are still open."""
        await self._sources.close_all()

    async def __call__(self, job: ClaimedJob) -> None:
        """Read and store a piece of the file."""
        request = msgspec.json.decode(job.payload, type=HistoryRequest)
        state = msgspec.json.decode(job.state, type=HistoryState)
        if not state.read:
            await self._sources.read(
                job.job_id, self._source(job, request, state), self._piece, partial(self._store, job, state)
            )
            if not state.read:
                return
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

    async def _source(self, job: ClaimedJob, request: HistoryRequest, state: HistoryState) -> OpenSource:
        source = self._sources.find(job.job_id, state.taken)
        if source is not None:
            return source
        async with self._database.tenant_session(job.tenant_id) as conn:
            tenant = await load_tenant(conn, job.tenant_id)

        def read(stream: BinaryIO, report: FeedReport) -> Iterator[FeedRow | FeedFault]:
            return read_history(
                stream,
                format=request.format,
                default_currency=tenant.currency,
                default_type=request.default_type,
                report=report,
            )

        return await self._sources.open(job.job_id, request.source.key, read, state.taken)

    async def _store(self, job: ClaimedJob, state: HistoryState, source: OpenSource, block: Block) -> None:
        """One transaction: the events, the faults, and how far the job got; before it the numbers and partitions.

        Raises MonthlyQuotaReached where the plan includes no more; what came before these is stored.
        """
        now = self._clock()
        checked = await asyncio.to_thread(_check, block.rows, job.started_at)
        await self._make_months({floor_to("month", event.ts) for event in checked.events if event.ts is not None})
        async with self._database.tenant_session(job.tenant_id) as conn:
            # A transaction of its own: a live visitor who is new must not wait for a thousand rows.
            erased = await self._leave_out_erased(conn, job, checked)
            events = checked.events
            shoppers, items = ids_of(events)
            shopper_nos, item_nos = await number_ids(await driver(conn), job.tenant_id, sorted(shoppers), sorted(items))
            if await self._erased(conn, job, shoppers):
                raise ErasedMeanwhile("A person was erased while the file was read; it is read again from here.")
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
            tenant = await load_tenant(conn, job.tenant_id)
            new = await store_history(await driver(conn), job.tenant_id, made)
            rejected = sum(fault.severity == "error" for fault in checked.faults if not _of_the_file(fault))
            state.taken, state.read = source.taken, block.ended
            state.stored += new
            state.duplicate += len(events) - new
            state.rejected += rejected
            state.erased += erased
            state.bots += sum(flag != 0 for flag in checked.flags)
            state.types = dict((Counter(state.types) + Counter(event.type for event in events)).most_common(50))
            times = [event.ts for event in events if event.ts is not None]
            state.earliest = min([*times, *([state.earliest] if state.earliest else [])], default=None)
            state.latest = max([*times, *([state.latest] if state.latest else [])], default=None)
            state.problem = state.problem or find_problem(
                checked.faults,
                nothing=state.read and not state.stored and not state.duplicate,
                empty="The file holds no events.",
            )
            await advance(
                conn,
                job,
                now=now,
                done=len(events),
                failed=rejected,
                total=state.stored + state.duplicate + state.rejected if state.read else None,
                state=state,
                report=_report(state, source.report),
                faults=checked.faults,
                lease=timedelta(0) if block.let_go else LEASE,
            )
            await use_month(conn, plan_for(self._mode, tenant), job.tenant_id, "events", new, now=now)

    async def _leave_out_erased(self, conn: AsyncConnection, job: ClaimedJob, checked: _Checked) -> int:
        """Drop the events of people who were erased after the file was sent, lest it brings them back; how many."""
        erased = await self._erased(conn, job, ids_of(checked.events)[0])
        kept = [at for at, event in enumerate(checked.events) if shopper_of(event) not in erased]
        left_out = len(checked.events) - len(kept)
        if left_out:
            checked.flags = [checked.flags[at] for at in kept]
            checked.events = [checked.events[at] for at in kept]
        return left_out

    async def _erased(self, conn: AsyncConnection, job: ClaimedJob, shoppers: Set[str]) -> frozenset[str]:
        subjects = {
            subject_hash(secret, job.tenant_id, USER if key[0] == "u" else VISITOR, key[1:]): key
            for key in shoppers
            for secret in self._secret.every
        }
        request = msgspec.json.decode(job.payload, type=HistoryRequest)
        sent = min(job.created_at, uploaded_at(request.source.key) or job.created_at)
        return frozenset(subjects[each] for each in await erased_since(conn, job.tenant_id, list(subjects), sent))

    async def _make_months(self, months: set[datetime]) -> None:
        missing = sorted(months - self._months)
        if not missing:
            return
        async with self._database.system_session(reason="partitions of an imported history") as system:
            raw = await driver(system)
            for first in missing:
                await make_partition(raw, "events", "month", first)
        self._months |= months


def _check(rows: Rows, started_at: datetime) -> _Checked:
    """The good events; the window is that of the import's beginning, so that taking it up again changes nothing."""
    window = history_window(started_at)
    made = _Checked([], [], [])
    for row in rows:
        if isinstance(row, FeedFault):
            made.faults.append(feed_fault(row))
            continue
        try:
            event = msgspec.convert(row.item, Event)
        except msgspec.ValidationError:
            # No id of a shopper: faults are kept for a month, and an erasure does not look for them.
            made.faults += [row_fault(row, fault) for fault in faults(row.item, Event)[:10]]
            continue
        found = check(event, window, texts=True)
        if event.ts is None:
            found.append(FieldError(pointer="/ts", code="missing_field", message="An old event says when it was."))
        if found:
            made.faults += [row_fault(row, fault) for fault in found]
            continue
        if event.event_id is None:
            digest = blake2b(_encode(event), digest_size=12).hexdigest()
            event = msgspec.structs.replace(event, event_id=f"line-{digest}")
        agent = event.context.get("user_agent")
        made.events.append(event)
        made.flags.append(BOT if isinstance(agent, str) and is_bot(agent) else 0)
    return made


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
        erased=state.erased,
    )


def _of_the_file(fault: JobFault) -> bool:
    return fault.line is None
