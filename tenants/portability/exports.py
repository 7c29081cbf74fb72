"""Exports: a bundle made by a worker, kept for some days in the blob store, and gone when a person is erased."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from infra.errors import Conflict, NotFound
from tenants.jobs import Job, JobNotFound, JobStatus, create_job, get_job

EXPORT_JOB: Final = "export"
KEPT: Final = timedelta(days=7)
"""How long a bundle can be fetched."""
LATEST: Final = 2
"""Bundles of a tenant that are kept, the latest: each is as large as all that it has."""

OVERTAKEN: Final = (
    "exists (select 1 from erasures e where e.tenant_id = j.tenant_id "
    "and e.erased_at >= coalesce((j.report ->> 'as_of')::timestamptz, j.started_at))"
)
"""Of an export that is done, a row `j` of `jobs`: whether a person was erased since who may be in its bundle."""


class ExportNotFound(NotFound):
    """The tenant has no such export."""

    code = "export_not_found"
    title = "There is no such export"


class ExportNotReady(Conflict):
    """The bundle is not made yet, or could not be."""

    code = "export_not_ready"
    title = "The export is not ready"


class ExportGone(NotFound):
    """The bundle was kept for seven days, two later ones were made, or a person in it was erased since."""

    code = "export_gone"
    title = "The exported file is gone"


class ExportRequest(Struct, frozen=True, kw_only=True):
    """The message of an export job."""


class ExportReport(Struct, frozen=True, kw_only=True):
    """What was made: `bytes` and `sha256` of the bundle, its lines by file, and the moment that it shows."""

    bytes: int
    sha256: str
    rows: dict[str, int]
    as_of: datetime | None = None


class Export(Struct, frozen=True, kw_only=True):
    """An export. `url`: where its bundle is fetched, with a key that may; null while there is none."""

    export_id: UUID
    status: JobStatus
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None
    bytes: int | None
    sha256: str | None
    url: str | None
    error: str | None


def export_prefix(tenant_id: TenantId) -> str:
    """Below it lie a tenant's bundles in the blob store."""
    return f"tenants/{tenant_id}/exports/"


def export_key(tenant_id: TenantId, export_id: UUID) -> str:
    """Where a bundle lies."""
    return f"{export_prefix(tenant_id)}{export_id}"


async def queue_export(conn: AsyncConnection, tenant_id: TenantId) -> UUID:
    """Have all that the tenant has written into a bundle; the export's id, or that of one that waits or is made."""
    raw = await driver(conn)
    await raw.fetchval("select pg_advisory_xact_lock(hashtextextended('export of ' || $1::text, 0))", str(tenant_id))
    waiting = await raw.fetchval(
        "select job_id from jobs where tenant_id = $1 and kind = $2 and status in ('queued', 'running') "
        "order by job_id limit 1",
        tenant_id,
        EXPORT_JOB,
    )
    if waiting is not None:
        return UUID(int=waiting.int)
    return await create_job(conn, tenant_id, EXPORT_JOB, ExportRequest())


async def get_export(conn: AsyncConnection, tenant_id: TenantId, export_id: UUID, *, now: datetime) -> Export:
    """One export. Raises ExportNotFound."""
    try:
        job = await get_job(conn, tenant_id, export_id)
    except JobNotFound as error:
        raise _unknown(export_id) from error
    if job.kind != EXPORT_JOB:
        raise _unknown(export_id)
    return _export(job, now, await kept_exports(conn, tenant_id))


async def list_exports(conn: AsyncConnection, tenant_id: TenantId, *, now: datetime, limit: int = 100) -> list[Export]:
    """The exports, the newest first."""
    records = await (await driver(conn)).fetch(
        "select job_id from jobs where tenant_id = $1 and kind = $2 order by job_id desc limit $3",
        tenant_id,
        EXPORT_JOB,
        limit,
    )
    kept = await kept_exports(conn, tenant_id)
    jobs = [await get_job(conn, tenant_id, UUID(int=record["job_id"].int)) for record in records]
    return [_export(job, now, kept) for job in jobs]


async def kept_exports(conn: AsyncConnection, tenant_id: TenantId) -> frozenset[UUID]:
    """The exports whose bundles are kept, whatever their age: the latest, with nobody in them who was erased since.

    Asked each time: who erases a person deletes the file, but may be stopped in between.
    """
    records = await (await driver(conn)).fetch(
        "select j.job_id from (select * from jobs where tenant_id = $1 and kind = $2 and status = 'done' "
        f"order by job_id desc limit $3) j where not {OVERTAKEN}",
        tenant_id,
        EXPORT_JOB,
        LATEST,
    )
    return frozenset(UUID(int=record["job_id"].int) for record in records)


def _export(job: Job, now: datetime, kept: frozenset[UUID]) -> Export:
    made = msgspec.json.decode(job.report, type=ExportReport) if job.status == "done" else None
    expires_at = None if job.finished_at is None or made is None else job.finished_at + KEPT
    fetchable = expires_at is not None and now < expires_at and job.job_id in kept
    return Export(
        export_id=job.job_id,
        status=job.status,
        created_at=job.created_at,
        finished_at=job.finished_at,
        expires_at=expires_at,
        bytes=None if made is None else made.bytes,
        sha256=None if made is None else made.sha256,
        url=f"/v1/exports/{job.job_id}/file" if fetchable else None,
        error=job.error,
    )


def check_fetchable(export: Export) -> None:
    """Whether there is a bundle to fetch. Raises ExportNotReady, ExportGone."""
    if export.status in ("queued", "running"):
        raise ExportNotReady("The bundle is being made; ask for the export until its status is `done`.")
    if export.status != "done":
        raise ExportNotReady(f"The bundle could not be made: {export.error or export.status}. Ask for another.")
    if export.url is None:
        raise ExportGone(
            f"Bundles are kept for {KEPT.days} days, of a shop the latest {LATEST}, and until somebody in "
            "them is erased. Ask for another with POST /v1/exports, or fetch a later one."
        )


def _unknown(export_id: UUID | str) -> ExportNotFound:
    return ExportNotFound(f"There is no export {export_id}; GET /v1/exports lists them.")


def parse_export_id(raw: str) -> UUID:
    """An export's id out of an address. Raises ExportNotFound: what is no UUID names none."""
    try:
        return UUID(raw)
    except ValueError as error:
        raise _unknown(raw[:128]) from error
