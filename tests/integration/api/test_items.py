"""/v1/items over a real database."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

LAMP: dict[str, Any] = {
    "title": "Brass desk lamp",
    "price": 7900,
    "categories": ["Home > Lamps"],
    "attributes": {"colour": "brass", "height_cm": 42},
    "images": ["https://shop.example/lamp.jpg"],
}


async def _get(client: httpx.AsyncClient, item_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/items/{item_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _pointers(answer: httpx.Response) -> set[tuple[str, str]]:
    return {(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]}


async def test_an_item_is_stored_and_shown(client: httpx.AsyncClient) -> None:
    """What was put is got, with where its encoding stands."""
    answer = await client.put("/v1/items/lamp-1", json=LAMP)
    assert (answer.status_code, answer.json()) == (201, {"id": "lamp-1", "status": "created"})
    shown = await _get(client, "lamp-1")
    assert {name: shown[name] for name in LAMP} == LAMP
    assert shown["encoding"] == {"text": "pending", "image": "pending", "reason": None}
    assert shown["photos"] == []


async def test_put_again_replaces_every_field(client: httpx.AsyncClient) -> None:
    """Fields that are left out are emptied; the same again changes nothing."""
    await client.put("/v1/items/lamp-1", json=LAMP)
    answer = await client.put("/v1/items/lamp-1", json={"id": "lamp-1", "title": "Lamp"})
    assert (answer.status_code, answer.json()["status"]) == (200, "updated")
    assert "price" not in await _get(client, "lamp-1")
    assert (await client.put("/v1/items/lamp-1", json={"title": "Lamp"})).json()["status"] == "unchanged"


async def test_the_body_may_not_have_another_id(client: httpx.AsyncClient) -> None:
    """It is a mistake that would store the wrong item."""
    answer = await client.put("/v1/items/lamp-1", json={"id": "lamp-2"})
    assert (answer.status_code, _pointers(answer)) == (422, {("/id", "id_mismatch")})


async def test_every_bad_field_is_named(client: httpx.AsyncClient) -> None:
    """Unknown, mistyped, out of range: all in one answer."""
    bad = {
        "title": 7,
        "price": -1,
        "colour": "red",
        "images": ["https://shop.example/1.jpg", "no url"],
        "availability": "soon",
        "available_from": "2026-01-01T00:00:00",
    }
    answer = await client.put("/v1/items/lamp-1", json=bad)
    assert answer.status_code == 422
    assert {pointer for pointer, _ in _pointers(answer)} == {
        "/title",
        "/price",
        "/colour",
        "/images/1",
        "/availability",
        "/available_from",
    }


@pytest.mark.parametrize("item_id", ["a%2Fb", "%20", "%E2%82%AC", "bulk", "delete", "100%25", "x" * 128])
async def test_any_id_can_be_stored(client: httpx.AsyncClient, item_id: str) -> None:
    """Slashes, blanks, other scripts, the names of routes: all are ids."""
    assert (await client.put(f"/v1/items/{item_id}", json={"title": "x"})).status_code == 201
    assert (await client.get(f"/v1/items/{item_id}")).status_code == 200
    assert (await client.delete(f"/v1/items/{item_id}")).status_code == 204


@pytest.mark.parametrize("item_id", ["a%00b", "a%0Ab", "%7F", "x" * 129])
async def test_an_id_outside_the_limits_is_refused(client: httpx.AsyncClient, item_id: str) -> None:
    """Control characters, and more than 128."""
    assert (await client.put(f"/v1/items/{item_id}", json={"title": "x"})).status_code == 422


@pytest.mark.parametrize("body", [b'{"title": ', b"\xff\xfe", b'{"title": "\xe4"}', b"", b'{"title": "a\x00b"}'])
async def test_what_is_no_json_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    """Cut, not UTF-8, empty, or with a raw NUL byte: 400."""
    answer = await client.put("/v1/items/lamp-1", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


async def test_an_escaped_nul_is_refused(client: httpx.AsyncClient) -> None:
    """PostgreSQL stores none; the answer says so rather than failing later."""
    answer = await client.put("/v1/items/lamp-1", json={"title": "a\x00b"})
    assert (answer.status_code, _pointers(answer)) == (422, {("", "nul_character")})


async def test_a_body_of_another_type_is_refused(client: httpx.AsyncClient) -> None:
    """415, not a guess."""
    answer = await client.put("/v1/items/lamp-1", content=b"title=x", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_an_item_over_64_kb_is_refused(client: httpx.AsyncClient) -> None:
    """65,536 bytes as JSON."""
    answer = await client.put("/v1/items/lamp-1", json={"attributes": {f"a{n}": "x" * 500 for n in range(130)}})
    assert (answer.status_code, _pointers(answer)) == (422, {("", "item_too_large")})


async def test_an_eleventh_photo_is_refused(client: httpx.AsyncClient) -> None:
    """At most ten."""
    answer = await client.put("/v1/items/x", json={"images": [f"https://shop.example/{n}.jpg" for n in range(11)]})
    assert (answer.status_code, _pointers(answer)) == (422, {("/images", "out_of_range")})


async def test_a_body_over_ten_megabytes_is_refused(client: httpx.AsyncClient) -> None:
    """One byte more than 10,000,000."""
    answer = await client.put("/v1/items/x", content=b" " * 10_000_001, headers={"content-type": "application/json"})
    assert answer.status_code == 413


async def test_patch_merges(client: httpx.AsyncClient) -> None:
    """RFC 7396: null empties, objects merge, all else replaces."""
    await client.put("/v1/items/lamp-1", json=LAMP)
    answer = await client.patch("/v1/items/lamp-1", json={"price": None, "attributes": {"colour": "steel"}})
    assert answer.json()["status"] == "updated"
    shown = await _get(client, "lamp-1")
    assert "price" not in shown
    assert shown["attributes"] == {"colour": "steel", "height_cm": 42}
    assert shown["title"] == LAMP["title"]


async def test_patch_takes_its_own_media_type(client: httpx.AsyncClient) -> None:
    """`application/merge-patch+json`."""
    await client.put("/v1/items/lamp-1", json=LAMP)
    headers = {"content-type": "application/merge-patch+json"}
    assert (await client.patch("/v1/items/lamp-1", content=b'{"price": 1}', headers=headers)).status_code == 200


async def test_a_patch_that_makes_a_bad_item_changes_nothing(client: httpx.AsyncClient) -> None:
    """The item is checked after the merge."""
    await client.put("/v1/items/lamp-1", json=LAMP)
    answer = await client.patch("/v1/items/lamp-1", json={"price": -5, "brand": "x"})
    assert (answer.status_code, _pointers(answer)) == (422, {("/price", "out_of_range")})
    assert "brand" not in await _get(client, "lamp-1")


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("DELETE", None), ("PATCH", b"{}")])
async def test_an_unknown_item_is_not_found(client: httpx.AsyncClient, method: str, body: bytes | None) -> None:
    """404 with the id."""
    headers = {"content-type": "application/json"} if body else {}
    answer = await client.request(method, "/v1/items/none", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "item_not_found")


async def test_a_deleted_item_is_gone(client: httpx.AsyncClient) -> None:
    """204, then 404."""
    await client.put("/v1/items/lamp-1", json=LAMP)
    assert (await client.delete("/v1/items/lamp-1")).status_code == 204
    assert (await client.get("/v1/items/lamp-1")).status_code == 404
    assert (await client.delete("/v1/items/lamp-1")).status_code == 404


async def test_the_list_is_paged_by_cursor(client: httpx.AsyncClient) -> None:
    """Every item once, in the order in which they were first stored; null at the end."""
    rows = [{"id": f"i{number}", "price": number} for number in range(7)]
    await client.post("/v1/items/bulk", json=rows)
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = (await client.get("/v1/items", params=params)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen)
    assert len(seen) == 7


async def test_the_list_can_be_filtered(client: httpx.AsyncClient) -> None:
    """The filter grammar, as JSON in the query."""
    await client.post("/v1/items/bulk", json=[{"id": f"i{number}", "price": number} for number in range(5)])
    page = (await client.get("/v1/items", params={"filter": '{"lt": ["price", 2]}'})).json()
    assert [item["id"] for item in page["items"]] == ["i0", "i1"]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": "0"}, "invalid_fields"),
        ({"limit": "1001"}, "invalid_fields"),
        ({"page": "2"}, "invalid_fields"),
        ({"cursor": "nonsense"}, "bad_list_cursor"),
        ({"cursor": "aTE6OTk5OTk5OTk5OTk5"}, "bad_list_cursor"),
        ({"filter": '{"near": ["price", 2]}'}, "invalid_filter"),
        ({"filter": "{"}, "malformed_json"),
    ],
)
async def test_a_bad_query_is_named(client: httpx.AsyncClient, params: dict[str, str], code: str) -> None:
    """Nothing is guessed, nothing ignored."""
    answer = await client.get("/v1/items", params=params)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code


async def test_items_are_deleted_by_ids(client: httpx.AsyncClient) -> None:
    """Unknown ids are told, and no error."""
    await client.post("/v1/items/bulk", json=[{"id": "a"}, {"id": "b"}])
    answer = await client.post("/v1/items/delete", json={"ids": ["a", "zz"]})
    assert answer.json() == {"deleted": 1, "unknown_ids": ["zz"], "dry_run": False}
    assert (await client.get("/v1/items/a")).status_code == 404
    assert (await client.get("/v1/items/b")).status_code == 200


async def test_a_dry_run_deletes_nothing(client: httpx.AsyncClient) -> None:
    """It says what would be."""
    await client.post("/v1/items/bulk", json=[{"id": "a", "brand": "x"}, {"id": "b", "brand": "y"}])
    answer = await client.post("/v1/items/delete?dry_run=true", json={"filter": {"eq": ["brand", "x"]}})
    assert answer.json() == {"deleted": 1, "unknown_ids": [], "dry_run": True}
    assert (await client.get("/v1/items/a")).status_code == 200
    await client.post("/v1/items/delete", json={"filter": {"eq": ["brand", "x"]}})
    assert (await client.get("/v1/items/a")).status_code == 404


@pytest.mark.parametrize("body", [{}, {"ids": ["a"], "filter": {"exists": "id"}}, {"ids": []}, {"all": True}])
async def test_a_delete_must_say_what(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """`ids` or `filter`, never both, never neither."""
    assert (await client.post("/v1/items/delete", json=body)).status_code == 422
