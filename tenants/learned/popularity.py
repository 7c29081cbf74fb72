"""What sells, and what sells more than it used to: popularity and trend of every item, per segment.

Kept in `item_scores` under the model that serves (0 before there is one), so that lists of best sellers are one look
into an index and move within a minute of the events.

popularity_j = d_j / max_k d_k, d the sum of the weights of an item's events, halved every `HALF_LIFE`.
trend_j = t / (t + 3), t = (fresh - steady) / √(steady + 1): how far the events of the last quarter of a half-life lie
above what the longer run lets expect, in standard deviations of a count; 0 for what does not rise.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver, fetch
from tenants.learned.blend import FEW_DAYS

HALF_LIFE: Final = timedelta(days=14)
"""Of 7, 14, 30 and 60 days 14 finds most on the validation windows of online_retail (docs/quality.md)."""

REACH: Final = timedelta(days=FEW_DAYS)
"""Events before this are not read: together they weigh a thousandth of those since."""

SEGMENTS: Final = 50
"""Segments of a tenant with scores of their own, those with the most shoppers."""

_MOVED: Final = 0.02
"""A row whose figures moved by less is left as it is: every event moves all of them by a little."""

_SMOOTH: Final = 3.0

# A user's segments are few; everybody is in ''. Steady: what a quarter of a half-life holds of events that come
# evenly, of which the decayed count is 1 / ln 2 half-lives' worth.
_SCORE: Final = """
with weight as materialized (
    select w.type, w.weight from unnest($3::text[], $4::float8[]) w(type, weight)
), wide as materialized (
    select s.name from users u cross join unnest(u.segments) s(name) where u.tenant_id = $1
    group by s.name order by count(*) desc, s.name limit {segments}
), member as materialized (
    select u.shopper_no, s.name from users u cross join unnest(u.segments) s(name)
    where u.tenant_id = $1 and s.name in (select wide.name from wide)
), event as materialized (
    select e.item_no, e.shopper_no, w.weight,
        exp(-ln(2) * greatest(extract(epoch from $2::timestamptz - e.ts), 0)::float8 / {half_life_s}) as decay
    from events e join weight w on w.type = e.type
    where e.tenant_id = $1 and e.ts > $2::timestamptz - interval '{reach_s} seconds'
        and e.ts <= $2::timestamptz + interval '10 minutes' and e.item_no is not null and e.flags & 1 = 0
), scoped as (
    select '' as segment, e.* from event e
    union all
    select m.name, e.* from event e join member m on m.shopper_no = e.shopper_no
), summed as (
    select s.segment, s.item_no, greatest(sum(s.weight * s.decay), 0) as decayed,
        count(*) as events,
        count(*) filter (where s.weight > 0 and s.decay > {quarter}) as fresh,
        coalesce(sum(s.decay) filter (where s.weight > 0), 0) * ln(2) * 0.25 as steady
    from scoped s group by s.segment, s.item_no
), risen as (
    select s.*, greatest((s.fresh - s.steady) / sqrt(s.steady + 1), 0) as rise,
        max(s.decayed) over (partition by s.segment) as best
    from summed s
), scored as materialized (
    select r.segment, r.item_no, (case when r.best > 0 then r.decayed / r.best else 0 end)::real as popularity,
        (r.rise / (r.rise + {smooth}))::real as trend, least(r.events, 2147483647)::int as events
    from risen r
), gone as (
    delete from item_scores i where i.tenant_id = $1 and i.model = $5
    and (i.popularity > 0 or i.trend > 0 or i.segment <> '')
    and not exists (select 1 from scored s where s.segment = i.segment and s.item_no = i.item_no)
    returning 1
), kept as (
    insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events)
    select $1, $5, s.segment, s.item_no, s.popularity, s.trend, s.events from scored s
    on conflict (tenant_id, model, segment, item_no) do update
    set popularity = excluded.popularity, trend = excluded.trend, events = excluded.events
    where abs(item_scores.popularity - excluded.popularity) > {moved} * item_scores.popularity
        or abs(item_scores.trend - excluded.trend) > {moved}
        or item_scores.events = 0
    returning 1
)
select (select count(*) from kept) + (select count(*) from gone) as changed
"""


class Active(Struct, frozen=True, kw_only=True):
    """A tenant with events, and whether some came in the last minutes."""

    tenant_id: TenantId
    lively: bool


async def list_active(conn: AsyncConnection, now: datetime, *, since: timedelta) -> list[Active]:
    """Tenants with events; `since`: how long ago the latest are looked for. `conn` is a system session."""
    records = await fetch(
        conn,
        "select t.tenant_id, exists (select 1 from item_minutes m where m.tenant_id = t.tenant_id "
        "and m.minute >= $1::timestamptz) as lively from tenants t "
        "where t.deleted_at is null and exists (select 1 from events e where e.tenant_id = t.tenant_id)",
        now - since,
    )
    return [Active(tenant_id=TenantId(record["tenant_id"]), lively=record["lively"]) for record in records]


async def refresh_popularity(
    conn: AsyncConnection, tenant_id: TenantId, weights: Mapping[str, float], *, model: int, now: datetime
) -> int | None:
    """Compute the scores anew and write those that moved; how many. None while another worker is at it.

    Two runs at one time would lock the same rows in different orders; the lock is the tenant's and ends with the
    transaction.
    """
    raw = await driver(conn)
    if not await raw.fetchval(
        "select pg_try_advisory_xact_lock(hashtextextended('popularity of ' || $1::text, 0))", str(tenant_id)
    ):
        return None
    named = [(kind, weight) for kind, weight in weights.items() if weight != 0]
    changed: int = await raw.fetchval(
        _SCORE.format(
            segments=SEGMENTS,
            half_life_s=HALF_LIFE.total_seconds(),
            reach_s=int(REACH.total_seconds()),
            quarter=repr(0.5**0.25),
            smooth=_SMOOTH,
            moved=_MOVED,
        ),
        tenant_id,
        now,
        [kind for kind, _ in named],
        [weight for _, weight in named],
        model,
    )
    return changed
