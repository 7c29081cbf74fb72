"""From events over training to answers: a shopper is shown what those of like taste met."""

from typing import Any

import pytest

from api.app import Application
from infra.changes import record_change
from infra.db import driver
from tenants.learned.models import MODEL_CHANGE, TRAIN_JOB, retire_models, serve_model
from tenants.vectors.generations import ensure_generation
from tests.integration.api.conftest import MakeShop
from workers.jobs.train import Training
from workers.runner import JobLoop

pytestmark = pytest.mark.anyio


async def test_training_turns_events_into_personal_answers(app: Application, make_shop: MakeShop) -> None:
    """Shoppers of even and of odd items; each list is of the own half, and goes by the graph."""
    shop = await make_shop()
    items = [{"id": f"i{at}", "title": f"thing {at}"} for at in range(40)]
    assert (await shop.client.post("/v1/items/bulk", json=items)).json()["accepted"] == 40
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        layout = await (await driver(conn)).fetchval("select layout_id from layouts limit 1")
        await ensure_generation(conn, shop.tenant_id, layout, {})
    events: list[dict[str, Any]] = [
        {
            "type": "view",
            "user_id": f"u{shopper}",
            "item_id": f"i{(shopper * 7 + step * 6) % 40 // 2 * 2 + shopper % 2}",
        }
        for shopper in range(100)
        for step in range(9)
    ]
    for at in range(0, len(events), 500):
        body = {"events": events[at : at + 500]}
        assert (await shop.client.post("/v1/events", json=body)).json()["accepted"] == len(body["events"])
    assert (await shop.client.post("/v1/models/train")).status_code == 202
    loop = JobLoop(app.services.database, {TRAIN_JOB: Training(app.services.database)})
    models: list[dict[str, Any]] = []
    while not models:  # the queue may hold jobs of other tests' shops
        assert await loop.step()
        models = (await shop.client.get("/v1/models")).json()["models"]
    (model,) = models
    assert (model["status"], model["active"]) == ("ready", True)
    await app.services.feed.poll()
    for shopper in (4, 5):
        body = {"strategy": "for_you", "user_id": f"u{shopper}", "count": 5}
        answer = (await shop.client.post("/v1/recommend", json=body)).json()
        assert answer["model_version"], answer
        assert len(answer["items"]) == 5
        assert {int(item["id"][1:]) % 2 for item in answer["items"]} == {shopper % 2}


async def test_a_placement_names_a_model(app: Application, make_shop: MakeShop) -> None:
    """Only one that can serve; its answers say so, and it is kept while it is named."""
    shop = await make_shop()
    assert (await shop.client.post("/v1/items/bulk", json=[{"id": f"i{at}"} for at in range(4)])).is_success
    source = {"strategy": "bought_together", "model": "1"}
    refused = await shop.client.put("/v1/placements/old", json={"sources": [source], "rank": {"model": "r"}})
    faults = [(fault["pointer"], fault["code"]) for fault in refused.json()["errors"]]
    assert faults == [("/sources/0/model", "unknown_model"), ("/rank/model", "unknown_model")]
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        raw = await driver(conn)
        layout = await raw.fetchval("select layout_id from layouts limit 1")
        await ensure_generation(conn, shop.tenant_id, layout, {})
        for model in range(1, 6):
            await raw.execute(
                "insert into behaviour_models (tenant_id, model, status, code_version) values ($1, $2, 'ready', 'x')",
                shop.tenant_id,
                model,
            )
        await raw.execute(
            "insert into item_neighbours (tenant_id, kind, build, item_no, others, scores) "
            "select $1, 4, 1, a.item_no, array[b.item_no], '{32767}' from item_ids a, item_ids b "
            "where a.tenant_id = $1 and b.tenant_id = $1 and a.external_id = 'i0' and b.external_id = 'i2'",
            shop.tenant_id,
        )
        await serve_model(conn, shop.tenant_id, 4, reason="test")
    assert (await shop.client.put("/v1/placements/old", json={"sources": [source]})).status_code == 201
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        assert await retire_models(conn, shop.tenant_id) == [2, 3]
    body = {"placement": "old", "item_ids": ["i0"], "fallback": "none"}
    answer = (await shop.client.post("/v1/recommend", json=body)).json()
    assert [(item["id"], item["source"]) for item in answer["items"]] == [("i2", "bought_together@1")]
    assert answer["fallback_used"] is False
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        await (await driver(conn)).execute("delete from behaviour_models where tenant_id = $1", shop.tenant_id)
        await record_change(conn, shop.tenant_id, MODEL_CHANGE)
    gone = (await shop.client.post("/v1/recommend", json={**body, "fallback": "popular"})).json()
    assert gone["fallback_used"] is True
    assert "bought_together" in gone["warnings"][0]
    assert {item["source"] for item in gone["items"]} == {"popular"}
