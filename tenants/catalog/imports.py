"""Imports as they are asked for: what is to be read, how, and the decision on one that is held."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId
from infra.ids import moment_of
from tenants.jobs import create_job, resolve_held

IMPORT_JOB = "import"

ImportFormat = Literal["auto", "ndjson", "csv", "google_merchant", "shopify_csv", "woocommerce_csv", "yml"]
ImportMode = Literal["incremental", "full"]


class BlobSource(Struct, frozen=True, kw_only=True, tag="blob"):
    """A file that was uploaded; `key` is its place in the blob store. The import deletes it when it has ended."""

    key: str


class UrlSource(Struct, frozen=True, kw_only=True, tag="url"):
    """A file at a public address."""

    url: str


class ImportRequest(Struct, frozen=True, kw_only=True):
    """The message of an import job."""

    source: BlobSource | UrlSource
    format: ImportFormat = "auto"
    mode: ImportMode = "incremental"
    file_name: str | None = None


def upload_key(tenant_id: TenantId, name: str) -> str:
    """Where an uploaded feed lies until it has been read."""
    return f"tenants/{tenant_id}/imports/{name}"


def uploaded_at(key: str) -> datetime | None:
    """When the upload of a file began, by the UUIDv7 that names it; None for a name of another form."""
    try:
        return moment_of(UUID(key.rpartition("/")[2]))
    except ValueError:
        return None


async def start_import(
    conn: AsyncConnection,
    tenant_id: TenantId,
    source: BlobSource | UrlSource,
    *,
    format: ImportFormat = "auto",
    mode: ImportMode = "incremental",
    file_name: str | None = None,
) -> UUID:
    """Queue an import; the job's id. One tenant's imports run one after the other, in this order."""
    return await create_job(
        conn,
        tenant_id,
        IMPORT_JOB,
        ImportRequest(source=source, format=format, mode=mode, file_name=file_name),
    )


async def confirm_import(conn: AsyncConnection, tenant_id: TenantId, job_id: UUID, *, now: datetime) -> None:
    """Let a held full import remove what its feed did not name. Raises JobNotFound, JobNotHeld."""
    await resolve_held(conn, tenant_id, job_id, kind=IMPORT_JOB, confirm=True, now=now)


async def cancel_import(conn: AsyncConnection, tenant_id: TenantId, job_id: UUID, *, now: datetime) -> None:
    """End a held full import: what it stored stays, nothing is removed. Raises JobNotFound, JobNotHeld."""
    await resolve_held(conn, tenant_id, job_id, kind=IMPORT_JOB, confirm=False, now=now)


HISTORY_JOB = "events_import"

HistoryFormat = Literal["auto", "ndjson", "csv"]


class HistoryRequest(Struct, frozen=True, kw_only=True):
    """The message of a job that imports old events. `default_type`: of rows that say none, as orders do."""

    source: BlobSource
    format: HistoryFormat = "auto"
    default_type: str | None = None


async def start_history(conn: AsyncConnection, tenant_id: TenantId, request: HistoryRequest) -> UUID:
    """Queue an import of events; the job's id."""
    return await create_job(conn, tenant_id, HISTORY_JOB, request)
