"""Events: what a shopper did with items, as shops send them and as they are stored.

The fields, their limits, the types and their weights; from checked events to the rows that `take_events` stores.
What costs time per event is written for a thousand of them: limits that decoding checks in C, everything else in one
cheap test, and the walk that names every bad field only for an event that failed it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from types import MappingProxyType
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from infra.errors import FieldError
from infra.ids import uuid7
from tenants.audience.shoppers import user_key, visitor_key
from tenants.catalog.item import Moment, Money

MAX_EVENTS: Final = 1000
MAX_BYTES: Final = 2_000_000
MAX_LINES: Final = 500
MAX_CONTEXT_BYTES: Final = 4096
LIVE_FOR: Final = timedelta(days=7)
AHEAD: Final = timedelta(minutes=5)

DEFAULT_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "click": 0.5,
        "view": 1.0,
        "favorite": 3.0,
        "add_to_cart": 4.0,
        "purchase": 10.0,
        "remove_from_cart": -2.0,
        "dislike": -5.0,
        "refund": -10.0,
    }
)
"""What an event of a type counts for a shopper's taste; a type that is not named counts nothing."""

WITH_ITEMS: Final = frozenset(
    {
        "impression",
        "click",
        "view",
        "add_to_cart",
        "remove_from_cart",
        "favorite",
        "purchase",
        "rating",
        "dislike",
    }
)
"""Types that say nothing without an item."""

TYPES: Final = WITH_ITEMS | {"refund", "search", "category_view"}
"""The types that have a meaning; a tenant may send others."""

BOT: Final = 1
"""Flag of an event that no person caused: stored, never learned from, never served from."""

_CUSTOM: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Without a pattern, whose call would cost more than all other checks of the event: `check` looks for control
# characters where the body may hold any.
Ref = Annotated[str, Meta(min_length=1, max_length=128)]
Label = Annotated[str, Meta(min_length=1, max_length=64)]
Quantity = Annotated[float, Meta(gt=0, le=1_000_000)]
ContextValue = str | bool | int | float | None


class EventLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One item of an event; `price` is of one piece, in minor units."""

    id: Ref
    quantity: Quantity | None = None
    price: Money | None = None
    recommendation_id: UUID | None = None


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that a shopper did. Items: `item_id`, or `items` for several; `value` is of the whole event.

    With both ids the event is the user's. `recommendation_id` and `position` say which answer showed the item.
    """

    type: Annotated[str, Meta(min_length=1, max_length=64, description="One of the known types, or your own.")]
    event_id: Ref | None = None
    user_id: Ref | None = None
    visitor_id: Ref | None = None
    session_id: Ref | None = None
    item_id: Ref | None = None
    items: Annotated[list[EventLine], Meta(max_length=MAX_LINES)] = []
    quantity: Quantity | None = None
    price: Money | None = None
    value: Money | None = None
    currency: Annotated[str, Meta(min_length=3, max_length=3, description="ISO 4217.")] | None = None
    order_id: Ref | None = None
    recommendation_id: UUID | None = None
    position: Annotated[int, Meta(ge=0, le=32767)] | None = None
    placement: Ref | None = None
    rating: Annotated[float, Meta(ge=-1000, le=1000)] | None = None
    ts: Moment | None = None
    context: Annotated[dict[Annotated[str, Meta(min_length=1, max_length=64)], ContextValue], Meta(max_length=50)] = {}


class EventRow(Struct, frozen=True, omit_defaults=True):
    """One line of an event as `take_events` reads it; the names are short, as they travel with every row."""

    t: UUID
    e: str
    y: str
    m: datetime
    l: int = 0  # noqa: E741
    s: int | None = None
    i: int | None = None
    q: float | None = None
    p: int | None = None
    v: int | None = None
    c: str | None = None
    o: str | None = None
    a: UUID | None = None
    x: int | None = None
    w: str | None = None
    z: str | None = None
    d: str | None = None
    h: str | None = None
    g: float | None = None
    f: int = 0
    k: dict[str, ContextValue] | None = None


class Window(Struct, frozen=True, kw_only=True):
    """When an event may have happened, and how a fault says it."""

    oldest: datetime
    latest: datetime
    what: str


def live_window(now: datetime) -> Window:
    """Of events as they are sent: up to 7 days old and 5 minutes ahead."""
    return Window(
        oldest=now - LIVE_FOR,
        latest=now + AHEAD,
        what="A live event is at most 7 days old and 5 minutes ahead; import what is older.",
    )


_encode = msgspec.json.Encoder().encode


def suspicious(body: bytes) -> bool:
    """Whether a text of the body may hold a control character: then each event's texts are looked at.

    JSON has them escaped, but DEL and, in UTF-8, U+0080 to U+009F, which begin with C2.
    """
    return b"\\" in body or b"\x7f" in body or b"\xc2" in body


def check(event: Event, window: Window, *, texts: bool) -> list[FieldError]:
    """What the struct's own limits cannot say; empty for a good event. `texts`: look for control characters too."""
    ts = event.ts
    currency = event.currency
    if (
        (ts is None or window.oldest <= ts <= window.latest)
        and (event.type in TYPES or _CUSTOM.fullmatch(event.type))
        and (event.item_id is not None or event.items or event.type not in WITH_ITEMS)
        and (currency is None or _is_currency(currency))
        and not (event.context and len(_encode(event.context)) > MAX_CONTEXT_BYTES)
        and not (event.items and event.item_id is not None)
        and not (event.type == "rating" and event.rating is None)
        and not texts
    ):
        return []
    return list(_faults(event, window))


def _is_currency(code: str) -> bool:
    return code.isascii() and code.isalpha() and code.isupper()


def _faults(event: Event, window: Window) -> Iterable[FieldError]:
    if event.ts is not None and not window.oldest <= event.ts <= window.latest:
        yield FieldError(pointer="/ts", code="out_of_range", message=window.what)
    if event.type not in TYPES and not _CUSTOM.fullmatch(event.type):
        yield FieldError(
            pointer="/type",
            code="invalid_value",
            message="A type of your own is made of a-z, 0-9 and _, as `quiz_done`.",
        )
    if event.item_id is not None and event.items:
        yield FieldError(pointer="/items", code="one_of", message="Give `item_id` or `items`, and not both.")
    if event.item_id is None and not event.items and event.type in WITH_ITEMS:
        yield FieldError(
            pointer="/item_id",
            code="missing_field",
            message=f"A {event.type} is of an item: give `item_id` or `items`.",
        )
    if event.type == "rating" and event.rating is None:
        yield FieldError(pointer="/rating", code="missing_field", message="A rating event has its `rating`.")
    if event.currency is not None and not _is_currency(event.currency):
        yield FieldError(pointer="/currency", code="invalid_value", message="A currency is an ISO 4217 code, as EUR.")
    if event.context and len(_encode(event.context)) > MAX_CONTEXT_BYTES:
        yield FieldError(
            pointer="/context", code="out_of_range", message=f"`context` may have {MAX_CONTEXT_BYTES:,} bytes."
        )
    for pointer, text in _ids(event):
        if text is not None and _CONTROL.search(text):
            yield FieldError(pointer=pointer, code="control_character", message="An id holds no control characters.")
    if any("\0" in name or (isinstance(value, str) and "\0" in value) for name, value in event.context.items()):
        yield FieldError(pointer="/context", code="nul_character", message="`context` holds a NUL character (\\u0000).")


def _ids(event: Event) -> Iterable[tuple[str, str | None]]:
    for name in ("event_id", "user_id", "visitor_id", "session_id", "item_id", "order_id", "placement"):
        yield f"/{name}", getattr(event, name)
    for at, line in enumerate(event.items):
        yield f"/items/{at}/id", line.id


def shopper_of(event: Event) -> str | None:
    """Who did it, as `ShopperIds.resolve` takes it; None for an event of nobody."""
    if event.user_id is not None:
        return user_key(event.user_id)
    return None if event.visitor_id is None else visitor_key(event.visitor_id)


def ids_of(events: Iterable[Event]) -> tuple[set[str], set[str]]:
    """All shoppers and items that the events name."""
    shoppers: set[str] = set()
    items: set[str] = set()
    for event in events:
        if event.user_id is not None:
            shoppers.add("u" + event.user_id)
        elif event.visitor_id is not None:
            shoppers.add("v" + event.visitor_id)
        if event.item_id is not None:
            items.add(event.item_id)
        elif event.items:
            items.update([line.id for line in event.items])
    return shoppers, items


def numbered(count: int) -> list[str]:
    """So many new event numbers: UUIDv7 of one millisecond, in rising order."""
    first = uuid7().int & ~(1 << 47)  # room to count up
    head = str(UUID(int=first))[:24]
    low = first & (1 << 48) - 1
    return [f"{head}{low + n:012x}" for n in range(count)]


def rows_of(
    tenant_id: UUID,
    events: Sequence[Event],
    numbers: Sequence[str],
    flags: Sequence[int],
    *,
    shoppers: Mapping[str, int],
    items: Mapping[str, int],
    now: datetime,
    secret: bytes | None,
) -> list[list[EventRow]]:
    """The rows of each event, one per item; an event without items has one.

    `secret` keys the hash of the body, which tells a repeat from another event of the same id; None: no hash.
    `flags` is `BOT` or 0 for each event; an event without a time happened at `now`.
    """
    made = []
    key = None if secret is None else secret[:64]
    for event, number, flag in zip(events, numbers, flags, strict=True):
        shopper: int | None = None
        if event.user_id is not None:
            shopper = shoppers["u" + event.user_id]
        elif event.visitor_id is not None:
            shopper = shoppers["v" + event.visitor_id]
        item = event.item_id
        lines = event.items
        event_id = event.event_id
        body_hash = None
        if event_id is not None and key is not None:
            body_hash = blake2b(_encode(event), digest_size=8, key=key).hexdigest()
        if item is not None or not lines:
            first, quantity, price, answer = item, event.quantity, event.price, event.recommendation_id
        else:
            first, quantity, price = lines[0].id, lines[0].quantity, lines[0].price
            answer = lines[0].recommendation_id or event.recommendation_id
        ts = event.ts or now
        rows = [
            EventRow(
                tenant_id,
                number,
                event.type,
                ts,
                0,
                shopper,
                None if first is None else items[first],
                quantity,
                price,
                event.value,
                event.currency,
                event.order_id,
                answer,
                event.position,
                event.placement,
                event.session_id,
                event_id,
                body_hash,
                event.rating,
                flag,
                event.context or None,
            )
        ]
        if len(lines) > 1:
            rows += [
                EventRow(
                    t=tenant_id,
                    e=number,
                    l=at,
                    y=event.type,
                    m=ts,
                    s=shopper,
                    i=items[line.id],
                    q=line.quantity,
                    p=line.price,
                    c=event.currency,
                    o=event.order_id,
                    a=line.recommendation_id or event.recommendation_id,
                    x=event.position,
                    w=event.placement,
                    z=event.session_id,
                    d=event_id,
                    f=flag,
                )
                for at, line in enumerate(lines[1:], 1)
            ]
        made.append(rows)
    return made


def weights_of(overrides: Mapping[str, Any]) -> Mapping[str, float]:
    """The weights of a tenant: the defaults, under what it has set itself."""
    return (
        {**DEFAULT_WEIGHTS, **{name: float(weight) for name, weight in overrides.items()}}
        if overrides
        else (DEFAULT_WEIGHTS)
    )
