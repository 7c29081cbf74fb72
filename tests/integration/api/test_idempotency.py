"""Idempotency-Key: what is sent again is done once, and answered as the first time."""

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from api.app import Application
from infra.blob_folder import FolderBlobs
from infra.clock import utc_now
from infra.db import driver
from tenants import idempotency, keys
from tenants.events.event import EventRow
from tenants.visitor_tokens import Claims, sign
from tests.integration.api.conftest import Shop
from tests.integration.api.server import make_shop_key, running
from workers.jobs.upkeep import Upkeep

pytestmark = pytest.mark.anyio


def key(name: str) -> dict[str, str]:
    """The header."""
    return {"idempotency-key": name}


async def _query(app: Application, shop: Shop, sql: str, *args: object) -> Any:
    async with app.services.database.system_session(reason="test look") as conn:
        return await (await driver(conn)).fetch(sql, shop.tenant_id, *args)


async def _named(client: httpx.AsyncClient, name: str) -> list[str]:
    listed = (await client.get("/v1/keys")).json()["keys"]
    return [each["key_id"] for each in listed if each["name"] == name]


async def test_a_repeat_is_answered_as_the_first_time(client: httpx.AsyncClient) -> None:
    """Status, headers and body, and nothing is done; the header says so."""
    first = await client.post("/v1/keys", json={"name": "twice"}, headers=key("a"))
    again = await client.post("/v1/keys", json={"name": "twice"}, headers=key("a"))
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["cache-control"] == first.headers["cache-control"] == "no-store"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(await _named(client, "twice")) == 1
    other = await client.post("/v1/keys", json={"name": "twice"}, headers=key("b"))
    assert other.json()["key"] != first.json()["key"]


async def test_a_key_is_of_one_request(client: httpx.AsyncClient) -> None:
    """With another body, query or address it is refused, and nothing is done."""
    assert (await client.post("/v1/keys", json={"name": "one"}, headers=key("a"))).status_code == 201
    for path, sent in (
        ("/v1/keys", {"json": {"name": "other"}}),
        ("/v1/models/train", {"json": {"name": "one"}}),
        ("/v1/imports?format=csv", {"content": b'{"name":"one"}'}),
        ("/v1/items/bulk", {"json": [{"id": "x"}]}),
        ("/v1/events", {"json": {"events": [{"type": "view", "item_id": "x"}]}}),
        # No body is read there; one that is sent counts all the same.
        (f"/v1/imports/{uuid4()}/confirm", {"content": b"another"}),
    ):
        refused = await client.post(path, headers=key("a"), **sent)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused"), path
    assert await _named(client, "other") == []
    assert (await client.get("/v1/jobs")).json()["jobs"] == []
    assert (await client.get("/v1/items")).json()["items"] == []


async def test_a_key_is_of_one_api_key(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """Two programs of one shop may choose the same."""
    made = (await client.post("/v1/keys", json={"name": "second", "scopes": ["catalog:write"]})).json()["key"]
    second = {"authorization": f"Bearer {made}", **key("a")}
    feed = {"url": "https://shop.example/feed.csv"}
    first = await client.post("/v1/imports", json=feed, headers=key("a"))
    other = await anonymous.post("/v1/imports", json=feed, headers=second)
    assert first.status_code == other.status_code == 202
    assert first.json() != other.json()


@pytest.mark.parametrize("bad", ["", "a b", "ä", "x" * 256, "a\tb"])
@pytest.mark.parametrize("path", ["/v1/keys", "/v1/recommend", "/v1/search", "/v1/recommend/batch", "/v1/rerank"])
async def test_a_malformed_key_is_refused(client: httpx.AsyncClient, bad: str, path: str) -> None:
    """422 before anything is done, on what is only computed too."""
    refused = await client.post(path, json={"name": "x"}, headers={"idempotency-key": bad.encode()})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_idempotency_key")


async def test_two_keys_are_refused(client: httpx.AsyncClient) -> None:
    """Nobody can know which was meant."""
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    refused = await client.post("/v1/keys", json={"name": "x"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_idempotency_key")


@pytest.mark.parametrize("good", ["!", "~" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'])
async def test_any_visible_key_is_taken(client: httpx.AsyncClient, good: str) -> None:
    """1 to 255 characters, with quotes as the IETF draft writes them, too."""
    assert (await client.post("/v1/keys", json={"name": "x"}, headers=key(good))).status_code == 201


async def test_what_failed_is_tried_anew(client: httpx.AsyncClient) -> None:
    """An error changed nothing, so nothing is kept of it."""
    body = {"name": "late", "expires_at": "2020-01-01T00:00:00Z"}
    for _ in range(2):
        refused = await client.post("/v1/keys", json=body, headers=key("a"))
        assert (refused.status_code, "idempotent-replayed" in refused.headers) == (422, False)
    assert (await client.post("/v1/keys", json={"name": "late"}, headers=key("a"))).status_code == 201


async def test_a_dry_run_uses_no_key_up(client: httpx.AsyncClient) -> None:
    """The real request may have the same one."""
    dry = await client.post("/v1/keys?dry_run=true", json={"name": "x"}, headers=key("a"))
    assert (dry.status_code, dry.headers["dry-run"]) == (201, "true")
    real = await client.post("/v1/keys", json={"name": "x"}, headers=key("a"))
    assert (real.status_code, "idempotent-replayed" in real.headers) == (201, False)
    dry = await client.post("/v1/keys?dry_run=true", json={"name": "x"}, headers=key("a"))
    assert "idempotent-replayed" not in dry.headers
    assert len(await _named(client, "x")) == 1


async def test_whoever_comes_while_the_first_is_running_is_told_to_wait(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """409 with Retry-After; then the answer of the first."""
    inside, go = asyncio.Event(), asyncio.Event()
    real = keys.create_key

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        inside.set()
        await go.wait()
        return await real(*args, **kwargs)

    monkeypatch.setattr(keys, "create_key", slowly)
    first = asyncio.create_task(client.post("/v1/keys", json={"name": "slow"}, headers=key("a")))
    await inside.wait()
    early = await client.post("/v1/keys", json={"name": "slow"}, headers=key("a"))
    assert (early.status_code, early.json()["code"], early.headers["retry-after"]) == (409, "request_running", "1")
    go.set()
    made = await first
    late = await client.post("/v1/keys", json={"name": "slow"}, headers=key("a"))
    assert (late.content, late.headers["idempotent-replayed"]) == (made.content, "true")


async def test_an_answer_is_kept_for_a_day(app: Application, shop: Shop, tmp_path: Path) -> None:
    """Then the key is as new, whether upkeep was there or not; upkeep takes the row away."""
    client = shop.client
    for older, kept in ((23, True), (24, False)):
        name = f"old {older}"
        await client.post("/v1/keys", json={"name": name}, headers=key(name.replace(" ", "-")))
        await _query(
            app,
            shop,
            "update idempotency set created_at = created_at - make_interval(hours => $2) where tenant_id = $1",
            older,
        )
        again = await client.post("/v1/keys", json={"name": name}, headers=key(name.replace(" ", "-")))
        assert ("idempotent-replayed" in again.headers) is kept
        assert len(await _named(client, name)) == (1 if kept else 2)
    later = utc_now() + timedelta(hours=24)
    await Upkeep(app.services.database, FolderBlobs(tmp_path), clock=lambda: later).prune()
    assert await _query(app, shop, "select 1 from idempotency where tenant_id = $1") == []


async def test_nothing_is_kept_in_clear(app: Application, shop: Shop) -> None:
    """Neither the Idempotency-Key, nor the API key that was made, nor an id of the body; changed rows open nothing."""
    made = (await shop.client.post("/v1/keys", json={"name": "secret-name"}, headers=key("my-secret"))).json()
    events = [{"event_id": "e-of-anna", "type": "view", "user_id": "anna", "item_id": "i"}]
    assert (await shop.client.post("/v1/events", json={"events": events}, headers=key("anna-1"))).is_success
    rows = await _query(app, shop, "select * from idempotency where tenant_id = $1")
    assert len(rows) == 2
    whole = b"".join(value for row in rows for value in row if isinstance(value, bytes))
    for text in ("my-secret", made["key"], made["info"]["key_id"], "secret-name", "anna"):
        assert text.encode() not in whole
    await _query(
        app, shop, "update idempotency set answer = set_byte(answer, 20, get_byte(answer, 20) # 1) where tenant_id = $1"
    )
    again = await shop.client.post("/v1/keys", json={"name": "secret-name"}, headers=key("my-secret"))
    assert again.status_code == 500
    assert len(await _named(shop.client, "secret-name")) == 1


async def test_a_large_bulk_call_is_all_or_nothing(
    app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answer cannot be kept, none of the rows is; then all are, once, with the answer of 3,000 rows."""
    items = [{"id": f"i{number}", "title": "lamp"} for number in range(3000)]
    keep = idempotency.keep

    async def fail(*args: Any, **kwargs: Any) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    monkeypatch.setattr(idempotency, "keep", fail)
    assert (await shop.client.post("/v1/items/bulk", json=items, headers=key("a"))).status_code == 503
    assert (await _query(app, shop, "select count(*) from items where tenant_id = $1"))[0][0] == 0
    monkeypatch.setattr(idempotency, "keep", keep)
    first = await shop.client.post("/v1/items/bulk", json=items, headers=key("a"))
    assert first.json()["accepted"] == 3000
    assert (await shop.client.put("/v1/items/i7", json={"title": "changed since"})).is_success
    again = await shop.client.post("/v1/items/bulk", json=items, headers=key("a"))
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert "idempotent-results" not in again.headers
    assert (await shop.client.get("/v1/items/i7")).json()["title"] == "changed since"


async def test_an_answer_that_is_too_long_is_kept_without_its_results(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sums stay, and a header says so."""
    monkeypatch.setattr(idempotency, "MAX_ANSWER", 2_000)
    items = [{"id": str(uuid4())} for _ in range(300)]
    first = (await client.post("/v1/items/bulk", json=items, headers=key("a"))).json()
    assert len(first["results"]) == 300
    again = await client.post("/v1/items/bulk", json=items, headers=key("a"))
    assert again.json() == {**first, "results": []}
    assert (again.headers["idempotent-replayed"], again.headers["idempotent-results"]) == ("true", "omitted")


async def test_events_with_a_key_are_stored_once(app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those without an event_id; the repeat says `accepted` too; one transaction holds them and the answer."""
    events = [{"type": "view", "item_id": f"i{number}", "user_id": "u"} for number in range(3)] + [{"type": "?"}]
    keep = idempotency.keep

    async def fail(*args: Any, **kwargs: Any) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    count = "select count(*) from events where tenant_id = $1"
    monkeypatch.setattr(idempotency, "keep", fail)
    assert (await shop.client.post("/v1/events", json={"events": events}, headers=key("a"))).status_code == 503
    assert (await _query(app, shop, count))[0][0] == 0
    monkeypatch.setattr(idempotency, "keep", keep)
    first = await shop.client.post("/v1/events", json={"events": events}, headers=key("a"))
    assert (first.json()["accepted"], first.json()["rejected"]) == (3, 1)
    again = await shop.client.post("/v1/events", json={"events": events}, headers=key("a"))
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert (await _query(app, shop, count))[0][0] == 3
    # Numbers that this process remembers from here are those that were committed.
    assert (await shop.client.post("/v1/events", json={"events": events[:1]})).json()["accepted"] == 1
    records = await _query(app, shop, "select distinct shopper_no from events where tenant_id = $1")
    assert len(records) == 1


async def test_poison_among_events_with_a_key_loses_none_of_the_others(app: Application, shop: Shop) -> None:
    """What PostgreSQL refuses is refused alone, inside the one transaction."""
    rows = [
        [EventRow(t=shop.tenant_id, e=f"0198c0de-0000-7000-8000-{number:012x}", y="view", m=moment)]
        for number, moment in enumerate([utc_now(), datetime(1970, 1, 1, tzinfo=UTC), utc_now()])
    ]
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        outcome = await app.services.ingest.take_inside(conn, rows)
    assert list(outcome.unstorable) == [rows[1][0].e]
    assert (await _query(app, shop, "select count(*) from events where tenant_id = $1"))[0][0] == 2


async def test_an_upload_that_is_sent_again_leaves_no_file(app: Application, shop: Shop) -> None:
    """One job, one file, however often it was uploaded; nor does a refused one."""
    prefix = f"tenants/{shop.tenant_id}/imports/"
    for _ in range(3):
        answer = await shop.client.post("/v1/imports", content=b"id,title\nx,y\n", headers=key("a"))
        assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['job_id']}"
    other = await shop.client.post("/v1/imports", content=b"id,title\nx,z\n", headers=key("a"))
    assert other.status_code == 422
    assert len([name async for name in app.services.blobs.iter_keys(prefix)]) == 1
    assert len((await shop.client.get("/v1/jobs")).json()["jobs"]) == 1


async def test_lists_with_a_key_are_marked_alike(app: Application, shop: Shop) -> None:
    """They may be computed anew; whoever bills counts the mark once. Without a key there is none."""
    client = shop.client
    assert (await client.post("/v1/items/bulk", json=[{"id": "a", "title": "lamp"}])).is_success
    batch = {"requests": [{"strategy": "new"}, {"strategy": "popular"}]}
    for sent in (key("a"), key("a"), key("b"), {}):
        for path, body in (
            ("/v1/recommend", {"strategy": "new"}),
            ("/v1/search", {"query": "lamp"}),
            ("/v1/recommend/batch", batch),
            ("/v1/rerank", {"item_ids": ["a"]}),
        ):
            answer = await client.post(path, json=body, headers=sent)
            assert answer.status_code == 200, answer.text
            assert "idempotent-replayed" not in answer.headers
    marks = await _marks(app, shop)
    assert marks.pop(None) == 5
    # Of each key one mark for each request, and one for each list of the batch.
    assert sorted(marks.values()) == [1] * 5 + [2] * 5


async def _marks(app: Application, shop: Shop) -> dict[str | None, int]:
    """How many answers were logged with each mark."""
    await app.services.answering.close()
    await app.services.answer_log.close()
    return dict(await _query(app, shop, "select once, count(*) from answers where tenant_id = $1 group by once"))


async def test_one_key_for_all_lists_is_no_free_ride(app: Application, shop: Shop) -> None:
    """Another address, body or shopper of a visitor token is another list to be billed, and a repeat still is none."""
    made = (await shop.client.post("/v1/visitor-secrets")).json()
    secret_key = {"authorization": f"Bearer {shop.secret_key}"}
    ends = int(utc_now().timestamp()) + 3600

    def speaking(later_s: int = 0, **claims: Any) -> dict[str, str]:
        said = Claims(aud="kindred", tenant=UUID(made["tenant"]), exp=ends + later_s, **claims)
        return {"x-visitor-token": sign(said, kid=made["kid"], secret=made["secret"])}

    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("/v1/recommend", {"strategy": "new"}, {}),
        ("/v1/recommend", {"strategy": "new", "count": 2}, {}),
        ("/v1/recommend?a=b", {"strategy": "new"}, {}),
        ("/v1/search", {"query": "lamp"}, {}),
        ("/v1/search", {"query": "lamps"}, {}),
        ("/v1/recommend", {"strategy": "new"}, speaking(user="u-1")),
        ("/v1/recommend", {"strategy": "new"}, speaking(user="u-2")),
        ("/v1/recommend", {"strategy": "new"}, speaking(visitor="u-2")),
        ("/v1/recommend", {"strategy": "new"}, speaking(user="u-2", filter={"eq": ["brand", "lumo"]})),
    ]
    for path, body, headers in [*requests, *requests]:
        answer = await shop.client.post(path, json=body, headers={**secret_key, **key("always-the-same"), **headers})
        assert answer.status_code == 200, answer.text
    # The next token of a shopper makes no other request.
    last = {**secret_key, **key("always-the-same"), **speaking(60, user="u-1")}
    assert (await shop.client.post("/v1/recommend", json={"strategy": "new"}, headers=last)).status_code == 200
    marks = await _marks(app, shop)
    assert None not in marks
    assert sorted(marks.values()) == [2] * 8 + [3]


async def test_fifty_at_once_do_it_once(database_url: str, tmp_path: Path, anyio_backend: str) -> None:
    """50 requests of one key to two real processes: one effect; each answer is the first's, or 409 with Retry-After."""
    shop_key = await make_shop_key(database_url)
    folders = [tmp_path / "one", tmp_path / "two"]
    with ExitStack() as stack:
        for folder in folders:
            folder.mkdir()
        urls = [stack.enter_context(running(database_url, folder)).url for folder in folders]
        headers = {"authorization": f"Bearer {shop_key}"}
        async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as client:
            for path, body, good in (
                ("/v1/keys", {"name": "raced"}, 201),
                ("/v1/events", {"events": [{"type": "view", "item_id": "raced"}]}, 200),
            ):
                answers = await asyncio.gather(
                    *(
                        client.post(urls[number % 2] + path, json=body, headers=key(f"race {path}".replace(" ", "-")))
                        for number in range(50)
                    )
                )
                assert {answer.status_code for answer in answers} <= {good, 409}
                done = [answer for answer in answers if answer.status_code == good]
                assert len({answer.content for answer in done}) == 1
                assert sum("idempotent-replayed" not in answer.headers for answer in done) == 1
                assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 409)
            listed = (await client.get(f"{urls[0]}/v1/keys")).json()["keys"]
            assert len([each for each in listed if each["name"] == "raced"]) == 1
            seen = (await client.get(f"{urls[0]}/v1/events", params={"item_id": "raced"})).json()["events"]
            assert len(seen) == 1
