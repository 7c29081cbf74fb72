"""Two tenants against every route: nothing of another tenant is shown, and nothing of it is changed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from litestar.routes import HTTPRoute

from api.app import Application
from api.openapi import operations
from tenants.catalog.photos import photo_path
from tests.integration.api.conftest import Shop
from tests.isolation.conftest import MARK, Victim, assert_nothing_leaked, rows_of

pytestmark = pytest.mark.anyio

Call = tuple[str, dict[str, Any]]
JPEG = {"content": b"\xff\xd8\xff x", "headers": {"content-type": "image/jpeg"}}


def _days(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def _item(victim: Victim) -> str:
    return quote(victim.item_id, safe="")


# How the attacker aims each operation at the victim: address and what is sent. A new route fails until it is here.
PROBES: dict[tuple[str, str], Callable[[Victim], list[Call]]] = {
    ("GET", "/v1/items"): lambda v: [
        ("/v1/items?limit=1000", {}),
        ("/v1/items", {"params": {"filter": '{"exists": "brand"}'}}),
        ("/v1/items", {"params": {"cursor": "aTE6MA"}}),
    ],
    ("GET", "/v1/items/{item_id}"): lambda v: [(f"/v1/items/{_item(v)}", {}), ("/v1/items/same", {})],
    ("PUT", "/v1/items/{item_id}"): lambda v: [
        (f"/v1/items/{_item(v)}", {"json": {"title": "taken"}}),
        ("/v1/items/same", {"json": {"title": "taken"}}),
    ],
    ("PATCH", "/v1/items/{item_id}"): lambda v: [
        (f"/v1/items/{_item(v)}", {"json": {"title": "taken"}}),
        ("/v1/items/same", {"json": {"title": "taken"}}),
    ],
    ("DELETE", "/v1/items/{item_id}"): lambda v: [(f"/v1/items/{_item(v)}", {}), ("/v1/items/same", {})],
    ("POST", "/v1/items/bulk"): lambda v: [("/v1/items/bulk", {"json": [{"id": v.item_id}, {"id": "same"}]})],
    ("POST", "/v1/items/delete"): lambda v: [
        ("/v1/items/delete", {"json": {"ids": [v.item_id, "same"]}}),
        ("/v1/items/delete", {"json": {"filter": {"and": []}}}),
        ("/v1/items/delete?dry_run=true", {"json": {"filter": {"exists": "brand"}}}),
    ],
    ("GET", "/v1/items/{item_id}/images/{position}"): lambda v: [(f"/v1/items/{_item(v)}/images/0", {})],
    ("PUT", "/v1/items/{item_id}/images/{position}"): lambda v: [(f"/v1/items/{_item(v)}/images/0", JPEG)],
    ("DELETE", "/v1/items/{item_id}/images/{position}"): lambda v: [(f"/v1/items/{_item(v)}/images/0", {})],
    ("GET", "/v1/items/{item_id}/similar"): lambda v: [
        (f"/v1/items/{_item(v)}/similar?fields=title,brand&explain=true", {}),
        ("/v1/items/same/similar?fields=title,brand", {}),
    ],
    ("GET", "/v1/encoding"): lambda v: [("/v1/encoding", {})],
    ("POST", "/v1/imports"): lambda v: [("/v1/imports", {"json": {"url": "https://shop.example/f.csv"}})],
    ("POST", "/v1/imports/{job_id}/confirm"): lambda v: [(f"/v1/imports/{v.job_id}/confirm", {})],
    ("POST", "/v1/imports/{job_id}/cancel"): lambda v: [(f"/v1/imports/{v.job_id}/cancel", {})],
    ("GET", "/v1/jobs"): lambda v: [("/v1/jobs", {}), (f"/v1/jobs?cursor={v.job_id[:-1]}f", {})],
    ("GET", "/v1/jobs/{job_id}"): lambda v: [(f"/v1/jobs/{v.job_id}", {})],
    ("GET", "/v1/jobs/{job_id}/errors"): lambda v: [(f"/v1/jobs/{v.job_id}/errors", {})],
    ("POST", "/v1/recommend"): lambda v: [
        (
            "/v1/recommend",
            {
                "json": {
                    "strategy": strategy,
                    "item_ids": seeds,
                    "count": 100,
                    "fields": ["title", "brand"],
                    "explain": True,
                }
            },
        )
        for strategy, seeds in (("similar", [v.item_id]), ("visually_similar", ["same"]), ("new", []), ("popular", []))
    ],
    ("POST", "/v1/rerank"): lambda v: [
        ("/v1/rerank", {"json": {"item_ids": [v.item_id, "same"], "fields": ["title", "brand"], "explain": True}}),
    ],
    ("GET", "/v1/users/{user_id}/recommendations"): lambda v: [
        ("/v1/users/same/recommendations?fields=title,brand&explain=true", {}),
    ],
    ("GET", "/v1/trending"): lambda v: [("/v1/trending?fields=title,brand", {})],
    ("POST", "/v1/search"): lambda v: [
        ("/v1/search", {"json": {"query": "lamp", "fields": ["title", "brand"]}}),
        ("/v1/search", {"json": {"query": "lamp", "filter": {"exists": "brand"}, "fields": ["brand"]}}),
    ],
    ("POST", "/v1/recommend/batch"): lambda v: [
        ("/v1/recommend/batch", {"json": {"requests": [{"strategy": "similar", "item_ids": [v.item_id]}, {}]}})
    ],
    ("GET", "/v1/usage"): lambda v: [("/v1/usage", {})],
    ("GET", "/v1/analytics"): lambda v: [
        ("/v1/analytics", {"params": {"from": _days(-1), "to": _days(1), "by": by}})
        for by in ("placement", "strategy", "position")
    ],
    ("GET", "/v1/recommendations/{recommendation_id}"): lambda v: [(f"/v1/recommendations/{v.answer_id}", {})],
    ("GET", "/v1/placements"): lambda v: [("/v1/placements", {})],
    ("GET", "/v1/placements/{placement_id}"): lambda v: [(f"/v1/placements/{MARK}", {}), ("/v1/placements/same", {})],
    ("PUT", "/v1/placements/{placement_id}"): lambda v: [
        (f"/v1/placements/{MARK}", {"json": {"defaults": {"strategy": "new"}}}),
        ("/v1/placements/same", {"json": {"defaults": {"strategy": "new"}}}),
    ],
    ("DELETE", "/v1/placements/{placement_id}"): lambda v: [
        (f"/v1/placements/{MARK}", {}),
        ("/v1/placements/same", {}),
    ],
    ("POST", "/v1/events"): lambda v: [
        (
            "/v1/events",
            {
                "json": {
                    "events": [
                        {"event_id": v.event_id, "type": "view", "item_id": v.item_id, "user_id": v.user_id},
                        {"event_id": v.event_id, "type": "view", "item_id": "same", "user_id": "same"},
                    ]
                }
            },
        )
    ],
    ("POST", "/v1/events/import"): lambda v: [("/v1/events/import", {"content": f"user_id,item_id\n{v.user_id},x\n"})],
    ("GET", "/v1/events"): lambda v: [
        ("/v1/events?limit=1000", {}),
        (f"/v1/events?user_id={v.user_id}", {}),
        (f"/v1/events?item_id={v.item_id}", {}),
        (f"/v1/events?event_id={v.event_id}", {}),
    ],
    ("GET", "/v1/events/weights"): lambda v: [("/v1/events/weights", {})],
    ("PUT", "/v1/events/weights"): lambda v: [("/v1/events/weights", {"json": {"weights": {"view": 7}}})],
    ("PUT", "/v1/users/{user_id}"): lambda v: [
        (f"/v1/users/{v.user_id}", {"json": {"segments": ["mine"]}}),
        ("/v1/users/same", {"json": {"segments": ["mine"]}}),
    ],
    ("GET", "/v1/users/{user_id}"): lambda v: [(f"/v1/users/{v.user_id}", {}), ("/v1/users/same", {})],
    ("DELETE", "/v1/users/{user_id}"): lambda v: [(f"/v1/users/{v.user_id}", {}), ("/v1/users/same", {})],
    ("POST", "/v1/users/{user_id}/merge"): lambda v: [
        (f"/v1/users/{v.user_id}/merge", {"json": {"visitor_id": "same"}}),
        ("/v1/users/same/merge", {"json": {"visitor_id": v.user_id}}),
    ],
    ("GET", "/v1/segments"): lambda v: [("/v1/segments", {})],
    ("PUT", "/v1/segments/{segment_id}"): lambda v: [
        (f"/v1/segments/{v.segment_id}", {"json": {"filter": {"exists": "id"}}}),
        ("/v1/segments/same", {"json": {"filter": {"exists": "id"}}}),
    ],
    ("GET", "/v1/segments/{segment_id}"): lambda v: [
        (f"/v1/segments/{v.segment_id}?count=true", {}),
        ("/v1/segments/same?count=true", {}),
    ],
    ("DELETE", "/v1/segments/{segment_id}"): lambda v: [
        (f"/v1/segments/{v.segment_id}", {}),
        ("/v1/segments/same", {}),
    ],
    ("GET", "/v1/models"): lambda v: [("/v1/models", {})],
    ("POST", "/v1/models/train"): lambda v: [("/v1/models/train", {})],
    ("POST", "/v1/models/{model}/activate"): lambda v: [("/v1/models/1/activate", {}), ("/v1/models/2/activate", {})],
    ("GET", "/v1/webhooks"): lambda v: [("/v1/webhooks", {})],
    ("POST", "/v1/webhooks"): lambda v: [
        ("/v1/webhooks", {"json": {"url": "https://mine.example/", "events": ["job.finished"]}}),
    ],
    ("GET", "/v1/webhooks/{webhook_id}"): lambda v: [(f"/v1/webhooks/{v.webhook_id}", {})],
    ("PATCH", "/v1/webhooks/{webhook_id}"): lambda v: [
        (f"/v1/webhooks/{v.webhook_id}", {"json": {"url": "https://mine.example/", "enabled": False}}),
    ],
    ("DELETE", "/v1/webhooks/{webhook_id}"): lambda v: [(f"/v1/webhooks/{v.webhook_id}", {})],
    ("POST", "/v1/webhooks/{webhook_id}/rotate"): lambda v: [(f"/v1/webhooks/{v.webhook_id}/rotate", {"json": {}})],
    ("POST", "/v1/webhooks/{webhook_id}/test"): lambda v: [(f"/v1/webhooks/{v.webhook_id}/test", {})],
    ("GET", "/v1/webhooks/{webhook_id}/deliveries"): lambda v: [
        (f"/v1/webhooks/{v.webhook_id}/deliveries", {}),
        (f"/v1/webhooks/{v.webhook_id}/deliveries?status=failed&cursor={v.delivery_id}", {}),
    ],
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"): lambda v: [
        (f"/v1/webhooks/{v.webhook_id}/deliveries/{v.delivery_id}/replay", {}),
    ],
    ("POST", "/v1/webhooks/{webhook_id}/replay"): lambda v: [
        (f"/v1/webhooks/{v.webhook_id}/replay", {"json": {"since": _days(-9)}}),
    ],
    ("GET", "/v1/audit"): lambda v: [
        ("/v1/audit?limit=1000", {}),
        ("/v1/audit?action=key.create", {}),
        ("/v1/audit", {"headers": {"accept": "application/x-ndjson"}}),
        ("/v1/audit?action=placement.put", {"headers": {"accept": "application/x-ndjson"}}),
    ],
    ("DELETE", "/v1/tenant"): lambda v: [("/v1/tenant", {"json": {"name": v.shop_name}})],
    ("POST", "/v1/exports"): lambda v: [("/v1/exports", {})],
    ("GET", "/v1/exports"): lambda v: [("/v1/exports", {})],
    ("GET", "/v1/exports/{export_id}"): lambda v: [(f"/v1/exports/{v.export_id}", {})],
    ("GET", "/v1/exports/{export_id}/file"): lambda v: [(f"/v1/exports/{v.export_id}/file", {})],
    ("GET", "/v1/retention"): lambda v: [("/v1/retention", {})],
    ("PUT", "/v1/retention"): lambda v: [("/v1/retention", {"json": {"events": 1, "answers": 1}})],
    ("GET", "/v1/keys"): lambda v: [("/v1/keys", {})],
    ("POST", "/v1/keys"): lambda v: [("/v1/keys", {"json": {"name": "mine"}})],
    ("DELETE", "/v1/keys/{key_id}"): lambda v: [(f"/v1/keys/{v.key_id}", {})],
    ("PATCH", "/v1/keys/{key_id}"): lambda v: [(f"/v1/keys/{v.key_id}", {"json": {"name": "taken"}})],
    ("POST", "/v1/keys/{key_id}/rotate"): lambda v: [(f"/v1/keys/{v.key_id}/rotate", {"json": {"overlap_s": 0}})],
    ("GET", "/v1/visitor-secrets"): lambda v: [("/v1/visitor-secrets", {})],
    ("POST", "/v1/visitor-secrets"): lambda v: [("/v1/visitor-secrets", {})],
    ("DELETE", "/v1/visitor-secrets/{kid}"): lambda v: [("/v1/visitor-secrets/v1", {})],
}


def test_every_route_of_a_tenant_has_a_probe(app: Application) -> None:
    """A route that is added must say here how one tenant could aim it at another."""
    routes = {(each.method, each.path) for each in operations(app.framework) if each.scope != "public"}
    assert routes == PROBES.keys()


def test_public_routes_are_these(app: Application) -> None:
    """A new one is a decision. `/photos/{token}` shows a photo to whom an answer gave its signed address.

    Pages ask for a session themselves (tests/integration/api/accounts); `/v1` is signing up.
    """
    public = {
        route.path_format.split("/")[1]
        for route in app.framework.routes
        if isinstance(route, HTTPRoute) and any(each.opt.get("scope") == "public" for each in route.route_handlers)
    }
    doors = {"v1", "signup", "verify", "signin", "signout", "forgot", "reset", "email", "invitation", "console"}
    assert public == {"health", "docs", "openapi.json", "demo", "photos"} | doors
    api = {(each.method, each.path) for each in operations(app.framework) if each.scope == "public"}
    assert {each for each in api if each[1].startswith("/v1/")} == {
        ("POST", "/v1/signup"),
        ("POST", "/v1/signup/verify"),
    }


@pytest.mark.parametrize("route", PROBES, ids=lambda route: f"{route[0]} {route[1]}")
async def test_a_tenant_reaches_only_its_own(
    app: Application, attacker: Shop, victim: Victim, route: tuple[str, str]
) -> None:
    """No answer tells anything of the victim, and not one of its rows has changed."""
    before = await rows_of(app, victim.shop.tenant_id)
    for path, sent in PROBES[route](victim):
        answer = await attacker.client.request(route[0], path, **sent)
        assert answer.status_code < 500, answer.text
        assert_nothing_leaked(answer, victim)
    assert await rows_of(app, victim.shop.tenant_id) == before


@pytest.mark.parametrize("route", PROBES, ids=lambda route: f"{route[0]} {route[1]}")
async def test_every_route_needs_a_key(anonymous: httpx.AsyncClient, victim: Victim, route: tuple[str, str]) -> None:
    """401 before anything else."""
    for path, sent in PROBES[route](victim):
        assert (await anonymous.request(route[0], path, **sent)).status_code == 401


async def test_both_tenants_keep_their_own_item_of_one_id(attacker: Shop, victim: Victim) -> None:
    """Ids overlap and never meet."""
    mine = (await attacker.client.get("/v1/items/same")).json()
    theirs = (await victim.shop.client.get("/v1/items/same")).json()
    assert mine["title"] == "lamp mine"
    assert theirs["title"] == f"lamp {MARK}"


async def test_an_idempotency_key_is_one_of_its_tenant(attacker: Shop, victim: Victim) -> None:
    """The key that the victim has used, with the same body, is a first request of the attacker."""
    sent = {"json": {"url": f"https://{MARK}.example/f.csv"}, "headers": {"idempotency-key": "same"}}
    refused = await attacker.client.post("/v1/imports", **sent)
    assert refused.json()["code"] == "idempotency_key_reused"  # its own, of another body
    sent["headers"] = {"idempotency-key": "another"}
    theirs = await victim.shop.client.post("/v1/imports", **sent)
    mine = await attacker.client.post("/v1/imports", **sent)
    assert mine.status_code == theirs.status_code == 202
    assert mine.json() != theirs.json()
    assert "idempotent-replayed" not in mine.headers


async def test_a_photo_is_kept_per_tenant(app: Application, attacker: Shop, victim: Victim) -> None:
    """The same bytes in two shops lie in two places: deleting one harms no other."""
    photo = (await victim.shop.client.get(f"/v1/items/{_item(victim)}/images/0")).content
    headers = {"content-type": "image/jpeg"}
    stored = await attacker.client.put("/v1/items/same/images/0", content=photo, headers=headers)
    assert stored.status_code == 200
    await app.services.blobs.delete_prefix(f"tenants/{attacker.tenant_id}/")
    assert (await victim.shop.client.get(f"/v1/items/{_item(victim)}/images/0")).content == photo


@pytest.mark.parametrize("spoil", [lambda token: token[:-2], lambda token: "z" + token[1:], lambda token: token[::-1]])
async def test_an_address_of_a_photo_cannot_be_made_up(
    app: Application, anonymous: httpx.AsyncClient, victim: Victim, spoil: Callable[[str], str]
) -> None:
    """Only whole tokens that we signed open a photo."""
    listed = await victim.shop.client.get(f"/v1/items/{_item(victim)}")
    path = photo_path(app.services.secret.current, victim.shop.tenant_id, listed.json()["photos"][0]["sha256"])
    assert (await anonymous.get(path)).status_code == 200
    token = path.removeprefix("/photos/")
    assert (await anonymous.get(f"/photos/{spoil(token)}")).json()["code"] == "photo_not_found"
