"""/v1/recommend, /v1/rerank and the convenience lists over a real database."""

from typing import Any

import asyncpg
import httpx
import pytest

from api.app import Application
from api.recommend import sampling
from infra.db import Database
from tests.integration.api.conftest import MakeShop, Shop

pytestmark = pytest.mark.anyio

ITEMS = [{"id": f"i{n}", "title": f"item {n}", "brand": f"b{n % 3}", "price": 100 + n} for n in range(12)]
VISITOR = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
async def stocked(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A shop of twelve items."""
    assert (await client.post("/v1/items/bulk", json=ITEMS)).json()["accepted"] == 12
    return client


async def _ids(client: httpx.AsyncClient, **body: Any) -> list[str]:
    answer = await client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def _did(client: httpx.AsyncClient, **event: Any) -> None:
    answer = await client.post("/v1/events", json={"events": [event]})
    assert answer.json()["accepted"] == 1, answer.text


async def test_an_event_changes_the_next_answer(stocked: httpx.AsyncClient) -> None:
    """What was viewed is first among the recently viewed, and kept out when seen items are."""
    await _did(stocked, type="view", user_id="ann", item_id="i3")
    await _did(stocked, type="view", user_id="ann", item_id="i5")
    viewed = await _ids(stocked, strategy="recently_viewed", user_id="ann", fallback="none")
    assert viewed == ["i5", "i3"]
    left = await _ids(stocked, strategy="popular", user_id="ann", count=100, exclude={"seen": True})
    assert set(left) == {item["id"] for item in ITEMS} - {"i3", "i5"}
    assert await _ids(stocked, strategy="recently_viewed", user_id="bob", fallback="none") == []


async def test_an_exclusion_holds_under_a_cap(stocked: httpx.AsyncClient) -> None:
    """What fills a capped list was not bought, disliked or, without a name, looked at in this session."""
    for place in (0, 3, 6):
        await _did(stocked, type="purchase", user_id="ann", item_id=f"i{place}", order_id="o")
    await _did(stocked, type="dislike", user_id="ann", item_id="i9")
    body: dict[str, Any] = {"strategy": "also_viewed", "item_ids": ["i1"], "count": 12, "max_per": {"brand": 4}}
    left = await _ids(stocked, user_id="ann", exclude={"purchased": True}, **body)
    assert set(left) == {item["id"] for item in ITEMS} - {"i0", "i1", "i3", "i6", "i9"}
    session = {"recent_items": ["i11", "i10"]}
    for strategy in ("new", "popular", "for_you"):
        left = await _ids(stocked, strategy=strategy, session=session, exclude={"seen": True}, count=12)
        assert set(left) == {item["id"] for item in ITEMS} - {"i10", "i11"}


async def test_a_shopper_has_two_kinds_of_name(stocked: httpx.AsyncClient) -> None:
    """A visitor of the same id as a user is somebody else."""
    await _did(stocked, type="view", visitor_id="ann", item_id="i3")
    assert await _ids(stocked, strategy="recently_viewed", visitor_id="ann", fallback="none") == ["i3"]
    assert await _ids(stocked, strategy="recently_viewed", user_id="ann", fallback="none") == []


async def test_the_fallback_is_marked(stocked: httpx.AsyncClient) -> None:
    """Where a strategy knows nothing, popular items answer and say so; `none` leaves the list empty."""
    answer = (await stocked.post("/v1/recommend", json={"strategy": "bought_together", "item_ids": ["i1"]})).json()
    assert answer["fallback_used"] is True
    assert len(answer["items"]) == 10
    assert {(item["source"], item["fallback"]) for item in answer["items"]} == {("popular", True)}
    assert "i1" not in [item["id"] for item in answer["items"]]
    assert await _ids(stocked, strategy="bought_together", item_ids=["i1"], fallback="none") == []


async def test_reranking_gives_the_known_items_alone(stocked: httpx.AsyncClient) -> None:
    """All of the given ones that may be shown, each once; what is unknown is named."""
    await stocked.patch("/v1/items/i4", json={"hidden": True})
    body = {"item_ids": ["i1", "i4", "i7", "nobody", "i1"], "user_id": "ann"}
    answer = (await stocked.post("/v1/rerank", json=body)).json()
    assert sorted(item["id"] for item in answer["items"]) == ["i1", "i7"]
    assert any("nobody" in warning for warning in answer["warnings"])
    assert answer["cursor"] is None


async def test_convenience_lists(stocked: httpx.AsyncClient) -> None:
    """A user's list and what is on the rise, with the fields that were asked for."""
    for path in ("/v1/users/a%2Fb/recommendations", "/v1/trending"):
        answer = await stocked.get(path, params={"count": 3, "fields": "title,price"})
        assert answer.status_code == 200, answer.text
        items = answer.json()["items"]
        assert len(items) == 3
        assert set(items[0]["fields"]) == {"title", "price"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"strategy": "magic"}, "/strategy"),
        ({"count": 0}, "/count"),
        ({"count": 101}, "/count"),
        ({"weights": {"text": 0, "image": 0, "behaviour": 0}}, "/weights"),
        ({"strategy": "similar", "weights": {"text": 0, "image": 0}, "item_ids": ["i1"]}, "/weights"),
        ({"weights": {"text": -1}}, "/weights/text"),
        ({"diversity": 1.5}, "/diversity"),
        ({"min_score": -0.1}, "/min_score"),
        ({"same": ["brand"]}, "/same"),
        ({"same": ["price"], "item_ids": ["i1"]}, "/same/0"),
        ({"max_per": {"price": 2}}, "/max_per/price"),
        ({"fields": ["secret"]}, "/fields/0"),
        ({"user_id": "a", "visitor_id": "b"}, "/visitor_id"),
        ({"user_id": ""}, "/user_id"),
        ({"user_id": "x" * 129}, "/user_id"),
        ({"exclude": {"everything": True}}, "/exclude/everything"),
        ({"item_ids": ["i1"], "same": ["attributes.a\0"]}, "/same/0"),
        ({"max_per": {"attributes.a\0": 1}}, "/max_per/attributes.a\0"),
        ({"fields": ["attributes.a\0"]}, "/fields/0"),
        ({"context": {"page": "x" * 5000}}, "/context"),
    ],
)
async def test_what_cannot_be_asked_is_named(client: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    """422 with the place."""
    answer = await client.post("/v1/recommend", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in {fault["pointer"] for fault in answer.json()["errors"]}


async def test_weights_that_are_no_numbers_are_no_json(client: httpx.AsyncClient) -> None:
    """NaN is not JSON: 400."""
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/recommend", content=b'{"weights": {"text": NaN}}', headers=headers)
    assert answer.status_code == 400


async def test_a_filter_may_not_be_too_deep(client: httpx.AsyncClient) -> None:
    """50 levels, and a field that there is not."""
    tree: dict[str, Any] = {"exists": "brand"}
    for _ in range(50):
        tree = {"not": tree}
    for bad in (tree, {"eq": ["colour", "red"]}):
        answer = await client.post("/v1/recommend", json={"filter": bad})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_filter")


async def test_only_an_own_cursor_is_taken(stocked: httpx.AsyncClient, make_shop: MakeShop) -> None:
    """One that was altered, cut, or of another shop is refused."""
    cursor = (await stocked.post("/v1/recommend", json={"strategy": "new", "count": 3})).json()["cursor"]
    other = (await make_shop()).client
    altered = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    for client, sent in ((stocked, cursor[:-2]), (stocked, altered), (stocked, "zzz"), (other, cursor)):
        answer = await client.post("/v1/recommend", json={"strategy": "new", "count": 3, "cursor": sent})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor"), answer.text


async def _publishable(app: Application, shop: Shop) -> httpx.AsyncClient:
    made = await shop.client.post("/v1/keys", json={"name": "browser", "kind": "publishable"})
    assert made.status_code == 201, made.text
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://kindred",
        headers={"Authorization": f"Bearer {made.json()['key']}"},
    )


async def test_a_publishable_key_names_no_user(app: Application, shop: Shop) -> None:
    """403 for a user's id, by any route; a visitor's must be one that nobody guesses."""
    client = await _publishable(app, shop)
    refused = [
        await client.post("/v1/recommend", json={"user_id": "ann"}),
        await client.post("/v1/rerank", json={"item_ids": ["i1"], "user_id": "ann"}),
        await client.get("/v1/users/ann/recommendations"),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(403, "user_id_refused")] * 3
    guessed = await client.post("/v1/recommend", json={"visitor_id": "7"})
    assert guessed.status_code == 422
    assert (await client.post("/v1/recommend", json={"visitor_id": VISITOR})).status_code == 200
    await client.aclose()


@pytest.mark.parametrize("error", [TimeoutError(), asyncpg.QueryCanceledError("cancelled")])
async def test_a_personal_list_that_fails_is_popular(
    stocked: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The answer says so, and leaves out what was excluded; a list that is nobody's own is not hidden that way."""
    await _did(stocked, type="purchase", user_id="ann", item_id="i3", order_id="o")
    fetch = Database.fetch_scoped

    async def failing(self: Database, tenant_id: Any, inner: str, *args: object, **more: Any) -> Any:
        if "met as materialized" in inner:
            raise error
        return await fetch(self, tenant_id, inner, *args, **more)

    monkeypatch.setattr(Database, "fetch_scoped", failing)
    answer = (await stocked.post("/v1/recommend", json={"user_id": "ann", "count": 5})).json()
    assert answer["fallback_used"] is True
    assert [item["fallback"] for item in answer["items"]] == [True] * 5
    assert "in time" in answer["warnings"][0]
    left = await _ids(stocked, user_id="ann", count=100, exclude={"purchased": True})
    assert set(left) == {item["id"] for item in ITEMS} - {"i3"}
    nothing = (await stocked.post("/v1/recommend", json={"user_id": "ann", "fallback": "none"})).json()
    assert nothing["items"] == []


async def test_a_list_takes_two_round_trips_at_most(
    stocked: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One where its sources and the fallback fill it; each strategy, with and without a shopper."""
    # Of one answer in a hundred the candidates are recalled again afterwards, for the log.
    monkeypatch.setattr(sampling, "sampled", lambda _: False)
    await _did(stocked, type="view", user_id="ann", item_id="i3")
    calls: list[str] = []
    fetch = Database.fetch_scoped

    async def counted(self: Database, tenant_id: Any, inner: str, *args: object, **more: Any) -> Any:
        if "item_facets" in inner:
            calls.append(inner)
        return await fetch(self, tenant_id, inner, *args, **more)

    monkeypatch.setattr(Database, "fetch_scoped", counted)
    for strategy in (
        *("for_you", "similar", "visually_similar", "bought_together", "also_viewed", "cart", "trending"),
        *("popular", "new", "recently_viewed", "buy_again", "on_sale"),
    ):
        for who in ({}, {"user_id": "ann"}):
            calls.clear()
            # A count of its own, so that no kept answer serves.
            body: dict[str, Any] = {
                "strategy": strategy,
                "item_ids": ["i1"],
                "count": 4 + len(who),
                "session": {},
                **who,
            }
            await _ids(stocked, **body)
            assert 1 <= len([call for call in calls if "as next" not in call]) <= 2, (strategy, who)


async def test_diversity_spreads_a_list(stocked: httpx.AsyncClient) -> None:
    """It takes the same items' order at 0, and is as long at any value."""
    plain = await _ids(stocked, strategy="new", count=5)
    assert await _ids(stocked, strategy="new", count=5, diversity=0) == plain
    assert len(await _ids(stocked, strategy="new", count=5, diversity=1)) == 5
