"""No statement of the ingest path reads a whole table, whatever the statistics say and however many tenants there are.

What runs inside functions shows no plan; but a transaction counts the scans that it has made.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from infra.db import TenantId
from infra.roles import APP, INGEST, SYSTEM, role_url
from tenants.audience.shoppers import number_ids, user_key
from tenants.audience.users import move_events, settle_late
from tenants.events.event import EventRow, numbered
from tenants.events.history import store_history

pytestmark = pytest.mark.anyio
NOW = datetime.now(UTC)
TENANTS = [TenantId(UUID(int=0xFEED << 112 | n)) for n in range(50)]
_SCANS = """
select relname from pg_stat_xact_user_tables
where seq_scan > 0 and relname ~ '^(events|event_seen|item_minutes|shopper_ids|item_ids|answers|erasures)'
"""
# Of all tenants at once, by the system role; the statistics are those of a day after the table was empty.
_FILL = """
insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key)
select t, n, 1, 'u' || n, n from unnest($1::uuid[]) t, generate_series(1, 300) n;
insert into item_ids (tenant_id, item_no, external_id)
select t, n, 'i' || n from unnest($1::uuid[]) t, generate_series(1, 300) n;
insert into events (tenant_id, ts, event_no, type, shopper_no, item_no, event_id)
select t, $2::timestamptz - n * interval '1 minute', gen_random_uuid(), 'view', n % 300 + 1, n % 200 + 1, 'e' || n
from unnest($1::uuid[]) t, generate_series(1, 1000) n
"""


@pytest.fixture
async def filled(database_url: str, anyio_backend: str) -> str:
    """A database with 50 tenants of 300 shoppers and 1,000 events each."""
    system = await asyncpg.connect(role_url(database_url, SYSTEM))
    if not await system.fetchval("select 1 from shopper_ids where tenant_id = $1 limit 1", TENANTS[0]):
        for statement in _FILL.split(";\n"):
            args: list[Any] = [TENANTS, NOW] if "$2" in statement else [TENANTS]
            await system.execute(statement, *args)
    await system.close()
    return database_url


@asynccontextmanager
async def transaction(url: str, role: str, plans: str = "auto") -> AsyncIterator[Any]:
    """A transaction of a role, with one kind of plan; a table is read whole only where no index would do.

    Otherwise the planner reads a partition that holds a handful of rows, and other tests leave such.
    """
    settings = {"jit": "off", "plan_cache_mode": plans, "enable_seqscan": "off"}
    connection = await asyncpg.connect(role_url(url, role), server_settings=settings)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


PLANS = pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])


@PLANS
async def test_ids_are_found_by_their_index(filled: str, plans: str) -> None:
    """Two of three hundred, in one of fifty tenants."""
    async with transaction(filled, APP, plans) as connection:
        await number_ids(connection, TENANTS[1], [user_key("u1"), user_key("u2")], ["i1", "i2"])
        assert await connection.fetch(_SCANS) == []


async def test_a_batch_reads_no_table(filled: str) -> None:
    """New events, and repeats of them."""
    for _ in range(2):
        rows = [
            EventRow(t=TENANTS[n % 50], e=number, y="view", m=NOW, s=1, i=n % 7 + 1, d=f"new-{n}", h="00")
            for n, number in enumerate(numbered(200))
        ]
        async with transaction(filled, INGEST) as connection:
            await connection.fetch("select * from take_events($1::text::jsonb, $2)", _json(rows), NOW)
            assert await connection.fetch(_SCANS) == []


@PLANS
async def test_a_merge_reads_one_shopper(filled: str, plans: str) -> None:
    """In every month."""
    async with transaction(filled, APP, plans) as connection:
        await connection.execute("select set_config('app.tenant_id', $1, true)", str(TENANTS[2]))
        assert await move_events(connection, TENANTS[2], {len(plans): 8}) > 0
        assert [row["relname"] for row in await connection.fetch(_SCANS) if row["relname"].startswith("events_2")] == []


@PLANS
async def test_an_import_looks_where_its_events_would_be(filled: str, plans: str) -> None:
    """By tenant and time."""
    rows = [
        [EventRow(t=TENANTS[3], e=number, y="view", m=NOW - timedelta(minutes=n), s=1, i=1, d=f"e{n}")]
        for n, number in enumerate(numbered(100))
    ]
    async with transaction(filled, APP, plans) as connection:
        await connection.execute("select set_config('app.tenant_id', $1, true)", str(TENANTS[3]))
        await store_history(connection, TENANTS[3], rows)
        assert await connection.fetch(_SCANS) == []


async def test_upkeep_looks_for_late_events_by_time(filled: str) -> None:
    """Not through every shopper of every tenant."""
    async with transaction(filled, SYSTEM) as connection:
        await settle_late(connection, NOW)
        scanned = {row["relname"] for row in await connection.fetch(_SCANS)}
        assert "shopper_ids" not in scanned


def _json(rows: list[EventRow]) -> str:
    return msgspec.json.encode(rows).decode()
