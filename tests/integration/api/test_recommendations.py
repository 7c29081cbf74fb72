"""GET /v1/recommendations/{id}: an answer shown again."""

from typing import Any

import httpx
import pytest

from api.app import Application
from infra.ids import uuid7
from tests.integration.api.conftest import MakeShop

pytestmark = pytest.mark.anyio


async def _written(app: Application) -> None:
    while app.services.answer_log.waiting:
        await app.services.answer_log.flush()


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
    await app.services.answer_log.close()
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
    await app.services.answer_log.close()
    past = (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).json()
    assert (past["kind"], past["request"]) == ("search", {"query": "lamp"})
    assert len(past["items"]) == 4


async def test_who_asked_and_the_session_are_in_no_log(app: Application, client: httpx.AsyncClient) -> None:
    """A cookieless history is used and forgotten."""
    await _stock(client)
    answered = await _ask(client, user_id="anna", session={"recent_items": ["i1"]})
    await app.services.answer_log.close()
    past = (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).text
    assert "anna" not in past
    assert "i1" not in past.partition('"items"')[0]


async def test_an_answer_of_another_shop_does_not_exist(
    app: Application, client: httpx.AsyncClient, make_shop: MakeShop
) -> None:
    """The same body as for an id that nobody has."""
    other = await make_shop()
    answered = await _ask(client, strategy="new")
    await app.services.answer_log.close()
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
    await app.services.answer_log.close()
    assert (await client.get(f"/v1/recommendations/{answered['recommendation_id']}")).status_code == 200
