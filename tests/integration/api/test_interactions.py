"""What an evaluation reads of a tenant: its own events and items, and no bot's."""

import csv
import json
from pathlib import Path

import pytest

from api.app import Application
from tenants.events.event import DEFAULT_WEIGHTS
from tenants.learned.interactions import copy_interactions, copy_items
from tests.integration.api.conftest import MakeShop

pytestmark = pytest.mark.anyio


async def test_only_what_speaks_for_an_item_of_this_shop_is_written(
    app: Application, make_shop: MakeShop, tmp_path: Path
) -> None:
    """Oldest first, with its weight; neither bots, nor dislikes, nor another shop's."""
    shop, other = await make_shop(), await make_shop()
    await shop.client.post("/v1/items/bulk", json=[{"id": "a", "title": "lamp"}, {"id": "b"}])
    for client in (shop.client, other.client):
        events = [
            {"type": "view", "user_id": "u", "item_id": "a"},
            {"type": "dislike", "user_id": "u", "item_id": "b"},
            {"type": "purchase", "user_id": "u", "order_id": "o", "items": [{"id": "b", "quantity": 1, "price": 1}]},
        ]
        assert (await client.post("/v1/events", json={"events": events})).json()["accepted"] == 3
    bot = {"type": "view", "user_id": "robot", "item_id": "a", "context": {"user_agent": "Googlebot/2.1"}}
    assert (await shop.client.post("/v1/events", json={"events": [bot]})).json()["accepted"] == 1
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        await copy_interactions(conn, shop.tenant_id, DEFAULT_WEIGHTS, tmp_path / "events.csv")
        await copy_items(conn, shop.tenant_id, tmp_path / "items.jsonl")
    with (tmp_path / "events.csv").open() as file:
        rows = [(row["item"], float(row["rating"])) for row in csv.DictReader(file)]
    assert sorted(rows) == [("a", 1.0), ("b", 10.0)]
    assert [json.loads(line)["id"] for line in (tmp_path / "items.jsonl").read_text().splitlines()] == ["a", "b"]
