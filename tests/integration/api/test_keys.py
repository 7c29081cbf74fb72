"""/v1/keys, and what a key is worth."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.app import Application
from api.auth import Authenticator
from api.key_usage import KeyUsage
from infra.changes import ChangeFeed
from infra.db import Database
from infra.secret import Secret
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


async def test_a_change_of_a_key_answers_the_next_request(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    """Scopes, origins and end, in the process that took it; null takes a bound away, what is absent stays."""
    made = await _make(client, kind="publishable", allowed_origins=["https://a.example"], rate_per_min=6000)
    key, address = made["key"], f"/v1/keys/{made['info']['key_id']}"

    async def ask(origin: str) -> tuple[int, str | None]:
        answer = await anonymous.post(
            "/v1/recommend", json={"strategy": "new"}, headers={"x-api-key": key, "origin": origin}
        )
        return answer.status_code, answer.json().get("code")

    assert await ask("https://a.example") == (200, None)
    changed = await client.patch(address, json={"allowed_origins": ["https://B.example"], "name": "other"})
    assert (changed.status_code, changed.json()["allowed_origins"]) == (200, ["https://b.example"])
    assert (changed.json()["name"], changed.json()["rate_per_min"]) == ("other", 6000)
    assert await ask("https://a.example") == (403, "origin_refused")
    assert await ask("https://b.example") == (200, None)
    assert (await client.patch(address, json={"allowed_origins": None})).json()["allowed_origins"] is None
    assert await ask("https://c.example") == (200, None)
    await client.patch(address, json={"scopes": ["search"]})
    assert await ask("https://c.example") == (403, "scope_missing")
    assert (await client.patch(address, json={})).json()["scopes"] == ["search"]


async def test_a_change_of_a_key_reaches_the_other_processes(
    client: httpx.AsyncClient, app: Application, database: Database
) -> None:
    """By the change feed, as a revocation does."""
    made = await _make(client)
    feed = ChangeFeed(database)
    await feed.poll()
    other = Authenticator(database, feed, secret=app.services.secret, clock=app.services.clock)
    assert (await other.authenticate(made["key"], None)).rate_per_min is None
    await client.patch(f"/v1/keys/{made['info']['key_id']}", json={"rate_per_min": 7, "placements": ["home"]})
    await feed.poll()
    caller = await other.authenticate(made["key"], None)
    assert (caller.rate_per_min, caller.placements) == (7, frozenset({"home"}))
    await feed.close()


@pytest.mark.parametrize(
    ("patch", "status", "code"),
    [
        ({"name": None}, 422, "invalid_fields"),
        ({"name": ""}, 422, "invalid_fields"),
        ({"name": "a\u0000b"}, 422, "invalid_fields"),
        ({"scopes": []}, 422, "invalid_fields"),
        ({"scopes": ["recommend", "admin"]}, 422, "scopes_too_wide"),
        ({"scopes": ["everything"]}, 422, "invalid_fields"),
        ({"kind": "secret"}, 422, "invalid_fields"),
        ({"allowed_origins": ["shop.example"]}, 422, "invalid_fields"),
        ({"allowed_origins": ["https://shop.example/path"]}, 422, "invalid_fields"),
        ({"rate_per_min": 0}, 422, "invalid_fields"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "invalid"),
        ({"expires_at": "tomorrow"}, 422, "invalid_fields"),
    ],
)
async def test_a_bad_change_changes_nothing(
    client: httpx.AsyncClient, patch: dict[str, Any], status: int, code: str
) -> None:
    """Whatever is wrong with it."""
    made = await _make(client, kind="publishable")
    answer = await client.patch(f"/v1/keys/{made['info']['key_id']}", json=patch)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert made["info"] in (await client.get("/v1/keys")).json()["keys"]


async def test_a_rotated_key_overlaps_the_old_one(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, app: Application, database: Database
) -> None:
    """The new one may do the same; the old one works on for as long as was said, and no longer."""
    wanted = {"kind": "publishable", "scopes": ["recommend"], "placements": ["home"], "rate_per_min": 9}
    old = await _make(client, **wanted, allowed_origins=["https://shop.example"])
    answer = await client.post(f"/v1/keys/{old['info']['key_id']}/rotate", json={"overlap_s": 60})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    new = answer.json()
    for name in ("kind", "name", "scopes", "placements", "allowed_origins", "rate_per_min", "expires_at"):
        assert new["info"][name] == old["info"][name]
    moment = [datetime.now(UTC)]
    later = Authenticator(database, app.services.feed, secret=app.services.secret, clock=lambda: moment[0])
    for key in (old["key"], new["key"]):
        assert (await later.authenticate(key, "https://shop.example")).scopes == {"recommend"}
    moment[0] += timedelta(seconds=61)
    await later.authenticate(new["key"], "https://shop.example")
    with pytest.raises(Exception, match="expired at"):
        await later.authenticate(old["key"], "https://shop.example")


async def test_a_leaked_key_is_replaced_at_once(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """With no overlap the old one is refused by the next request; a dead key is neither rotated nor changed."""
    old = await _make(client)
    assert (await _try(anonymous, old["key"]))[0] == 200
    address = f"/v1/keys/{old['info']['key_id']}"
    new = (await client.post(f"{address}/rotate", json={"overlap_s": 0})).json()
    assert await _try(anonymous, old["key"]) == (401, "key_expired")
    assert (await _try(anonymous, new["key"]))[0] == 200
    for answer in (await client.post(f"{address}/rotate", json={}), await client.patch(address, json={"name": "x"})):
        assert (answer.status_code, answer.json()["code"]) == (409, "key_not_live")


@pytest.mark.parametrize("body", [{"overlap_s": -1}, {"overlap_s": 30 * 86_400 + 1}, {"overlap_s": "1"}, {"x": 1}])
async def test_an_overlap_has_limits(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Thirty days; and an unknown field is no wish that is silently dropped."""
    old = await _make(client)
    answer = await client.post(f"/v1/keys/{old['info']['key_id']}/rotate", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_fields")


async def test_a_key_for_a_time_is_rotated_for_the_same_time(client: httpx.AsyncClient) -> None:
    """It does not become eternal by the way."""
    old = await _make(client, expires_at=(datetime.now(UTC) + timedelta(days=3)).isoformat())
    new = (await client.post(f"/v1/keys/{old['info']['key_id']}/rotate", json={})).json()["info"]
    lives = [
        datetime.fromisoformat(each["expires_at"]) - datetime.fromisoformat(each["created_at"])
        for each in (old["info"], new)
    ]
    assert lives[0] == lives[1]


@pytest.mark.parametrize(("method", "path"), [("PATCH", ""), ("POST", "/rotate")])
async def test_a_key_that_there_is_not_is_not_changed(client: httpx.AsyncClient, method: str, path: str) -> None:
    """404."""
    answer = await client.request(method, f"/v1/keys/none{path}", json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")


async def test_the_last_use_of_a_key_is_noted_in_batches(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, app: Application
) -> None:
    """By the hour, with the host of the page or a hash of the network, in one statement for all keys, and no address
    is kept."""
    page, server = await _make(client, kind="publishable"), await _make(client)

    async def listed() -> dict[str, dict[str, Any]]:
        return {each["key_id"]: each for each in (await client.get("/v1/keys")).json()["keys"]}

    for _ in range(3):
        await anonymous.post(
            "/v1/recommend",
            json={"strategy": "new"},
            headers={"x-api-key": page["key"], "origin": "https://shop.example"},
        )
        await _try(anonymous, server["key"])
    assert (await listed())[page["info"]["key_id"]]["last_used_at"] is None
    await app.services.key_usage.flush()
    seen = await listed()
    by_page, by_server = (seen[made["info"]["key_id"]] for made in (page, server))
    assert by_page["last_used_from"] == "shop.example"
    assert by_server["last_used_from"].startswith("network ")
    assert "127.0.0" not in str(seen)
    used = datetime.fromisoformat(by_page["last_used_at"])
    assert (used.minute, used.second) == (0, 0)
    assert timedelta() <= datetime.now(UTC) - used < timedelta(hours=1, minutes=1)


def _from(address: str | None) -> dict[str, Any]:
    """A connection from there (ASGI)."""
    return {"client": None if address is None else (address, 40_000), "headers": []}


async def test_a_key_is_noted_once_a_minute_at_most(
    client: httpx.AsyncClient, app: Application, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is used, by this process."""
    made = await _make(client)
    caller = await app.services.authenticator.authenticate(made["key"], None)
    tick = [0.0]
    usage = KeyUsage(database, secret=app.services.secret, clock=app.services.clock, ticks=lambda: tick[0])
    written: list[int] = []

    async def store(_: Any, uses: list[Any]) -> None:
        written.append(len(uses))

    monkeypatch.setattr("api.key_usage.store_key_uses", store)
    for tick[0] in (0.0, 30.0, 59.9):
        usage.note(caller, None, _from("10.1.2.3"))
        await usage.flush()
    assert written == [1]
    tick[0] = 60.0
    usage.note(caller, None, _from("10.1.2.3"))
    await usage.close()
    assert written == [1, 1]


@pytest.mark.parametrize(
    ("origin", "address", "place"),
    [
        ("https://Shop.example:8443", "10.0.0.1", "shop.example"),
        ("null", "10.0.0.1", "unknown page"),
        ("http://[broken", None, "unknown"),
        (None, None, "unknown"),
        (None, "unix", "unknown"),
    ],
)
async def test_where_a_key_was_used_is_told_coarsely(
    app: Application, database: Database, origin: str | None, address: str | None, place: str
) -> None:
    """Whatever a header or a peer says; and one network is one hash."""
    usage = KeyUsage(database, secret=app.services.secret, clock=app.services.clock)
    assert usage.place(origin, _from(address)) == place
    near, same, far = (usage.place(None, _from(each)) for each in ("10.1.2.3", "10.1.2.99", "10.1.3.3"))
    assert near == same != far
    assert usage.place(None, _from("2001:db8:1:2::1")) == usage.place(None, _from("2001:db8:1:3::1"))


async def test_a_key_is_hashed_anew_under_a_new_secret_when_it_is_used(
    client: httpx.AsyncClient, app: Application, database: Database
) -> None:
    """It is found under the old one once; from then on the old secret is not needed for it."""
    made = await _make(client)
    old, new = app.services.secret, Secret(current=b"n" * 32)
    changing = Secret(current=new.current, others=old.every)

    def knowing(secret: Secret) -> Authenticator:
        return Authenticator(database, app.services.feed, secret=secret, clock=app.services.clock)

    with pytest.raises(Exception, match="of no tenant"):
        await knowing(new).authenticate(made["key"], None)
    assert (await knowing(changing).authenticate(made["key"], None)).key_id == made["info"]["key_id"]
    assert (await knowing(new).authenticate(made["key"], None)).key_id == made["info"]["key_id"]
    with pytest.raises(Exception, match="of no tenant"):
        await knowing(old).authenticate(made["key"], None)


async def test_a_key_narrowed_to_placements_asks_for_nothing_else(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    """No strategy of its own, not even beside its placement; no search, no rerank, no list without a placement."""
    for name in ("home", "other"):
        body = {"defaults": {"strategy": "popular"}, "sources": [{"strategy": "new"}]}
        assert (await client.put(f"/v1/placements/{name}", json=body)).status_code == 201
    key = (await _make(client, kind="publishable", placements=["home"]))["key"]
    headers = {"x-api-key": key}

    async def ask(path: str, body: dict[str, Any]) -> tuple[int, str | None]:
        answer = await anonymous.post(path, json=body, headers=headers)
        return answer.status_code, answer.json().get("code")

    refused = (403, "placement_refused")
    assert await ask("/v1/recommend", {"placement": "home"}) == (200, None)
    for body in (
        {"placement": "other"},
        {"placement": "none"},
        {"strategy": "popular"},
        {"placement": "home", "strategy": "popular"},
        {"placement": "home", "strategy": None},
        {},
    ):
        assert await ask("/v1/recommend", body) == refused, body
        page = await anonymous.post("/v1/recommend/batch", json={"requests": [body]}, headers=headers)
        assert [each["code"] for each in page.json()["results"]] == ["placement_refused"], body
    assert (await ask("/v1/recommend", {"placement": "home", "sources": []}))[0] == 422
    assert await ask("/v1/search", {"query": "lamp"}) == refused
    assert await ask("/v1/rerank", {"item_ids": ["x"]}) == refused
    for path in ("/v1/trending", "/v1/items/x/similar", "/v1/users/u/recommendations"):
        answer = await anonymous.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == refused, path
    events = [{"type": "impression", "item_id": "x", "placement": name} for name in ("home", "other")]
    counted = (await anonymous.post("/v1/events", json={"events": events}, headers=headers)).json()
    assert (counted["accepted"], counted["rejected"]) == (1, 1)
    assert counted["results"][1]["error"]["errors"][0]["code"] == "placement_refused"


async def test_two_keys_in_one_request_are_refused(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """One twice is one."""
    one, two = (await _make(client))["key"], (await _make(client))["key"]
    assert await _try(anonymous, one, **{"x-api-key": two}) == (401, "ambiguous_key")
    assert (await _try(anonymous, one, **{"x-api-key": one}))[0] == 200
