"""GET /v1/analytics: what answers led to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.app import Application

pytestmark = pytest.mark.anyio


def _around() -> dict[str, str]:
    now = datetime.now(UTC)
    return {"from": (now - timedelta(days=1)).isoformat(), "to": (now + timedelta(days=1)).isoformat()}


async def _rows(client: httpx.AsyncClient, by: str) -> dict[str | None, dict[str, Any]]:
    answered = await client.get("/v1/analytics", params={**_around(), "by": by})
    assert answered.status_code == 200, answered.text
    return {row["key"]: row for row in answered.json()["rows"]}


async def _a_day_of(app: Application, client: httpx.AsyncClient) -> None:
    """Two answers of one placement, one of none; of the first, two impressions, a click and a purchase."""
    items = [{"id": f"i{n}", "title": f"lamp {n}"} for n in range(4)]
    await client.post("/v1/items/bulk", json=items)
    await client.put("/v1/placements/home", json={"defaults": {"strategy": "new", "count": 2}})
    first = (await client.post("/v1/recommend", json={"placement": "home"})).json()
    await client.post("/v1/recommend", json={"placement": "home"})
    await client.post("/v1/recommend", json={"strategy": "popular", "count": 1})
    source = {"recommendation_id": first["recommendation_id"], "user_id": "anna"}
    shown, clicked = first["items"][0]["id"], first["items"][1]["id"]
    events = [
        {"type": "impression", "item_id": shown, "position": 1, **source},
        {"type": "impression", "item_id": clicked, "position": 2, **source},
        {"type": "click", "item_id": clicked, "position": 2, **source},
        {
            "type": "purchase",
            "items": [{"id": clicked, "quantity": 2, "price": 1500}],
            "currency": "EUR",
            "position": 2,
            **source,
        },
    ]
    taken = await client.post("/v1/events", json={"events": events})
    assert taken.json()["accepted"] == 4, taken.text
    await app.services.answer_log.close()


async def test_events_are_joined_to_the_answers_they_name(app: Application, client: httpx.AsyncClient) -> None:
    """By placement, with click-through and money."""
    await _a_day_of(app, client)
    rows = await _rows(client, "placement")
    assert rows["home"] == {
        "key": "home",
        "answers": 2,
        "impressions": 2,
        "clicks": 1,
        "purchases": 1,
        "ctr": 0.5,
        "revenue": [{"currency": "EUR", "amount": 3000}],
    }
    assert (rows[None]["answers"], rows[None]["impressions"], rows[None]["ctr"]) == (1, 0, None)


async def test_sums_by_every_dimension(app: Application, client: httpx.AsyncClient) -> None:
    """The same events, cut another way."""
    await _a_day_of(app, client)
    by_place = await _rows(client, "position")
    assert [(key, row["answers"], row["clicks"]) for key, row in by_place.items()] == [("1", 3, 0), ("2", 2, 1)]
    by_strategy = await _rows(client, "strategy")
    assert (by_strategy["new"]["answers"], by_strategy["popular"]["answers"]) == (2, 1)
    (day,) = (await _rows(client, "day")).values()
    assert (day["answers"], day["purchases"]) == (3, 1)
    assert list(await _rows(client, "variant")) == [None]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "/to"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-04-04T00:00:00Z"}, "/to"),
        ({"from": "2026-01-01T00:00:00", "to": "2026-01-02T00:00:00Z"}, "/from"),
        ({"from": "2026-01-01T00:00:00Z"}, "/to"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "by": "moon"}, "/by"),
    ],
)
async def test_a_bad_range_is_refused(client: httpx.AsyncClient, query: dict[str, str], pointer: str) -> None:
    """422, naming the field."""
    refused = await client.get("/v1/analytics", params=query)
    assert refused.status_code == 422
    assert [fault["pointer"] for fault in refused.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "query",
    [
        {"from": "1969-12-01T00:00:00Z", "to": "1970-01-01T00:00:00Z"},
        {"from": "0001-01-01T00:00:00+14:00", "to": "0001-02-01T00:00:00Z"},
        {"from": "9999-12-01T00:00:00Z", "to": "9999-12-31T23:59:59-14:00"},
    ],
    ids=["before 1970", "the first moment", "the last moment"],
)
async def test_nothing_was_answered_at_the_ends_of_time(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    """No rows, rather than a number that no id can hold."""
    answered = await client.get("/v1/analytics", params=query)
    assert answered.status_code == 200, answered.text
    assert answered.json()["rows"] == []
