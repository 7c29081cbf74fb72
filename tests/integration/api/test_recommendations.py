"""GET /v1/recommendations/{id}: an answer shown again."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from api.app import Application
from api.recommend import sampling
from api.recommend.recall import recall_or_popular
from infra.ids import uuid7
from tests.integration.api.conftest import MakeShop

pytestmark = pytest.mark.anyio


async def _written(app: Application) -> None:
    while app.services.answer_log.waiting:
        await app.services.answer_log.flush()


async def _settled(app: Application) -> None:
    """Everything that was answered is in the log."""
    await app.services.answering.close()
    await app.services.answer_log.close()


async def _ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answered: dict[str, Any] = (await client.post("/v1/recommend", json=body)).json()
    return answered


async def _stock(client: httpx.AsyncClient) -> None:
    items = [{"id": f"i{n}", "title": f"lamp {n}"} for n in range(4)]
    assert (await client.post("/v1/items/bulk", json=items)).json()["accepted"] == 4


async def test_an_answer_is_shown_as_it_was_given(app: Application, client: httpx.AsyncClient) -> None:
    """Ids, scores, sources and what was asked; also of an answer that came from the cache."""
    await _stock(client)
    given = [await _ask(client, strategy="new", count=3) for _ in range(2)]
    await client.delete("/v1/items/i3")
    await _settled(app)
    for answered in given:
        past = (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).json()
        assert [item["id"] for item in past["items"]] == [item["id"] for item in answered["items"]]
        assert [item["score"] for item in past["items"]] == [item["score"] for item in answered["items"]]
        assert past["strategy"] == "new"
        assert past["request"] == {"strategy": "new", "count": 3}
        assert past["kind"] == "recommend"


async def test_a_search_is_shown_again(app: Application, client: httpx.AsyncClient) -> None:
    """With its words."""
    await _stock(client)
    answered = (await client.post("/v1/search", json={"query": "lamp"})).json()
    await _settled(app)
    past = (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).json()
    assert (past["kind"], past["request"]) == ("search", {"query": "lamp"})
    assert len(past["items"]) == 4


async def test_who_asked_and_the_session_are_in_no_log(app: Application, client: httpx.AsyncClient) -> None:
    """A cookieless history is used and forgotten."""
    await _stock(client)
    answered = await _ask(client, user_id="anna", session={"recent_items": ["i1"]})
    await _settled(app)
    past = (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).text
    assert "anna" not in past
    assert "i1" not in past.partition('"items"')[0]


async def test_an_answer_of_another_shop_does_not_exist(
    app: Application, client: httpx.AsyncClient, make_shop: MakeShop
) -> None:
    """The same body as for an id that nobody has."""
    other = await make_shop()
    answered = await _ask(client, strategy="new")
    await _settled(app)
    told = []
    for name in (answered["recommendation_id"], str(uuid7())):
        refused = await other.client.get(f"/v1/recommendations/{name}")
        assert refused.status_code == 404
        told.append({key: value for key, value in refused.json().items() if key not in ("instance", "request_id")})
    assert told[0] == told[1]
    assert (await client.get("/v1/recommendations/nonsense")).status_code == 404


async def test_an_escaped_nul_costs_no_answer(app: Application, client: httpx.AsyncClient) -> None:
    """PostgreSQL takes none; the row is written nevertheless."""
    answered = (await client.post("/v1/search", json={"query": "lamp \0"})).json()
    await _settled(app)
    assert (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).status_code == 200


async def _past(app: Application, client: httpx.AsyncClient, answered: dict[str, Any]) -> dict[str, Any]:
    await _settled(app)
    shown: dict[str, Any] = (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).json()
    return shown


async def _viewed(client: httpx.AsyncClient, user_id: str, item_id: str) -> None:
    event = {"type": "view", "user_id": user_id, "item_id": item_id}
    assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1


async def test_an_explained_answer_is_kept_with_its_candidates(
    app: Application, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it was chosen from, not only what was shown, with the shares and the evidence; kept or made anew."""
    monkeypatch.setattr(sampling, "sampled", lambda _: False)
    await _stock(client)
    await _viewed(client, "ann", "i1")
    for body in ({"strategy": "new"}, {"strategy": "recently_viewed", "user_id": "ann"}):
        answered = await _ask(client, count=1, explain=True, **body)
        past = await _past(app, client, answered)
        assert len(past["candidates"]) == 4
        assert [each["rank"] for each in past["candidates"]] == [1, None, None, None]
        assert past["candidates"][0]["id"] == answered["items"][0]["id"]
        assert past["candidates"][0]["score"] == past["items"][0]["score"]
    assert past["candidates"][0]["parts"] == {"recently_viewed": 1.0}
    assert (await _past(app, client, await _ask(client, strategy="new")))["candidates"] is None


async def test_one_answer_in_a_hundred_is_kept_so(
    app: Application, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose id says so: of a single list, of a kept one and of a page."""
    await _stock(client)
    monkeypatch.setattr("api.recommend.answering.uuid7", lambda: UUID(int=uuid7().int >> 32 << 32))
    monkeypatch.setattr("api.recommend.pipeline.uuid7", lambda: UUID(int=uuid7().int >> 32 << 32))
    answers = [await _ask(client, strategy="new", count=2) for _ in range(2)]
    answers.append(await _ask(client, strategy="new", user_id="ann", exclude={"seen": True}))
    page = await client.post("/v1/recommend/batch", json={"requests": [{"strategy": "new"}, {"user_id": "ann"}]})
    answers += page.json()["results"]
    for answered in answers:
        assert len((await _past(app, client, answered))["candidates"]) == 4


async def test_candidates_of_a_kept_list_are_recalled_once(
    app: Application, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given again to others, the same list has the same ones; a list of one shopper is recalled each time."""
    await _stock(client)
    await _viewed(client, "ann", "i1")
    asked = []

    async def counted(*args: Any, **more: Any) -> Any:
        asked.append(args)
        return await recall_or_popular(*args, **more)

    monkeypatch.setattr("api.recommend.sampling.recall_or_popular", counted)
    for body, recalls in (({"strategy": "new"}, 1), ({"strategy": "recently_viewed", "user_id": "ann"}, 2)):
        asked.clear()
        pasts = [await _past(app, client, await _ask(client, explain=True, **body)) for _ in range(2)]
        assert len(asked) == recalls
        assert pasts[0]["candidates"] == pasts[1]["candidates"] != []


async def test_a_failing_sample_costs_no_answer(
    app: Application, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is written without."""
    await _stock(client)

    async def failing(*_: Any, **__: Any) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr("api.recommend.sampling.recall_or_popular", failing)
    past = await _past(app, client, await _ask(client, strategy="new", explain=True))
    assert (past["candidates"], len(past["items"])) == (None, 4)


async def test_candidates_hold_nothing_of_a_session_nor_of_who_was_erased(
    app: Application, client: httpx.AsyncClient
) -> None:
    """Evidence from a session is not stored; a shopper's goes with the shopper."""
    await _stock(client)
    answered = await _ask(client, strategy="recently_viewed", session={"recent_items": ["i1"]}, explain=True)
    past = await _past(app, client, answered)
    assert {each["because"] for each in past["candidates"]} == {None}
    await _viewed(client, "ann", "i1")
    answered = await _ask(client, strategy="recently_viewed", user_id="ann", explain=True)
    assert (await _past(app, client, answered))["candidates"]
    assert (await client.delete("/v1/users/ann")).is_success
    assert (await _past(app, client, answered))["candidates"] is None
