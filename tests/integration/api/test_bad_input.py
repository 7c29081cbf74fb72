"""Bad input is answered by a problem that says what to mend, and leaves nothing behind."""

import gzip
import itertools
import json
from typing import Any, Final

import httpx
import pytest

from tests.integration.api.conftest import MakeShop

pytestmark = pytest.mark.anyio

_JSON: Final = {"Content-Type": "application/json"}
_BODIES: Final = [
    ("PUT", "/v1/items/x"),
    ("PATCH", "/v1/items/x"),
    ("POST", "/v1/items/bulk"),
    ("POST", "/v1/items/delete"),
    ("POST", "/v1/recommend"),
    ("POST", "/v1/search"),
    ("POST", "/v1/imports"),
    ("POST", "/v1/keys"),
]
_NO_JSON: Final = [
    b"",
    b'{"title": ',
    b'{"title": "a"} {"title": "b"}',
    b"{'title': 'a'}",
    b'{"title": "\xff\xfe"}',
    b'\xff\xfe{\x00"\x00}\x00',
    b'{"title": "a\x00b"}',
    b'{"title": "\\ud800"}',
    b'{"title": NaN}',
    b"<!doctype html><title>A page</title>",
]
_ids = [f"{method} {path}" for method, path in _BODIES]


def refused(answer: httpx.Response, status: int, *codes: str) -> dict[str, Any]:
    """The problem, which has the form of RFC 9457 and one of these codes."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["code"] in codes
    assert problem["type"] == f"/docs/errors#{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.raw_path.decode().partition("?")[0]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


async def stored(client: httpx.AsyncClient) -> list[str]:
    """The ids of all items of the shop."""
    return [item["id"] for item in (await client.get("/v1/items")).json()["items"]]


@pytest.mark.parametrize(("method", "path"), _BODIES, ids=_ids)
async def test_what_is_no_json_is_refused_everywhere(client: httpx.AsyncClient, method: str, path: str) -> None:
    """400, on every route that takes a body."""
    for body in _NO_JSON:
        answer = await client.request(method, path, content=body, headers=_JSON)
        refused(answer, 400, "malformed_json")
    assert await stored(client) == []


@pytest.mark.parametrize(("method", "path"), _BODIES, ids=_ids)
async def test_deep_nesting_is_refused_everywhere(client: httpx.AsyncClient, method: str, path: str) -> None:
    """A body of brackets is refused as one, and breaks nothing."""
    for (opening, closing), levels in itertools.product([(b"[", b"]"), (b'{"and":[', b"]}")], [300, 2_000, 100_000]):
        nested = opening * levels + b"1" + closing * levels
        for body in (nested, b'{"filter":' + nested + b"}"):
            answer = await client.request(method, path, content=body, headers=_JSON)
            if answer.status_code == 200:  # a bulk call of one bad row
                assert answer.json()["rejected"] == 1
                continue
            codes = "malformed_json", "invalid_fields", "invalid_filter", "item_not_found", "too_large"
            assert answer.status_code in {400, 404, 413, 422}
            refused(answer, answer.status_code, *codes)
    assert await stored(client) == []


@pytest.mark.parametrize(("method", "path"), [pair for pair in _BODIES if pair[1] != "/v1/items/bulk"], ids=str)
async def test_json_of_another_shape_is_refused(client: httpx.AsyncClient, method: str, path: str) -> None:
    """422 where an object is needed."""
    for body in (b"null", b"[]", b'"text"', b"7", b"true"):
        refused(await client.request(method, path, content=body, headers=_JSON), 422, "invalid_fields")
    assert await stored(client) == []


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400, "1" + "0" * 5000, "-1", "1.5", "1e2"])
async def test_a_number_that_is_no_price_is_refused(client: httpx.AsyncClient, number: str) -> None:
    """Too large for any number, too large for money, negative, a fraction."""
    answer = await client.put("/v1/items/x", content=f'{{"price": {number}}}', headers=_JSON)
    if number == "1e2":  # JSON knows one kind of number, and this one is whole
        assert answer.status_code in {201, 422}
        return
    refused(answer, 422 if answer.status_code == 422 else 400, "invalid_fields", "malformed_json")
    assert await stored(client) == []


@pytest.mark.parametrize("number", ["1e400", "1" + "0" * 400, "1e308", "9007199254740993"])
async def test_a_huge_attribute_is_stored_or_refused(client: httpx.AsyncClient, number: str) -> None:
    """A number of any size in an attribute, or in a filter, is never a defect of ours."""
    body = f'{{"attributes": {{"n": {number}}}}}'
    answer = await client.put("/v1/items/x", content=body, headers=_JSON)
    if answer.status_code != 201:
        refused(answer, answer.status_code, "invalid_fields", "malformed_json")
        assert answer.status_code in {400, 422}
    else:
        assert (await client.get("/v1/items/x")).status_code == 200
    tree = f'{{"filter": {{"lt": ["attributes.n", {number}]}}}}'
    answer = await client.post("/v1/recommend", content=tree, headers=_JSON)
    assert answer.status_code in {200, 400, 422}, answer.text


async def test_of_two_equal_names_the_later_counts(client: httpx.AsyncClient) -> None:
    """As in every reader of JSON that shops use."""
    await client.put("/v1/items/x", content=b'{"title": "first", "title": "second"}', headers=_JSON)
    assert (await client.get("/v1/items/x")).json()["title"] == "second"


async def test_every_fault_of_an_item_is_named_at_once(client: httpx.AsyncClient) -> None:
    """Unknown, mistyped, too many, too long, out of range: one answer, one list."""
    body = {
        "titel": "a",
        "title": 7,
        "price": -1,
        "images": [f"https://shop.example/{n}.jpg" for n in range(11)],
        "categories": ["A", ""],
        "availability": "maybe",
        "expires_at": "tomorrow",
        "attributes": {"ok": 1, "bad\n": 1, "worse": {"a": 1}},
        "group_id": "a\tb",
    }
    problem = refused(await client.put("/v1/items/x", json=body), 422, "invalid_fields")
    pointers = {fault["pointer"] for fault in problem["errors"]}
    assert {
        "/titel",
        "/title",
        "/price",
        "/images",
        "/categories/1",
        "/availability",
        "/expires_at",
        "/attributes/bad\n",
        "/attributes/worse",
        "/group_id",
    } <= pointers
    assert await stored(client) == []


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        (
            "/v1/recommend",
            {"count": 0, "strategy": "magic", "fields": 3, "fallback": "never", "what": 1},
            {"/count", "/strategy", "/fields", "/fallback", "/what"},
        ),
        ("/v1/recommend", {"weights": {"text": -1, "smell": 1}}, {"/weights/text", "/weights/smell"}),
        ("/v1/recommend", {"fields": ["title", "cost"], "max_per": {"colour": 1}}, {"/fields/1", "/max_per/colour"}),
        ("/v1/recommend", {"exclude": {"ids": ["a\x00b"]}, "item_ids": [""]}, {"/exclude/ids/0", "/item_ids/0"}),
        ("/v1/search", {"query": 5, "count": 101}, {"/query", "/count"}),
        ("/v1/search", {}, {"/query"}),
        ("/v1/search", {"image": "not base64!"}, {"/image"}),
        ("/v1/imports", {"url": "ftp://shop.example/f", "format": "xls", "mode": "all"}, {"/url", "/format", "/mode"}),
        ("/v1/items/delete", {"ids": [1, ""]}, {"/ids/0", "/ids/1"}),
    ],
)
async def test_every_fault_of_a_request_is_named(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], pointers: set[str]
) -> None:
    """Each route names all that is wrong, by where it stands."""
    problem = refused(await client.post(path, json=body), 422, "invalid_fields")
    assert pointers <= {fault["pointer"] for fault in problem["errors"]}


@pytest.mark.parametrize("text", ["a\x00b", "\x00"])
async def test_a_nul_anywhere_is_refused(client: httpx.AsyncClient, text: str) -> None:
    """PostgreSQL stores no NUL: words, filters, seeds and cursors with one are refused or match nothing."""
    filters: list[dict[str, Any]] = [{"eq": ["brand", text]}, {"in": ["attributes.colour", [text]]}]
    for tree in filters:
        answer = await client.post("/v1/recommend", json={"strategy": "new", "filter": tree})
        assert answer.status_code in {200, 422}, answer.text
    answer = await client.post("/v1/search", json={"query": text + " lamp"})
    assert answer.status_code in {200, 422}, answer.text
    for field in ("title", "description", "brand", "url", "gtin"):
        refused(await client.put("/v1/items/x", json={field: text}), 422, "invalid_fields", "invalid_item")
    refused(await client.put("/v1/items/x", json={"tags": [text]}), 422, "invalid_fields", "invalid_item")
    refused(await client.put("/v1/items/x", json={"attributes": {"a": text}}), 422, "invalid_fields", "invalid_item")
    assert await stored(client) == []


@pytest.mark.parametrize("item_id", ["a%00b", "%0A", "a%7F", "%C2%85", "x" * 129])
@pytest.mark.parametrize("suffix", ["", "/similar", "/images/0"])
async def test_a_bad_id_in_an_address_is_refused(client: httpx.AsyncClient, item_id: str, suffix: str) -> None:
    """Control characters of every kind, and too long, on every route with an id."""
    refused(await client.get(f"/v1/items/{item_id}{suffix}"), 422, "invalid_fields")


async def test_an_id_that_is_not_utf_8_is_refused(client: httpx.AsyncClient) -> None:
    """400: the address itself cannot be read."""
    refused(await client.get("/v1/items/%FF%FE"), 400, "bad_request")


async def test_an_item_of_65_kb_is_refused(client: httpx.AsyncClient) -> None:
    """By PUT whole, by bulk as one row beside the good one, by PATCH with what is there unchanged."""
    big = {"description": "x" * 40_000, "attributes": {"a": "y" * 26_000}}
    refused(await client.put("/v1/items/x", json=big), 422, "invalid_fields", "invalid_item")
    answer = (await client.post("/v1/items/bulk", json=[{"id": "x", **big}, {"id": "good"}])).json()
    assert [row["status"] for row in answer["results"]] == ["rejected", "created"]
    refused(await client.patch("/v1/items/good", json=big), 422, "invalid_fields", "invalid_item")
    assert "description" not in (await client.get("/v1/items/good")).json()


@pytest.mark.parametrize("path", ["/v1/items/bulk", "/v1/items/delete", "/v1/recommend", "/v1/keys"])
async def test_ten_megabytes_and_a_byte_are_refused(client: httpx.AsyncClient, path: str) -> None:
    """Whole, whatever is inside; the connection is closed, as the rest is not read."""
    answer = await client.post(path, content=b" " * 10_000_001, headers=_JSON)
    refused(answer, 413, "too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("method", "path"), [pair for pair in _BODIES if pair[1] != "/v1/imports"], ids=str)
async def test_a_compressed_body_is_refused_by_name(client: httpx.AsyncClient, method: str, path: str) -> None:
    """415 says that bodies are not decoded, rather than that their bytes are no JSON; a cut one alike."""
    packed = gzip.compress(json.dumps([{"id": "x"}]).encode())
    for body in (packed, packed[:-9]):
        headers = {**_JSON, "Content-Encoding": "gzip"}
        refused(await client.request(method, path, content=body, headers=headers), 415, "unsupported_media_type")
    assert await stored(client) == []


@pytest.mark.parametrize("accept", ["text/html", "image/png, application/xml;q=0.9"])
async def test_what_cannot_be_accepted_is_refused(client: httpx.AsyncClient, accept: str) -> None:
    """406 says that answers are JSON; a problem is sent as one all the same."""
    refused(await client.get("/v1/items", headers={"Accept": accept}), 406, "not_acceptable")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/items"), ("PUT", "/v1/recommend"), ("DELETE", "/v1/items/bulk/x/y"), ("PATCH", "/health/live")],
)
async def test_a_wrong_method_or_address_is_said(client: httpx.AsyncClient, method: str, path: str) -> None:
    """405 with the methods that there are, or 404."""
    answer = await client.request(method, path)
    if answer.status_code == 405:
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]
    else:
        refused(answer, 404, "route_not_found")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=ten", "limit=1&limit=2", "filter=%7B", "filter=%FF", "cursor=%00", "curser=x", "limit=1.5"],
)
async def test_a_bad_query_string_is_refused(client: httpx.AsyncClient, query: str) -> None:
    """Unknown, repeated, mistyped: nothing is guessed."""
    answer = await client.get(f"/v1/items?{query}")
    assert answer.status_code in {400, 422}
    refused(answer, answer.status_code, "invalid_fields", "bad_list_cursor", "malformed_json", "invalid_filter")


async def test_a_cursor_of_another_shop_is_refused(make_shop: MakeShop) -> None:
    """It is signed for its tenant; a changed one is refused alike."""
    ours, theirs = await make_shop(), await make_shop()
    for shop in (ours, theirs):
        await shop.client.post("/v1/items/bulk", json=[{"id": str(n)} for n in range(5)])
    page = {"strategy": "new", "count": 2}
    cursor = (await theirs.client.post("/v1/recommend", json=page)).json()["cursor"]
    changed = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    for given in (cursor, changed, cursor[:-4], "", "é", "A" * 9):
        client = ours.client if given == cursor else theirs.client
        answer = await client.post("/v1/recommend", json={**page, "cursor": given})
        refused(answer, 422, "bad_cursor")
        refused(await client.post("/v1/search", json={"query": "a", "cursor": given}), 422, "bad_cursor")


async def test_a_filter_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    """On every route that takes one, with the place of the mistake."""
    trees: list[Any] = [
        {"maybe": ["brand", "a"]},
        {"eq": ["brand"]},
        {"eq": ["cost", 1]},
        {"and": "x"},
        {"lt": ["price", "cheap"]},
        {"eq": ["brand", "a"], "lt": ["price", 1]},
    ]
    for tree in trees:
        for path, body in (("/v1/recommend", {"strategy": "new"}), ("/v1/search", {"query": "a"})):
            answer = await client.post(path, json={**body, "filter": tree})
            problem = refused(answer, 422, "invalid_filter", "invalid_fields")
            assert problem["errors"]
        refused(await client.post("/v1/items/delete", json={"filter": tree}), 422, "invalid_filter", "invalid_fields")
        refused(
            await client.get("/v1/items", params={"filter": json.dumps(tree)}), 422, "invalid_filter", "invalid_fields"
        )


@pytest.mark.parametrize(
    "key", ["", "sk_", "sk_00" + "a" * 33, "Ünicode".encode().decode("latin-1"), "pk_" + "0" * 500, "a b c"]
)
async def test_what_is_no_key_is_unauthenticated(anonymous: httpx.AsyncClient, key: str) -> None:
    """401, whatever stands in the header, and its text is not repeated."""
    headers = {b"Authorization": f"Bearer {key}".encode("latin-1")}
    problem = refused(
        await anonymous.get("/v1/items", headers=headers), 401, "key_missing", "mistyped_key", "key_unknown"
    )
    assert len(key) < 6 or key not in problem["detail"]
