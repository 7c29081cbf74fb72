"""/v1/webhooks: made, shown, changed, rotated, tested, their log read and replayed; and whatever must be refused."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api.app import Application
from tenants.webhooks.deliveries import claim_delivery, record_attempt
from tenants.webhooks.endpoints import MAX_ENDPOINTS
from tenants.webhooks.events import QuotaNear
from tenants.webhooks.outbox import emit
from tenants.webhooks.schedule import Verdict, judge
from tests.integration.api.conftest import Shop

pytestmark = pytest.mark.anyio

URL = "https://shop.example/hook"
BODY = {"url": URL, "events": ["quota.near"]}


async def make(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    """A webhook as the API answers it."""
    made = await client.post("/v1/webhooks", json={**BODY, **more})
    assert made.status_code == 201, made.text
    answer: dict[str, Any] = made.json()
    return answer


async def happen(app: Application, shop: Shop) -> None:
    """Something that `BODY` asked for."""
    data = QuotaNear(meter="searches", percent=80, used=8, quota=10, period=app.services.clock().date())
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        await emit(conn, shop.tenant_id, "quota.near", data, now=app.services.clock())


async def attempt(app: Application, shop: Shop, verdict: Verdict, status_code: int) -> UUID:
    """What a worker does with the next message."""
    now = app.services.clock()
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        claimed = await claim_delivery(conn, shop.tenant_id, now)
        assert claimed is not None
        await record_attempt(
            conn, claimed, verdict, now=now, status_code=status_code, error=None, answer="told", duration_ms=12
        )
        return claimed.event_id


async def test_the_secret_is_shown_once(client: httpx.AsyncClient) -> None:
    """When it is made; no other answer has it, and no cache keeps it."""
    answer = await client.post("/v1/webhooks", json={**BODY, "description": "back office"})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made["secret"].startswith("whsec_")
    webhook = made["webhook"]
    assert {name: webhook[name] for name in ("url", "events", "description", "enabled", "disabled")} == {
        "url": URL,
        "events": ["quota.near"],
        "description": "back office",
        "enabled": True,
        "disabled": None,
    }
    shown = await client.get(f"/v1/webhooks/{webhook['id']}")
    listed = await client.get("/v1/webhooks")
    assert shown.json() == webhook
    assert listed.json() == {"webhooks": [webhook]}
    assert made["secret"] not in shown.text + listed.text


async def test_a_repeat_makes_no_second_webhook(client: httpx.AsyncClient) -> None:
    """With an Idempotency-Key it is answered as the first time, secret and all."""
    headers = {"idempotency-key": "hook-1"}
    first, again = [await client.post("/v1/webhooks", json=BODY, headers=headers) for _ in range(2)]
    assert again.headers["idempotent-replayed"] == "true"
    assert first.json() == again.json()
    assert len((await client.get("/v1/webhooks")).json()["webhooks"]) == 1


async def test_a_dry_run_shows_no_secret(client: httpx.AsyncClient) -> None:
    """Nobody is to keep one that signs nothing."""
    answer = await client.post("/v1/webhooks?dry_run=true", json=BODY)
    assert (answer.status_code, answer.json()["secret"]) == (201, "(none: dry run)")
    assert (await client.get("/v1/webhooks")).json() == {"webhooks": []}


async def test_the_audit_log_holds_no_address(client: httpx.AsyncClient) -> None:
    """An address of a receiver is often its password."""
    made = await make(client, url="https://shop.example/hook/pass-word")
    await client.patch(f"/v1/webhooks/{made['webhook']['id']}", json={"url": "https://shop.example/pass-word"})
    told = await client.get("/v1/audit")
    assert {entry["action"] for entry in told.json()["entries"]} >= {"webhook.create", "webhook.change"}
    assert "pass-word" not in told.text
    assert made["secret"] not in told.text


async def test_an_event_named_twice_is_told_once(client: httpx.AsyncClient) -> None:
    """A list of events is a set."""
    made = await make(client, events=["quota.near", "job.finished", "quota.near"])
    assert made["webhook"]["events"] == ["job.finished", "quota.near"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"url": ""}, "/url"),
        ({"url": "shop.example"}, "/url"),
        ({"url": "http://shop.example/"}, "/url"),
        ({"url": "ftp://shop.example/"}, "/url"),
        ({"url": "file:///etc/passwd"}, "/url"),
        ({"url": "https://u:p@shop.example/"}, "/url"),
        ({"url": "https://shop.example:8443/"}, "/url"),
        ({"url": "https://127.0.0.1/"}, "/url"),
        ({"url": "https://2130706433/"}, "/url"),
        ({"url": "https://0x7f.1/"}, "/url"),
        ({"url": "https://0177.0.0.1/"}, "/url"),
        ({"url": "https://[::1]/"}, "/url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "/url"),
        ({"url": "https://[64:ff9b::a9fe:a9fe]/"}, "/url"),
        ({"url": "https://169.254.169.254/latest/meta-data/"}, "/url"),
        ({"url": "https://10.0.0.1/"}, "/url"),
        ({"url": "https://shop.example/\n"}, "/url"),
        ({"url": "https://shop.example/\x00"}, "/url"),
        ({"url": "https://shop.example/" + "a" * 2048}, "/url"),
        ({"url": 1}, "/url"),
        ({"events": []}, "/events"),
        ({"events": ["webhook.test"]}, "/events/0"),
        ({"events": ["*"]}, "/events/0"),
        ({"events": "quota.near"}, "/events"),
        ({"description": "a\nb"}, "/description"),
        ({"description": "a" * 201}, "/description"),
        ({"enabled": "yes"}, "/enabled"),
        ({"secret": "whsec_mine"}, "/secret"),
    ],
)
async def test_bad_fields_are_named(client: httpx.AsyncClient, change: dict[str, Any], pointer: str) -> None:
    """When it is made and when it is changed; nothing is stored."""
    answers = [await client.post("/v1/webhooks", json={**BODY, **change})]
    assert (await client.get("/v1/webhooks")).json() == {"webhooks": []}
    made = (await make(client))["webhook"]
    answers.append(await client.patch(f"/v1/webhooks/{made['id']}", json=change))
    assert (await client.get(f"/v1/webhooks/{made['id']}")).json() == made
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


@pytest.mark.parametrize("missing", ["url", "events"])
async def test_what_is_needed_is_said(client: httpx.AsyncClient, missing: str) -> None:
    """An address and what it is to be told."""
    answer = await client.post("/v1/webhooks", json={name: BODY[name] for name in BODY if name != missing})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{missing}")


async def test_what_is_absent_stays(client: httpx.AsyncClient) -> None:
    """A change is of what it names."""
    made = (await make(client, description="x"))["webhook"]
    path = f"/v1/webhooks/{made['id']}"
    changed = (await client.patch(path, json={"events": ["job.finished"]})).json()
    assert {**changed, "updated_at": None} == {**made, "events": ["job.finished"], "updated_at": None}
    changed = (await client.patch(path, json={"url": URL + "/2", "description": "", "enabled": False})).json()
    assert (changed["url"], changed["description"], changed["enabled"]) == (URL + "/2", "", False)
    assert changed["disabled"] is None
    assert (await client.patch(path, json={})).json()["events"] == ["job.finished"]


async def test_there_are_so_many_and_no_more(client: httpx.AsyncClient) -> None:
    """Also when the last ones are made at once."""
    for _ in range(MAX_ENDPOINTS - 1):
        await make(client)
    answers = await asyncio.gather(*(client.post("/v1/webhooks", json=BODY) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 403, 403]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"too_many_webhooks"}
    listed = (await client.get("/v1/webhooks")).json()["webhooks"]
    assert len(listed) == MAX_ENDPOINTS
    assert (await client.delete(f"/v1/webhooks/{listed[0]['id']}")).status_code == 204
    await make(client)


@pytest.mark.parametrize("name", ["01920000-0000-7000-8000-000000000001", "x", "1", "%00", "a" * 300])
async def test_an_unknown_webhook_is_not_found(client: httpx.AsyncClient, name: str) -> None:
    """Under each of its addresses."""
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("POST", "/rotate", {}),
        ("POST", "/test", None),
        ("GET", "/deliveries", None),
        ("POST", f"/deliveries/{uuid4()}/replay", None),
        ("POST", "/replay", {"since": "2026-01-01T00:00:00Z"}),
    ):
        answer = await client.request(method, f"/v1/webhooks/{name}{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found"), (method, path)


async def test_a_key_without_admin_sees_none(app: Application, shop: Shop) -> None:
    """An address may hold a secret of its own, so it is not even shown."""
    key = (await shop.client.post("/v1/keys", json={"name": "no admin"})).json()["key"]
    made = (await make(shop.client))["webhook"]
    headers = {"authorization": f"Bearer {key}"}
    for method, path in (
        ("GET", "/v1/webhooks"),
        ("POST", "/v1/webhooks"),
        ("GET", f"/v1/webhooks/{made['id']}"),
        ("GET", f"/v1/webhooks/{made['id']}/deliveries"),
    ):
        answer = await shop.client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_a_rotation_gives_another_secret(client: httpx.AsyncClient) -> None:
    """Once, with the time until which the old one signs too; of 0 seconds, not at all."""
    made = await make(client)
    path = f"/v1/webhooks/{made['webhook']['id']}/rotate"
    first = await client.post(path, json={})
    assert first.headers["cache-control"] == "no-store"
    second = (await client.post(path, json={"overlap_s": 0})).json()
    assert len({made["secret"], first.json()["secret"], second["secret"]}) == 3
    assert first.json()["webhook"]["previous_secret_until"] is not None
    assert second["webhook"]["previous_secret_until"] is None


@pytest.mark.parametrize("overlap", [-1, 604_801, "1", 1.5, None])
async def test_an_overlap_has_its_bounds(client: httpx.AsyncClient, overlap: Any) -> None:
    """At most a week."""
    made = await make(client)
    answer = await client.post(f"/v1/webhooks/{made['webhook']['id']}/rotate", json={"overlap_s": overlap})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/overlap_s")


async def test_a_test_message_is_for_one_webhook(app: Application, shop: Shop) -> None:
    """Whatever it asked for; the log shows it at once, and what came of it when it was sent."""
    made, other = [(await make(shop.client))["webhook"]["id"] for _ in range(2)]
    answer = await shop.client.post(f"/v1/webhooks/{made}/test")
    assert answer.status_code == 202
    page = (await shop.client.get(f"/v1/webhooks/{made}/deliveries")).json()
    (delivery,) = page["deliveries"]
    assert page["next_cursor"] is None
    assert delivery["id"] == answer.json()["delivery_id"]
    assert (delivery["event"], delivery["status"]) == ("webhook.test", "pending")
    assert (delivery["data"], delivery["attempts"]) == ({"webhook_id": made}, [])
    assert delivery["next_attempt_at"] is not None
    await attempt(app, shop, judge(1, 200, luck=0.0), 200)
    (delivery,) = (await shop.client.get(f"/v1/webhooks/{made}/deliveries")).json()["deliveries"]
    assert (delivery["status"], delivery["next_attempt_at"]) == ("delivered", None)
    (told,) = delivery["attempts"]
    assert {name: told[name] for name in told if name != "at"} == {
        "attempt": 1,
        "status_code": 200,
        "error": None,
        "answer": "told",
        "duration_ms": 12,
    }
    assert (await shop.client.get(f"/v1/webhooks/{other}/deliveries")).json()["deliveries"] == []


async def test_nothing_is_sent_to_a_disabled_webhook(app: Application, shop: Shop) -> None:
    """409 says to enable it."""
    made = (await make(shop.client, enabled=False))["webhook"]["id"]
    for path, body in (
        ("test", None),
        ("replay", {"since": "2026-01-01T00:00:00Z"}),
        (f"deliveries/{uuid4()}/replay", None),
    ):
        answer = await shop.client.post(f"/v1/webhooks/{made}/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_disabled")


async def test_the_log_is_read_in_pages(app: Application, shop: Shop) -> None:
    """The newest first, each once, whatever comes meanwhile; and by status."""
    made = (await make(shop.client))["webhook"]["id"]
    for _ in range(7):
        await happen(app, shop)
    failed = str(await attempt(app, shop, Verdict(status="failed"), 500))
    path = f"/v1/webhooks/{made}/deliveries"
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await shop.client.get(path, params={"limit": 3, **cursor})).json()
        seen += [delivery["id"] for delivery in page["deliveries"]]
        await happen(app, shop)
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == len(set(seen)) == 7
    assert seen == sorted(seen, reverse=True)
    only = (await shop.client.get(path, params={"status": "failed"})).json()["deliveries"]
    assert [delivery["id"] for delivery in only] == [failed]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=x", "status=gone", "status=", "after=1"])
async def test_a_bad_query_is_refused(client: httpx.AsyncClient, query: str) -> None:
    """The parameter is named."""
    made = await make(client)
    answer = await client.get(f"/v1/webhooks/{made['webhook']['id']}/deliveries?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{query.partition('=')[0]}")


async def test_a_message_is_sent_again(app: Application, shop: Shop) -> None:
    """Under its own id, whatever became of it, with all its attempts; the log goes on counting."""
    made = (await make(shop.client))["webhook"]["id"]
    await happen(app, shop)
    path = f"/v1/webhooks/{made}/deliveries"
    for number, code in enumerate((200, 500), 1):
        verdict = judge(10, code, luck=0.0)
        event_id = await attempt(app, shop, verdict, code)
        answer = await shop.client.post(f"{path}/{event_id}/replay")
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        assert answer.json()["attempts"][0]["attempt"] == number
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        claimed = await claim_delivery(conn, shop.tenant_id, app.services.clock())
    assert claimed is not None
    assert (claimed.event_id, claimed.tries) == (event_id, 0)
    unknown = await shop.client.post(f"{path}/{uuid4()}/replay")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "delivery_not_found")
    assert (await shop.client.post(f"{path}/x/replay")).json()["code"] == "delivery_not_found"


async def test_what_has_failed_is_sent_again(app: Application, shop: Shop) -> None:
    """All of it since then, and nothing that was delivered or waits already."""
    made = (await make(shop.client))["webhook"]["id"]
    for _ in range(4):
        await happen(app, shop)
    for status in ("failed", "failed", "delivered"):
        await attempt(app, shop, Verdict(status=status), 500)  # type: ignore[arg-type]
    path = f"/v1/webhooks/{made}/replay"
    now = app.services.clock()
    later, before = (now + timedelta(hours=1)).isoformat(), (now - timedelta(hours=1)).isoformat()
    assert (await shop.client.post(path, json={"since": later})).json() == {"replayed": 0}
    answer = await shop.client.post(path, json={"since": before})
    assert (answer.status_code, answer.json()) == (202, {"replayed": 2})
    assert (await shop.client.post(path, json={"since": before})).json() == {"replayed": 0}
    listed = (await shop.client.get(f"/v1/webhooks/{made}/deliveries")).json()["deliveries"]
    assert sorted(delivery["status"] for delivery in listed) == ["delivered", "pending", "pending", "pending"]


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00", 5, None])
async def test_a_time_has_its_form(client: httpx.AsyncClient, since: Any) -> None:
    """RFC 3339 with an offset."""
    made = await make(client)
    answer = await client.post(f"/v1/webhooks/{made['webhook']['id']}/replay", json={"since": since})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/since")
