"""The popularity task: which tenants have their turn."""

from typing import Any

import pytest

from infra.db import Database, driver
from infra.ids import uuid7
from tenants.vectors.generations import activate_model
from workers.jobs.popularity import Popularity

pytestmark = pytest.mark.anyio


async def test_new_events_count_within_the_minute(database: Database, make_shop: Any, query: Any, clock: Any) -> None:
    """Under the model that serves; without new events a tenant rests."""
    tenant_id = await make_shop()
    task = Popularity(database, clock=clock)
    assert await task.tick() == 0

    async def view(item_no: int) -> None:
        async with database.tenant_session(tenant_id) as conn:
            raw = await driver(conn)
            await raw.execute(
                "insert into events (tenant_id, ts, event_no, type, shopper_no, item_no) "
                "values ($1, $2, $3, 'view', 1, $4)",
                tenant_id,
                clock(),
                uuid7(),
                item_no,
            )
            await raw.execute(
                "insert into item_minutes (tenant_id, minute, item_no, views) "
                "values ($1, date_trunc('minute', $2::timestamptz), $3, 1) on conflict do nothing",
                tenant_id,
                clock(),
                item_no,
            )

    await view(1)
    assert await task.tick() == 1
    clock.advance(300)
    assert await task.tick() == 0
    await view(2)
    assert await task.tick() == 1
    scores = "select model, item_no from item_scores where tenant_id = $1 order by model, item_no"
    assert await query(tenant_id, scores) == [(0, 1), (0, 2)]
    async with database.tenant_session(tenant_id) as conn:
        await activate_model(conn, tenant_id, reason="test", behaviour_model=3)
    clock.advance(700)
    assert await task.tick() == 1
    assert await query(tenant_id, scores) == [(0, 1), (0, 2), (3, 1), (3, 2)]
