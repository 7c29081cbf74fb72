"""What answers led to: answers, impressions, clicks, purchases, click-through and revenue, by one dimension.

Events carry the id of the answer that they came from. Both logs are partitioned by time and read in the asked range
alone: an answer of the range, and the events of the range, which may name an answer of up to 30 days before it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

from msgspec import Struct

from infra.clock import within_reach
from infra.db import Database, TenantId
from infra.decode import InvalidFields
from infra.errors import FieldError
from tenants.answers import KEPT, first_id

By = Literal["placement", "position", "strategy", "variant", "day"]
DIMENSIONS: Final[tuple[By, ...]] = get_args(By)

MAX_RANGE: Final = timedelta(days=92)


class Revenue(Struct, frozen=True, kw_only=True):
    """Money in minor units of one currency."""

    currency: str
    amount: int


class AnalyticsRow(Struct, frozen=True, kw_only=True):
    """One value of the dimension; null where answers have none. `ctr` is clicks by impressions, null without any.

    By position, `answers` are those that had an item there.
    """

    key: str | None
    answers: int
    impressions: int
    clicks: int
    purchases: int
    ctr: float | None
    revenue: list[Revenue]


_KEY: Final[dict[By, str]] = {
    "placement": "a.placement",
    "strategy": "a.strategy",
    "variant": "a.variant",
    "day": "to_char(a.at at time zone 'UTC', 'YYYY-MM-DD')",
    "position": "null::text",
}
_AT: Final = "to_timestamp(('x' || left(replace(a.answer_id::text, '-', ''), 12))::bit(48)::int8 / 1000.0)"

# Answers are counted in the range; what events led back to is looked up in the log by its key, one probe for each
# answer that was reacted to. Events of bots are no reaction.
_SUMS: Final = """
with counted as materialized (
    select {counted_key} as key, count(*) as answers
    from (select a.placement, a.strategy, a.variant, a.items, {at} as at from answers a
        where a.tenant_id = $2::uuid and a.answer_id >= $5::uuid and a.answer_id < $6::uuid) a
    {places} group by 1
), reacted as materialized (
    select e.answer_id, e.type, e.position, e.currency, count(*) as events,
        -- The value is of the whole event; it stands on its first line where that has no price.
        sum(case when e.price is not null then e.price * coalesce(e.quantity, 1)::int8
            when e.line = 0 then coalesce(e.value, 0) else 0 end)::int8 as amount
    from events e where e.tenant_id = $2::uuid and e.ts >= $3::timestamptz and e.ts < $4::timestamptz
        and e.answer_id is not null and e.flags & 1 = 0 and e.type in ('impression', 'click', 'purchase')
    group by e.answer_id, e.type, e.position, e.currency
), joined as materialized (
    select {event_key} as key, r.type, r.currency, sum(r.events)::int8 as events, sum(r.amount)::int8 as amount
    from reacted r cross join lateral (
        select a.placement, a.strategy, a.variant, {at} as at from answers a
        where a.tenant_id = $2::uuid and a.answer_id = r.answer_id and a.answer_id >= $7::uuid
            and a.answer_id < $6::uuid offset 0) a
    group by 1, 2, 3
)
select 'answers' as type, c.key, null::text as currency, c.answers as events, 0::int8 as amount from counted c
union all
select j.type, j.key, j.currency, j.events, j.amount from joined j
"""


_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""There were no answers before."""


async def analytics(
    database: Database, tenant_id: TenantId, *, start: datetime, end: datetime, by: By
) -> list[AnalyticsRow]:
    """The sums from `start` until before `end`, by key. Raises InvalidFields for a range that is empty or too long."""
    if not timedelta(0) < end - start <= MAX_RANGE:
        message = f"`to` is later than `from`, by at most {MAX_RANGE.days} days."
        raise InvalidFields(message, errors=[FieldError(pointer="/to", code="out_of_range", message=message)])
    start, end = within_reach(start), within_reach(end)
    inner = _SUMS.format(
        at=_AT,
        counted_key="p.place::text" if by == "position" else _KEY[by],
        places="cross join lateral generate_series(1, cardinality(a.items)) p(place)" if by == "position" else "",
        event_key="r.position::text" if by == "position" else _KEY[by],
    )
    records = await database.fetch_scoped(
        tenant_id,
        inner,
        start,
        end,
        first_id(start),
        first_id(end),
        first_id(max(start, _FIRST) - KEPT),
    )
    counts: dict[str | None, dict[str, int]] = {}
    money: dict[str | None, dict[str, int]] = {}
    for record in records:
        sums = counts.setdefault(record["key"], {})
        sums[record["type"]] = sums.get(record["type"], 0) + record["events"]
        if record["type"] == "purchase" and record["amount"]:
            revenue = money.setdefault(record["key"], {})
            currency = record["currency"] or ""
            revenue[currency] = revenue.get(currency, 0) + record["amount"]
    return [_row(key, counts[key], money.get(key, {})) for key in _ordered(list(counts), by)]


def _ordered(keys: Sequence[str | None], by: By) -> list[str | None]:
    """Positions by number, all else by name; what has no key comes last."""
    return sorted(keys, key=lambda key: (key is None, int(key) if key and by == "position" else 0, key or ""))


def _row(key: str | None, sums: dict[str, int], revenue: dict[str, int]) -> AnalyticsRow:
    impressions, clicks = sums.get("impression", 0), sums.get("click", 0)
    return AnalyticsRow(
        key=key,
        answers=sums.get("answers", 0),
        impressions=impressions,
        clicks=clicks,
        purchases=sums.get("purchase", 0),
        ctr=round(clicks / impressions, 6) if impressions else None,
        revenue=[Revenue(currency=currency, amount=amount) for currency, amount in sorted(revenue.items())],
    )
