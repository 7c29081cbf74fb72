"""Where limits stand for all processes together: one row each, moved on by what each process passed."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from msgspec import Struct

from infra.lone import LoneConnection
from tenants.limits.gcra import BucketKey

US: Final = 1_000_000


AHEAD_US: Final = US
"""How far ahead of the store's clock a use may be: processes measure that clock with each of its answers."""


class Charge(Struct, frozen=True):
    """Uses of one limit: the first at `since_us` by the store's clock, worth `use_us` of the limit's time."""

    key: BucketKey
    since_us: int
    use_us: int


class Settled(Struct, frozen=True):
    """Where each charged limit stands, in the order of the charges, and the store's clock; microseconds since 1970."""

    now_us: int
    full_at_us: Sequence[int]


class BucketStore(Protocol):
    """What limits are charged to."""

    async def charge(self, charges: Sequence[Charge]) -> Settled:
        """Move each limit on: `full_at = max(full_at, since) + use`. Raises what the store raises when it is away.

        A use that lies ahead of the store's clock by more than `AHEAD_US` was before the clock was put back, as by a
        failover to a machine that is behind: it, and what was used with it, counts as used that little ahead.
        Every key comes once. Without charges it tells the clock alone.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


_NOW: Final = "coalesce($1::int8, (extract(epoch from clock_timestamp()) * 1000000)::int8)"
_CLOCKS: Final = {"now": _NOW, "latest": f"({_NOW} + {AHEAD_US})"}
_CLOCK: Final = f"select {_NOW} as now"
# In the order of the keys, so that two processes never wait for each other in a ring.
_CHARGE: Final = """
insert into {table} as b ({key}, full_at, since)
select {key}, u.since + u.use, u.since from (
    select {key}, least(told.since, {latest}) as since, told.use
    from unnest({arrays}, ${since}::int8[], ${use}::int8[]) told({key}, since, use)
) u order by {key}
on conflict ({key}) do update set since = least(greatest(b.since, excluded.since), {latest}),
    full_at = greatest(b.full_at - greatest(b.since - {latest}, 0), excluded.since)
        + (excluded.full_at - excluded.since)
returning {key}, full_at, {now} as now
"""
_TENANTS: Final = _CHARGE.format(
    table="rate_buckets", key="tenant_id, bucket", arrays="$2::uuid[], $3::text[]", since=4, use=5, **_CLOCKS
)
_STRANGERS: Final = _CHARGE.format(
    table="stranger_buckets", key="bucket", arrays="$2::bytea[]", since=3, use=4, **_CLOCKS
)


class PostgresBuckets:
    """Rows of `rate_buckets` and `stranger_buckets`, by one statement for each."""

    def __init__(self, connection: LoneConnection, *, clock_us: Callable[[], int] | None = None) -> None:
        """`clock_us` stands for the database's clock, where a test holds it still."""
        self._connection = connection
        self._clock_us = clock_us

    async def charge(self, charges: Sequence[Charge]) -> Settled:
        """See BucketStore."""
        found: dict[BucketKey, int] = {}
        now: int | None = None
        told = None if self._clock_us is None else self._clock_us()
        own = [charge for charge in charges if isinstance(charge.key, tuple)]
        if own:
            keys = [charge.key for charge in own if isinstance(charge.key, tuple)]
            for row in await self._connection.fetch(
                _TENANTS, told, [key[0] for key in keys], [key[1] for key in keys], *_amounts(own)
            ):
                found[row["tenant_id"], row["bucket"]], now = row["full_at"], row["now"]
        strangers = [charge for charge in charges if isinstance(charge.key, bytes)]
        if strangers:
            names = [charge.key for charge in strangers]
            for row in await self._connection.fetch(_STRANGERS, told, names, *_amounts(strangers)):
                found[row["bucket"]], now = row["full_at"], row["now"]
        if now is None:
            (row,) = await self._connection.fetch(_CLOCK, told)
            now = row["now"]
        assert now is not None
        return Settled(now, [found[charge.key] for charge in charges])

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()


async def prune_buckets(raw: Any, before: datetime) -> int:
    """Forget limits that were all free again before then; how many. `raw` is a connection of the system role."""
    removed = 0
    for table in ("rate_buckets", "stranger_buckets"):
        done: str = await raw.execute(
            # One that is being used just now is left alone, rather than waited for.
            f"delete from {table} where ctid = any(array("
            f"select ctid from {table} where full_at < $1 for update skip locked))",
            int(before.timestamp() * US),
        )
        removed += int(done.rpartition(" ")[2])
    return removed


def _amounts(charges: Sequence[Charge]) -> tuple[list[int], list[int]]:
    return [charge.since_us for charge in charges], [charge.use_us for charge in charges]


class MemoryBuckets:
    """The same in memory: for tests, and for who embeds a single process."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self.full_at: dict[BucketKey, int] = {}
        self._since: dict[BucketKey, int] = {}
        self.away = False
        """Whether it is to fail, as a database that is away does."""

    async def charge(self, charges: Sequence[Charge]) -> Settled:
        """See BucketStore."""
        if self.away:
            raise ConnectionRefusedError
        latest = self._clock_us() + AHEAD_US
        for charge in charges:
            before = self._since.get(charge.key, 0)
            since = min(charge.since_us, latest)
            standing = max(self.full_at.get(charge.key, 0) - max(before - latest, 0), since)
            self.full_at[charge.key] = standing + charge.use_us
            self._since[charge.key] = min(max(before, since), latest)
        return Settled(self._clock_us(), [self.full_at[charge.key] for charge in charges])

    async def close(self) -> None:
        """Nothing to let go of."""
