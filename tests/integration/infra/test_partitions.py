"""Partitions are made ahead and dropped whole, by the system role through two functions."""

from datetime import UTC, datetime

import asyncpg
import pytest

from infra.db import Database, driver
from infra.partitions import drop_partition, ensure_partitions, make_partition, old_partitions
from infra.roles import APP, INGEST, role_url

pytestmark = pytest.mark.anyio
LONG_AGO = datetime(2019, 3, 4, tzinfo=UTC)


async def test_partitions_are_made_once(database: Database) -> None:
    """The second run finds all there."""
    async with database.system_session(reason="test") as conn:
        raw = await driver(conn)
        await ensure_partitions(raw, datetime(2031, 5, 6, tzinfo=UTC))
        assert await ensure_partitions(raw, datetime(2031, 5, 6, tzinfo=UTC)) == 0


async def test_a_partition_whose_time_is_over_is_dropped(database: Database) -> None:
    """By its table's own time, or by the setting for events, which may also say: never."""
    async with database.system_session(reason="test") as conn:
        raw = await driver(conn)
        first = datetime(2019, 3, 1, tzinfo=UTC)
        await make_partition(raw, "events", "month", first)
        await make_partition(raw, "item_minutes", "day", LONG_AGO)
        now = datetime(2019, 5, 2, tzinfo=UTC)
        assert await old_partitions(raw, now, events_days=31) == [("events", first), ("item_minutes", LONG_AGO)]
        assert await old_partitions(raw, now, events_days=None) == [("item_minutes", LONG_AGO)]
        assert await drop_partition(raw, "events", first)
        assert not await drop_partition(raw, "events", first)
        assert await drop_partition(raw, "item_minutes", LONG_AGO)


async def test_no_other_table_can_be_made_or_dropped(database: Database) -> None:
    """The functions know four tables."""
    for call in ("make_partition('items', now(), now())", "drop_partition('items', now())"):
        with pytest.raises(asyncpg.RaiseError):
            async with database.system_session(reason="test") as conn:
                await (await driver(conn)).execute(f"select {call}")


@pytest.mark.parametrize("role", [APP, INGEST])
async def test_requests_make_no_partitions(database: Database, role: str) -> None:
    """Nor drop any."""
    connection = await asyncpg.connect(role_url(database.url, role))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("select drop_partition('events', now())")
    finally:
        await connection.close()
