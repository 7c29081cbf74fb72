"""Moments at the ends of time, at which an offset leads out of the years that there are."""

import httpx
import pytest

pytestmark = pytest.mark.anyio

_ENDS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999Z"]


@pytest.mark.parametrize("moment", _ENDS)
async def test_a_moment_at_the_end_of_time_is_one_like_others(client: httpx.AsyncClient, moment: str) -> None:
    """Stored, compared with and asked for; none of it is a defect of ours."""
    hook = {"url": "https://shop.example/hooks", "events": ["job.finished"]}
    webhook = (await client.post("/v1/webhooks", json=hook)).json()["webhook"]["id"]
    answers = [
        await client.put("/v1/items/a", json={"available_from": moment}),
        await client.put("/v1/items/b", json={"expires_at": moment}),
        await client.get("/v1/items/a"),
        await client.post("/v1/recommend", json={"strategy": "new"}),
        await client.post("/v1/recommend", json={"strategy": "new", "filter": {"gte": ["available_from", moment]}}),
        await client.get("/v1/audit", params={"from": moment}),
        await client.get("/v1/audit", params={"to": moment}),
        await client.post(f"/v1/webhooks/{webhook}/replay", json={"since": moment}),
    ]
    assert [(answer.request.url.path, answer.status_code) for answer in answers if answer.is_error] == []
    key = await client.post("/v1/keys", json={"name": "k", "expires_at": moment})
    assert key.status_code == (422 if moment.startswith("0") else 201)
