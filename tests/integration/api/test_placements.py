"""/v1/placements, and requests that name one."""

import asyncio
from typing import Any

import httpx
import pytest

from tenants import placements
from tests.integration.api.conftest import Shop

pytestmark = pytest.mark.anyio


_SOMEBODY_WAITS = """
select exists (select from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and l.locktype = 'advisory' and not l.granted)
"""


async def _stock(client: httpx.AsyncClient, count: int = 5) -> None:
    items = [{"id": f"i{n}", "title": f"lamp {n}", "price": n * 100, "brand": f"b{n % 2}"} for n in range(count)]
    assert (await client.post("/v1/items/bulk", json=items)).json()["accepted"] == count


async def test_a_placement_is_stored_and_shown(client: httpx.AsyncClient) -> None:
    """201 first, 200 after; the list has it by name."""
    body = {"defaults": {"count": 3}, "sources": [{"strategy": "new", "weight": 1}], "override": ["count"]}
    assert (await client.put("/v1/placements/home/top", json=body)).status_code == 404
    assert (await client.put("/v1/placements/home%2Ftop", json=body)).status_code == 201
    assert (await client.put("/v1/placements/home%2Ftop", json=body)).status_code == 200
    shown = (await client.get("/v1/placements/home%2Ftop")).json()
    assert (shown["id"], shown["defaults"], shown["override"]) == ("home/top", {"count": 3}, ["count"])
    listed = (await client.get("/v1/placements")).json()
    assert [each["id"] for each in listed["placements"]] == ["home/top"]


async def test_a_placement_is_deleted(client: httpx.AsyncClient) -> None:
    """And unknown from then on, to the next request at once."""
    await client.put("/v1/placements/home", json={"defaults": {"strategy": "new"}})
    assert (await client.post("/v1/recommend", json={"placement": "home"})).status_code == 200
    assert (await client.delete("/v1/placements/home")).status_code == 204
    assert (await client.get("/v1/placements/home")).json()["code"] == "placement_not_found"
    assert (await client.delete("/v1/placements/home")).status_code == 404
    assert (await client.post("/v1/recommend", json={"placement": "home"})).json()["code"] == "placement_not_found"


async def test_two_editors_do_not_overwrite_each_other(client: httpx.AsyncClient) -> None:
    """The second, who read the old version, gets 412; who read the new one may write."""
    first = await client.put("/v1/placements/home", json={"defaults": {"count": 3}})
    second = await client.put(
        "/v1/placements/home", json={"defaults": {"count": 4}}, headers={"if-match": first.headers["etag"]}
    )
    assert second.status_code == 200
    late = await client.put(
        "/v1/placements/home", json={"defaults": {"count": 5}}, headers={"if-match": first.headers["etag"]}
    )
    assert (late.status_code, late.json()["code"]) == (412, "version_changed")
    gone = await client.delete("/v1/placements/home", headers={"if-match": second.headers["etag"]})
    assert gone.status_code == 204


async def test_one_of_two_makes_a_new_placement(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same moment, each only if there is none: the other one is refused, and changes nothing."""
    looks = 0
    real = placements._lock

    async def look(raw: Any, *args: Any) -> Any:
        nonlocal looks
        found = await real(raw, *args)
        looks += 1
        while looks == 1 and not await raw.fetchval(_SOMEBODY_WAITS):
            pass
        return found

    monkeypatch.setattr(placements, "_lock", look)

    async def put(count: int) -> httpx.Response:
        body = {"defaults": {"count": count}}
        return await client.put("/v1/placements/home", json=body, headers={"if-none-match": "*"})

    answers = {answer.status_code: answer.json() for answer in await asyncio.gather(put(3), put(4))}
    assert (answers.keys(), answers[412]["code"]) == ({201, 412}, "already_there")
    assert (await client.get("/v1/placements/home")).json() == answers[201]


async def test_a_dry_run_changes_nothing(client: httpx.AsyncClient) -> None:
    """It answers as the request would be answered."""
    dry = await client.put("/v1/placements/home?dry_run=true", json={"defaults": {"count": 3}})
    assert (dry.status_code, dry.json()["defaults"], dry.headers["dry-run"]) == (201, {"count": 3}, "true")
    assert (await client.get("/v1/placements")).json() == {"placements": []}


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"sources": [{"strategy": "psychic"}]}, ["/sources/0/strategy"]),
        ({"sources": [{"strategy": "new", "weight": -1, "limit": 0}]}, ["/sources/0/weight", "/sources/0/limit"]),
        ({"sources": [{"strategy": "new", "weight": 0}]}, ["/sources"]),
        ({"sources": [{"strategy": "attributes", "fields": {"brand": -1}}]}, ["/sources/0/fields/brand"]),
        ({"sources": [{"strategy": "attributes", "fields": {"a/b": 1, "tags": 1}}]}, ["/sources/0/fields/a~1b"]),
        (
            {"sources": [{"strategy": "attributes", "fields": {f"attributes.{n}": 1 for n in range(65)}}]},
            ["/sources/0/fields"],
        ),
        ({"defaults": {"count": 0, "user_id": "u", "nonsense": 1}}, None),
        ({"defaults": {"max_per": {"weight": 1}}}, ["/defaults/max_per/weight"]),
        ({"override": ["count", "nonsense"]}, ["/override/1"]),
        ({"rules": "sometimes"}, ["/rules"]),
        ({"unknown": 1}, ["/unknown"]),
    ],
)
async def test_every_bad_field_is_named(client: httpx.AsyncClient, body: Any, pointers: list[str] | None) -> None:
    """422, and nothing is stored."""
    refused = await client.put("/v1/placements/home", json=body)
    assert refused.status_code == 422
    named = [fault["pointer"] for fault in refused.json()["errors"]]
    if pointers is None:
        assert set(named) == {"/defaults/count", "/defaults/user_id", "/defaults/nonsense"}
    else:
        assert named == pointers
    assert (await client.get("/v1/placements")).json() == {"placements": []}


async def test_a_bad_filter_of_a_placement_is_refused(client: httpx.AsyncClient) -> None:
    """With the pointer of the place inside it."""
    refused = await client.put("/v1/placements/home", json={"defaults": {"filter": {"near": ["price", 1]}}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"].startswith("/defaults/filter")


async def test_a_request_is_answered_by_its_placement(client: httpx.AsyncClient) -> None:
    """Defaults fill in, the request wins where it may, and is refused where it may not."""
    await _stock(client)
    body = {"defaults": {"strategy": "new", "count": 2, "fields": ["price"]}, "override": ["count"]}
    await client.put("/v1/placements/home", json=body)
    plain = (await client.post("/v1/recommend", json={"placement": "home"})).json()
    assert [set(item["fields"]) for item in plain["items"]] == [{"price"}] * 2
    more = (await client.post("/v1/recommend", json={"placement": "home", "count": 4})).json()
    assert len(more["items"]) == 4
    refused = await client.post("/v1/recommend", json={"placement": "home", "fields": ["title"]})
    assert [(fault["pointer"], fault["code"]) for fault in refused.json()["errors"]] == [
        ("/fields", "override_refused")
    ]


async def test_a_shop_decides_what_is_compared(client: httpx.AsyncClient) -> None:
    """Described alike by brand, or by colour, as the weights of the placement say; a name is no text of a statement."""
    items = [{"id": "seed", "brand": "a", "attributes": {"colour": "red", "x' or 1": "y"}}]
    items += [{"id": f"brand{n}", "brand": "a", "attributes": {"colour": f"c{n}"}} for n in range(3)]
    items += [{"id": f"red{n}", "brand": f"b{n}", "attributes": {"colour": "red"}} for n in range(2)]
    items += [{"id": f"odd{n}", "brand": f"o{n}", "attributes": {"x' or 1": "y"}} for n in range(2)]
    items += [{"id": f"other{n}", "brand": f"d{n}"} for n in range(9)]
    assert (await client.post("/v1/items/bulk", json=items)).json()["accepted"] == len(items)
    for fields, found in (
        ({"brand": 2}, {"brand0", "brand1", "brand2"}),
        ({"attributes.colour": 1.5, "brand": 0}, {"red0", "red1"}),
        ({"attributes": 1, "attributes.colour": 0}, {"odd0", "odd1"}),
        ({"attributes.x' or 1": 1}, {"odd0", "odd1"}),
        ({}, {"brand0", "brand1", "brand2", "red0", "red1", "odd0", "odd1"}),
    ):
        body = {"sources": [{"strategy": "attributes", "fields": fields}], "defaults": {"fallback": "none"}}
        assert (await client.put("/v1/placements/alike", json=body)).is_success
        answer = await client.post("/v1/recommend", json={"placement": "alike", "item_ids": ["seed"]})
        assert {item["id"] for item in answer.json()["items"]} == found


async def test_a_changed_placement_answers_the_next_request(client: httpx.AsyncClient) -> None:
    """Though the answer before it could be kept."""
    await _stock(client)
    for count in (2, 3):
        await client.put("/v1/placements/home", json={"defaults": {"strategy": "new", "count": count}})
        answered = (await client.post("/v1/recommend", json={"placement": "home"})).json()
        assert len(answered["items"]) == count


async def test_an_unknown_placement_is_404(client: httpx.AsyncClient) -> None:
    """Not an empty list."""
    unknown = await client.post("/v1/recommend", json={"placement": "nowhere"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "placement_not_found")


async def test_a_key_is_narrowed_to_its_placements(client: httpx.AsyncClient) -> None:
    """403 for another one, and for none; what it is for, it may."""
    for name in ("home", "cart"):
        await client.put(f"/v1/placements/{name}", json={"defaults": {"strategy": "new"}})
    made = (await client.post("/v1/keys", json={"name": "narrow", "placements": ["home"]})).json()
    narrow = {"Authorization": f"Bearer {made['key']}"}
    for body, status in (({"placement": "home"}, 200), ({"placement": "cart"}, 403), ({"strategy": "new"}, 403)):
        assert (await client.post("/v1/recommend", json=body, headers=narrow)).status_code == status
    assert (await client.get("/v1/items/i1/similar", headers=narrow)).json()["code"] == "placement_refused"


async def test_placements_are_of_one_shop(client: httpx.AsyncClient, make_shop: Any) -> None:
    """Two shops may use one name."""
    other: Shop = await make_shop()
    await client.put("/v1/placements/home", json={"defaults": {"strategy": "new"}})
    assert (await other.client.post("/v1/recommend", json={"placement": "home"})).status_code == 404
