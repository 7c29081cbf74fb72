"""/v1/audit: what a shop reads of its log, by pages and as a file; and versions of what two people edit."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import Application
from infra.blob_folder import FolderBlobs
from tenants.audit.chain import check_export
from tests.integration.api.conftest import Shop
from workers.jobs.upkeep import Upkeep

pytestmark = pytest.mark.anyio

NDJSON = {"accept": "application/x-ndjson"}


async def _list(client: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await client.get("/v1/audit", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def _fill(client: httpx.AsyncClient, count: int) -> None:
    for number in range(count):
        body = {"defaults": {"count": number + 1}}
        assert (await client.put(f"/v1/placements/p{number}", json=body)).status_code == 201


async def test_an_entry_tells_who_did_what(client: httpx.AsyncClient, shop: Shop) -> None:
    """By which key, from which network, when, in which request; no address and no key is in it."""
    made = (await client.post("/v1/keys", json={"name": "new"})).json()
    (entry,) = (await _list(client, action="key.create"))["entries"]
    assert entry["subject"] == made["info"]["key_id"]
    assert entry["details"] == {"kind": "secret", "name": "new", "scopes": made["info"]["scopes"]}
    assert entry["actor"]["kind"] == "key"
    assert entry["actor"]["id"] in shop.secret_key
    assert len(entry["network"]) == 32
    assert "127.0.0" not in str(entry)
    assert made["key"] not in str(entry)
    at = datetime.fromisoformat(entry["at"])
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=5)


async def test_a_tenant_begins_with_its_making(client: httpx.AsyncClient) -> None:
    """By the system here; by who ran the command where a command made it."""
    (entry,) = (await _list(client, action="tenant.create"))["entries"]
    assert (entry["actor"], entry["network"]) == ({"kind": "system", "id": "kindred"}, None)
    assert entry["details"] == {"plan": "free", "currency": "EUR"}


async def test_pages_have_every_entry_once(client: httpx.AsyncClient) -> None:
    """The newest first, to the end."""
    await _fill(client, 7)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await _list(client, limit=3, action="placement.put", **({"cursor": cursor} if cursor else {}))
        seen += [entry["subject"] for entry in page["entries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"p{number}" for number in range(6, -1, -1)]


async def test_entries_are_chosen_by_their_time(client: httpx.AsyncClient) -> None:
    """`from` is among them, `to` is not."""
    await _fill(client, 3)
    entries = (await _list(client, action="placement.put"))["entries"]
    start, end = entries[1]["at"], entries[0]["at"]
    found = (await _list(client, action="placement.put", **{"from": start, "to": end}))["entries"]
    assert [entry["subject"] for entry in found] == ["p1"]


async def test_the_whole_log_is_a_file_that_can_be_checked(
    app: Application, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """NDJSON from the oldest entry on, with its seals; without them where a part is asked for."""
    await _fill(client, 3)
    upkeep = Upkeep(app.services.database, FolderBlobs(tmp_path))
    assert await upkeep.seal() >= 4
    await _fill_more(client)
    answer = await client.get("/v1/audit", headers=NDJSON)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = answer.content.splitlines()
    checked = check_export(lines)
    assert (checked.last, checked.entries, checked.unsealed, checked.difference) == (1, 4, 1, None)
    forged = answer.content.replace(b'"subject":"p1"', b'"subject":"p9"')
    found = check_export(forged.splitlines()).difference
    assert found is not None
    assert (found.seal, found.place) == (1, 3)
    part = await client.get("/v1/audit", params={"action": "placement.put"}, headers=NDJSON)
    assert [json.loads(line)["subject"] for line in part.content.splitlines()] == ["p2", "p1", "p0"]


async def _fill_more(client: httpx.AsyncClient) -> None:
    assert (await client.delete("/v1/placements/p0")).status_code == 204


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "many"},
        {"action": "create"},
        {"action": "key.create; drop"},
        {"action": "x" * 65},
        {"from": "yesterday"},
        {"to": "2026-01-15T12:00:00"},
        {"cursor": "x" * 201},
        {"cursor": "nonsense"},
        {"cursor": "W10"},
        {"subject": "x"},
    ],
)
async def test_a_query_that_cannot_be_meant_is_refused(client: httpx.AsyncClient, params: dict[str, str]) -> None:
    """422, with the parameter named."""
    refused = await client.get("/v1/audit", params=params)
    assert refused.status_code == 422, refused.text
    if refused.json()["code"] == "invalid_fields":
        assert {fault["pointer"] for fault in refused.json()["errors"]} == {f"/{name}" for name in params}


async def test_a_file_has_no_pages(client: httpx.AsyncClient) -> None:
    """Rather than a part that looks like the whole."""
    for params in ({"limit": "1"}, {"cursor": "W10"}):
        assert (await client.get("/v1/audit", params=params, headers=NDJSON)).status_code == 422


async def test_only_admin_reads_the_log(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """A key without the scope is refused."""
    made = (await client.post("/v1/keys", json={"name": "narrow"})).json()["key"]
    refused = await anonymous.get("/v1/audit", headers={"authorization": f"Bearer {made}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


async def test_a_version_that_is_known_is_not_sent_again(client: httpx.AsyncClient) -> None:
    """304 without a body, for a placement and for a photo; another version is sent."""
    stored = await client.put("/v1/placements/home", json={"defaults": {"count": 3}})
    etag = stored.headers["etag"]
    assert etag[0] == etag[-1] == '"'
    for known, status in ((etag, 304), (f"W/{etag}", 304), (f'"x", {etag}', 304), ("*", 304), ('"x"', 200)):
        shown = await client.get("/v1/placements/home", headers={"if-none-match": known})
        assert (shown.status_code, shown.headers["etag"]) == (status, etag)
        assert bool(shown.content) is (status == 200)
    assert (await client.put("/v1/items/a", json={})).is_success
    photo = {"content": b"\xff\xd8\xff x", "headers": {"content-type": "image/jpeg"}}
    assert (await client.put("/v1/items/a/images/0", **photo)).is_success
    etag = (await client.get("/v1/items/a/images/0")).headers["etag"]
    assert (await client.get("/v1/items/a/images/0", headers={"if-none-match": etag})).status_code == 304


async def test_a_placement_is_made_only_where_there_is_none(client: httpx.AsyncClient) -> None:
    """`If-None-Match: *`; and replaced only where there is one, by `If-Match: *`."""
    new, old = {"if-none-match": "*"}, {"if-match": "*"}
    body = {"defaults": {"count": 3}}
    missing = await client.put("/v1/placements/home", json=body, headers=old)
    assert (missing.status_code, missing.json()["code"]) == (412, "version_changed")
    assert (await client.put("/v1/placements/home", json=body, headers=new)).status_code == 201
    there = await client.put("/v1/placements/home", json={}, headers=new)
    assert (there.status_code, there.json()["code"]) == (412, "already_there")
    assert (await client.put("/v1/placements/home", json={}, headers=old)).status_code == 200
    assert (await client.delete("/v1/placements/home", headers={"if-match": '"x"'})).status_code == 412
    unquoted = await client.delete("/v1/placements/home", headers={"if-match": "x"})
    assert (unquoted.status_code, unquoted.json()["code"]) == (400, "bad_request")
    assert (await client.delete("/v1/placements/home", headers=old)).status_code == 204


async def test_a_version_is_checked_in_a_dry_run_too(client: httpx.AsyncClient) -> None:
    """412, as the request itself."""
    await client.put("/v1/placements/home", json={"defaults": {"count": 3}})
    refused = await client.put("/v1/placements/home?dry_run=true", json={}, headers={"if-match": '"x"'})
    assert refused.status_code == 412
