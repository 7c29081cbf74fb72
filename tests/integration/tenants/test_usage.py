"""What is counted, and added up over processes."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from uuid import uuid4

import pytest

from infra.db import Database, TenantId
from infra.lone import LoneConnection
from tenants import usage as usage_module
from tenants.lifecycle import create_tenant
from tenants.usage import Usage, end_of, load_month, month_of
from tests.conftest import FrozenClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def process(database: Database, clock: FrozenClock) -> Callable[[], Usage]:
    """One more process that counts."""
    return lambda: Usage(LoneConnection(database, name="test"), clock=clock)


@pytest.fixture
async def tenant_id(database: Database) -> TenantId:
    return await create_tenant(database, f"usage {uuid4()}")


async def test_processes_add_up(database: Database, process: Callable[[], Usage], tenant_id: TenantId) -> None:
    """Each knows of all, once it has told what it counted."""
    one, other = process(), process()
    one.count(tenant_id, "requests", 3, quota=None)
    one.count(tenant_id, "requests", 2, quota=None)
    other.count(tenant_id, "requests", 10, quota=None)
    other.count(tenant_id, "events", 7, quota=None)
    assert one.used(tenant_id, "requests") == 5
    assert await one.flush() == 1
    assert await other.flush() == 2
    assert other.used(tenant_id, "requests") == 15
    assert await one.flush() == 0
    async with database.tenant_session(tenant_id) as conn:
        assert await load_month(conn, tenant_id, one.period) == {"requests": 15, "events": 7}
    await one.close()
    await other.close()


async def test_a_month_is_counted_by_itself(
    database: Database, process: Callable[[], Usage], tenant_id: TenantId, clock: FrozenClock
) -> None:
    """What was counted before midnight belongs to the month before, also when it is added up after."""
    usage = process()
    usage.count(tenant_id, "requests", 3, quota=3)
    await usage.flush()
    assert usage.near == {tenant_id: {"requests": (3, 3)}}
    usage.count(tenant_id, "requests", 1, quota=3)
    clock.advance((end_of(usage.period) - clock()).total_seconds())
    assert usage.used(tenant_id, "requests") == 0
    assert usage.near == {}
    usage.count(tenant_id, "requests", 5, quota=3)
    await usage.flush()
    async with database.tenant_session(tenant_id) as conn:
        assert await load_month(conn, tenant_id, date(2026, 1, 1)) == {"requests": 4}
        assert await load_month(conn, tenant_id, date(2026, 2, 1)) == {"requests": 5}
    await usage.close()


async def test_what_waits_is_not_forgotten(
    database: Database, process: Callable[[], Usage], tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a process forgets its sums, for there are too many: neither before nor while they are added up."""
    monkeypatch.setattr(usage_module, "MAX_KNOWN", 1)
    usage = process()
    usage.count(tenant_id, "requests", 5, quota=None)
    usage.count(tenant_id, "events", 1, quota=None)
    usage.count(tenant_id, "requests", 1, quota=None)

    async def refuse(*_: object) -> None:
        usage.count(tenant_id, "events", 20, quota=None)
        usage.count(tenant_id, "requests", 10, quota=None)
        raise ConnectionRefusedError

    with monkeypatch.context() as away:
        away.setattr(usage._connection, "fetch", refuse)
        with pytest.raises(ConnectionRefusedError):
            await usage.flush()
    assert await usage.flush() == 2
    async with database.tenant_session(tenant_id) as conn:
        assert await load_month(conn, tenant_id, usage.period) == {"requests": 16, "events": 21}
    await usage.close()


async def test_nothing_is_lost_while_the_database_is_away(
    process: Callable[[], Usage], tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is added up later, together with what came meanwhile."""
    usage = process()
    usage.count(tenant_id, "requests", 3, quota=None)

    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as away:
        away.setattr(usage._connection, "fetch", refuse)
        with pytest.raises(ConnectionRefusedError):
            await usage.flush()
    usage.count(tenant_id, "requests", 1, quota=None)
    assert usage.used(tenant_id, "requests") == 4
    await usage.flush()
    assert usage.used(tenant_id, "requests") == 4
    await usage.close()


async def test_a_tenant_that_is_gone_gets_no_row(database: Database, process: Callable[[], Usage]) -> None:
    """What is counted late must not bring an erased tenant back."""
    usage, gone = process(), TenantId(uuid4())
    usage.count(gone, "requests", 3, quota=1)
    await usage.flush()
    async with database.tenant_session(gone) as conn:
        assert await load_month(conn, gone, usage.period) == {}
    await usage.close()


def test_months_begin_and_end_in_utc() -> None:
    """Wherever the clock is."""
    late = datetime.fromisoformat("2026-01-31T23:30:00-02:00")
    assert month_of(late) == date(2026, 2, 1)
    assert end_of(date(2026, 12, 1)) == datetime(2027, 1, 1, tzinfo=UTC)
