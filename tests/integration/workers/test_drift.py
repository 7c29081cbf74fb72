"""Drift is measured daily and shown with the model that serves."""

from typing import Any

import msgspec
import pytest

from infra.db import Database, driver
from tenants.learned.models import list_models
from tenants.vectors.generations import activate_model
from tests.integration.workers.test_neighbours import items
from tests.integration.workers.test_train import Store, store
from workers.jobs.drift import DriftWatch
from workers.jobs.encode import TextLoop
from workers.models import Models

pytestmark = pytest.mark.anyio

__all__ = ["store"]


async def test_a_week_unlike_the_others_has_drifted(
    database: Database, tiny: Models, make_shop: Any, store_items: Any, store: Store, clock: Any
) -> None:
    """The mix of events, the rate of clicks and the items that are new since the training; once a day."""
    tenant_id = await make_shop(items(0, 40))
    texts = TextLoop(database, [tiny], clock=clock)
    while await texts.step():
        pass
    async with database.tenant_session(tenant_id) as conn:
        await (await driver(conn)).execute(
            "insert into behaviour_models (tenant_id, model, status, code_version, created_at) "
            "values ($1, 1, 'ready', 'test', $2)",
            tenant_id,
            clock(),
        )
    watch = DriftWatch(database, clock=clock)
    assert await watch.tick() == 0
    async with database.tenant_session(tenant_id) as conn:
        await activate_model(conn, tenant_id, reason="test", behaviour_model=1)
    clock.advance(60)
    await store_items(tenant_id, [{"id": f"n{at}", "title": "green lamp"} for at in range(30)])
    while await texts.step():
        pass
    before = [(1, 1, 10.0, "impression")] * 400 + [(1, 1, 10.0, "click")] * 40 + [(1, 1, 10.0, "view")] * 100
    now = [(1, 1, 1.0, "impression")] * 100 + [(1, 1, 1.0, "click")] * 60 + [(1, 1, 1.0, "purchase")] * 100
    await store(tenant_id, before + now)
    assert await watch.tick() == 1
    assert await watch.tick() == 0
    async with database.tenant_session(tenant_id) as conn:
        drift = msgspec.json.decode((await list_models(conn, tenant_id))[0].metrics)["drift"]
    assert drift["state"] == "drifted"
    assert (drift["ctr_now"], drift["ctr_before"]) == (0.6, 0.1)
    assert drift["event_mix"] > 0.25
    assert drift["ctr"] > 0.25
    assert drift["text_shift"] > 0
    assert drift["image_shift"] is None
    clock.advance(86_401)
    assert await watch.tick() == 1
