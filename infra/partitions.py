"""Partitions of the tables that grow with time: made ahead, and dropped whole when their time is over.

DDL belongs to the owner; the system role reaches it through two functions of the schema that know these tables and
no other.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from msgspec import Struct

Step = Literal["day", "week", "month"]

_STEPS: Final[dict[Step, timedelta]] = {
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=28),
}


class Partitioned(Struct, frozen=True, kw_only=True):
    """A table by time: how long a partition is, how many are made before and after the present one.

    `kept_days`: a partition that ended longer ago is dropped; None where a setting decides.
    """

    table: str
    step: Step
    before: int
    ahead: int
    kept_days: int | None


PARTITIONED: Final = (
    Partitioned(table="events", step="month", before=1, ahead=3, kept_days=None),
    # Shown again for 30 days, summed up for 92.
    Partitioned(table="answers", step="month", before=1, ahead=3, kept_days=92),
    Partitioned(table="event_seen", step="week", before=1, ahead=4, kept_days=8),
    Partitioned(table="item_minutes", step="day", before=1, ahead=14, kept_days=3),
)
"""A live event is at most 7 days old, and the last month's partition is there when a month begins."""


def floor_to(step: Step, moment: datetime) -> datetime:
    """The beginning of the day, week (Monday) or month that `moment` is in, UTC."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if step == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if step == "week" else day


def next_of(step: Step, first: datetime) -> datetime:
    """The beginning of the next one."""
    # 31 days after the first of a month lie in the next month, whatever its length.
    return floor_to("month", first + timedelta(days=31)) if step == "month" else first + _STEPS[step]


def previous_of(step: Step, first: datetime) -> datetime:
    """The beginning of the one before."""
    return floor_to(step, first - timedelta(days=1))


def around(plan: Partitioned, now: datetime) -> Iterator[datetime]:
    """The beginnings of the partitions that must be there at `now`, the earliest first."""
    first = floor_to(plan.step, now)
    for _ in range(plan.before):
        first = previous_of(plan.step, first)
    for _ in range(plan.before + 1 + plan.ahead):
        yield first
        first = next_of(plan.step, first)


async def make_partition(raw: Any, table: str, step: Step, first: datetime) -> bool:
    """Make the partition that begins then, unless it is there; whether it was made. `raw` is of the system role."""
    made: bool = await raw.fetchval("select make_partition($1, $2, $3)", table, first, next_of(step, first))
    return made


async def ensure_partitions(raw: Any, now: datetime) -> int:
    """Make whatever must be there at `now`; how many were missing. May be run at any time, by anybody, twice."""
    made = 0
    for plan in PARTITIONED:
        for first in around(plan, now):
            made += await make_partition(raw, plan.table, plan.step, first)
    return made


_LIST: Final = """
select p.relname as parent, to_date(right(c.relname, 8), 'YYYYMMDD') as first
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
where p.relnamespace = 'public'::regnamespace and p.relname = any($1::text[]) and c.relname ~ '_[0-9]{8}$'
order by 1, 2
"""


async def old_partitions(raw: Any, now: datetime, *, events_days: int | None) -> list[tuple[str, datetime]]:
    """The partitions whose every row is older than its table keeps rows; `events_days` None: events are kept."""
    plans = {plan.table: plan for plan in PARTITIONED}
    old = []
    for record in await raw.fetch(_LIST, list(plans)):
        plan = plans[record["parent"]]
        days = events_days if plan.kept_days is None else plan.kept_days
        first = datetime(record["first"].year, record["first"].month, record["first"].day, tzinfo=UTC)
        if days is not None and next_of(plan.step, first) <= now - timedelta(days=days):
            old.append((plan.table, first))
    return old


def most_days(table: str) -> int:
    """How old a row of a table gets at most that is dropped by whole partitions and nothing else."""
    (plan,) = [plan for plan in PARTITIONED if plan.table == table]
    assert plan.kept_days is not None
    return plan.kept_days + _STEPS[plan.step].days


async def drop_partition(raw: Any, table: str, first: datetime) -> bool:
    """Drop the partition that begins then, with its rows. Raises asyncpg's LockNotAvailableError where one reads it."""
    dropped: bool = await raw.fetchval("select drop_partition($1, $2)", table, first)
    return dropped
