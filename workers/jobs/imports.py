"""Imports: a feed of any size to items, a thousand rows to a transaction, each of which says how far it got.

A worker that dies loses the rows since its last commit and nothing else: whoever takes the job up reads the feed
again and skips what was committed. A long feed is read in pieces, and between two of them other shops' imports
have their turn.
"""

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import BinaryIO, Final

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.entitlements import Mode, plan_for
from billing.quotas import make_room
from infra.blob import BlobStore
from infra.clock import Clock, utc_now
from infra.db import Database, driver
from infra.errors import FieldError, Invalid
from infra.fetch import Fetcher, Incoming
from tenants.catalog.imports import BlobSource, ImportRequest, upload_key
from tenants.catalog.item import check_items
from tenants.catalog.store import delete_items, upsert_items
from tenants.jobs import LEASE, ClaimedJob, JobFault, advance, finish
from tenants.lifecycle import load_tenant
from tenants.webhooks.events import ImportHeld
from tenants.webhooks.outbox import emit
from workers.feeds.read import read_feed
from workers.feeds.types import ColumnUse, FeedFault, FeedReport, FeedRow
from workers.jobs.open_source import ROWS, Block, OpenSource, OpenSources, feed_fault, find_problem, row_fault

log = structlog.get_logger(__name__)

PIECE: Final = 20
"""Transactions after which another shop's import has its turn."""

HELD_SHARE: Final = 0.3
"""A full import that would remove more of the catalogue than this waits for a confirmation."""

MAX_FEED_BYTES: Final = 8_000_000_000
_FEED_S: Final = 1800.0
_COLUMNS_SHOWN: Final = 200
_HELD: Final = "More than 30 % of the catalogue would be removed. Confirm the import, or cancel it."


class ImportState(Struct, kw_only=True):
    """How far an import got.

    `taken`: rows and faults of the feed that are committed. `refused` rows were read but could not be stored;
    `rejected` counts them and those that could not be read. `problem`: why the import as a whole has failed.
    """

    key: str | None = None
    taken: int = 0
    read: bool = False
    problem: str | None = None
    stored: int = 0
    refused: int = 0
    rejected: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    local_photos: int = 0
    confirmed: bool = False


class ImportReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a shop is told: what became of its rows and of each column of its feed.

    `local_photos` counts photos that the feed gives by file name; they are uploaded apart.
    """

    created: int
    updated: int
    unchanged: int
    rejected: int
    warnings: int = 0
    local_photos: int = 0
    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    bytes_read: int | None = None
    bytes_total: int | None = None
    faults: dict[str, int] = {}
    columns: dict[str, ColumnUse] = {}


class EndReport(Struct, frozen=True, kw_only=True):
    """Added to the report at the end. `would_remove` is set while a full import is held."""

    removed: int
    would_remove: int | None
    note: str | None


class Imports:
    """The handler of import jobs. Keeps a few feeds open, so that their next piece need not skip what was read."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        fetcher: Fetcher | None,
        *,
        mode: Mode = "licence",
        clock: Clock = utc_now,
        piece: int = PIECE,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._fetcher = fetcher
        self._mode: Mode = mode
        self._clock = clock
        self._piece = piece
        self._sources = OpenSources(blobs)

    async def close(self) -> None:
        """Close the feeds that are still open."""
        await self._sources.close_all()

    async def __call__(self, job: ClaimedJob) -> None:
        """Read and store a piece of the feed; at its end remove what a full one did not name."""
        request = msgspec.json.decode(job.payload, type=ImportRequest)
        state = msgspec.json.decode(job.state, type=ImportState)
        if not state.read:
            await self._fetch(job, request, state)
            await self._sources.read(
                job.job_id, self._source(job, request, state), self._piece, partial(self._store, job, request, state)
            )
            if not state.read:
                return
        if state.key is not None:
            await self._blobs.delete(state.key)
        await self._end(job, request, state)

    async def _fetch(self, job: ClaimedJob, request: ImportRequest, state: ImportState) -> None:
        """Put a feed from the web into the blob store first: it may be another one the next time."""
        if state.key is not None:
            return
        if isinstance(request.source, BlobSource):
            state.key = request.source.key
            return
        if self._fetcher is None:
            raise Invalid("This worker fetches nothing from the web; upload the feed instead.")
        key = upload_key(job.tenant_id, str(job.job_id))
        async with self._fetcher.stream(request.source.url, max_bytes=MAX_FEED_BYTES, timeout_s=_FEED_S) as incoming:
            await self._blobs.put(key, _pieces(incoming))
        state.key = key
        async with self._database.tenant_session(job.tenant_id) as conn:
            await advance(conn, job, now=self._clock(), state=state)

    async def _source(self, job: ClaimedJob, request: ImportRequest, state: ImportState) -> OpenSource:
        source = self._sources.find(job.job_id, state.taken)
        if source is not None:
            return source
        async with self._database.tenant_session(job.tenant_id) as conn:
            tenant = await load_tenant(conn, job.tenant_id)
        assert state.key is not None
        name = request.file_name
        if name is None and not isinstance(request.source, BlobSource):
            name = request.source.url

        def read(stream: BinaryIO, report: FeedReport) -> Iterator[FeedRow | FeedFault]:
            return read_feed(
                stream,
                format=request.format,
                file_name=name,
                default_currency=tenant.currency,
                report=report,
                now=job.started_at,
            )

        return await self._sources.open(job.job_id, state.key, read, state.taken)

    async def _store(
        self, job: ClaimedJob, request: ImportRequest, state: ImportState, source: OpenSource, block: Block
    ) -> None:
        """One transaction: the items, which of them the feed named, the faults, and how far the job got.

        Raises QuotaReached where the plan has no room for these; what came before them is stored.
        """
        given = [row for row in block.rows if isinstance(row, FeedRow)]
        faults = [feed_fault(row) for row in block.rows if isinstance(row, FeedFault)]
        items, bad = check_items([row.item for row in given])
        faults += [_item_fault(given[fault.index or 0], fault) for fault in bad]
        good = [(row, item) for row, item in zip(given, items, strict=True) if item is not None]
        now = self._clock()
        async with self._database.tenant_session(job.tenant_id) as conn:
            tenant = await load_tenant(conn, job.tenant_id)
            ids = [item.id for _, item in good]
            await make_room(conn, plan_for(self._mode, tenant), job.tenant_id, "items", ids, now=now)
            outcomes = await upsert_items(conn, tenant, [item for _, item in good], now=now)
            refused = len(given) - len(good)
            for (row, _), outcome in zip(good, outcomes, strict=True):
                state.created += outcome.status == "created"
                state.updated += outcome.status == "updated"
                state.unchanged += outcome.status == "unchanged"
                if outcome.error is not None:
                    refused += 1
                    faults.append(_item_fault(row, outcome.error))
            if request.mode == "full":
                named = [row.item.get("id") if isinstance(row, FeedRow) else row.item_id for row in block.rows]
                await _note_seen(conn, job, [item_id for item_id in named if item_id is not None])
            state.taken, state.read = source.taken, block.ended
            state.refused += refused
            state.local_photos += sum(len(row.local_images) for row in given)
            rejected, state.rejected = state.rejected, source.report.rejected + state.refused
            state.stored += len(given) - refused
            state.problem = state.problem or find_problem(
                faults, nothing=state.read and not state.stored, empty="The feed has no items."
            )
            await advance(
                conn,
                job,
                now=now,
                done=len(given) - refused,
                failed=state.rejected - rejected,
                total=state.stored + state.rejected if state.read else None,
                state=state,
                report=_report(state, source),
                faults=sorted(faults, key=lambda fault: fault.line or 0),
                lease=timedelta(0) if block.let_go else LEASE,
            )

    async def _end(self, job: ClaimedJob, request: ImportRequest, state: ImportState) -> None:
        """Remove what a full feed did not name, a thousand at a time, unless that is suspiciously much."""
        if request.mode == "full" and state.problem is None:
            async with self._database.tenant_session(job.tenant_id) as conn:
                raw = await driver(conn)
                total = await raw.fetchval("select count(*) from items where tenant_id = $1", job.tenant_id)
                gone = await raw.fetchval(f"select count(*) from ({_UNNAMED}) i", *_unnamed(job))
                # What was removed already counts too: a job that is taken up again must not come below the share.
                if gone + state.removed > HELD_SHARE * (total + state.removed) and not state.confirmed:
                    now = self._clock()
                    await finish(conn, job, "held", now=now, report=EndReport(removed=0, would_remove=gone, note=_HELD))
                    held = ImportHeld(job_id=job.job_id, items=total, would_remove=gone)
                    await emit(conn, job.tenant_id, "import.held", held, now=now)
                    return
            while await self._remove(job, state):
                pass
        async with self._database.tenant_session(job.tenant_id) as conn:
            await (await driver(conn)).execute(
                "delete from import_seen where tenant_id = $1 and job_id = $2", job.tenant_id, job.job_id
            )
            note = None
            if request.mode == "full" and state.problem is not None:
                note = "Nothing was removed, because the feed was not read to its end."
            await finish(
                conn,
                job,
                "done" if state.problem is None else "failed",
                now=self._clock(),
                error=state.problem,
                report=EndReport(removed=state.removed, would_remove=None, note=note),
            )
        log.info("imports.ended", stored=state.stored, rejected=state.rejected, removed=state.removed)

    async def _remove(self, job: ClaimedJob, state: ImportState) -> int:
        async with self._database.tenant_session(job.tenant_id) as conn:
            raw = await driver(conn)
            records = await raw.fetch(f"{_UNNAMED} order by i.item_no limit {ROWS}", *_unnamed(job))
            if not records:
                return 0
            removed = await delete_items(conn, job.tenant_id, [record["item_no"] for record in records])
            state.removed += removed
            await advance(conn, job, now=self._clock(), state=state)
            return removed


# What was written after the import had begun stays: it is newer than the feed.
_UNNAMED: Final = """
select i.item_no from items i where i.tenant_id = $1 and i.updated_at < $3 and not exists (
    select 1 from import_seen s where s.tenant_id = $1 and s.job_id = $2 and s.item_no = i.item_no)
"""


def _unnamed(job: ClaimedJob) -> tuple[object, ...]:
    return job.tenant_id, job.job_id, job.started_at


async def _note_seen(conn: AsyncConnection, job: ClaimedJob, ids: Sequence[object]) -> None:
    """A row that was refused has named its item too: a mistake in a row must not remove what it meant to change."""
    await (await driver(conn)).execute(
        "insert into import_seen (tenant_id, job_id, item_no) select $1, $2, d.item_no from item_ids d "
        "where d.tenant_id = $1 and d.external_id = any($3::text[]) on conflict do nothing",
        job.tenant_id,
        job.job_id,
        [one for one in ids if isinstance(one, str) and "\0" not in one],
    )


def _report(state: ImportState, source: OpenSource) -> ImportReport:
    read = source.report
    return ImportReport(
        created=state.created,
        updated=state.updated,
        unchanged=state.unchanged,
        rejected=state.rejected,
        warnings=read.warnings,
        local_photos=state.local_photos,
        format=read.format,
        encoding=read.encoding,
        delimiter=read.delimiter,
        bytes_read=source.size if state.read else source.bytes_read,
        bytes_total=source.size,
        faults=dict(read.faults),
        columns=dict(itertools.islice(read.columns.items(), _COLUMNS_SHOWN)),
    )


def _item_fault(row: FeedRow, fault: FieldError) -> JobFault:
    return row_fault(row, fault, item_id=row.item.get("id"))


async def _pieces(incoming: Incoming) -> AsyncIterator[bytes]:
    async for piece in incoming:
        yield piece
