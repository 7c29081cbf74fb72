"""The event inspector: was my event taken, joined, ignored, and why."""

from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from tenants.audience.shoppers import USER, VISITOR
from tenants.events.event import BOT, DEFAULT_WEIGHTS, TYPES

LOOKED_BACK: Final = timedelta(days=30)
"""How far back events of an item, or of all, are looked for; those of a shopper, and by id, however old."""


class SeenEvent(Struct, frozen=True, kw_only=True):
    """One line of an event as it was stored.

    `item_known`: the catalogue has the item, or will be joined when it comes. `learned` and `notes` say whether it
    counts for recommendations, and if not why.
    """

    event_no: UUID
    line: int
    type: str
    event_id: str | None
    ts: datetime
    received_at: datetime
    user_id: str | None
    visitor_id: str | None
    item_id: str | None
    item_known: bool
    quantity: float | None
    price: int | None
    value: int | None
    currency: str | None
    order_id: str | None
    recommendation_id: UUID | None
    session_id: str | None
    placement: str | None
    position: int | None
    rating: float | None
    context: dict[str, Any]
    learned: bool
    notes: list[str]


class Wanted(Struct, frozen=True, kw_only=True):
    """Which events: at most one of these; none: all. `before` continues a list after (ts, event_no, line)."""

    by: Literal["user", "visitor", "item", "event", "all"]
    value: str = ""
    before: tuple[datetime, UUID, int] | None = None


_LINES: Final = """
select e.event_no, e.line, e.type, e.event_id, e.ts, e.quantity, e.price, e.value, e.currency, e.order_id,
    e.answer_id, e.session_id, e.placement, e.position, e.rating, e.flags, e.context::text as context,
    s.kind, s.external_id as shopper, d.external_id as item, i.item_no is not null as item_known
from ({found}) e
left join shopper_ids s on s.tenant_id = $1 and s.shopper_no = e.shopper_no
left join item_ids d on d.tenant_id = $1 and d.item_no = e.item_no
left join items i on i.tenant_id = $1 and i.item_no = e.item_no
order by e.ts desc, e.event_no desc, e.line desc
"""

_PAGE: Final = """
select * from events where tenant_id = $1 and {which}
    and ($3::timestamptz is null or (ts, event_no, line) < ($3, $4::uuid, $5::int2))
order by ts desc, event_no desc, line desc limit $6
"""

_SHOPPER: Final = (
    "shopper_no = (select coalesce(merged_into, shopper_no) from shopper_ids "
    "where tenant_id = $1 and kind = {kind} and external_id = $2)"
)
_WHICH: Final = {
    "user": _SHOPPER.format(kind=USER),
    "visitor": _SHOPPER.format(kind=VISITOR),
    "item": "item_no = (select item_no from item_ids where tenant_id = $1 and external_id = $2) and ts > $7",
    "all": "$2 = '' and ts > $7",
    # Where it lies is known for 8 days; an older one is looked for among the recent months.
    "event": (
        "event_id = $2 and ts = any(array(select ts from event_seen where tenant_id = $1 and event_id = $2)) "
        "and ts > $7"
    ),
}


async def list_events(
    conn: AsyncConnection, tenant_id: TenantId, wanted: Wanted, *, limit: int, now: datetime
) -> list[SeenEvent]:
    """Stored events, the newest first, with what became of them."""
    found = _PAGE.format(which=_WHICH[wanted.by])
    before = wanted.before or (None, None, None)
    args: list[Any] = [tenant_id, wanted.value, *before, limit]
    if "$7" in found:
        args.append(now - LOOKED_BACK)
    records = await (await driver(conn)).fetch(_LINES.format(found=found), *args)
    return [_seen(record) for record in records]


def _seen(record: Any) -> SeenEvent:
    number = UUID(int=record["event_no"].int)
    notes = []
    if record["flags"] & BOT:
        notes.append("It is a bot's, by its agent or its rate: kept apart, never learned from.")
    if record["type"] not in TYPES:
        notes.append("The type is your own: it counts where you give it a weight.")
    elif record["type"] not in DEFAULT_WEIGHTS and record["type"] not in ("impression", "rating", "search"):
        notes.append("Events of this type are stored and counted, and have no weight of their own.")
    if record["shopper"] is None:
        notes.append("It names no shopper: it counts for the item, not for anybody's taste.")
    if record["item"] is not None and not record["item_known"]:
        notes.append("The catalogue has no such item; the event is joined when it comes.")
    return SeenEvent(
        event_no=number,
        line=record["line"],
        type=record["type"],
        event_id=record["event_id"],
        ts=record["ts"],
        received_at=datetime.fromtimestamp((number.int >> 80) / 1000, record["ts"].tzinfo),
        user_id=record["shopper"] if record["kind"] == USER else None,
        visitor_id=record["shopper"] if record["kind"] == VISITOR else None,
        item_id=record["item"],
        item_known=record["item_known"],
        quantity=record["quantity"],
        price=record["price"],
        value=record["value"],
        currency=record["currency"],
        order_id=record["order_id"],
        recommendation_id=None if record["answer_id"] is None else UUID(int=record["answer_id"].int),
        session_id=record["session_id"],
        placement=record["placement"],
        position=record["position"],
        rating=record["rating"],
        context=msgspec.json.decode(record["context"] or "{}"),
        learned=not record["flags"] & BOT and record["item"] is not None,
        notes=notes,
    )
