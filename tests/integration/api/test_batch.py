"""POST /v1/recommend/batch: the lists of a page."""

from itertools import combinations
from typing import Any

import httpx
import pytest

from api.app import Application

pytestmark = pytest.mark.anyio


async def _stock(client: httpx.AsyncClient, count: int = 30) -> None:
    items = [
        {"id": f"i{n:03}", "title": f"lamp {n}", "brand": f"b{n % 3}", "group_id": f"g{n // 2}" if n < 10 else None}
        for n in range(count)
    ]
    assert (await client.post("/v1/items/bulk", json=items)).json()["accepted"] == count


async def _page(client: httpx.AsyncClient, *requests: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    answered = await client.post("/v1/recommend/batch", json={"requests": list(requests), **more})
    assert answered.status_code == 200, answered.text
    results: list[dict[str, Any]] = answered.json()["results"]
    return results


def _ids(row: dict[str, Any]) -> list[str]:
    return [item["id"] for item in row["items"]]


async def test_no_item_is_twice_on_a_page(client: httpx.AsyncClient) -> None:
    """Each list is full, and begins where its own order does."""
    await _stock(client)
    rows = await _page(client, {"strategy": "new", "count": 4}, {"strategy": "popular", "count": 5}, {"count": 6})
    assert [len(row["items"]) for row in rows] == [4, 5, 6]
    assert all(not set(_ids(one)) & set(_ids(other)) for one, other in combinations(rows, 2))
    assert [item["rank"] for item in rows[2]["items"]] == [1, 2, 3, 4, 5, 6]
    alone = (await client.post("/v1/recommend", json={"strategy": "new", "count": 4})).json()
    assert _ids(rows[0]) == _ids(alone)


async def test_no_group_is_twice_on_a_page(client: httpx.AsyncClient) -> None:
    """Another variant of what the page shows is no news."""
    await _stock(client, 10)
    rows = await _page(client, {"strategy": "new", "count": 3}, {"strategy": "popular", "count": 3})
    groups = [int(name[1:]) // 2 for row in rows for name in _ids(row)]
    assert len(groups) == len(set(groups)) == 5


async def test_lists_may_repeat_each_other_where_asked(client: httpx.AsyncClient) -> None:
    """`distinct: false`."""
    await _stock(client)
    rows = await _page(client, *[{"strategy": "new", "count": 4}] * 2, distinct=False)
    assert _ids(rows[0]) == _ids(rows[1])


async def test_lists_that_agree_on_everything_are_still_filled(client: httpx.AsyncClient) -> None:
    """More of the same than one list can hold."""
    await _stock(client, 150)
    rows = await _page(client, {"strategy": "new", "count": 100}, {"strategy": "new", "count": 40})
    assert [len(row["items"]) for row in rows] == [100, 40]
    assert not set(_ids(rows[0])) & set(_ids(rows[1]))


async def test_a_bad_request_spoils_no_other(client: httpx.AsyncClient) -> None:
    """Its problem stands in its place."""
    await _stock(client)
    rows = await _page(client, {"count": 2}, {"count": 0}, {"placement": "nowhere"}, {"count": 3})
    assert [row.get("code") for row in rows] == [None, "invalid_fields", "placement_not_found", None]
    assert rows[1]["errors"][0]["pointer"] == "/count"
    assert rows[1]["instance"] == "/v1/recommend/batch#/requests/1"
    assert [len(rows[0]["items"]), len(rows[3]["items"])] == [2, 3]


@pytest.mark.parametrize("body", [{}, {"requests": []}, {"requests": [{}] * 21}, {"requests": {}}, {"rows": []}])
async def test_a_bad_page_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """422, whole."""
    assert (await client.post("/v1/recommend/batch", json=body)).status_code == 422


async def test_the_next_page_of_a_row_goes_on_after_it(client: httpx.AsyncClient) -> None:
    """The cursor knows what this row showed, not what it had in reserve."""
    await _stock(client)
    rows = await _page(client, {"strategy": "new", "count": 3}, {"strategy": "new", "count": 3})
    cursor = rows[1]["cursor"]
    more = (await client.post("/v1/recommend", json={"strategy": "new", "count": 30, "cursor": cursor})).json()
    assert not set(_ids(more)) & set(_ids(rows[1]))
    assert set(_ids(rows[0])) <= set(_ids(more))


async def test_every_list_of_a_page_can_be_shown_again(app: Application, client: httpx.AsyncClient) -> None:
    """As it was given."""
    await _stock(client)
    rows = await _page(client, {"strategy": "new", "count": 4}, {"strategy": "popular", "count": 5})
    await app.services.answer_log.close()
    for row in rows:
        past = (await client.get(f"/v1/recommendations/{row['recommendation_id']}")).json()
        assert [item["id"] for item in past["items"]] == _ids(row)


async def test_a_page_of_too_many_lists_is_refused_whole(client: httpx.AsyncClient) -> None:
    """What is wrong is their number, not what each of them says."""
    for requests in ([], [{}] * 21, {}):
        refused = await client.post("/v1/recommend/batch", json={"requests": requests})
        assert refused.status_code == 422
        assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/requests"]
