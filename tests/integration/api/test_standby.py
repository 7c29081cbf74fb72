"""What is answered while the database cannot be reached."""

from typing import Any

import asyncpg
import httpx
import pytest

from api.app import Application
from infra.changes import ChangeFeed
from infra.hotpool import HotPool
from tests.integration.api.conftest import MakeShop, Shop

pytestmark = pytest.mark.anyio

ITEMS = [{"id": f"i{n}", "title": f"lamp {n}", "brand": f"b{n % 2}"} for n in range(6)]


class _Away:
    """Cuts the application off from its database."""

    def __init__(self, app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
        self._app = app
        self._patch = monkeypatch

    async def begin(self, *, age_s: float = 5.0) -> None:
        """From now on nothing is reached; the changes were read `age_s` ago."""
        await self._app.services.feed.close()

        async def refuse(*_: Any, **__: Any) -> None:
            raise ConnectionRefusedError("away")

        self._patch.setattr(HotPool, "fetch", refuse)
        self._patch.setattr(ChangeFeed, "age_s", age_s)
        self._patch.setattr(ChangeFeed, "fresh", False)


@pytest.fixture
def away(app: Application, monkeypatch: pytest.MonkeyPatch) -> _Away:
    """The way to cut the application off."""
    return _Away(app, monkeypatch)


@pytest.fixture
async def client(shop: Shop) -> httpx.AsyncClient:
    """A shop of six items."""
    assert (await shop.client.post("/v1/items/bulk", json=ITEMS)).json()["accepted"] == len(ITEMS)
    return shop.client


async def _ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_kept_list_answers_and_says_why(client: httpx.AsyncClient, away: _Away) -> None:
    """The same items under an id of its own, for the one who asked before and for others, by a placement too."""
    await client.put("/v1/placements/home", json={"defaults": {"strategy": "new", "count": 4}})
    similar: dict[str, Any] = {"strategy": "similar", "item_ids": ["i1"], "fields": ["title"]}
    bodies: list[dict[str, Any]] = [similar, {"placement": "home"}]
    before = [await _ask(client, **body) for body in bodies]
    await away.begin()
    for body, first in zip(bodies, before, strict=True):
        for who in ({}, {"user_id": "ann"}):
            answer = await _ask(client, **body, **who)
            assert [item["id"] for item in answer["items"]] == [item["id"] for item in first["items"]]
            assert answer["fallback_used"] is True
            assert "database cannot be reached" in answer["warnings"][-1]
            assert answer["recommendation_id"] != first["recommendation_id"]


async def test_a_shoppers_own_list_answers_that_shopper_alone(client: httpx.AsyncClient, away: _Away) -> None:
    """Others get a list of the shop."""
    event = {"type": "view", "user_id": "ann", "item_id": "i3"}
    assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
    own = {"strategy": "recently_viewed", "fallback": "none"}
    assert [item["id"] for item in (await _ask(client, **own, user_id="ann"))["items"]] == ["i3"]
    await away.begin()
    kept = await _ask(client, **own, user_id="ann")
    assert [item["id"] for item in kept["items"]] == ["i3"]
    assert kept["fallback_used"] is True
    assert (await client.post("/v1/recommend", json={**own, "user_id": "bob"})).status_code == 503


async def test_another_list_of_the_shop_stands_in(client: httpx.AsyncClient, away: _Away) -> None:
    """Under the same filter, cut to the length that is asked for, and marked as the fallback."""
    await _ask(client, strategy="popular", count=10)
    filtered = {"eq": ["brand", "b1"]}
    await _ask(client, strategy="new", count=10, filter=filtered)
    await away.begin()
    answer = await _ask(client, user_id="ann", count=2)
    assert [(item["rank"], item["fallback"]) for item in answer["items"]] == [(1, True), (2, True)]
    narrow = await _ask(client, strategy="similar", item_ids=["i1"], filter=filtered)
    assert {item["id"] for item in narrow["items"]} == {"i1", "i3", "i5"}
    page = await client.post(
        "/v1/recommend/batch", json={"requests": [{"user_id": "ann", "count": 2}], "distinct": False}
    )
    assert [item["id"] for item in page.json()["results"][0]["items"]] == [item["id"] for item in answer["items"]]


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": "ann", "exclude": {"purchased": True}},
        {"user_id": "ann", "exclude": {"seen": True}},
        {"user_id": "ann", "filter": {"eq": ["brand", "b0"]}},
        {"strategy": "similar", "item_ids": ["i1"], "fallback": "none"},
        {"session": {"recent_items": ["i1"]}, "exclude": {"seen": True}},
    ],
)
async def test_what_only_the_database_knows_is_a_503(
    client: httpx.AsyncClient, away: _Away, body: dict[str, Any]
) -> None:
    """With Retry-After; no kept list breaks what the request asks for."""
    first = await _ask(client, strategy="popular", count=3)
    await away.begin()
    for each in (body, {"strategy": "popular", "count": 3, "cursor": first["cursor"]}):
        refused = await client.post("/v1/recommend", json=each)
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert refused.headers["retry-after"] == "1"
    event = {"type": "view", "user_id": "ann", "item_id": "i1"}
    assert (await client.post("/v1/events", json={"events": [event]})).status_code == 503


async def test_no_withdrawn_item_and_no_other_shop_is_shown(
    client: httpx.AsyncClient, away: _Away, make_shop: MakeShop
) -> None:
    """A list with an item whose withdrawal was seen is not given, however the item went."""
    await _ask(client, strategy="popular")
    await _ask(client, strategy="new")
    other = (await make_shop()).client
    assert (await other.post("/v1/items/bulk", json=[{"id": "x"}])).json()["accepted"] == 1
    await client.patch("/v1/items/i3", json={"hidden": True})
    await client.delete("/v1/items/i4")
    await other.get("/v1/items/x")
    kept = await _ask(client, strategy="trending", count=3)
    await away.begin()
    answer = await _ask(client, user_id="ann", count=3)
    assert [item["id"] for item in answer["items"]] == [item["id"] for item in kept["items"]]
    assert not {"i3", "i4"} & {item["id"] for item in answer["items"]}
    assert (await other.post("/v1/recommend", json={"count": 3})).status_code == 503


async def test_known_dislikes_are_left_out(client: httpx.AsyncClient, away: _Away) -> None:
    """Of the list that stands in."""
    await _ask(client, strategy="new")
    event = {"type": "dislike", "user_id": "ann", "item_id": "i2"}
    assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
    await _ask(client, strategy="new", user_id="ann")
    await away.begin()
    answer = await _ask(client, strategy="new", user_id="ann")
    assert [item["id"] for item in answer["items"]] == ["i5", "i4", "i3", "i1", "i0"]


async def test_nothing_is_believed_for_ever(client: httpx.AsyncClient, away: _Away) -> None:
    """A minute after the last look at the changes, keys and lists are unknown."""
    await _ask(client, strategy="popular")
    await away.begin(age_s=61.0)
    assert (await client.post("/v1/recommend", json={"strategy": "popular"})).status_code == 503


async def test_a_failure_of_another_kind_is_not_hidden(
    client: httpx.AsyncClient, away: _Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that PostgreSQL refuses is our defect: 500."""
    await _ask(client, strategy="popular")
    await away.begin()

    async def refuse(*_: Any, **__: Any) -> None:
        raise asyncpg.UndefinedColumnError("no such column")

    monkeypatch.setattr(HotPool, "fetch", refuse)
    assert (await client.post("/v1/recommend", json={"strategy": "popular"})).status_code == 500
