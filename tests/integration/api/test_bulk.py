"""POST /v1/items/bulk over a real database."""

from typing import Any

import httpx
import msgspec
import pytest

pytestmark = pytest.mark.anyio

NDJSON = {"content-type": "application/x-ndjson"}


def _statuses(answer: httpx.Response) -> list[tuple[int, str | None, str]]:
    assert answer.status_code == 200, answer.text
    return [(row["index"], row["id"], row["status"]) for row in answer.json()["results"]]


async def test_good_rows_are_stored_beside_bad_ones(client: httpx.AsyncClient) -> None:
    """One bad row never loses the good ones, and every bad field of it is named."""
    rows: list[Any] = [{"id": "a"}, {"id": "b", "price": "x", "colour": "red"}, 7, {"title": "no id"}, {"id": "c"}]
    answer = await client.post("/v1/items/bulk", json=rows)
    assert _statuses(answer) == [
        (0, "a", "created"),
        (1, "b", "rejected"),
        (2, None, "rejected"),
        (3, None, "rejected"),
        (4, "c", "created"),
    ]
    body = answer.json()
    assert (body["accepted"], body["duplicate"], body["rejected"]) == (2, 0, 3)
    named = {fault["pointer"] for fault in body["results"][1]["error"]["errors"]}
    assert named == {"/price", "/colour"}
    assert (await client.get("/v1/items/c")).status_code == 200


async def test_ndjson_is_taken(client: httpx.AsyncClient) -> None:
    """A line a row; empty lines and CRLF do no harm, a broken line is one rejected row."""
    lines = b'{"id": "a", "title": "x"}\r\n\n{"id": \n{"id": "b"}'
    answer = await client.post("/v1/items/bulk", content=lines, headers=NDJSON)
    assert _statuses(answer) == [(0, "a", "created"), (1, None, "rejected"), (2, "b", "created")]
    assert answer.json()["results"][1]["error"]["code"] == "malformed_json"


async def test_of_two_rows_with_one_id_the_later_wins(client: httpx.AsyncClient) -> None:
    """The earlier is told to be a duplicate."""
    answer = await client.post("/v1/items/bulk", json=[{"id": "a", "price": 1}, {"id": "a", "price": 2}])
    assert _statuses(answer) == [(0, "a", "duplicate"), (1, "a", "created")]
    assert (await client.get("/v1/items/a")).json()["price"] == 2


async def test_the_same_again_changes_nothing(client: httpx.AsyncClient) -> None:
    """Found by its hash."""
    rows = [{"id": "a", "title": "x"}, {"id": "b", "title": "y"}]
    await client.post("/v1/items/bulk", json=rows)
    rows[1]["title"] = "z"
    answer = await client.post("/v1/items/bulk", json=rows)
    assert _statuses(answer) == [(0, "a", "unchanged"), (1, "b", "updated")]


async def test_ten_thousand_rows_are_taken_and_one_more_is_not(client: httpx.AsyncClient) -> None:
    """A call over its limit is refused whole: nothing of it is stored."""
    rows = [{"id": f"i{number}"} for number in range(10_001)]
    answer = await client.post("/v1/items/bulk", json=rows)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert (await client.get("/v1/items")).json()["items"] == []
    answer = await client.post("/v1/items/bulk", json=rows[:-1])
    assert answer.json()["accepted"] == 10_000


@pytest.mark.parametrize("body", [b'{"id": "a"}', b'"a"', b"null"])
async def test_what_is_no_array_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    """One item belongs to PUT."""
    answer = await client.post("/v1/items/bulk", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")


async def test_a_cut_array_stores_nothing(client: httpx.AsyncClient) -> None:
    """Half a call is no call."""
    body = msgspec.json.encode([{"id": "a"}, {"id": "b"}])[:-5]
    answer = await client.post("/v1/items/bulk", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    assert (await client.get("/v1/items")).json()["items"] == []


async def test_a_row_that_is_not_utf_8_is_rejected_alone(client: httpx.AsyncClient) -> None:
    """In NDJSON each line stands for itself."""
    answer = await client.post("/v1/items/bulk", content=b'{"id": "a\xff"}\n{"id": "b"}\n', headers=NDJSON)
    assert _statuses(answer) == [(0, None, "rejected"), (1, "b", "created")]


async def test_nothing_at_all_is_no_error(client: httpx.AsyncClient) -> None:
    """An empty array stores nothing."""
    assert (await client.post("/v1/items/bulk", json=[])).json() == {
        "accepted": 0,
        "duplicate": 0,
        "rejected": 0,
        "results": [],
    }
