"""/v1/audit: who changed what, when and from where."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.response import Stream
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import Services, caller_of, services_of
from api.routes.items import BadListCursor
from api.wire import NDJSON, AnyRequest, answer, read_query
from infra.clock import within_reach
from infra.db import TenantId
from infra.decode import InvalidFields
from infra.errors import FieldError
from tenants.audit.log import Actor, Entry, Position, Wanted, line_of, list_entries
from tenants.audit.sealing import export_lines

_PAGE: Final = 1000


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    """The query of `GET /v1/audit`."""

    action: (
        Annotated[
            str,
            Meta(max_length=64, pattern=r"^[a-z_]+\.[a-z_]+$(?!\n)", description="As `key.create`."),
        ]
        | None
    ) = None
    start: Annotated[datetime, Meta(tz=True, description="Entries of this moment or later.")] | None = None
    end: Annotated[datetime, Meta(tz=True, description="Entries before this moment.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=_PAGE, description="Entries on a page; 100 where nothing is said.")] | None = (
        None
    )
    cursor: Annotated[str, Meta(max_length=200, description="`next_cursor` of the page before.")] | None = None


class AuditPage(Struct, frozen=True, kw_only=True):
    """Some entries, the newest first; `next_cursor` is null at the end."""

    entries: list[Entry]
    next_cursor: str | None


@get(
    "/v1/audit",
    opt=contract(
        scope="admin",
        tag="Audit",
        summary="Who changed what",
        query=AuditQuery,
        answer=AuditPage,
        answer_types=[NDJSON],
        answer_example=AuditPage(
            entries=[
                Entry(
                    id=UUID("01993b6e-7a10-7cc3-9f0e-3f6f6a4f2b11"),
                    at=datetime.fromisoformat("2026-01-15T12:00:00+00:00"),
                    actor=Actor(kind="key", id="4fT0aQx81Z"),
                    action="placement.put",
                    subject="product-page",
                    details={"new": True, "etag": '"1f0c9ab2"'},
                    network="9c0f5b1e77d84a30b6f2a1c4d5e6f708",
                    request_id="01993b6e-7a10-7cc3-9f0e-3f6f6a4f2b10",
                )
            ],
            next_cursor=None,
        ),
    ),
)
async def list_audit(request: AnyRequest) -> Response[Any]:
    """The audit log, kept for 400 days. Shoppers and networks are in it as keyed hashes alone.

    With `Accept: application/x-ndjson` all that matches is written, an entry a line. Without `action`, `from` and `to`
    that is the whole log from the oldest entry on, with its seals: `kindred audit verify --file` checks it.
    """
    query = read_query(request, AuditQuery)
    services, tenant_id = services_of(request), caller_of(request).tenant_id
    wanted = Wanted(action=query.action, start=_within(query.start), end=_within(query.end))
    if NDJSON in request.headers.get("accept", "").lower():
        _refuse_pages(query)
        if wanted == Wanted():
            lines = export_lines(services.database, tenant_id, now=services.clock())
        else:
            lines = _all(services, tenant_id, wanted)
        headers = {"content-disposition": 'attachment; filename="audit.ndjson"'}
        return Stream(_with_breaks(lines), media_type=NDJSON, headers=headers)
    limit = query.limit or 100
    before = None if query.cursor is None else _read_cursor(query.cursor)
    async with services.database.tenant_session(tenant_id) as conn:
        found = await list_entries(conn, tenant_id, wanted, before=before, limit=limit + 1)
    more = len(found) > limit
    found = found[:limit]
    return answer(AuditPage(entries=found, next_cursor=_write_cursor(found[-1]) if more else None))


async def _all(services: Services, tenant_id: TenantId, wanted: Wanted) -> AsyncIterator[bytes]:
    """The lines of all matching entries, page by page: whoever takes them may be slow."""
    before: Position | None = None
    while True:
        async with services.database.tenant_session(tenant_id) as conn:
            found = await list_entries(conn, tenant_id, wanted, before=before, limit=_PAGE)
        for entry in found:
            yield line_of(entry)
        if len(found) < _PAGE:
            return
        before = (found[-1].at, found[-1].id)


async def _with_breaks(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines in pieces of some size: each piece is a message to the server."""
    piece = bytearray()
    async for line in lines:
        piece += line + b"\n"
        if len(piece) > 65_536:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _within(moment: datetime | None) -> datetime | None:
    return None if moment is None else within_reach(moment)


def _refuse_pages(query: AuditQuery) -> None:
    named = [name for name in ("limit", "cursor") if getattr(query, name) is not None]
    if named:
        faults = [FieldError(pointer=f"/{name}", code="not_here", message="NDJSON has no pages.") for name in named]
        raise InvalidFields("Leave `limit` and `cursor` out: NDJSON is all that matches.", errors=faults)


def _write_cursor(last: Entry) -> str:
    return urlsafe_b64encode(msgspec.json.encode((last.at, last.id))).decode().rstrip("=")


def _read_cursor(cursor: str) -> Position:
    """Where to go on. Raises BadListCursor."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        before = msgspec.json.decode(raw, type=tuple[datetime, UUID])
    except (ValueError, msgspec.MsgspecError):
        before = None
    if before is None or before[0].tzinfo is None:
        raise BadListCursor("Send back the `next_cursor` of the page before, or none to begin again.")
    return before


ROUTES: Final = (list_audit,)
