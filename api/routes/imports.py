"""/v1/imports and /v1/events/import: whole files, uploaded or fetched, read by a worker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, post
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.contract import WriteQuery, contract
from api.deps import caller_of, services_of
from api.problems import BadRequest
from api.routes.jobs import parse_job_id
from api.wire import JSON, AnyRequest, answer, media_type, read_query, read_small_json
from api.work import Repeated, intent_of, writing
from infra.errors import KindredError
from infra.ids import uuid7
from tenants.catalog import imports
from tenants.catalog.imports import (
    BlobSource,
    HistoryFormat,
    HistoryRequest,
    ImportFormat,
    ImportMode,
    UrlSource,
    upload_key,
)

MAX_JSON: Final = 64_000
"""Bytes of a body that only says where the feed lies: it is held in memory, while a file goes to the blob store."""

FileName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/\\]+$(?!\n)")]


class UploadQuery(WriteQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an uploaded file is read."""

    format: Annotated[ImportFormat, Meta(description="`auto`: told by the file's name and beginning.")] = "auto"
    mode: Annotated[ImportMode, Meta(description="`full`: items that the file does not name are removed.")] = (
        "incremental"
    )
    file_name: Annotated[FileName | None, Meta(description="Helps `auto`, and is shown in the report.")] = None


class UrlImport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feed at a public address."""

    url: Annotated[str, Meta(max_length=2048, pattern=r"^https?://[^\s\x00-\x1f\x7f]+$(?!\n)")]
    format: ImportFormat = "auto"
    mode: ImportMode = "incremental"
    file_name: FileName | None = None


class HistoryQuery(WriteQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an uploaded file of events is read."""

    format: Annotated[HistoryFormat, Meta(description="`auto`: told by the file's beginning.")] = "auto"
    type: (
        Annotated[
            str, Meta(max_length=64, pattern=r"^[a-z][a-z0-9_]*$(?!\n)", description="Of lines that name no type.")
        ]
        | None
    ) = None


class Accepted(Struct, frozen=True, kw_only=True):
    """The job that does the work; `GET /v1/jobs/{job_id}` tells how far it is."""

    job_id: UUID


_ACCEPTED: Final = Accepted(job_id=UUID("0198c0de-0000-7000-8000-000000000000"))


@post(
    "/v1/imports",
    status_code=202,
    opt=contract(
        scope="catalog:write",
        tag="Imports",
        summary="Import a feed",
        query=UploadQuery,
        body=UrlImport,
        body_example={"url": "https://shop.example/feed.xml", "format": "google_merchant", "mode": "full"},
        body_types={
            "application/octet-stream": None,
            "text/csv": "id,title,price\nSKU-1,Aurora desk lamp,79.00\n",
            "application/x-ndjson": '{"id": "SKU-1", "title": "Aurora desk lamp"}\n',
        },
        answer=Accepted,
        answer_example=_ACCEPTED,
        audit="import.start",
        status=202,
        max_body=None,
    ),
)
async def create_import(request: AnyRequest) -> Response[bytes]:
    """Takes a feed of any size: the file itself as the body, or JSON with the `url` where it lies.

    Formats: NDJSON, CSV, Google Merchant (RSS or TSV), Shopify CSV, WooCommerce CSV, Yandex YML; gzip is told by
    its first bytes. A `full` import that would remove more than 30 % of the catalogue is held until it is confirmed.
    """
    wanted: UploadQuery | UrlImport
    if media_type(request) == JSON:
        wanted = await read_small_json(request, UrlImport, max_bytes=MAX_JSON)
        return await _start_import(request, wanted, UrlSource(url=wanted.url))
    wanted = read_query(request, UploadQuery)
    async with _uploaded(request) as source:
        return await _start_import(request, wanted, source)


async def _start_import(
    request: AnyRequest, wanted: UploadQuery | UrlImport, source: BlobSource | UrlSource
) -> Response[bytes]:
    async with writing(request) as work:
        job_id = await imports.start_import(
            work.conn, work.tenant_id, source, format=wanted.format, mode=wanted.mode, file_name=wanted.file_name
        )
        await work.note(str(job_id), format=wanted.format, mode=wanted.mode)
        return work.answered(_accepted(job_id))


def _accepted(job_id: UUID) -> Response[bytes]:
    return answer(Accepted(job_id=job_id), status=202, headers={"location": f"/v1/jobs/{job_id}"})


@asynccontextmanager
async def _uploaded(request: AnyRequest) -> AsyncIterator[BlobSource]:
    """The body as a file in the blob store, for a job that the block queues; it goes where none was.

    A dry run reads the body and stores nothing. Raises BadRequest for an empty one.
    """
    services = services_of(request)
    source = BlobSource(key=upload_key(caller_of(request).tenant_id, str(uuid7())))
    if intent_of(request).dry_run:
        size = sum([len(piece) async for piece in request.stream()])
    else:
        size = (await services.blobs.put(source.key, request.stream())).size
    try:
        if size == 0:
            raise BadRequest("The body is empty; send the file, or, for a feed, JSON with its `url`.")
        yield source
    except (KindredError, Repeated):
        # Whatever else went wrong, the job may have been committed, and then it needs the file.
        if not intent_of(request).dry_run:
            await services.blobs.delete(source.key)
        raise


@post(
    "/v1/events/import",
    status_code=202,
    opt=contract(
        scope="catalog:write",
        tag="Events",
        summary="Import old events",
        query=HistoryQuery,
        body=None,
        body_types={
            "application/octet-stream": None,
            "text/csv": "type,user_id,item_id,ts,price\npurchase,customer-7,SKU-1,2025-11-03T10:00:00Z,79.00\n",
            "application/x-ndjson": '{"type": "view", "user_id": "u", "item_id": "A", "ts": "2025-11-03T10:00:00Z"}\n',
        },
        answer=Accepted,
        answer_example=_ACCEPTED,
        audit="history.start",
        status=202,
        max_body=None,
    ),
)
async def import_events(request: AnyRequest) -> Response[bytes]:
    """Takes a file of events up to two years old, of any size: CSV with a header, or NDJSON; gzip is told by itself.

    NDJSON is as `POST /v1/events` takes events. CSV is one line of an event per record, with amounts in major units.
    An event is stored once, by its `event_id` and time, or by all that it says, however often the file is imported.
    """
    query = read_query(request, HistoryQuery)
    async with _uploaded(request) as source, writing(request) as work:
        wanted = HistoryRequest(source=source, format=query.format, default_type=query.type)
        job_id = await imports.start_history(work.conn, work.tenant_id, wanted)
        await work.note(str(job_id), format=query.format)
        return work.answered(_accepted(job_id))


@post(
    "/v1/imports/{job_id:str}/confirm",
    status_code=202,
    opt=contract(
        scope="catalog:write",
        tag="Imports",
        summary="Confirm a held import",
        audit="import.confirm",
        answer=Accepted,
        answer_example=_ACCEPTED,
        status=202,
    ),
)
async def confirm_import(request: AnyRequest, job_id: FromPath[str]) -> Response[bytes]:
    """Lets a held full import remove what its feed did not name."""
    parsed = parse_job_id(job_id)
    async with writing(request) as work:
        await imports.confirm_import(work.conn, work.tenant_id, parsed, now=work.now)
        await work.note(str(parsed))
        return work.answered(answer(Accepted(job_id=parsed), status=202))


@post(
    "/v1/imports/{job_id:str}/cancel",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag="Imports",
        summary="Cancel a held import",
        audit="import.cancel",
        answer=Accepted,
        answer_example=_ACCEPTED,
    ),
)
async def cancel_import(request: AnyRequest, job_id: FromPath[str]) -> Response[bytes]:
    """Ends a held full import: what it stored stays, nothing is removed."""
    parsed = parse_job_id(job_id)
    async with writing(request) as work:
        await imports.cancel_import(work.conn, work.tenant_id, parsed, now=work.now)
        await work.note(str(parsed))
        return work.answered(answer(Accepted(job_id=parsed)))


ROUTES: Final = (create_import, import_events, confirm_import, cancel_import)
