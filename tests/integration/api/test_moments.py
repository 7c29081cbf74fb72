"""Moments at the ends of time, where an offset leads out of the years that there are; and numbers, which are none."""

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


@pytest.mark.parametrize("number", ["0.5", "2026", "-1", "1e9", "20260115"])
async def test_a_number_is_no_moment(client: httpx.AsyncClient, number: str) -> None:
    """Neither a year nor seconds since 1970; the answer says how one is written."""
    for path, name in (("/v1/audit", "from"), ("/v1/audit", "to"), ("/v1/analytics", "from")):
        given = {"from": "2026-01-14T00:00:00Z", "to": "2026-01-15T00:00:00Z", name: number}
        answer = await client.get(path, params=given)
        assert answer.status_code == 422
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"/{name}"]
