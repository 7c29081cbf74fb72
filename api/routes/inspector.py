"""GET /v1/events: was my event taken, joined, ignored, and why; and the weights that events have."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, put
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import caller_of, services_of, tenant_of
from api.routes.items import BadListCursor
from api.wire import AnyRequest, answer, read_json, read_query
from api.work import writing
from infra.decode import InvalidFields
from infra.errors import FieldError
from tenants.catalog.item import Id
from tenants.events.event import DEFAULT_WEIGHTS
from tenants.events.inspector import SeenEvent, Wanted, list_events
from tenants.events.weights import set_weights

Weight = Annotated[float, Meta(ge=-1000, le=1000)]
TypeName = Annotated[str, Meta(max_length=64, pattern=r"^[a-z][a-z0-9_]*$(?!\n)")]


class InspectorQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /v1/events`: at most one of the ids."""

    user_id: Annotated[Id | None, Meta(description="Of this user, merged visitors included.")] = None
    visitor_id: Id | None = None
    item_id: Annotated[Id | None, Meta(description="Of this item, within 30 days.")] = None
    event_id: Annotated[Id | None, Meta(description="Of this id, as the shop gave it.")] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="Lines on a page.")] = 50
    cursor: Annotated[str, Meta(max_length=200, description="`next_cursor` of the page before.")] | None = None


class EventPage(Struct, frozen=True, kw_only=True):
    """Some lines of events, the newest first. `note` says what it means that there are none."""

    events: list[SeenEvent]
    next_cursor: str | None
    note: str | None


class Weights(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What events of each type count: those set by the shop, above the defaults."""

    weights: Annotated[dict[TypeName, Weight], Meta(max_length=100)]


@get(
    "/v1/events",
    opt=contract(
        scope="analytics:read", tag="Events", summary="Inspect events", query=InspectorQuery, answer=EventPage
    ),
)
async def inspect_events(request: AnyRequest) -> Response[bytes]:
    """Stored events, the newest first: whether shopper and item are known, whether they are learned from, why not.

    An event that is not here was never accepted: the answer to its `POST` said why.
    """
    query = read_query(request, InspectorQuery)
    wanted = _wanted(query)
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    async with services.database.tenant_session(tenant_id) as conn:
        found = await list_events(conn, tenant_id, wanted, limit=query.limit + 1, now=services.clock())
    more = len(found) > query.limit
    found = found[: query.limit]
    cursor = _write_cursor(found[-1]) if more else None
    note = None
    if not found and wanted.before is None:
        note = "No such event is stored. Its POST said whether it was rejected, and why"
        note += "; ids are found for 8 days." if wanted.by == "event" else "."
    return answer(EventPage(events=found, next_cursor=cursor, note=note))


@get(
    "/v1/events/weights",
    opt=contract(scope="analytics:read", tag="Events", summary="Show the weights of events", answer=Weights),
)
async def get_weights(request: AnyRequest) -> Response[bytes]:
    """What an event of each type counts for a shopper's taste; types that are not named count nothing."""
    tenant = await tenant_of(request)
    return answer(Weights(weights=dict(tenant.event_weights)))


@put(
    "/v1/events/weights",
    status_code=200,
    opt=contract(
        scope="admin",
        tag="Events",
        summary="Set the weights of events",
        body=Weights,
        body_example={"weights": {"view": 0, "purchase": 12, "quiz_done": 2}},
        answer=Weights,
        answer_example=Weights(weights={**DEFAULT_WEIGHTS, "view": 0, "purchase": 12, "quiz_done": 2}),
        audit="weights.put",
    ),
)
async def put_weights(request: AnyRequest) -> Response[bytes]:
    """Sets weights, 0 and negative ones too; types that are left out have the default. Types of your own may be named.

    Answers use them at once, what is learned from the next training on.
    """
    body = await read_json(request, Weights)
    async with writing(request) as work:
        await set_weights(work.conn, work.tenant_id, body.weights)
        await work.note(types=sorted(body.weights))
        return work.answered(answer(Weights(weights={**DEFAULT_WEIGHTS, **body.weights})))


def _wanted(query: InspectorQuery) -> Wanted:
    given = [
        (by, value)
        for by, value in (
            ("user", query.user_id),
            ("visitor", query.visitor_id),
            ("item", query.item_id),
            ("event", query.event_id),
        )
        if value is not None
    ]
    if len(given) > 1:
        fault = FieldError(pointer="", code="one_of", message="Give one of user_id, visitor_id, item_id, event_id.")
        raise InvalidFields("Ask for one thing at a time.", errors=[fault])
    before = None if query.cursor is None else _read_cursor(query.cursor)
    by, value = given[0] if given else ("all", "")
    return Wanted(by=by, value=value, before=before)  # type: ignore[arg-type]


def _write_cursor(last: SeenEvent) -> str:
    return urlsafe_b64encode(msgspec.json.encode((last.ts, last.event_no, last.line))).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, UUID, int]:
    """Where to go on. Raises BadListCursor."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        before = msgspec.json.decode(raw, type=tuple[datetime, UUID, int])
    except (ValueError, msgspec.MsgspecError):
        before = None
    if before is None or before[0].tzinfo is None or not 0 <= before[2] < 32768:
        raise BadListCursor("Send back the `next_cursor` of the page before, or none to begin again.")
    return before


ROUTES: Final = (inspect_events, get_weights, put_weights)
