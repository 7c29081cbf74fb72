"""/v1/segments: saved filters over what shoppers are and what they did."""

from typing import Annotated, Any, Final

from litestar import Response, delete, get, put
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer, decode_id, no_content, read_json, read_query
from api.work import writing
from tenants.audience import segments
from tenants.audience.segments import Segment

_FILTER: Final = {"and": [{"eq": ["attributes.country", "DE"]}, {"gte": ["events.purchase.30d", 2]}]}


class SegmentBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A filter over `id`, `seller_id`, `segments`, `attributes.<name>` and `events.<type>.<days>d`."""

    filter: dict[str, Any]


class StoredSegment(Struct, frozen=True, kw_only=True):
    """What a write of a segment did."""

    id: str
    status: str


class ShownSegment(Segment, frozen=True, kw_only=True):
    """A segment; `members` is how many shoppers are in it now, where that was asked."""

    members: int | None


class SegmentList(Struct, frozen=True, kw_only=True):
    """All saved filters, by name."""

    segments: list[Segment]


class SegmentQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /v1/segments/{id}`."""

    count: Annotated[bool, Meta(description="Count the members; takes seconds in a large shop.")] = False


@put(
    "/v1/segments/{segment_id:str}",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag="Users",
        summary="Save a segment",
        body=SegmentBody,
        body_example={"filter": _FILTER},
        answer=StoredSegment,
        answer_example=StoredSegment(id="regulars", status="created"),
        audit="segment.put",
        also={201: "The segment is new."},
    ),
)
async def put_segment(request: AnyRequest, segment_id: FromPath[str]) -> Response[bytes]:
    """Saves a filter under a name. Whom the shop itself has put into a segment of that name is in it too."""
    name = decode_id(segment_id)
    body = await read_json(request, SegmentBody)
    async with writing(request) as work:
        new = await segments.store_segment(work.conn, work.tenant_id, name, body.filter, now=work.now)
        await work.note(name, new=new)
        stored = StoredSegment(id=name, status="created" if new else "updated")
        return work.answered(answer(stored, status=201 if new else 200))


@get(
    "/v1/segments/{segment_id:str}",
    opt=contract(scope="catalog:read", tag="Users", summary="Show a segment", query=SegmentQuery, answer=ShownSegment),
)
async def get_segment(request: AnyRequest, segment_id: FromPath[str]) -> Response[bytes]:
    """The saved filter and, with `?count=true`, how many shoppers it finds now."""
    name = decode_id(segment_id)
    query = read_query(request, SegmentQuery)
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    async with services.database.tenant_session(tenant_id) as conn:
        segment = await segments.get_segment(conn, tenant_id, name)
        count = None
        if query.count:
            count = len(await segments.members(conn, tenant_id, name, now=services.clock()))
    return answer(
        ShownSegment(
            id=segment.id,
            filter=segment.filter,
            created_at=segment.created_at,
            updated_at=segment.updated_at,
            members=count,
        )
    )


@get("/v1/segments", opt=contract(scope="catalog:read", tag="Users", summary="List segments", answer=SegmentList))
async def list_segments(request: AnyRequest) -> Response[bytes]:
    """All saved filters."""
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        return answer(SegmentList(segments=await segments.list_segments(conn, tenant_id)))


@delete(
    "/v1/segments/{segment_id:str}",
    status_code=204,
    opt=contract(scope="catalog:write", tag="Users", summary="Delete a segment", audit="segment.delete", status=204),
)
async def delete_segment(request: AnyRequest, segment_id: FromPath[str]) -> Response[None]:
    """Forgets the filter; the users stay."""
    name = decode_id(segment_id)
    async with writing(request) as work:
        await segments.delete_segment(work.conn, work.tenant_id, name)
        await work.note(name)
        return work.answered(no_content())


ROUTES: Final = (put_segment, get_segment, list_segments, delete_segment)
