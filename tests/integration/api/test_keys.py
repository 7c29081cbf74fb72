"""/v1/keys, and what a key is worth."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.app import Application
from api.auth import Authenticator
from infra.changes import ChangeFeed
from infra.db import Database
from tenants.deletion import delete_tenant
from tenants.keys import make_key

pytestmark = pytest.mark.anyio


async def _make(client: httpx.AsyncClient, **wanted: Any) -> dict[str, Any]:
    answer = await client.post("/v1/keys", json={"name": "made", **wanted})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def _try(anonymous: httpx.AsyncClient, key: str, **headers: str) -> tuple[int, str]:
    answer = await anonymous.get("/v1/items", headers={"authorization": f"Bearer {key}", **headers})
    return answer.status_code, answer.json().get("code", "")


async def test_a_made_key_works(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """It is shown once and may do what its kind may."""
    made = await _make(client)
    assert made["key"].startswith("sk_00")
    assert "admin" not in made["info"]["scopes"]
    assert (await _try(anonymous, made["key"]))[0] == 200
    listed = (await client.get("/v1/keys")).json()["keys"]
    assert made["info"] in listed
    assert made["key"] not in str(listed)


async def test_a_revoked_key_stops_at_once(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """In the process that revoked it, the next request is refused."""
    made = await _make(client)
    assert (await _try(anonymous, made["key"]))[0] == 200
    assert (await client.delete(f"/v1/keys/{made['info']['key_id']}")).status_code == 204
    assert await _try(anonymous, made["key"]) == (401, "key_revoked")


async def test_a_revocation_reaches_the_other_processes(
    client: httpx.AsyncClient, app: Application, database: Database
) -> None:
    """By the change feed: the poll after the commit drops the cached key."""
    made = await _make(client)
    feed = ChangeFeed(database)
    await feed.poll()
    other = Authenticator(database, feed, secret=app.services.secret, clock=app.services.clock)
    assert (await other.authenticate(made["key"], None)).key_id == made["info"]["key_id"]
    await client.delete(f"/v1/keys/{made['info']['key_id']}")
    await feed.poll()
    with pytest.raises(Exception, match="was revoked"):
        await other.authenticate(made["key"], None)
    await feed.close()


async def test_a_cached_key_is_not_asked_for_again(
    client: httpx.AsyncClient, app: Application, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the feed is fresh; a stale feed makes every request ask."""
    made = await _make(client)
    asked = []

    async def find_key(*arguments: Any) -> None:
        asked.append(arguments)

    await app.services.authenticator.authenticate(made["key"], None)
    monkeypatch.setattr("api.auth.find_key", find_key)
    await app.services.authenticator.authenticate(made["key"], None)
    assert asked == []
    monkeypatch.setattr(ChangeFeed, "fresh", False)
    with pytest.raises(Exception, match="of no tenant"):
        await app.services.authenticator.authenticate(made["key"], None)
    assert len(asked) == 1


async def test_an_expired_key_is_refused(client: httpx.AsyncClient, app: Application, database: Database) -> None:
    """Also one that was cached while it was good."""
    now = datetime.now(UTC)
    made = await _make(client, expires_at=(now + timedelta(hours=1)).isoformat())
    moment = [now]
    authenticator = Authenticator(database, app.services.feed, secret=app.services.secret, clock=lambda: moment[0])
    await authenticator.authenticate(made["key"], None)
    moment[0] = now + timedelta(hours=1)
    with pytest.raises(Exception, match="expired at"):
        await authenticator.authenticate(made["key"], None)


async def test_a_key_cannot_expire_in_the_past(client: httpx.AsyncClient) -> None:
    """A typing error in the year makes no dead key."""
    answer = await client.post("/v1/keys", json={"name": "x", "expires_at": "2020-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/expires_at")


async def test_a_publishable_key_takes_no_other_scopes(client: httpx.AsyncClient) -> None:
    """Everybody can read it."""
    answer = await client.post(
        "/v1/keys", json={"name": "x", "kind": "publishable", "scopes": ["recommend", "catalog:write"]}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "scopes_too_wide")


async def test_a_publishable_key_may_not_read_the_catalogue(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    """Recommendations and search only."""
    made = await _make(client, kind="publishable")
    assert await _try(anonymous, made["key"]) == (403, "scope_missing")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://shop.example"}, 200),
        ({"origin": "https://SHOP.example"}, 200),
        ({"origin": "https://evil.example"}, 401),
        ({}, 401),
    ],
)
async def test_a_publishable_key_is_bound_to_its_origins(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    """403 from pages of other origins, and where no origin is named."""
    made = await _make(client, kind="publishable", allowed_origins=["https://Shop.example"])
    answer = await anonymous.post(
        "/v1/recommend", json={"strategy": "new"}, headers={"x-api-key": made["key"], **headers}
    )
    expected = (200, None) if status == 200 else (403, "origin_refused")
    assert (answer.status_code, answer.json().get("code")) == expected


async def test_what_is_no_key_is_told_apart(anonymous: httpx.AsyncClient) -> None:
    """Missing, mistyped, unknown: each says what to do."""
    assert (await anonymous.get("/v1/items")).json()["code"] == "key_missing"
    assert await _try(anonymous, "sk_short") == (401, "mistyped_key")
    assert await _try(anonymous, make_key("secret", cell="00")[0]) == (401, "key_unknown")


async def test_only_admin_manages_keys(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """A key without the scope can neither list, make nor revoke."""
    made = await _make(client)
    headers = {"x-api-key": made["key"]}
    for method, path in (("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/x")):
        assert (await anonymous.request(method, path, headers=headers)).status_code == 403


async def test_an_unknown_key_id_is_not_found(client: httpx.AsyncClient) -> None:
    """404."""
    assert (await client.delete("/v1/keys/none")).json()["code"] == "key_not_found"


async def test_the_keys_of_a_deleted_tenant_stop(
    client: httpx.AsyncClient, app: Application, anonymous: httpx.AsyncClient
) -> None:
    """As if they had never been."""
    made = await _make(client)
    caller = await app.services.authenticator.authenticate(made["key"], None)
    async with app.services.database.tenant_session(caller.tenant_id) as conn:
        await delete_tenant(conn, caller.tenant_id, now=app.services.clock(), grace=timedelta(days=7))
    await app.services.feed.poll()
    assert await _try(anonymous, made["key"]) == (401, "key_unknown")
