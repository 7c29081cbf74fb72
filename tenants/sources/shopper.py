"""The shopper of a list: who it is, what was lately done, and a mark by which a kept list is known to be true still.

A list for a shopper reads of the shopper nothing but the common table expressions made here. The mark sums them up:
while it stays the same, so does what the shopper adds to the list. A list and its mark come of one statement, so of
one snapshot; asking for the mark alone is a probe of two indexes.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from msgspec import Struct

from infra.db import Database
from tenants.catalog.filters import Compiler
from tenants.learned.history import EVENTS, REACH_DAYS
from tenants.lifecycle import TenantRef
from tenants.retrieval.wanted import TENANT

MEANT: Final = "e.flags & 1 = 0 and e.item_no is not null and e.type <> 'impression'"
"""The condition on an event `e` that a shopper did it: no bot's, and more than being shown the item."""

DISLIKED_DAYS: Final = 365
"""So long an item that was disliked stays away."""

_RECENT: Final = (REACH_DAYS, EVENTS)
"""Days and events of `activity`."""

Reach = Literal["dislikes", "purchases", "cart"]
"""Which events a list asks for beyond those days: dislikes; all that was bought too; what was put into the cart too."""

_DECISIVE: Final[Mapping[Reach, Sequence[str]]] = {
    "dislikes": ["dislike"],
    "purchases": ["dislike", "purchase"],
    "cart": ["dislike", "purchase", "add_to_cart", "remove_from_cart"],
}

Bind = Callable[[object, str], str]
"""Adds a parameter of an SQL type to a statement; returns how to write it."""


class ShopperKey(Struct, frozen=True, kw_only=True):
    """A shopper by the shop's own id; `kind` 0 a visitor, 1 a user."""

    kind: Literal[0, 1]
    id: str


class Mark(Struct, frozen=True):
    """What a list knew of its shopper, in one line. `number` is the shopper's, None for one who is not known."""

    number: int | None
    text: str
    reach: Reach


def shopper_ctes(bind: Bind, shopper: ShopperKey, *, now: datetime, reach: Reach) -> list[str]:
    """`shopper`, the number, what it sells and its segments; `activity` and `decided` (type, item_no, ts), what was
    done lately and what is remembered longer; and the `mark`."""
    days, rows = _RECENT
    # Each month that is read costs 10 µs, so they are all read where a list asks for them alone.
    when = recent_events(bind, "e", now=now, days=DISLIKED_DAYS) if reach == "dislikes" else f"e.tenant_id = {TENANT}"
    types = ", ".join(f"'{name}'" for name in _DECISIVE[reach])
    return [
        f"""shopper as materialized (
        select i.shopper_no, u.seller_id, coalesce(u.segments, '{{}}') as segments from (
            select coalesce(i.merged_into, i.shopper_no) as shopper_no from shopper_ids i
            where i.tenant_id = {TENANT} and i.kind = {bind(shopper.kind, "int2")}
                and i.external_id = {bind(shopper.id, "text")}) i
        left join users u on u.tenant_id = {TENANT} and u.shopper_no = i.shopper_no
    )""",
        # Many impressions must not hide what the shopper did, nor make a shopper's request dear: both are bounded.
        f"""lately as materialized (
        select e.type, e.item_no, e.ts, e.flags from events e
        where e.shopper_no = (select s.shopper_no from shopper s) and {recent_events(bind, "e", now=now, days=days)}
        order by e.ts desc limit {rows * 5}
    )""",
        f"""activity as materialized (
        select e.type, e.item_no, e.ts from lately e where {MEANT} order by e.ts desc limit {rows}
    )""",
        # By an index of these types alone (events_decisive).
        f"""decided as materialized (
        select e.type, e.item_no, e.ts from events e
        where {when} and e.shopper_no = (select s.shopper_no from shopper s) and e.type in ({types}) and {MEANT}
    )""",
        # The oldest too: where so many are looked at that their number stays, an older one that comes in shifts it.
        """mark as materialized (
        select s.shopper_no, concat_ws('|', s.shopper_no, s.seller_id, s.segments::text, l.events, l.latest, l.oldest,
            (select count(*) from decided d)) as mark
        from shopper s cross join (select count(*) as events, extract(epoch from max(e.ts)) as latest,
            extract(epoch from min(e.ts)) as oldest from lately e) l
    )""",
    ]


MARK: Final = "(select m.mark from mark m) as mark, (select m.shopper_no from mark m) as shopper_no"
"""The columns that `mark_of` reads."""


def mark_of(record: Any, *, reach: Reach) -> Mark:
    """Of a record with the columns `MARK`."""
    number, text = record["shopper_no"], record["mark"]
    return Mark(number, text or "", reach)


async def read_mark(database: Database, tenant: TenantRef, shopper: ShopperKey, *, now: datetime, reach: Reach) -> Mark:
    """The shopper's mark as a list made now would have it; one round trip."""
    args: list[Any] = [str(tenant.tenant_id), tenant.tenant_id]
    ctes = shopper_ctes(Compiler(args, tenant=TENANT).bind, shopper, now=now, reach=reach)
    (record,) = await database.fetch_scoped(tenant.tenant_id, f"with {', '.join(ctes)} select {MARK}", *args[2:])
    return mark_of(record, reach=reach)


def recent_events(bind: Bind, alias: str, *, now: datetime, days: int) -> str:
    """The condition on `events` of the last days; months are literals, so that few partitions are even planned."""
    since = now - timedelta(days=days)
    first, last = _months(since, now + timedelta(days=1))
    return (
        f"{alias}.tenant_id = {TENANT} and {alias}.ts >= '{first}' and {alias}.ts < '{last}' "
        f"and {alias}.ts > {bind(since, 'timestamptz')}"
    )


def _months(since: datetime, until: datetime) -> tuple[str, str]:
    """The first day of the month of `since`, and of the month after `until`'s, as literals of UTC."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    following = (until.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"{since:%Y-%m}-01T00:00:00Z", f"{following:%Y-%m}-01T00:00:00Z"
