"""Where limits stand: the same in PostgreSQL and in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest

from infra.db import Database, TenantId
from infra.lone import LoneConnection
from tenants.lifecycle import create_tenant
from tenants.limits.store import BucketStore, Charge, MemoryBuckets, PostgresBuckets

pytestmark = pytest.mark.anyio

NOW_US = 1_700_000_000_000_000
Connect = Callable[[], BucketStore]
MakeTenant = Callable[[], Awaitable[TenantId]]


class _Still:
    """The store's clock: it stands still until it is moved."""

    def __init__(self) -> None:
        self.now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def still() -> _Still:
    return _Still()


@pytest.fixture(params=["postgres", "memory"])
async def connect(request: pytest.FixtureRequest, database: Database, still: _Still) -> AsyncIterator[Connect]:
    """Another process at the same store."""
    memory = MemoryBuckets(still)
    made: list[BucketStore] = []

    def store() -> BucketStore:
        if request.param == "memory":
            return memory
        made.append(PostgresBuckets(LoneConnection(database, name="test"), clock_us=still))
        return made[-1]

    yield store
    for each in made:
        await each.close()


@pytest.fixture
def tenant(database: Database) -> MakeTenant:
    return lambda: create_tenant(database, f"limits {uuid4()}")


async def test_it_tells_its_clock(connect: Connect) -> None:
    """Without charges too."""
    settled = await connect().charge([])
    assert (settled.now_us, list(settled.full_at_us)) == (NOW_US, [])


async def test_a_new_limit_begins_with_its_first_use(
    connect: Connect, tenant: Callable[[], Awaitable[TenantId]]
) -> None:
    """At the time that the process says, not at that of the charge."""
    key = (await tenant(), "burst")
    settled = await connect().charge([Charge(key, NOW_US - 250_000, 3_000_000)])
    assert list(settled.full_at_us) == [NOW_US + 2_750_000]


async def test_processes_add_up(connect: Connect, tenant: MakeTenant, still: _Still) -> None:
    """Whatever the order in which their uses are told; a rest is forgiven."""
    key = (await tenant(), "burst")
    one, other = connect(), connect()
    await one.charge([Charge(key, NOW_US, 1_000_000)])
    settled = await other.charge([Charge(key, NOW_US - 5_000, 2_000_000)])
    assert list(settled.full_at_us) == [NOW_US + 3_000_000]
    still.now_us += 9_000_000
    settled = await one.charge([Charge(key, NOW_US + 9_000_000, 500_000)])
    assert list(settled.full_at_us) == [NOW_US + 9_500_000]


@pytest.mark.parametrize("whose", ["tenant", "stranger"])
async def test_a_clock_that_is_put_back_makes_nobody_wait_for_it(
    connect: Connect, tenant: MakeTenant, still: _Still, whose: str
) -> None:
    """What stood then stands a second ahead of now, also by a use of the clock of before; nothing is given away."""
    key = (await tenant(), "burst") if whose == "tenant" else uuid4().bytes
    one, other = connect(), connect()
    await one.charge([Charge(key, NOW_US - 1_000_000, 500_000)])
    await one.charge([Charge(key, NOW_US, 4_000_000)])
    still.now_us -= 600_000_000
    back_us = still.now_us
    settled = await one.charge([Charge(key, NOW_US + 2_000, 100_000)])
    assert [full_at - back_us for full_at in settled.full_at_us] == [1_000_000 + 4_000_000 + 100_000]
    still.now_us += 500_000
    settled = await other.charge([Charge(key, still.now_us, 10_000)])
    assert [full_at - back_us for full_at in settled.full_at_us] == [5_110_000]
    still.now_us += 9_500_000
    settled = await other.charge([Charge(key, still.now_us, 10_000)])
    assert [full_at - still.now_us for full_at in settled.full_at_us] == [10_000]
    fresh = uuid4().bytes
    settled = await other.charge([Charge(fresh, NOW_US, 10_000)])
    assert [full_at - still.now_us for full_at in settled.full_at_us] == [1_010_000]


async def test_tenants_and_strangers_are_told_apart(
    connect: Connect, tenant: Callable[[], Awaitable[TenantId]]
) -> None:
    """In the order of the charges."""
    first, second = await tenant(), await tenant()
    stranger = uuid4().bytes
    settled = await connect().charge(
        [
            Charge((second, "burst"), NOW_US, 1),
            Charge(stranger, NOW_US, 2),
            Charge((first, "burst"), NOW_US, 3),
            Charge((first, "key:a"), NOW_US, 4),
        ]
    )
    assert [full_at - NOW_US for full_at in settled.full_at_us] == [1, 2, 3, 4]
