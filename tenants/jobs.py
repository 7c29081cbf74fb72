"""Jobs: long work of a tenant, how far it got, and what went wrong in it line by line.

A worker claims the job that has waited longest, does a piece of it, and lets go of it again. `due` says when a job
may be claimed: now for one that waits, later for one that failed and is tried again, and for one that a worker has
in hand the moment from which that worker counts as dead.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from infra.errors import Conflict, NotFound
from infra.ids import uuid7
from tenants.webhooks.events import JobFinished
from tenants.webhooks.outbox import emit

JobStatus = Literal["queued", "running", "held", "done", "failed", "cancelled"]

MAX_FAULTS: Final = 10_000
"""Faults kept of one job; those beyond are counted only."""

QUIET: Final = frozenset({"neighbours"})
"""Kinds that nobody asks for, and whose end nobody is told."""

LEASE: Final = timedelta(seconds=60)
"""A job whose worker has not said anything for this long is taken up by another."""


class JobNotFound(NotFound):
    """The tenant has no such job."""

    code = "job_not_found"
    title = "There is no such job"


class JobNotHeld(Conflict):
    """Only a job that is held can be confirmed or cancelled."""

    code = "job_not_held"
    title = "The job is not held"


class LostClaimError(Exception):
    """Another worker has taken the job over; whatever this one did since is rolled back."""


class Job(Struct, frozen=True, kw_only=True):
    """A job as `GET /v1/jobs/{id}` shows it. `total` is None until it is known; `report` depends on `kind`."""

    job_id: UUID
    kind: str
    status: JobStatus
    total: int | None
    done: int
    failed: int
    errors_url: str | None
    report: msgspec.Raw
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ClaimedJob(Struct, frozen=True, kw_only=True):
    """A job in a worker's hands. `attempts` counts failures since the last progress that is kept, those of workers
    that died over it included; `state` is what the last piece left.
    """

    tenant_id: TenantId
    job_id: UUID
    kind: str
    payload: msgspec.Raw
    state: msgspec.Raw
    claim: int
    attempts: int
    created_at: datetime
    started_at: datetime


class JobFault(Struct, frozen=True, kw_only=True):
    """One thing that went wrong: `line` of the file, the item where its id is known, a JSON pointer."""

    line: int | None
    item_id: str | None
    severity: Literal["error", "warning"]
    code: str
    pointer: str
    message: str


async def create_job(conn: AsyncConnection, tenant_id: TenantId, kind: str, payload: Struct) -> UUID:
    """Queue a job with the data it is about: both are committed together or not at all."""
    job_id = uuid7()
    await (await driver(conn)).execute(
        "insert into jobs (tenant_id, job_id, kind, status, payload) values ($1, $2, $3, 'queued', $4::text::jsonb)",
        tenant_id,
        job_id,
        kind,
        msgspec.json.encode(payload).decode(),
    )
    return job_id


_COLUMNS = """job_id, kind, status, total, done, failed, fault_count, report::text as report, error,
    created_at, started_at, finished_at"""


def _job(record: Any) -> Job:
    job_id = UUID(int=record["job_id"].int)
    return Job(
        job_id=job_id,
        kind=record["kind"],
        status=record["status"],
        total=record["total"],
        done=record["done"],
        failed=record["failed"],
        errors_url=f"/v1/jobs/{job_id}/errors" if record["fault_count"] else None,
        report=msgspec.Raw(record["report"].encode()),
        error=record["error"],
        created_at=record["created_at"],
        started_at=record["started_at"],
        finished_at=record["finished_at"],
    )


async def get_job(conn: AsyncConnection, tenant_id: TenantId, job_id: UUID) -> Job:
    """One job. Raises JobNotFound."""
    record = await (await driver(conn)).fetchrow(
        f"select {_COLUMNS} from jobs where tenant_id = $1 and job_id = $2", tenant_id, job_id
    )
    if record is None:
        raise _no_job(job_id)
    return _job(record)


async def list_jobs(
    conn: AsyncConnection, tenant_id: TenantId, *, before: UUID | None = None, limit: int = 50
) -> list[Job]:
    """Jobs from the newest on; `before` continues the list after its last one."""
    records = await (await driver(conn)).fetch(
        f"select {_COLUMNS} from jobs where tenant_id = $1 and ($2::uuid is null or job_id < $2) "
        "order by job_id desc limit $3",
        tenant_id,
        before,
        limit,
    )
    return [_job(record) for record in records]


async def iter_faults(
    conn: AsyncConnection, tenant_id: TenantId, job_id: UUID, *, chunk: int = 1000
) -> AsyncIterator[JobFault]:
    """The faults of a job in the order of the file, without holding them all."""
    raw = await driver(conn)
    after = -1
    while True:
        records = await raw.fetch(
            "select seq, line, item_id, severity, code, pointer, message from job_faults "
            "where tenant_id = $1 and job_id = $2 and seq > $3 order by seq limit $4",
            tenant_id,
            job_id,
            after,
            chunk,
        )
        for record in records:
            after = record["seq"]
            yield JobFault(**{name: record[name] for name in JobFault.__struct_fields__})
        if len(records) < chunk:
            return


# Of one tenant and kind only the oldest unfinished job runs; of a deleted tenant none, as it may be had back.
# `started_at` stays that of the first claim. One that still runs was left by a worker that died, which counts as a
# failure unless that worker had been told to end: so what kills every worker is dead at last.
# Materialised, or the planner may run the inner select again and claim a second job.
_CLAIM = """
with next as materialized (
    select c.tenant_id, c.job_id from jobs c
    where c.status in ('queued', 'running') and c.due <= $1 and c.kind = any($3::text[])
    and not exists (select 1 from jobs o where o.tenant_id = c.tenant_id and o.kind = c.kind
        and o.job_id < c.job_id and o.status in ('queued', 'running'))
    and not exists (select 1 from tenants t where t.tenant_id = c.tenant_id and t.deleted_at is not null)
    order by c.due, c.job_id limit 1 for update skip locked
)
update jobs j set status = 'running', due = $1 + $2::interval, started_at = coalesce(j.started_at, $1),
    attempts = j.attempts + case when j.status = 'running' and j.state -> 'leaving' is distinct from j.state -> 'claim'
        then 1 else 0 end,
    state = j.state || jsonb_build_object('claim', coalesce((j.state ->> 'claim')::int, 0) + 1)
from next where j.tenant_id = next.tenant_id and j.job_id = next.job_id
returning j.tenant_id, j.job_id, j.kind, j.payload::text as payload, j.state::text as state, j.attempts,
    (j.state ->> 'claim')::int as claim, j.created_at, j.started_at
"""


async def claim_job(conn: AsyncConnection, kinds: Sequence[str], now: datetime) -> ClaimedJob | None:
    """The job of these kinds that has waited longest, or whose worker is dead. `conn` is a system session."""
    record = await (await driver(conn)).fetchrow(_CLAIM, now, LEASE, list(kinds))
    if record is None:
        return None
    return ClaimedJob(
        tenant_id=TenantId(record["tenant_id"]),
        job_id=UUID(int=record["job_id"].int),
        kind=record["kind"],
        payload=msgspec.Raw(record["payload"].encode()),
        state=msgspec.Raw(record["state"].encode()),
        claim=record["claim"],
        attempts=record["attempts"],
        created_at=record["created_at"],
        started_at=record["started_at"],
    )


async def advance(
    conn: AsyncConnection,
    job: ClaimedJob,
    *,
    now: datetime,
    done: int = 0,
    failed: int = 0,
    total: int | None = None,
    state: Struct | None = None,
    report: Struct | None = None,
    faults: Sequence[JobFault] = (),
    lease: timedelta = LEASE,
) -> None:
    """Note progress in the transaction of the work itself: `done` and `failed` are added.

    Progress with a `state`, from which another would go on, ends a row of failures; that of a job which begins anew
    does not, or one that always fails half-way would be tried for ever.
    `lease` of zero lets go of the job, behind those that wait. Raises LostClaimError where another worker has it.
    """
    raw = await driver(conn)
    before: int | None = await raw.fetchval(
        "update jobs set done = done + $4, failed = failed + $5, total = coalesce($6, total), due = $7, "
        "attempts = case when $8::text is null then attempts else 0 end, "
        "state = state || coalesce($8::text::jsonb, '{}'), report = report || coalesce($9::text::jsonb, '{}'), "
        "fault_count = fault_count + $10, "
        "status = case when $11 then 'queued' else status end "
        "where tenant_id = $1 and job_id = $2 and status = 'running' and (state ->> 'claim')::int = $3 "
        "returning fault_count - $10",
        job.tenant_id,
        job.job_id,
        job.claim,
        done,
        failed,
        total,
        now + lease,
        None if state is None else msgspec.json.encode(state).decode(),
        None if report is None else msgspec.json.encode(report).decode(),
        len(faults),
        not lease,
    )
    if before is None:
        raise LostClaimError
    kept = faults[: max(0, MAX_FAULTS - before)]
    if kept:
        columns = zip(*(msgspec.structs.astuple(fault) for fault in kept), strict=True)
        # Not COPY, which PostgreSQL refuses under row-level security.
        await raw.execute(
            "insert into job_faults (tenant_id, job_id, seq, line, item_id, severity, code, pointer, message) "
            "select $1, $2, $3 + r.at - 1, r.line, r.item_id, r.severity, r.code, r.pointer, r.message "
            "from unnest($4::int4[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]) "
            "with ordinality r(line, item_id, severity, code, pointer, message, at)",
            job.tenant_id,
            job.job_id,
            before,
            *(list(column) for column in columns),
        )


async def hold(conn: AsyncConnection, job: ClaimedJob, *, now: datetime, leaving: bool) -> None:
    """Say that the job is in good hands, for another lease. `leaving`: its worker was told to end, and may be killed
    before it is done with the piece; that is no failure of the job.
    """
    await (await driver(conn)).execute(
        "update jobs set due = greatest(due, $4), "
        "state = case when $5 then state || jsonb_build_object('leaving', $3::int) else state end "
        "where tenant_id = $1 and job_id = $2 and status = 'running' and (state ->> 'claim')::int = $3",
        job.tenant_id,
        job.job_id,
        job.claim,
        now + LEASE,
        leaving,
    )


async def restart(conn: AsyncConnection, job: ClaimedJob) -> None:
    """Count from nothing again: for a job that begins anew when it is taken up. Raises LostClaimError."""
    done = await (await driver(conn)).fetchval(
        "update jobs set done = 0, failed = 0 where tenant_id = $1 and job_id = $2 and status = 'running' "
        "and (state ->> 'claim')::int = $3 returning 1",
        job.tenant_id,
        job.job_id,
        job.claim,
    )
    if done is None:
        raise LostClaimError


async def prune_jobs(conn: AsyncConnection, kinds: Sequence[str], before: datetime) -> int:
    """Forget jobs of these kinds that ended well before then; how many. `conn` is a system session."""
    done: str = await (await driver(conn)).execute(
        "delete from jobs where kind = any($1::text[]) and status = 'done' and finished_at < $2", list(kinds), before
    )
    return int(done.rpartition(" ")[2])


async def finish(
    conn: AsyncConnection,
    job: ClaimedJob,
    status: Literal["held", "done", "failed", "cancelled"],
    *,
    now: datetime,
    error: str | None = None,
    report: Struct | None = None,
) -> None:
    """End a job, which the tenant's webhooks are told, or hold it until somebody decides.

    The tenant's next job of that kind goes behind those that wait: who queues a hundred is to starve nobody.
    Raises LostClaimError where another worker has it.
    """
    raw = await driver(conn)
    ended = await raw.fetchrow(
        "update jobs set status = $4, error = $5, report = report || coalesce($6::text::jsonb, '{}'), "
        "finished_at = case when $4 = 'held' then null else $7::timestamptz end "
        "where tenant_id = $1 and job_id = $2 and status = 'running' and (state ->> 'claim')::int = $3 "
        "returning kind, total, done, failed, error",
        job.tenant_id,
        job.job_id,
        job.claim,
        status,
        error,
        None if report is None else msgspec.json.encode(report).decode(),
        now,
    )
    if ended is None:
        raise LostClaimError
    await raw.execute(
        "update jobs set due = $4 where tenant_id = $1 and kind = $2 and job_id > $3 and status = 'queued' "
        "and due < $4",
        job.tenant_id,
        job.kind,
        job.job_id,
        now,
    )
    if status != "held":
        await _tell(conn, job.tenant_id, job.job_id, ended, status, now)


async def _tell(
    conn: AsyncConnection,
    tenant_id: TenantId,
    job_id: UUID,
    ended: Any,
    status: Literal["done", "failed", "cancelled"],
    now: datetime,
) -> None:
    if ended["kind"] in QUIET:
        return
    data = JobFinished(
        job_id=job_id,
        kind=ended["kind"],
        status=status,
        total=ended["total"],
        done=ended["done"],
        failed=ended["failed"],
        error=ended["error"],
    )
    await emit(conn, tenant_id, "job.finished", data, now=now)


async def postpone(conn: AsyncConnection, job: ClaimedJob, *, now: datetime, after_s: float, error: str) -> None:
    """Try a job again later, saying why it did not work this time."""
    await (await driver(conn)).execute(
        "update jobs set status = 'queued', due = $4, attempts = attempts + 1, error = $5 "
        "where tenant_id = $1 and job_id = $2 and status = 'running' and (state ->> 'claim')::int = $3",
        job.tenant_id,
        job.job_id,
        job.claim,
        now + timedelta(seconds=after_s),
        error,
    )


async def resolve_held(
    conn: AsyncConnection, tenant_id: TenantId, job_id: UUID, *, kind: str, confirm: bool, now: datetime
) -> None:
    """Let a held job go on, or end it. Raises JobNotFound, JobNotHeld."""
    raw = await driver(conn)
    status = await raw.fetchval(
        "select status from jobs where tenant_id = $1 and job_id = $2 and kind = $3 for update",
        tenant_id,
        job_id,
        kind,
    )
    if status is None:
        raise _no_job(job_id)
    if status != "held":
        raise JobNotHeld(f"The job is {status}; only a held one can be confirmed or cancelled.")
    if confirm:
        await raw.execute(
            "update jobs set status = 'queued', due = '-infinity', state = state || '{\"confirmed\": true}' "
            "where tenant_id = $1 and job_id = $2",
            tenant_id,
            job_id,
        )
    else:
        ended = await raw.fetchrow(
            "update jobs set status = 'cancelled', finished_at = $3 where tenant_id = $1 and job_id = $2 "
            "returning kind, total, done, failed, error",
            tenant_id,
            job_id,
            now,
        )
        await _tell(conn, tenant_id, job_id, ended, "cancelled", now)
        await raw.execute("delete from import_seen where tenant_id = $1 and job_id = $2", tenant_id, job_id)


def _no_job(job_id: UUID) -> JobNotFound:
    return JobNotFound(f"There is no job {job_id}. Jobs are listed at /v1/jobs.")
