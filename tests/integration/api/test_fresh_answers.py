"""Kept answers are never older than the last acknowledged write, here and in a second process."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import Application, create_app
from api.recommend import answering
from infra.blob_folder import FolderBlobs
from infra.changes import Change
from infra.db import Database
from infra.settings import Settings
from tests.integration.api.conftest import SECRET, Shop

pytestmark = pytest.mark.anyio

_UNIQUE = count()
_ASKED: list[dict[str, Any]] = [
    {"strategy": "new", "count": 5},
    {"strategy": "new", "count": 20, "filter": {"lt": ["price", 500]}},
    {"strategy": "popular", "count": 8, "max_per": {"brand": 2}},
    {"strategy": "popular", "count": 20, "user_id": "anna", "filter": {"eq": ["brand", "b1"]}},
    {"strategy": "recently_viewed", "count": 20, "user_id": "anna", "fallback": "none"},
    {"strategy": "buy_again", "count": 20, "user_id": "anna", "fallback": "none"},
]


async def _ask(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    answered = await client.post("/v1/recommend", json={**body, "fields": ["price", "brand", "title"]})
    assert answered.status_code == 200, answered.text
    return {item["id"]: item["fields"] for item in answered.json()["items"]}


async def _uncached(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """The same list by a request that nobody has made before, of all that matches."""
    return await _ask(client, {**body, "count": 100, "max_per": {}, "context": {"n": next(_UNIQUE)}})


async def _write(client: httpx.AsyncClient, chance: random.Random) -> None:
    name = f"i{chance.randrange(25)}"
    match chance.choice(["put", "patch", "hide", "delete", "bulk", "stock", "filter", "view", "view", "buy"]):
        case "put":
            body = {
                "title": f"lamp {next(_UNIQUE)}",
                "price": chance.randrange(1000),
                "brand": f"b{chance.randrange(3)}",
            }
            await client.put(f"/v1/items/{name}", json=body)
        case "patch":
            await client.patch(f"/v1/items/{name}", json={"price": chance.randrange(1000)})
        case "hide":
            await client.patch(f"/v1/items/{name}", json={"hidden": chance.random() < 0.5})
        case "stock":
            await client.patch(f"/v1/items/{name}", json={"availability": chance.choice(["in_stock", "out_of_stock"])})
        case "delete":
            await client.delete(f"/v1/items/{name}")
        case "bulk":
            rows = [{"id": f"i{n}", "price": chance.randrange(1000), "brand": f"b{n % 3}"} for n in range(0, 25, 2)]
            await client.post("/v1/items/bulk", json=rows)
        case "view" | "buy" as what:
            event = {"type": "view" if what == "view" else "purchase", "user_id": "anna", "item_id": name}
            await client.post("/v1/events", json={"events": [event]})
        case "filter":
            await client.post("/v1/items/delete", json={"filter": {"gt": ["price", 950]}})


@pytest.fixture
async def second(app: Application, database_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    """Another process on the same database, whose feed is polled by hand."""
    database = Database(database_url, hot=2, sessions=1)
    settings = Settings(data_dir=tmp_path, secret_key=SECRET, database_url=database_url)
    made = create_app(settings, database, FolderBlobs(tmp_path / "blobs"))
    await database.open()
    await made.services.feed.poll()
    yield made
    await made.services.answer_log.close()
    await made.services.feed.close()
    await database.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_answer_is_older_than_the_last_write(shop: Shop, second: Application, seed: int) -> None:
    """Each kept list is a part of what a list made anew would hold, with the same fields: after every write at once
    where it was made, and after one poll elsewhere."""
    chance = random.Random(seed)
    other = httpx.AsyncClient(
        transport=httpx.ASGITransport(second, raise_app_exceptions=False),
        base_url="http://kindred",
        headers={"Authorization": f"Bearer {shop.secret_key}"},
    )
    async with other:
        for _ in range(40):
            await _write(shop.client, chance)
            await second.services.feed.poll()
            for body in chance.sample(_ASKED, 2):
                fresh = await _uncached(shop.client, body)
                for client in (shop.client, other):
                    for name, fields in (await _ask(client, body)).items():
                        assert fresh.get(name) == fields


async def test_a_kept_answer_is_given_again(app: Application, shop: Shop) -> None:
    """Under an id of its own; a change that drops it shows in the next one."""
    await shop.client.post("/v1/items/bulk", json=[{"id": f"i{n}", "price": n} for n in range(5)])
    made = [(await shop.client.post("/v1/recommend", json={"strategy": "new"})).json() for _ in range(2)]
    assert made[0]["recommendation_id"] != made[1]["recommendation_id"]
    assert made[0]["items"] == made[1]["items"]
    assert await _ask(shop.client, {"strategy": "new"})
    app.services.feed.announce(Change(kind="tenant", tenant_id=shop.tenant_id, ref=""))
    assert await _ask(shop.client, {"strategy": "new"})


async def test_what_a_shopper_dislikes_is_on_no_shared_list(shop: Shop) -> None:
    """Another shopper still sees it."""
    await shop.client.post("/v1/items/bulk", json=[{"id": f"i{n}"} for n in range(3)])
    event = {"type": "dislike", "user_id": "anna", "item_id": "i1"}
    assert (await shop.client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
    assert "i1" in await _ask(shop.client, {"strategy": "new", "user_id": "bert"})
    assert "i1" not in await _ask(shop.client, {"strategy": "new", "user_id": "anna"})


async def test_a_shoppers_own_list_is_kept_until_the_shopper_does_something(
    shop: Shop, second: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is made anew, in every process and without waiting for a poll; who is merged or in a segment, too."""
    await shop.client.post("/v1/items/bulk", json=[{"id": f"i{n}"} for n in range(6)])
    made: list[str] = []
    original = answering.serve

    async def serve(*args: Any, **more: Any) -> Any:
        made.append("made")
        return await original(*args, **more)

    monkeypatch.setattr(answering, "serve", serve)
    other = httpx.AsyncClient(
        transport=httpx.ASGITransport(second, raise_app_exceptions=False),
        base_url="http://kindred",
        headers={"Authorization": f"Bearer {shop.secret_key}"},
    )

    async def listed(client: httpx.AsyncClient, **who: str) -> list[str]:
        body = {"strategy": "recently_viewed", "fallback": "none", **who}
        return [item["id"] for item in (await client.post("/v1/recommend", json=body)).json()["items"]]

    async def tell(**event: str) -> None:
        answered = await shop.client.post("/v1/events", json={"events": [event]})
        assert answered.json()["accepted"] == 1

    async with other:
        for client in (shop.client, other):
            assert await listed(client, visitor_id="v") == []
        await tell(type="view", visitor_id="v", item_id="i1")
        for client in (shop.client, other):
            assert await listed(client, visitor_id="v") == ["i1"]
        await second.services.feed.poll()
        made.clear()
        for client in (shop.client, other):
            assert await listed(client, visitor_id="v") == ["i1"]
        assert made == []
        await tell(type="view", visitor_id="v", item_id="i2")
        for client in (other, shop.client):
            assert await listed(client, visitor_id="v") == ["i2", "i1"]
        # What happened earlier and is told late counts as well.
        await tell(type="view", visitor_id="v", item_id="i3", ts=(datetime.now(UTC) - timedelta(days=3)).isoformat())
        for client in (other, shop.client):
            assert await listed(client, visitor_id="v") == ["i2", "i1", "i3"]
        assert await listed(other, user_id="anna") == []
        merged = await shop.client.post("/v1/users/anna/merge", json={"visitor_id": "v"})
        assert merged.is_success
        assert await listed(other, user_id="anna") == ["i2", "i1", "i3"]
        assert (await shop.client.delete("/v1/users/anna")).is_success
        for client in (other, shop.client):
            assert await listed(client, user_id="anna") == []
            assert await listed(client, visitor_id="v") == []
