"""Every write, as its contract declares it: what a dry run answers and leaves alone, and what the audit log says."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar

from api.app import ROUTES, Application
from api.openapi import operations
from api.work import Work
from infra.db import driver
from tenants.audience.shoppers import USER, VISITOR
from tenants.audience.users import subject_hash
from tests.isolation.conftest import MARK, Victim, rows_of, victim

__all__ = ["victim"]

# What the routes do is the same on every PostgreSQL; what they do it by is tested on both.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("pg_major", [18], ids=["pg18"], indirect=True, scope="session"),
]

WRITES = {
    (each.method, each.path): each.contract
    for each in operations(Litestar(ROUTES, openapi_config=None))
    if each.contract.writes
}
JPEG = {"content": b"\xff\xd8\xff another", "headers": {"content-type": "image/jpeg"}}
VISITOR_ID = "3f0c2a9e5b7d41f8a6c4e2d09b8f7a61"

Call = tuple[str, dict[str, Any], str]

DELETE_TENANT = ("DELETE", "/v1/tenant")
"""After it no key reads the audit log; test_tenant.py looks into the table."""

# How each write is called so that it changes something, and what the audit log calls its subject ("*": a new id).
CALLS: dict[tuple[str, str], Callable[[Victim], Call]] = {
    ("PUT", "/v1/items/{item_id}"): lambda v: (f"/v1/items/{v.item_id}", {"json": {"title": "new"}}, ""),
    ("PATCH", "/v1/items/{item_id}"): lambda v: (f"/v1/items/{v.item_id}", {"json": {"title": "new"}}, ""),
    ("DELETE", "/v1/items/{item_id}"): lambda v: (f"/v1/items/{v.item_id}", {}, ""),
    ("POST", "/v1/items/bulk"): lambda v: (
        "/v1/items/bulk",
        {"json": [{"id": f"bulk-{at}"} for at in range(1500)] + [{"id": 1}, {"id": "same", "title": "new"}]},
        "",
    ),
    ("POST", "/v1/items/delete"): lambda v: ("/v1/items/delete", {"json": {"filter": {"eq": ["brand", MARK]}}}, ""),
    ("PUT", "/v1/items/{item_id}/images/{position}"): lambda v: (f"/v1/items/{v.item_id}/images/1", JPEG, ""),
    ("DELETE", "/v1/items/{item_id}/images/{position}"): lambda v: (f"/v1/items/{v.item_id}/images/0", {}, ""),
    ("POST", "/v1/imports"): lambda v: ("/v1/imports", {"content": b"id,title\nx,y\n"}, "*"),
    ("POST", "/v1/events/import"): lambda v: ("/v1/events/import", {"content": b"user_id,item_id\nu,x\n"}, "*"),
    ("POST", "/v1/imports/{job_id}/confirm"): lambda v: (f"/v1/imports/{v.job_id}/confirm", {}, v.job_id),
    ("POST", "/v1/imports/{job_id}/cancel"): lambda v: (f"/v1/imports/{v.job_id}/cancel", {}, v.job_id),
    ("PUT", "/v1/placements/{placement_id}"): lambda v: (
        "/v1/placements/new%2Fone",
        {"json": {"defaults": {"count": 7}}},
        "new/one",
    ),
    ("DELETE", "/v1/placements/{placement_id}"): lambda v: (f"/v1/placements/{MARK}", {}, MARK),
    ("POST", "/v1/events"): lambda v: (
        "/v1/events",
        {
            "json": {
                "events": [
                    {"type": "view", "item_id": "never seen", "visitor_id": VISITOR_ID},
                    {"type": "view", "event_id": v.event_id, "item_id": v.item_id, "user_id": v.user_id},
                    {"type": "?"},
                ]
            }
        },
        "",
    ),
    ("PUT", "/v1/events/weights"): lambda v: ("/v1/events/weights", {"json": {"weights": {"view": 7}}}, ""),
    ("PUT", "/v1/users/{user_id}"): lambda v: (f"/v1/users/{v.user_id}", {"json": {"segments": ["vip"]}}, ""),
    ("DELETE", "/v1/users/{user_id}"): lambda v: (f"/v1/users/{v.user_id}", {}, f"user {v.user_id}"),
    ("POST", "/v1/users/{user_id}/merge"): lambda v: (
        f"/v1/users/{v.user_id}/merge",
        {"json": {"visitor_id": VISITOR_ID}},
        f"user {v.user_id}",
    ),
    ("PUT", "/v1/segments/{segment_id}"): lambda v: ("/v1/segments/new", {"json": {"filter": {"exists": "id"}}}, "new"),
    ("DELETE", "/v1/segments/{segment_id}"): lambda v: (f"/v1/segments/{v.segment_id}", {}, v.segment_id),
    ("POST", "/v1/keys"): lambda v: ("/v1/keys", {"json": {"name": "new"}}, "*"),
    ("PATCH", "/v1/keys/{key_id}"): lambda v: (f"/v1/keys/{v.key_id}", {"json": {"name": "renamed"}}, v.key_id),
    ("POST", "/v1/keys/{key_id}/rotate"): lambda v: (
        f"/v1/keys/{v.key_id}/rotate",
        {"json": {"overlap_s": 60}},
        v.key_id,
    ),
    ("POST", "/v1/visitor-secrets"): lambda v: ("/v1/visitor-secrets", {}, "*"),
    ("DELETE", "/v1/visitor-secrets/{kid}"): lambda v: ("/v1/visitor-secrets/v1", {}, "v1"),
    ("DELETE", "/v1/keys/{key_id}"): lambda v: (f"/v1/keys/{v.key_id}", {}, v.key_id),
    ("POST", "/v1/webhooks"): lambda v: (
        "/v1/webhooks",
        {"json": {"url": "https://new.example/", "events": ["job.finished"]}},
        "*",
    ),
    ("PATCH", "/v1/webhooks/{webhook_id}"): lambda v: (
        f"/v1/webhooks/{v.webhook_id}",
        {"json": {"enabled": False}},
        v.webhook_id,
    ),
    ("DELETE", "/v1/webhooks/{webhook_id}"): lambda v: (f"/v1/webhooks/{v.webhook_id}", {}, v.webhook_id),
    ("POST", "/v1/webhooks/{webhook_id}/rotate"): lambda v: (
        f"/v1/webhooks/{v.webhook_id}/rotate",
        {"json": {}},
        v.webhook_id,
    ),
    ("POST", "/v1/webhooks/{webhook_id}/test"): lambda v: (f"/v1/webhooks/{v.webhook_id}/test", {}, ""),
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"): lambda v: (
        f"/v1/webhooks/{v.webhook_id}/deliveries/{v.delivery_id}/replay",
        {},
        "",
    ),
    ("POST", "/v1/webhooks/{webhook_id}/replay"): lambda v: (
        f"/v1/webhooks/{v.webhook_id}/replay",
        {"json": {"since": "2026-01-01T00:00:00Z"}},
        v.webhook_id,
    ),
    ("POST", "/v1/exports"): lambda v: ("/v1/exports", {}, "*"),
    ("PUT", "/v1/retention"): lambda v: ("/v1/retention", {"json": {"events": 30}}, ""),
    DELETE_TENANT: lambda v: ("/v1/tenant", {"json": {"name": v.shop_name}}, str(v.shop.tenant_id)),
    ("POST", "/v1/models/train"): lambda v: ("/v1/models/train", {}, "*"),
    ("POST", "/v1/models/{model}/activate"): lambda v: ("/v1/models/1/activate", {}, "1"),
}


@pytest.fixture
async def furnished(app: Application, victim: Victim) -> Victim:
    """A shop with something of everything; its import is held and its generation serves."""
    tenant_id = victim.shop.tenant_id
    async with app.services.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        await raw.execute("update jobs set status = 'held' where tenant_id = $1 and kind = 'import'", tenant_id)
        await raw.execute("update tenants set active_gen = 1 where tenant_id = $1", tenant_id)
    await app.services.feed.poll()
    return victim


@pytest.fixture
def blobs(app: Application) -> Callable[[], Awaitable[set[str]]]:
    """The keys of all stored files."""

    async def keys() -> set[str]:
        return {key async for key in app.services.blobs.iter_keys("")}

    return keys


def test_every_write_has_a_call(pg_major: int) -> None:
    """A route that is added must be here, and so says how it is dry run and audited."""
    assert WRITES.keys() == CALLS.keys()


@pytest.mark.parametrize("route", CALLS, ids=lambda route: f"{route[0]} {route[1]}")
async def test_a_dry_run_answers_alike_and_changes_nothing(
    app: Application, furnished: Victim, blobs: Any, route: tuple[str, str]
) -> None:
    """Not one row, file or cache of any table is another afterwards; then the real call has the same answer."""
    path, sent, _ = CALLS[route](furnished)
    client, tenant_id = furnished.shop.client, furnished.shop.tenant_id
    told: list[Any] = []
    app.services.feed.subscribe(told.append, lambda: None)
    before, files = await rows_of(app, tenant_id), await blobs()
    dry = await client.request(route[0], path, params={"dry_run": "true"}, **sent)
    assert dry.is_success, dry.text
    assert dry.headers["dry-run"] == "true"
    assert await rows_of(app, tenant_id) == before
    assert await blobs() == files
    assert told == []
    real = await client.request(route[0], path, **sent)
    assert real.status_code == dry.status_code
    assert "dry-run" not in real.headers
    assert _comparable(dry) == _comparable(real)
    assert await rows_of(app, tenant_id) != before


def _comparable(answer: httpx.Response) -> Any:
    """The answer without what is new in each: ids, keys, moments."""
    if not answer.content:
        return None

    def plain(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        new = {"job_id", "key", "key_id", "created_at", "updated_at", "dry_run", "secret", "delivery_id", "export_id"}
        new |= {"next_attempt_at", "previous_secret_until", "deleted_at", "erase_after"}
        return {
            name: plain(each) if name != "webhook" else plain({**each, "id": ""})
            for name, each in value.items()
            if name not in new
        }

    return plain(msgspec.json.decode(answer.content))


@pytest.mark.parametrize(
    "route", [route for route in CALLS if route != DELETE_TENANT], ids=lambda route: f"{route[0]} {route[1]}"
)
async def test_a_write_is_in_the_audit_log_as_declared(
    app: Application, furnished: Victim, route: tuple[str, str]
) -> None:
    """One entry with the declared action, by the key, of the subject; none where the route says why not."""
    path, sent, subject = CALLS[route](furnished)
    client, tenant_id = furnished.shop.client, furnished.shop.tenant_id
    known = {entry["id"] for entry in (await client.get("/v1/audit?limit=1000")).json()["entries"]}
    sent = {**sent, "headers": {**sent.get("headers", {}), "x-request-id": "request-of-this-test"}}
    answer = await client.request(route[0], path, **sent)
    assert answer.is_success, answer.text
    entries = [
        entry for entry in (await client.get("/v1/audit?limit=1000")).json()["entries"] if entry["id"] not in known
    ]
    said = WRITES[route]
    if said.audit is None:
        assert said.unaudited
        assert entries == []
        return
    (entry,) = entries
    assert entry["action"] == said.audit
    assert entry["request_id"] == "request-of-this-test"
    assert entry["actor"] == {"kind": "key", "id": furnished.shop.secret_key[5:15]}
    if subject.startswith("user "):
        secret = app.services.secret.current
        assert entry["subject"] == subject_hash(secret, tenant_id, USER, subject.removeprefix("user ")).hex()
        assert furnished.user_id not in str(entry)
        assert VISITOR_ID not in str(entry)
        if "visitor" in entry["details"]:
            assert entry["details"]["visitor"] == subject_hash(secret, tenant_id, VISITOR, VISITOR_ID).hex()
    elif subject == "*":
        assert entry["subject"] in answer.text
    else:
        assert entry["subject"] == subject


@pytest.mark.parametrize("route", [route for route in CALLS if WRITES[route].audit], ids=lambda route: route[1])
async def test_no_effect_without_its_entry(
    app: Application, furnished: Victim, route: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that forgot to note what it did is a 500, and did nothing."""

    async def forget(self: Work, subject: str = "", **details: Any) -> None:
        pass

    monkeypatch.setattr(Work, "note", forget)
    path, sent, _ = CALLS[route](furnished)
    before = await rows_of(app, furnished.shop.tenant_id)
    answer = await furnished.shop.client.request(route[0], path, **sent)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert await rows_of(app, furnished.shop.tenant_id) == before


@pytest.mark.parametrize("route", [route for route in CALLS if route[0] == "POST"], ids=lambda route: route[1])
async def test_a_repeat_is_answered_alike_and_changes_nothing(
    app: Application, furnished: Victim, blobs: Any, route: tuple[str, str]
) -> None:
    """Every POST that writes takes an Idempotency-Key; the second call leaves every row and file as it was."""
    path, sent, _ = CALLS[route](furnished)
    client, tenant_id = furnished.shop.client, furnished.shop.tenant_id
    sent = {**sent, "headers": {**sent.get("headers", {}), "idempotency-key": "once"}}
    first = await client.post(path, **sent)
    assert first.is_success, first.text
    before, files = await rows_of(app, tenant_id), await blobs()
    again = await client.post(path, **sent)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert await rows_of(app, tenant_id) == before
    assert await blobs() == files


@pytest.mark.parametrize("route", CALLS, ids=lambda route: f"{route[0]} {route[1]}")
async def test_a_mistyped_dry_run_writes_nothing(app: Application, furnished: Victim, route: tuple[str, str]) -> None:
    """422, and nothing is changed: who asked for a trial must not get the real thing."""
    path, sent, _ = CALLS[route](furnished)
    before = await rows_of(app, furnished.shop.tenant_id)
    for query in ("dry_run=perhaps", "dry_run=true&dry_run=true", "dryrun=true"):
        refused = await furnished.shop.client.request(route[0], f"{path}?{query}", **sent)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_fields")
    assert await rows_of(app, furnished.shop.tenant_id) == before


async def test_a_dry_run_refuses_what_would_be_refused(furnished: Victim) -> None:
    """With the same error."""
    client = furnished.shop.client
    for method, path, sent in (
        ("PUT", "/v1/items/x", {"json": {"price": -1}}),
        ("DELETE", "/v1/items/none", {}),
        ("PUT", "/v1/placements/x", {"json": {"sources": [{"strategy": "psychic"}]}}),
        ("POST", "/v1/keys", {"json": {"name": "x", "kind": "publishable", "scopes": ["admin"]}}),
        ("DELETE", "/v1/users/nobody", {}),
        ("POST", "/v1/imports", {"content": b""}),
        ("POST", f"/v1/users/{furnished.user_id}/merge", {"json": {"visitor_id": furnished.user_id}}),
    ):
        dry = await client.request(method, path, params={"dry_run": "true"}, **sent)
        real = await client.request(method, path, **sent)
        assert dry.status_code == real.status_code >= 400
        told = [{**answer.json(), "request_id": ""} for answer in (dry, real)]
        assert told[0] == told[1]
