"""/v1/exports: all that a tenant has as one file, made by a worker and fetched when it is there."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Stream
from msgspec import Struct

from api.contract import contract
from api.deps import caller_of, services_of
from api.ranges import parse_range
from api.wire import AnyRequest, answer
from api.work import writing
from infra.blob import BlobMissing
from tenants.portability import exports
from tenants.portability.exports import Export, ExportGone, check_fetchable, export_key, parse_export_id

TAR: Final = "application/x-tar"


class ExportList(Struct, frozen=True, kw_only=True):
    """The exports, the newest first."""

    exports: list[Export]


class ExportQueued(Struct, frozen=True, kw_only=True):
    """`GET /v1/exports/{export_id}` tells how far it is."""

    export_id: UUID


@post(
    "/v1/exports",
    status_code=202,
    opt=contract(
        scope="admin",
        tag="Account",
        summary="Export all that this tenant has",
        audit="export.create",
        answer=ExportQueued,
        answer_example=ExportQueued(export_id=UUID("0198c0de-0000-7000-8000-000000000000")),
        status=202,
    ),
)
async def create_export(request: AnyRequest) -> Response[bytes]:
    """A worker writes catalogue, photos, users, events, placements, settings, vectors and models into one tar file.

    `kindred tenants restore` makes a tenant of it on any installation, with the same answers. Keys are not in it. Asked
    again while one waits or is made, the answer names that one.
    """
    async with writing(request) as work:
        export_id = await exports.queue_export(work.conn, work.tenant_id)
        await work.note(str(export_id))
        headers = {"location": f"/v1/exports/{export_id}"}
        return work.answered(answer(ExportQueued(export_id=export_id), status=202, headers=headers))


@get("/v1/exports", opt=contract(scope="admin", tag="Account", summary="List exports", answer=ExportList))
async def list_exports(request: AnyRequest) -> Response[bytes]:
    """The hundred newest, the newest first."""
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    async with services.database.tenant_session(tenant_id) as conn:
        found = await exports.list_exports(conn, tenant_id, now=services.clock())
    return answer(ExportList(exports=found))


@get("/v1/exports/{export_id:str}", opt=contract(scope="admin", tag="Account", summary="Show an export", answer=Export))
async def get_export(request: AnyRequest, export_id: FromPath[str]) -> Response[bytes]:
    """How far it is, and, when it is `done`, where its file is fetched until when."""
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    async with services.database.tenant_session(tenant_id) as conn:
        found = await exports.get_export(conn, tenant_id, parse_export_id(export_id), now=services.clock())
    return answer(found)


@get(
    "/v1/exports/{export_id:str}/file",
    status_code=200,
    opt=contract(
        scope="admin",
        tag="Account",
        summary="Fetch an exported file",
        answer_types=[TAR],
        also={206: "The part that `Range` asks for.", 416: "The range lies behind the file's end."},
    ),
)
async def get_export_file(request: AnyRequest, export_id: FromPath[str]) -> Response[bytes] | Stream:
    """The tar file, whole or the part that `Range: bytes=…` asks for: a download that broke off goes on.

    It is kept for 7 days and until two later ones are made, and no longer than everybody in it: when a person is
    erased, it goes.
    """
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    parsed = parse_export_id(export_id)
    async with services.database.tenant_session(tenant_id) as conn:
        found = await exports.get_export(conn, tenant_id, parsed, now=services.clock())
    check_fetchable(found)
    key = export_key(tenant_id, parsed)
    try:
        size = await services.blobs.size(key)
    except BlobMissing as error:
        raise ExportGone(
            "The file is gone: somebody in it was erased. Ask for another with POST /v1/exports."
        ) from error
    etag = f'"{found.sha256}"'
    # A part of another file would be of no use (RFC 9110, 13.1.5).
    asked = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    part = parse_range(asked, size)
    start, end = part or (0, size)
    headers = {
        "accept-ranges": "bytes",
        "cache-control": "private, no-store",
        "content-disposition": f'attachment; filename="kindred-{parsed}.tar"',
        "content-length": str(end - start),
        "etag": etag,
    }
    if part is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in services.blobs.open_stream(key, start=start, end=end):
            yield piece

    return Stream(pieces(), status_code=200 if part is None else 206, media_type=TAR, headers=headers)


ROUTES: Final = (create_export, list_exports, get_export, get_export_file)
