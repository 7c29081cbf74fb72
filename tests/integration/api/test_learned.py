"""From events over training to answers: a shopper is shown what those of like taste met."""

from typing import Any

import pytest

from api.app import Application
from infra.db import driver
from tenants.learned.models import TRAIN_JOB
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
