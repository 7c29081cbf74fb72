"""A new process makes the busy lists before it takes traffic."""

import asyncio
from typing import Any

import httpx
import pytest

from api.app import Application, create_app
from api.recommend import sampling, warming
from infra.blob_folder import FolderBlobs
from infra.db import Database
from tests.integration.api.conftest import Shop

pytestmark = pytest.mark.anyio


async def _started(app: Application) -> Application:
    """Another process over the same database, which has answered nothing."""
    settings = app.services.settings
    database = Database(app.services.database.url, hot=2, sessions=2)
    await database.open()
    made = create_app(settings, database, FolderBlobs(settings.data_dir / "blobs"))
    await made.services.feed.poll()
    await made.services.feed.start()
    return made


async def _end(app: Application) -> None:
    await app.services.feed.close()
    await app.services.database.close()


@pytest.fixture
async def busy(app: Application, shop: Shop) -> list[dict[str, Any]]:
    """A shop whose lists were asked for, each three times; what each was asked with."""
    client = shop.client
    items = [{"id": f"i{n}", "title": f"lamp {n}", "price": n} for n in range(5)]
    assert (await client.post("/v1/items/bulk", json=items)).json()["accepted"] == 5
    placement = {
        "defaults": {"count": 2, "strategy": "new"},
        "sources": [{"strategy": "popular"}, {"strategy": "on_sale"}],
    }
    assert (await client.put("/v1/placements/home", json=placement)).is_success
    asked: list[dict[str, Any]] = [
        {"placement": "home"},
        {"placement": "home", "strategy": "new"},
        {"strategy": "similar", "item_ids": ["i1"], "filter": {"gt": ["price", 0]}},
        {"strategy": "popular", "visitor_id": "v"},
    ]
    for body in (*asked, {"strategy": "for_you", "user_id": "ann"}):
        for _ in range(3):
            assert (await client.post("/v1/recommend", json=body)).status_code == 200
    await client.post("/v1/recommend", json={"strategy": "trending"})
    await app.services.answer_log.close()
    return asked


async def test_busy_lists_are_there_when_the_process_is_ready(
    app: Application, shop: Shop, busy: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made once, and the same as asked for; neither a personal one nor one that was asked for once."""
    # Other tests' shops are in the same database.
    monkeypatch.setattr(warming, "MOST", 10_000)
    monkeypatch.setattr(warming.Warming.run, "__kwdefaults__", {"budget_s": 300.0})
    # Of one answer in a hundred the candidates are recalled again afterwards, for the log.
    monkeypatch.setattr(sampling, "sampled", lambda _: False)
    other = await _started(app)
    transport = httpx.ASGITransport(other, raise_app_exceptions=False)
    made: list[str] = []
    fetch = Database.fetch_scoped

    async def counted(self: Database, tenant_id: Any, inner: str, *args: object, **more: Any) -> Any:
        if "item_facets" in inner and "as next" not in inner and tenant_id == shop.tenant_id:
            made.append(inner)
        return await fetch(self, tenant_id, inner, *args, **more)

    async with httpx.AsyncClient(transport=transport, base_url="http://k", headers=shop.client.headers) as client:
        monkeypatch.setattr(Database, "fetch_scoped", counted)
        assert (await client.get("/health/ready")).status_code == 200
        assert len(made) >= len(busy)
        made.clear()
        assert (await client.get("/health/ready")).status_code == 200
        for body in busy:
            answer = (await client.post("/v1/recommend", json=body)).json()
            first = (await shop.client.post("/v1/recommend", json=body)).json()
            assert [item["id"] for item in answer["items"]] == [item["id"] for item in first["items"]]
        assert made == []
        for body in ({"strategy": "trending"}, {"strategy": "for_you", "user_id": "ann"}):
            await client.post("/v1/recommend", json=body)
        assert made
    await _end(other)


async def test_a_process_is_ready_though_it_cannot_be_warmed(
    app: Application, shop: Shop, busy: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an error nor a wait without end keeps it back."""

    async def failing(*_: Any, **__: Any) -> None:
        raise ConnectionError("away")

    async def endless(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(warming.Warming.run, "__kwdefaults__", {"budget_s": 0.05})
    for way in (failing, endless):
        monkeypatch.setattr(warming, "busy_requests", way)
        other = await _started(app)
        transport = httpx.ASGITransport(other, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://k", headers=shop.client.headers) as client:
            assert (await client.get("/health/ready")).status_code == 200
            assert (await client.post("/v1/recommend", json=busy[0])).status_code == 200
        await _end(other)


async def test_a_strategy_of_the_request_is_no_answer_of_the_placement(shop: Shop, busy: list[dict[str, Any]]) -> None:
    """Though both are kept, and the placement's defaults name the same strategy."""
    blended, new = [(await shop.client.post("/v1/recommend", json=body)).json() for body in busy[:2]]
    assert {item["source"] for item in new["items"]} == {"new"}
    assert {item["source"] for item in blended["items"]} == {"popular"}
