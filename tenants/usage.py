"""What a tenant uses of its plan: counted in memory, added up in the database once a second.

Requests and events are counted by the month (UTC). What counts the bill is not this but the answer log; here a
process that is killed loses its last second.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.background import Background
from infra.clock import Clock
from infra.db import TenantId, driver
from infra.lone import LoneConnection
from infra.telemetry import Children, counter

FLUSH_S: Final = 1.0
NEAR: Final = (80, 100)
"""Per cent of a quota at which a tenant is told."""

MAX_KNOWN: Final = 50_000
"""Sums that a process remembers; beyond it all that do not wait are forgotten, and known again a second after they are
used."""

_RETRY_S: Final = 2.0

_flushed: Final = Children(counter("usage_flushes_total", "Times that usage was added up.", ["outcome"]))
_log = structlog.get_logger(__name__)

# Of tenants that are there: one that was erased meanwhile gets no new row.
_ADD: Final = """
with given as (
    select g.* from unnest($1::uuid[], $2::date[], $3::text[], $4::int8[], $5::int8[])
        g(tenant_id, period, meter, amount, quota)
    where exists (select 1 from tenants t where t.tenant_id = g.tenant_id)
), added as (
    insert into usage_months as m (tenant_id, period, meter, used)
    select tenant_id, period, meter, amount from given order by tenant_id, period, meter
    on conflict (tenant_id, period, meter) do update set used = m.used + excluded.used
    returning tenant_id, period, meter, used
), noticed as (
    insert into quota_notices (tenant_id, period, meter, percent, used, quota, at)
    select a.tenant_id, a.period, a.meter, p.percent, a.used, g.quota, $6
    from added a join given g using (tenant_id, period, meter) cross join unnest($7::int2[]) p(percent)
    where g.quota > 0 and a.used * 100 >= g.quota * p.percent
    order by 1, 2, 3, 4 on conflict do nothing
)
select tenant_id, period, meter, used from added
"""


def month_of(now: datetime) -> date:
    """The month that a moment is counted in, as its first day in UTC."""
    return now.astimezone(UTC).date().replace(day=1)


def end_of(period: date) -> datetime:
    """When a month ends, and the next one begins."""
    return datetime.combine((period + timedelta(days=31)).replace(day=1), datetime.min.time(), UTC)


class _Sum:
    """One meter of one tenant in this month: what the database knew, and what was counted here since."""

    __slots__ = ("known", "quota", "waiting")

    def __init__(self) -> None:
        self.known = 0
        self.waiting = 0
        self.quota: int | None = None


class Usage:
    """Counts for one process."""

    def __init__(self, connection: LoneConnection, *, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._period = month_of(clock())
        self._until = end_of(self._period)
        self._sums: dict[tuple[TenantId, str], _Sum] = {}
        self._waiting: dict[tuple[TenantId, date, str], _Sum] = {}
        self.near: dict[TenantId, dict[str, tuple[int, int]]] = {}
        """What is used and included of each meter that is near its quota, or beyond."""
        self._some = asyncio.Event()
        self._one = asyncio.Lock()
        self._background = Background("usage", self._run)

    def count(self, tenant_id: TenantId, meter: str, amount: int, *, quota: int | None) -> None:
        """Add to a meter of this month; never waits. `quota` is what the plan includes of it."""
        self._turn()
        entry = self._sums.get((tenant_id, meter))
        if entry is None:
            if len(self._sums) >= MAX_KNOWN:
                self._sums.clear()
            # What waits is never forgotten.
            entry = self._waiting.get((tenant_id, self._period, meter)) or _Sum()
            self._sums[tenant_id, meter] = entry
        if not entry.waiting:
            self._waiting[tenant_id, self._period, meter] = entry
            if not self._some.is_set():
                self._some.set()
        entry.waiting += amount
        entry.quota = quota

    def used(self, tenant_id: TenantId, meter: str) -> int:
        """What this process knows to be used this month: all of it, a second after the first use here."""
        self._turn()
        entry = self._sums.get((tenant_id, meter))
        return 0 if entry is None else entry.known + entry.waiting

    @property
    def period(self) -> date:
        """The month that is counted now."""
        self._turn()
        return self._period

    def _turn(self) -> None:
        """Begin anew with a new month."""
        now = self._clock()
        if now >= self._until:
            self._period = month_of(now)
            self._until = end_of(self._period)
            self._sums.clear()
            self.near.clear()

    async def flush(self) -> int:
        """Add up what was counted; how many meters. Raises what asyncpg raises, and keeps the counts."""
        async with self._one:
            waiting, self._waiting = self._waiting, {}
            self._some.clear()
            told = [(key, entry, entry.waiting) for key, entry in waiting.items()]
            for _, entry, amount in told:
                entry.waiting -= amount
                # Counted as known from now on, so that `used` never falls.
                entry.known += amount
            try:
                sums = await self._add(told) if told else {}
            except BaseException:
                for key, entry, amount in told:
                    entry.known -= amount
                    # Another one where all were forgotten meanwhile.
                    self._waiting.setdefault(key, entry).waiting += amount
                raise
            for key, entry, _ in told:
                entry.known = sums.get(key, entry.known)
                self._judge(key, entry)
            return len(told)

    async def _add(
        self, told: Sequence[tuple[tuple[TenantId, date, str], _Sum, int]]
    ) -> Mapping[tuple[TenantId, date, str], int]:
        rows = await self._connection.fetch(
            _ADD,
            [key[0] for key, _, _ in told],
            [key[1] for key, _, _ in told],
            [key[2] for key, _, _ in told],
            [amount for _, _, amount in told],
            [entry.quota for _, entry, _ in told],
            self._clock(),
            list(NEAR),
        )
        _flushed("ok").inc()
        return {(row["tenant_id"], row["period"], row["meter"]): row["used"] for row in rows}

    def _judge(self, key: tuple[TenantId, date, str], entry: _Sum) -> None:
        tenant_id, period, meter = key
        if period != self._period:
            return
        if entry.quota is not None and entry.known * 100 >= entry.quota * NEAR[0]:
            self.near.setdefault(tenant_id, {})[meter] = entry.known, entry.quota
        elif tenant_id in self.near:
            self.near[tenant_id].pop(meter, None)
            if not self.near[tenant_id]:
                del self.near[tenant_id]

    def start(self) -> None:
        """Begin to add up; a database that is away is tried again for ever."""
        self._background.start()

    async def close(self) -> None:
        """Add up what is left, if the database answers."""
        await self._background.end()
        try:
            await self.flush()
        except Exception as error:
            _log.warning("usage.lost_at_exit", error=type(error).__name__, meters=len(self._waiting))
        await self._connection.close()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except Exception as error:
                _flushed("failed").inc()
                _log.warning("usage.flush_failed", error=type(error).__name__, meters=len(self._waiting))
                self._some.set()
                await asyncio.sleep(_RETRY_S)


async def add_used(
    conn: AsyncConnection, tenant_id: TenantId, meter: str, amount: int, *, quota: int | None, now: datetime
) -> int:
    """Add to a meter of this month in a transaction; what is used with it, so far as it was added up."""
    used: int | None = await (await driver(conn)).fetchval(
        _ADD, [tenant_id], [month_of(now)], [meter], [amount], [quota], now, list(NEAR), column=3
    )
    return amount if used is None else used


async def load_month(conn: AsyncConnection, tenant_id: TenantId, period: date) -> dict[str, int]:
    """What the tenant used of each meter in a month, as far as it was added up."""
    rows = await (await driver(conn)).fetch(
        "select meter, used from usage_months where tenant_id = $1 and period = $2", tenant_id, period
    )
    return {row["meter"]: row["used"] for row in rows}


async def note_near(
    conn: AsyncConnection, tenant_id: TenantId, meter: str, *, used: int, quota: int, now: datetime
) -> None:
    """Have a tenant told that it has so much of what its plan includes; once a month for each of NEAR."""
    reached = [percent for percent in NEAR if used * 100 >= quota * percent]
    if not reached:
        return
    await (await driver(conn)).execute(
        "insert into quota_notices (tenant_id, period, meter, percent, used, quota, at) "
        "select $1, $2, $3, p.percent, $4, $5, $6 from unnest($7::int2[]) p(percent) on conflict do nothing",
        tenant_id,
        month_of(now),
        meter,
        used,
        quota,
        now,
        reached,
    )


class Noticed(Struct, frozen=True, kw_only=True):
    """When a meter was found to be at so many per cent of its quota, one of NEAR."""

    meter: str
    percent: int
    at: datetime


async def load_notices(conn: AsyncConnection, tenant_id: TenantId, period: date) -> list[Noticed]:
    """What was noted of the tenant's quotas in a month, told already or not."""
    rows = await (await driver(conn)).fetch(
        "select meter, percent, at from quota_notices where tenant_id = $1 and period = $2 order by meter, percent",
        tenant_id,
        period,
    )
    return [Noticed(**dict(row)) for row in rows]


_STOCK: Final = """
select (select count(*) from items i where i.tenant_id = $1) as items,
    (select count(*) from placements p where p.tenant_id = $1) as placements
"""
_ITEMS: Final = """
select (select count(*) from items i where i.tenant_id = $1) as stored,
    (select count(distinct g.id) from unnest($2::text[]) g(id)
        left join item_ids d on d.tenant_id = $1 and d.external_id = g.id
        where not exists (select 1 from items i where i.tenant_id = $1 and i.item_no = d.item_no)) as fresh
"""
_PLACEMENTS: Final = """
select (select count(*) from placements p where p.tenant_id = $1) as stored,
    (select count(distinct g.id) from unnest($2::text[]) g(id) where not exists (
        select 1 from placements p where p.tenant_id = $1 and p.placement_id = g.id)) as fresh
"""
_COUNTS: Final = {"items": _ITEMS, "placements": _PLACEMENTS}


async def load_stock(conn: AsyncConnection, tenant_id: TenantId) -> dict[str, int]:
    """How many items and placements the tenant has."""
    return dict((await (await driver(conn)).fetchrow(_STOCK, tenant_id)).items())


async def lock_stock(conn: AsyncConnection, tenant_id: TenantId, meter: str) -> None:
    """Wait until nobody else adds items, or placements, of the tenant, and let nobody until this transaction ends."""
    raw = await driver(conn)
    await raw.execute(
        "select pg_advisory_xact_lock(hashtextextended($2 || ' of ' || $1::text, 0))", str(tenant_id), meter
    )


async def count_fresh(conn: AsyncConnection, tenant_id: TenantId, meter: str, ids: Sequence[str]) -> tuple[int, int]:
    """How many items or placements the tenant has, and how many of these ids would be new ones."""
    row: Any = await (await driver(conn)).fetchrow(_COUNTS[meter], tenant_id, list(ids))
    return row["stored"], row["fresh"]
