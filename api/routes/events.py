"""POST /v1/events: what shoppers do."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response, post
from msgspec import Meta, Struct, structs

from api.auth import Caller, UserIdRefused
from api.contract import WriteQuery, contract
from api.deps import Services, caller_of, services_of, tenant_of
from api.ingest import Outcome
from api.limits.cost import Cost
from api.recommend.speaking import named_by
from api.wire import JSON, AnyRequest, answer, expect_media_type
from api.work import Work, intent_of, writing
from infra.db import driver
from infra.decode import InvalidFields, faults, plain_json, summary
from infra.errors import FieldError, TooLarge
from infra.telemetry import Children, counter
from tenants.audience.shoppers import number_ids
from tenants.events.event import (
    MAX_BYTES,
    MAX_EVENTS,
    Event,
    EventRow,
    check,
    ids_of,
    live_window,
    numbered,
    rows_of,
    suspicious,
)
from tenants.events.ga4 import is_ga4, translate

_taken: Final = Children(counter("events_received_total", "Events by what became of them.", ["status"]))

_RANDOM_ID: Final = re.compile(
    r"[0-9a-fA-F]{32,}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-Za-z_-]{22,}", re.ASCII
)
"""Ids of at least 128 random bits: 32 hexadecimal digits, a UUID, or 22 characters of base62 or base64url."""

_EXAMPLE: Final = {
    "events": [
        {
            "event_id": "01J9Z6Q7-view-1",
            "type": "view",
            "visitor_id": "3f0c2a9e5b7d41f8a6c4e2d09b8f7a61",
            "item_id": "SKU-1",
            "ts": "2026-01-15T12:00:00Z",
        },
        {
            "type": "purchase",
            "user_id": "customer-7",
            "order_id": "A-1001",
            "currency": "EUR",
            "items": [{"id": "SKU-1", "quantity": 2, "price": 6900}, {"id": "SKU-2", "quantity": 1, "price": 15900}],
        },
    ]
}


class EventBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 1,000 events."""

    events: Annotated[list[Event], Meta(max_length=MAX_EVENTS)]


class EventsQuery(WriteQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `POST /v1/events`."""

    key: Annotated[str | None, Meta(description="A publishable key, where no header can be set (beacons).")] = None
    visitor_token: Annotated[
        str | None, Meta(description="A visitor token, where `X-Visitor-Token` cannot be set (beacons).")
    ] = None


class EventFault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an event was rejected, or what is odd about one that was not; `errors` names every bad field."""

    code: str
    message: str
    errors: list[FieldError] = []


class EventResult(Struct, frozen=True, omit_defaults=True):
    """What became of one event. `duplicate`: its `event_id` was taken before; `warning` where with another body."""

    index: int
    id: str | None
    status: Literal["accepted", "duplicate", "rejected"]
    error: EventFault | None = None
    warning: EventFault | None = None


class EventsAnswer(Struct, frozen=True, kw_only=True):
    """The sums and, event by event, what became of them; given after the accepted ones are durable."""

    accepted: int
    duplicate: int
    rejected: int
    results: list[EventResult]


_OTHER_BODY: Final = EventFault(
    code="other_body", message="An event of this id was taken before, and it was another one. This one is not stored."
)

_batch_of = msgspec.json.Decoder(EventBatch).decode
_event_of = msgspec.json.Decoder(Event).decode


class _Read(Struct):
    """The events of a body: one entry per event, None where it cannot be read, and then its result."""

    events: list[Event | None]
    rejected: dict[int, EventResult]


@post(
    "/v1/events",
    status_code=200,
    opt=contract(
        scope="events:write",
        tag="Events",
        summary="Send events",
        query=EventsQuery,
        body=EventBatch,
        body_example=_EXAMPLE,
        body_types={"text/plain": '{"events": [{"type": "view", "item_id": "SKU-1"}]}'},
        answer=EventsAnswer,
        answer_example=EventsAnswer(
            accepted=2,
            duplicate=0,
            rejected=0,
            results=[EventResult(0, "01J9Z6Q7-view-1", "accepted"), EventResult(1, None, "accepted")],
        ),
        unaudited="Events are what shoppers do.",
        max_body=MAX_BYTES,
        cost=Cost(body_bytes=20_000),
    ),
)
async def post_events(request: AnyRequest) -> Response[bytes]:
    """Takes up to 1,000 events (2 MB); what is answered as accepted is durable.

    A bad event is rejected with every bad field named and loses none of the others. `event_id` is unique per shop: a
    repeat is a `duplicate`, not an error. Live events are up to 7 days old; import what is older. Items and shoppers
    that are not known yet are taken. One event without the list around it, and the body of Google Analytics 4, are
    understood too. With `?key=` and `text/plain` a browser's beacon needs no header; then, as with every
    publishable key, only a random `visitor_id` names the shopper.

    `event_id` is the cheaper way to send a call again: an Idempotency-Key gives it a transaction of its own.
    """
    expect_media_type(request, JSON, "text/plain")
    services = services_of(request)
    caller = caller_of(request)
    now = services.clock()
    body = await request.body()
    read = await _read(request, body)
    _refuse(read, caller, now, texts=suspicious(body))
    good = [event for event in read.events if event is not None]
    standing = request.scope["state"]["standing"]
    services.gate.require(standing, "events")
    agent = request.headers.get("user-agent", "") if caller.kind == "publishable" else None
    if intent_of(request).plain:
        made = _result(read, *await _store(services, caller, good, agent, now))
        _count(made)
        services.gate.count(standing, "events", made.accepted)
        return answer(made)
    async with writing(request) as work:
        made = _result(read, *await _store(services, caller, good, agent, now, work))
        response = work.answered(answer(made))
    if not work.dry_run:
        _count(made)
        services.gate.count(standing, "events", made.accepted)
    return response


def _count(made: EventsAnswer) -> None:
    for status, count in (("accepted", made.accepted), ("duplicate", made.duplicate), ("rejected", made.rejected)):
        if count:
            _taken(status).inc(count)


async def _store(
    services: Services,
    caller: Caller,
    events: Sequence[Event],
    agent: str | None,
    now: datetime,
    work: Work | None = None,
) -> tuple[list[str], Outcome]:
    """Store the events: with those of others, or in the transaction of `work`, with all that belongs to it."""
    if not events:
        return [], Outcome(repeats={}, unstorable={})
    wanted = ids_of(events)
    if work is None:
        shoppers, items = await services.shopper_ids.resolve(caller.tenant_id, *wanted)
    else:
        raw = await driver(work.conn)
        shoppers, items = await number_ids(raw, caller.tenant_id, *(list(ids) for ids in wanted))
    flags = [0] * len(events)
    if work is None or not work.dry_run:  # what is not stored counts for no shopper's rate
        flags = services.rates.flags(caller.tenant_id, events, agent=agent, now=now)
        if any(flags):
            _taken("bot").inc(sum(flag != 0 for flag in flags))
    numbers = numbered(len(events))

    def rows(secret: bytes) -> list[list[EventRow]]:
        return rows_of(caller.tenant_id, events, numbers, flags, shoppers=shoppers, items=items, now=now, secret=secret)

    async def take(made: Sequence[Sequence[EventRow]]) -> Outcome:
        if work is not None:
            return await services.ingest.take_inside(work.conn, made)
        return await services.ingest.take(made)

    outcome = await take(rows(services.secret.current))
    for older in services.secret.others:
        odd = [at for at, number in enumerate(numbers) if not outcome.repeats.get(number, True)]
        if not odd:
            break
        # While the secret is changed, what was taken before may be known by its hash under another. Asked for again, it
        # is a repeat in any case, and stores nothing.
        hashed = rows(older)
        again = await take([hashed[at] for at in odd])
        outcome.repeats.update({number: True for number, same in again.repeats.items() if same})
    return numbers, outcome


async def _read(request: AnyRequest, body: bytes) -> _Read:
    """The events of the body. Raises MalformedJson, InvalidFields where it has no list, TooLarge."""
    try:
        return _Read(list(_batch_of(body).events), {})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    # From here on only for a body that is not all good, or of another form.
    plain = plain_json(body)
    if is_ga4(plain):
        assert isinstance(plain, dict)
        tenant = await tenant_of(request)
        found = _list_of(plain)
        return _convert(found, lambda event: translate(plain, event, currency=tenant.currency))
    if isinstance(plain, dict) and "type" in plain and "events" not in plain:
        return _convert([plain], _same)
    if isinstance(plain, dict):
        unknown = [
            FieldError(pointer=f"/{name}", code="unknown_field", message=f"There is no field `{name}`.")
            for name in plain
            if name != "events"
        ]
        if unknown:
            raise InvalidFields(summary(unknown), errors=unknown)
    return _convert(_list_of(plain), _same)


def _same(event: object) -> object:
    return event


def _list_of(plain: object) -> list[Any]:
    events = plain.get("events") if isinstance(plain, dict) else plain
    if not isinstance(events, list):
        fault = FieldError(pointer="/events", code="wrong_type", message="Expected a list of events.")
        raise InvalidFields('Send {"events": […]}.', errors=[fault])
    if len(events) > MAX_EVENTS:
        raise TooLarge(f"The call has {len(events):,} events; {MAX_EVENTS:,} are allowed. Nothing of it was stored.")
    return events


def _convert(plain: Sequence[object], into: Callable[[object], object]) -> _Read:
    read = _Read([], {})
    for index, given in enumerate(plain):
        event = into(given)
        try:
            read.events.append(msgspec.convert(event, Event))
        except msgspec.ValidationError as error:
            found = faults(event, Event) or [FieldError(pointer="", code="invalid_value", message=str(error))]
            read.events.append(None)
            event_id = event.get("event_id") if isinstance(event, dict) else None
            read.rejected[index] = _rejected(index, event_id if isinstance(event_id, str) else None, found)
    return read


def _refuse(read: _Read, caller: Caller, now: datetime, *, texts: bool) -> None:
    """Take out the events that cannot be used, and name whom a token speaks for.

    Raises UserIdRefused, ShopperRefused.
    """
    window = live_window(now)
    public = caller.kind == "publishable" and caller.visitor is None
    for index, given in enumerate(read.events):
        if given is None:
            continue
        event = given
        if caller.visitor is not None:
            user, visitor = named_by(caller, event.user_id, event.visitor_id)
            event = read.events[index] = structs.replace(event, user_id=user, visitor_id=visitor)
        found = check(event, window, texts=texts)
        if caller.placements is not None and event.placement is not None and event.placement not in caller.placements:
            message = "The key, or its visitor token, is for other placements than this."
            found = [*found, FieldError(pointer="/placement", code="placement_refused", message=message)]
        if public:
            if event.user_id is not None:
                raise UserIdRefused(
                    "A publishable key can be read by everybody, so nobody is believed to be a user by it. "
                    "Send a random `visitor_id`, and merge it with the user from your server."
                )
            if event.visitor_id is not None and not _RANDOM_ID.fullmatch(event.visitor_id):
                message = "With a publishable key a visitor's id has 128 random bits, as a random UUID has."
                found = [*found, FieldError(pointer="/visitor_id", code="guessable", message=message)]
        if found:
            read.events[index] = None
            read.rejected[index] = _rejected(index, event.event_id, found)


def _rejected(index: int, event_id: str | None, found: list[FieldError]) -> EventResult:
    error = EventFault(code=InvalidFields.code, message=summary(found), errors=found)
    return EventResult(index, event_id, "rejected", error)


def _result(read: _Read, numbers: Sequence[str], outcome: Outcome) -> EventsAnswer:
    duplicates = 0
    special = outcome.repeats or outcome.unstorable
    by_index = iter(numbers)
    results = []
    rejected = len(read.rejected)
    for index, event in enumerate(read.events):
        if event is None:
            results.append(read.rejected[index])
            continue
        number = next(by_index, "")
        if special and number in outcome.repeats:
            duplicates += 1
            warning = None if outcome.repeats[number] else _OTHER_BODY
            results.append(EventResult(index, event.event_id, "duplicate", None, warning))
        elif special and number in outcome.unstorable:
            rejected += 1
            error = EventFault(code="unstorable", message="The database cannot store this event; nothing of it is.")
            results.append(EventResult(index, event.event_id, "rejected", error))
        else:
            results.append(EventResult(index, event.event_id, "accepted"))
    accepted = len(results) - duplicates - rejected
    return EventsAnswer(accepted=accepted, duplicate=duplicates, rejected=rejected, results=results)


ROUTES: Final = (post_events,)
