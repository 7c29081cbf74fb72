"""/v1/placements: lists with their defaults stored under a name."""

from datetime import datetime
from typing import Any, Final

import msgspec
from litestar import Response, delete, get, put
from litestar.params import FromPath
from msgspec import Struct

from api.conditions import condition_of, not_modified
from api.contract import contract
from api.deps import caller_of, plan_of, services_of, tenant_of
from api.recommend.plan import plan
from api.recommend.types import Query
from api.wire import AnyRequest, answer, decode_id, no_content, read_json
from api.work import writing
from billing.quotas import make_room
from infra.decode import InvalidFields, faults, summary
from infra.errors import FieldError, Invalid
from tenants import placements
from tenants.catalog.filters import parse_filter
from tenants.placements import REQUESTS_OWN, Placement, StoredPlacement, source_faults

_TAG: Final = "Placements"
_EXAMPLE: Final = {
    "defaults": {"count": 12, "filter": {"gt": ["price", 0]}, "max_per": {"brand": 3}},
    "sources": [
        {"strategy": "similar", "weight": 2},
        {"strategy": "attributes", "weight": 1, "fields": {"brand": 2, "attributes.colour": 1.5}},
        {"strategy": "popular", "weight": 1, "limit": 50},
    ],
    "rules": "on",
    "override": ["count", "filter"],
}
_OWN_DEFAULTS: Final = REQUESTS_OWN - {"item_ids"}


class ShownPlacement(Placement, frozen=True, kw_only=True, forbid_unknown_fields=False, omit_defaults=False):
    """A placement as it is stored."""

    id: str
    created_at: datetime
    updated_at: datetime


class PlacementList(Struct, frozen=True, kw_only=True):
    """All placements of a tenant, by name."""

    placements: list[ShownPlacement]


@get(
    "/v1/placements",
    opt=contract(scope="catalog:read", tag=_TAG, summary="List placements", answer=PlacementList),
)
async def list_placements(request: AnyRequest) -> Response[bytes]:
    """All placements; a tenant has at most 500."""
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await placements.list_placements(conn, tenant_id)
    return answer(PlacementList(placements=[_shown(stored) for stored in found]))


@get(
    "/v1/placements/{placement_id:str}",
    opt=contract(scope="catalog:read", tag=_TAG, summary="Show a placement", answer=ShownPlacement, tagged=True),
)
async def get_placement(request: AnyRequest, placement_id: FromPath[str]) -> Response[bytes]:
    """The placement; its version is in the `ETag` header, to be sent back as `If-Match` with a change."""
    name = decode_id(placement_id)
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await placements.get_placement(conn, tenant_id, name)
    return not_modified(request, found.etag) or _answer(found)


@put(
    "/v1/placements/{placement_id:str}",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag=_TAG,
        summary="Store a placement",
        body=Placement,
        body_example=_EXAMPLE,
        tagged=True,
        audit="placement.put",
        answer=ShownPlacement,
        also={201: "The placement is new."},
    ),
)
async def put_placement(request: AnyRequest, placement_id: FromPath[str]) -> Response[bytes]:
    """Stores the placement whole; the next request for it is answered by it. `defaults` takes every field of
    `POST /v1/recommend` but those that say who asks: placement, user_id, visitor_id, session, cursor, context.

    `If-Match` with the `ETag` that was read keeps two editors apart; `If-None-Match: *` only makes a new one.
    """
    name, condition = decode_id(placement_id), condition_of(request)
    wanted = await read_json(request, Placement)
    await _check(request, wanted)
    allowed = await plan_of(request)
    async with writing(request) as work:
        await make_room(work.conn, allowed, work.tenant_id, "placements", [name], now=work.now)
        stored, new = await placements.put_placement(
            work.conn, work.tenant_id, name, wanted, now=work.now, condition=condition
        )
        await work.note(name, new=new, etag=stored.etag)
        return work.answered(_answer(stored, status=201 if new else 200))


@delete(
    "/v1/placements/{placement_id:str}",
    status_code=204,
    opt=contract(
        scope="catalog:write", tag=_TAG, summary="Delete a placement", tagged=True, audit="placement.delete", status=204
    ),
)
async def delete_placement(request: AnyRequest, placement_id: FromPath[str]) -> Response[None]:
    """Requests that name it are answered 404 from now on."""
    name, condition = decode_id(placement_id), condition_of(request)
    async with writing(request) as work:
        await placements.delete_placement(work.conn, work.tenant_id, name, condition=condition)
        await work.note(name)
        return work.answered(no_content())


async def _check(request: AnyRequest, wanted: Placement) -> None:
    """Every field of the placement by the rules of a request. Raises InvalidFields naming each bad one."""
    found = [
        FieldError(pointer=f"/defaults/{name}", code="not_a_default", message="Only a request can say this.")
        for name in sorted(_OWN_DEFAULTS & wanted.defaults.keys())
    ]
    known = {field.encode_name for field in msgspec.structs.fields(Query)} | REQUESTS_OWN
    found += [
        FieldError(pointer=f"/override/{at}", code="unknown_field", message=f"A request has no field {name!r}.")
        for at, name in enumerate(wanted.override or [])
        if name not in known
    ]
    found += source_faults(wanted)
    plain: dict[str, Any] = {name: value for name, value in wanted.defaults.items() if name not in _OWN_DEFAULTS}
    bad = faults(plain, Query)
    if not bad:
        bad = await _as_a_request(request, plain)
    found += [msgspec.structs.replace(fault, pointer=f"/defaults{fault.pointer}") for fault in bad]
    if found:
        raise InvalidFields(summary(found), errors=found)


async def _as_a_request(request: AnyRequest, plain: dict[str, Any]) -> list[FieldError]:
    """What a request of these fields would be refused for: names of fields, weights, the filter."""
    services = services_of(request)
    query = msgspec.convert(plain, Query)
    found: list[FieldError] = []
    if query.filter is not None:
        try:
            parse_filter(query.filter)
        except Invalid as error:
            # The pointers of a filter begin inside it.
            found += error.errors or [FieldError(pointer="/filter", code=error.code, message=error.detail)]
    # With a seed, as the requests will have one where they need it.
    query = msgspec.structs.replace(query, filter=None, item_ids=query.item_ids or ["x"])
    try:
        plan(query, await tenant_of(request), now=services.clock(), secret=services.secret)
    except Invalid as error:
        found += error.errors
    return found


def _shown(stored: StoredPlacement) -> ShownPlacement:
    placement = stored.placement
    return ShownPlacement(
        id=stored.id,
        defaults=placement.defaults,
        sources=placement.sources,
        rank=placement.rank,
        rules=placement.rules,
        override=placement.override,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
    )


def _answer(stored: StoredPlacement, *, status: int = 200) -> Response[bytes]:
    return answer(_shown(stored), status=status, headers={"etag": stored.etag})


ROUTES: Final = (list_placements, get_placement, put_placement, delete_placement)
