"""Rate limits, quotas and plans over HTTP, with the plans of the hosted service."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from api.app import Application
from api.limits import crowd as crowd_module
from api.limits import gate as gate_module
from billing import plans
from billing.plans import FREE, PRO
from infra.db import Database, driver
from tenants.keys import KeyRequest, create_key, find_key, make_key
from tenants.lifecycle import create_tenant, set_plan
from tenants.limits.gcra import Rate
from tenants.usage import load_stock
from tests.integration.api.conftest import MakeShop, Shop, anonymous, make_shop, started
from tests.isolation.test_limits import fields

__all__ = ["anonymous", "make_shop"]
pytestmark = pytest.mark.anyio


class _Still:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def still() -> _Still:
    return _Still()


@pytest.fixture
async def app(database_url: str, tmp_path: Path, anyio_backend: str, still: _Still) -> AsyncIterator[Application]:
    """The application as the hosted service runs it; the clock of its limits stands still."""
    async with started(database_url, tmp_path, entitlements="plans") as made:
        made.services.leases._clock = still
        made.services.leases._store._clock_us = lambda: round((still.now + 1_700_000_000) * 1e6)
        made.services.leases.start()
        yield made


async def _key(app: Application, shop: Shop, **wanted: Any) -> httpx.AsyncClient:
    """A client of the shop by a key of its own."""
    services = app.services
    async with services.database.tenant_session(shop.tenant_id) as conn:
        made = await create_key(
            conn,
            shop.tenant_id,
            KeyRequest(name="more", **wanted),
            secret=services.secret.current,
            cell="00",
            now=services.clock(),
        )
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://kindred",
        headers={"authorization": f"Bearer {made.key}"},
    )


async def _wait(app: Application, still: _Still, seconds: float) -> None:
    """Let time pass, while nothing is being told: the database's clock moves in the same moment."""
    async with app.services.leases._one:
        still.now += seconds


async def _statuses(client: httpx.AsyncClient, count: int, path: str = "/v1/keys") -> list[int]:
    return [(await client.get(path)).status_code for _ in range(count)]


async def test_the_headers_say_what_is_left(app: Application, shop: Shop) -> None:
    """Of the plan's limits and of the key's; each call costs one use of all."""
    first = fields(await shop.client.get("/v1/items"))
    second = fields(await shop.client.get("/v1/items"))
    assert {name: (limit["q"], limit["w"]) for name, limit in first.items()} == {
        "burst": (25, 1),
        "sustained": (600, 60),
        "key": (600, 60),
    }
    assert first["sustained"]["r"] == 59
    assert {name: first[name]["r"] - second[name]["r"] for name in first} == {"burst": 1, "sustained": 1, "key": 1}
    assert second["sustained"]["t"] == 1


async def test_too_fast_is_refused_until_it_may_go_on(app: Application, shop: Shop, still: _Still) -> None:
    """With the seconds to wait; after them it passes."""
    client = await _key(app, shop, rate_per_min=60)
    assert (await client.get("/v1/items")).status_code == 200
    assert (await client.get("/v1/items")).status_code == 200
    refused = await client.get("/v1/items")
    assert refused.status_code == 429
    told = refused.json()
    assert (told["code"], told["instance"]) == ("too_many_requests", "/v1/items")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
    assert fields(refused)["key"] == {"q": 60, "w": 60, "r": 0, "t": 2}
    assert refused.headers["x-request-id"] == told["request_id"]
    await _wait(app, still, 1)
    assert (await client.get("/v1/items")).status_code == 200
    assert (await client.get("/v1/items")).status_code == 429


async def test_a_refused_body_is_not_read(app: Application, shop: Shop) -> None:
    """It is answered before a byte of it has come."""
    client = await _key(app, shop, rate_per_min=30, scopes=["recommend"])
    assert (await client.post("/v1/recommend", json={})).status_code == 200
    read = 0
    headers = [(b"authorization", client.headers["authorization"].encode())]
    sent: list[Any] = []

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": "POST", "path": "/v1/recommend", "raw_path": b"/v1/recommend"}
    scope |= {"query_string": b"", "headers": headers, "client": ("127.0.0.1", 1)}
    await app(scope, receive, send)
    assert (sent[0]["status"], read) == (429, 0)


async def test_a_page_of_lists_costs_as_many(app: Application, shop: Shop) -> None:
    """One use for each list; where they do not fit, none is made."""
    client = await _key(app, shop, rate_per_min=600, scopes=["recommend"])
    await app.services.leases.settle()
    page = await client.post("/v1/recommend/batch", json={"requests": [{"strategy": "popular"}] * 12})
    assert page.status_code == 200
    assert fields(page)["key"]["r"] == 8
    refused = await client.post("/v1/recommend/batch", json={"requests": [{"strategy": "popular"}] * 12})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert fields(refused)["key"]["r"] == 7


async def test_a_page_larger_than_the_burst_passes_when_all_is_free(
    app: Application, shop: Shop, still: _Still
) -> None:
    """And is paid off afterwards; who keeps to `Retry-After` is not refused again."""
    client = await _key(app, shop, rate_per_min=300, scopes=["recommend"])
    lists = {"requests": [{"strategy": "popular"}] * 20}
    assert (await client.post("/v1/recommend/batch", json=lists)).status_code == 200
    refused = await client.post("/v1/recommend/batch", json=lists)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    await _wait(app, still, 4)
    assert (await client.post("/v1/recommend/batch", json={"requests": lists["requests"][:1]})).status_code == 200
    refused = await client.post("/v1/recommend/batch", json=lists)
    assert refused.status_code == 429
    await _wait(app, still, int(refused.headers["retry-after"]))
    assert (await client.post("/v1/recommend/batch", json=lists)).status_code == 200


async def test_a_large_body_costs_more(app: Application, shop: Shop) -> None:
    """By its length, which is known before it comes."""
    before = fields(await shop.client.get("/v1/items"))["sustained"]["r"]
    events = [{"type": "view", "item_id": "x" * 100, "user_id": "y" * 100} for _ in range(450)]
    body = msgspec.json.encode({"events": events})
    assert 100_000 <= len(body) < 120_000
    answered = await shop.client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert answered.status_code == 200, answered.text
    assert before - fields(answered)["sustained"]["r"] == 6


@pytest.mark.parametrize("path", ["/v1/items/bulk/", "/v1//items/bulk", "/v1/items/%62ulk/"])
async def test_a_slash_more_makes_no_call_cheaper(app: Application, shop: Shop, path: str) -> None:
    """However its path is written."""
    before = fields(await shop.client.get("/v1/items"))["sustained"]["r"]
    rows = [{"id": f"i-{n}", "title": "x" * 1000} for n in range(300)]
    answered = await shop.client.post(path, json=rows)
    assert (answered.status_code, answered.json()["accepted"]) == (200, 300)
    assert before - fields(answered)["sustained"]["r"] == 4


async def test_keys_of_one_shop_share_its_plan(app: Application, shop: Shop) -> None:
    """A second key is no second plan; another shop's is its own."""
    other = await _key(app, shop)
    taken = [await shop.client.get("/v1/items"), await other.get("/v1/items"), await other.get("/v1/items")]
    assert [fields(answer)["sustained"]["r"] for answer in taken] == [59, 58, 57]
    assert fields(taken[2])["key"]["r"] == 58


async def test_a_stranger_shares_a_limit_with_its_network(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not good is a stranger's; health is never refused."""
    monkeypatch.setattr(app.services.gate, "_strangers", Rate(name="network", quota=60, window_s=60, burst=3))

    def client(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 5)), base_url="http://kindred")

    # Networks that no other test comes from: what they used before is in the database.
    near, neighbour, far = client("198.18.2.7"), client("198.18.2.200"), client("198.19.2.7")
    bad = {"authorization": "Bearer sk_nothing"}
    assert (await near.get("/docs")).status_code == 200
    assert (await near.get("/v1/items", headers=bad)).status_code == 401
    assert (await neighbour.get("/docs")).status_code == 200
    assert (await neighbour.get("/docs")).status_code == 429
    assert (await near.get("/v1/items", headers=bad)).status_code == 429
    assert (await near.get("/health/live")).status_code == 200
    assert (await far.get("/docs")).status_code == 200


@pytest.mark.parametrize(
    ("method", "headers", "address"),
    [
        ("GET", {"authorization": "Bearer {key}"}, "198.18.11.7"),
        ("OPTIONS", {"authorization": "Bearer {key}"}, "198.18.12.7"),
        ("GET", {"cookie": "kindred={key}", "kindred-shop": str(uuid4())}, "198.18.13.7"),
    ],
    ids=["a key", "a key that asks for options", "a session"],
)
async def test_who_is_over_the_limit_of_a_network_is_not_looked_up(
    app: Application, monkeypatch: pytest.MonkeyPatch, method: str, headers: dict[str, str], address: str
) -> None:
    """However good the keys look that it makes up: the database hears of as many as may pass."""
    monkeypatch.setattr(app.services.gate, "_strangers", Rate(name="network", quota=60, window_s=60, burst=3))
    asked = _count_questions(app, monkeypatch)
    statuses = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 5)), base_url="http://kindred"
    ) as client:
        for _ in range(9):
            key = make_key("secret", cell="00")[0]
            sent = {name: value.format(key=key) for name, value in headers.items()}
            statuses.append((await client.request(method, "/v1/items", headers=sent)).status_code)
    assert statuses[3:] == [429] * 6
    assert 429 not in statuses[:3]
    assert len(asked) == (0 if method == "OPTIONS" else 3)


def _count_questions(app: Application, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """What the database is asked before it is known who asks, an entry each."""
    asked: list[None] = []

    def counted(real: Any) -> Any:
        def ask(*args: Any, **said: Any) -> Any:
            asked.append(None)
            return real(*args, **said)

        return ask

    database = app.services.database
    monkeypatch.setattr(database, "anonymous_session", counted(database.anonymous_session))
    monkeypatch.setattr("api.auth.find_key", counted(find_key))
    return asked


async def test_a_key_that_is_known_is_asked_about_whatever_its_network_did(
    app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its minute in the cache may be over; it was no stranger's, and others of the network may be."""
    assert (await shop.client.get("/v1/items")).status_code == 200
    monkeypatch.setattr(app.services.gate, "_strangers", Rate(name="network", quota=1, window_s=60, burst=1))
    app.services.gate._others.clear()
    monkeypatch.setattr(app.services.authenticator._cache, "_clock", lambda: float("inf"))
    assert await _statuses(shop.client, 3, "/v1/items") == [200] * 3


async def test_readiness_is_no_way_around_the_limit(
    app: Application, anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health is free for everybody, so those who ask at once, or within half a second, share one look."""
    assert (await anonymous.get("/health/ready")).status_code == 200
    asked = _count_questions(app, monkeypatch)
    monkeypatch.setattr("api.readiness.KEPT_S", 0.0)
    answers = await asyncio.gather(*(anonymous.get("/health/ready") for _ in range(20)))
    monkeypatch.setattr("api.readiness.KEPT_S", 3600.0)
    answers.append(await anonymous.get("/health/ready"))
    assert ({answer.status_code for answer in answers}, len(asked)) == ({200}, 1)
    monkeypatch.setattr("api.readiness.KEPT_S", 0.0)
    await anonymous.get("/health/ready")
    assert len(asked) == 2


async def test_another_plan_holds_within_a_second(app: Application, shop: Shop, database_url: str) -> None:
    """Told by another process through the change feed; no process is restarted."""
    assert fields(await shop.client.get("/v1/items"))["sustained"]["q"] == 600
    other = Database(database_url, hot=0)
    await set_plan(other, shop.tenant_id, "pro")
    await app.services.feed.poll()
    limits = fields(await shop.client.get("/v1/items"))
    assert limits["sustained"]["q"] == 6_000
    assert "key" not in limits
    await set_plan(other, shop.tenant_id, "free")
    await app.services.feed.poll()
    assert fields(await shop.client.get("/v1/items"))["sustained"]["q"] == 600
    await other.close()


async def test_when_the_database_is_away_calls_pass(
    app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is not asked, and that is counted."""
    client = await _key(app, shop, rate_per_min=60)
    assert (await client.get("/v1/items")).status_code == 200

    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(app.services.leases._store, "charge", refuse)
    with pytest.raises(ConnectionRefusedError):
        await app.services.leases.settle()
    assert await _statuses(client, 5, "/v1/items") == [200] * 5


def _plan(monkeypatch: pytest.MonkeyPatch, **quotas: int) -> None:
    """Let the free plan include less."""
    less = msgspec.structs.replace(
        FREE, quotas={**FREE.quotas, **{meter: plans._refuse(limit) for meter, limit in quotas.items()}}
    )
    monkeypatch.setattr(plans, "FREE", less)
    monkeypatch.setattr(plans, "PLANS", {**plans.PLANS, "free": less})


async def test_a_month_of_requests(app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 80 % on a header tells; beyond it is refused until the next month, and the plan that has more is named."""
    _plan(monkeypatch, requests=5)
    for _ in range(4):
        answered = await shop.client.post("/v1/recommend", json={"strategy": "popular"})
        assert answered.status_code == 200
    assert "kindred-quota" not in answered.headers
    await app.services.usage.flush()
    answered = await shop.client.get("/v1/items/none/similar")
    assert answered.headers["kindred-quota"] == '"requests";used=4;limit=5'
    for path, sent in (("/v1/recommend", {}), ("/v1/search", {"query": "lamp"}), ("/v1/rerank", {"item_ids": ["a"]})):
        refused = await shop.client.post(path, json=sent)
        assert (refused.status_code, refused.json()["code"]) == (429, "monthly_quota_reached")
        assert "pro has more" in refused.json()["detail"]
        assert 0 < int(refused.headers["retry-after"]) <= 31 * 86_400
    assert (await shop.client.get("/v1/items")).status_code == 200


async def test_the_tenant_is_told_once(app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row at 80 and one at 100 %, for mail and console to read."""
    _plan(monkeypatch, events=10)
    for count in (7, 2, 1):
        events = [{"type": "view", "item_id": "a", "visitor_id": "v"}] * count
        assert (await shop.client.post("/v1/events", json={"events": events})).json()["accepted"] == count
        await app.services.usage.flush()
    refused = await shop.client.post("/v1/events", json={"events": [{"type": "view", "item_id": "a"}]})
    assert refused.json()["code"] == "monthly_quota_reached"
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        rows = await (await driver(conn)).fetch(
            "select meter, percent, used, quota from quota_notices where tenant_id = $1 order by 1, 2", shop.tenant_id
        )
    assert [tuple(row) for row in rows] == [("events", 80, 9, 10), ("events", 100, 10, 10)]


async def test_what_is_billed_goes_on(app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is counted."""
    billed = msgspec.structs.replace(PRO, quotas={"requests": plans._bill(2)})
    monkeypatch.setattr(plans, "PLANS", {**plans.PLANS, "pro": billed})
    await set_plan(app.services.database, shop.tenant_id, "pro")
    for _ in range(4):
        assert (await shop.client.post("/v1/recommend", json={"strategy": "popular"})).status_code == 200
        await app.services.usage.flush()
    assert app.services.usage.used(shop.tenant_id, "requests") == 4


async def test_a_catalogue_has_room_for_so_many(app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """New items beyond are refused, whole calls at a time; those that are there may change."""
    _plan(monkeypatch, items=5)
    rows = [{"id": f"i{n}", "title": "lamp"} for n in range(4)]
    assert (await shop.client.post("/v1/items/bulk", json=rows)).json()["accepted"] == 4
    refused = await shop.client.post("/v1/items/bulk", json=[{"id": "i4"}, {"id": "i5"}, {"id": "i0"}])
    assert (refused.status_code, refused.json()["code"]) == (402, "quota_reached")
    assert "pro has more" in refused.json()["detail"]
    assert (await shop.client.put("/v1/items/i4", json={"title": "five"})).status_code == 201
    assert (await shop.client.put("/v1/items/i5", json={"title": "six"})).status_code == 402
    assert (await shop.client.put("/v1/items/i4", json={"title": "again"})).status_code == 200
    assert (await shop.client.delete("/v1/items/i0")).status_code == 204
    assert (await shop.client.put("/v1/items/i5", json={"title": "six"})).status_code == 201


async def test_who_adds_items_at_once_keeps_to_the_quota(
    app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several calls finds room for all of its rows; of each other nothing is stored."""
    _plan(monkeypatch, items=2_000)

    async def store(call: int) -> int:
        rows = [{"id": f"{call}-{number}"} for number in range(1_500)]
        answered = await shop.client.post("/v1/items/bulk", json=rows)
        assert answered.status_code == 200 or answered.json()["code"] == "quota_reached"
        return answered.status_code

    assert sorted(await asyncio.gather(*map(store, range(4)))) == [200, 402, 402, 402]
    _plan(monkeypatch, items=1_501)
    puts = [shop.client.put(f"/v1/items/more-{number}", json={}) for number in range(4)]
    assert sorted([each.status_code for each in await asyncio.gather(*puts)]) == [201, 402, 402, 402]
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        assert (await load_stock(conn, shop.tenant_id))["items"] == 1_501


async def test_placements_have_room_for_so_many(app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """402 beyond, with nothing stored; at once too."""
    _plan(monkeypatch, placements=1)
    assert (await shop.client.put("/v1/placements/home", json={})).status_code == 201
    assert (await shop.client.put("/v1/placements/home", json={})).status_code == 200
    assert (await shop.client.put("/v1/placements/cart", json={})).json()["code"] == "quota_reached"
    _plan(monkeypatch, placements=2)
    puts = [shop.client.put(f"/v1/placements/more-{number}", json={}) for number in range(4)]
    assert sorted([each.status_code for each in await asyncio.gather(*puts)]) == [201, 402, 402, 402]


async def test_usage_shows_it_all(app: Application, shop: Shop) -> None:
    """Limits, the month and what there is; also what was not added up yet."""
    await shop.client.post("/v1/items/bulk", json=[{"id": "a"}, {"id": "b"}])
    await shop.client.post("/v1/recommend/batch", json={"requests": [{"strategy": "popular"}] * 3})
    await app.services.usage.flush()
    await shop.client.post("/v1/recommend", json={"strategy": "popular"})
    await shop.client.post("/v1/recommend", json={"strategy": "none such"})
    told = (await shop.client.get("/v1/usage")).json()
    assert told["plan"] == "free"
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(told["period"]["begins"]) == month
    assert [limit["name"] for limit in told["rate_limits"]] == ["burst", "sustained", "key"]
    meters = {meter["meter"]: meter for meter in told["meters"]}
    assert meters["requests"] == {"meter": "requests", "used": 4, "limit": 50_000, "beyond": "refuse", "per": "month"}
    assert (meters["items"]["used"], meters["items"]["limit"], meters["items"]["per"]) == (2, 2_000, "total")


async def test_a_flood_of_refusals_is_one_line(
    app: Application, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """With how many there were, and no line of access for each."""
    client = await _key(app, shop, rate_per_min=30)
    await _statuses(client, 30, "/v1/items")
    counted = gate_module._refused._value.get()
    assert counted >= 29
    out = capsys.readouterr().out
    assert out.count("limits.refused") == 1
    assert out.count("http.request") == 1


async def test_nobody_is_limited_without_plans(database_url: str, tmp_path: Path) -> None:
    """As an installation of one's own runs, whatever a tenant's row says."""
    async with started(database_url, tmp_path / str(uuid4())) as own:
        tenant_id = await create_tenant(own.services.database, f"shop {uuid4()}", plan="free")
        plan = await own.services.entitlements.plan_of(tenant_id)
        assert (plan.rates, plan.key, plan.quotas) == ((), None, {})


async def test_so_many_at_once_and_no_more(
    app: Application, shop: Shop, make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one shop, by all its keys; another one's calls go on."""
    monkeypatch.setattr(crowd_module, "MAX_AT_ONCE", 2)
    await set_plan(app.services.database, shop.tenant_id, "pro")
    other, second = await make_shop(), await _key(app, shop)
    inside, go = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        inside.set()
        await go.wait()
        yield b"id,title\nA,Lamp\n"

    async def upload(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/imports", content=slow(), headers={"content-type": "text/csv"})

    waiting = []
    for client in (shop.client, second):
        waiting.append(asyncio.create_task(upload(client)))
        await inside.wait()
        inside.clear()
    refused = await shop.client.get("/v1/items")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_at_once")
    assert refused.headers["retry-after"] == "1"
    assert fields(refused)
    assert (await other.client.get("/v1/items")).status_code == 200
    go.set()
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [202, 202]
    assert (await shop.client.get("/v1/items")).status_code == 200


class _Slow:
    """Calls whose bodies have begun and do not end before they are told to."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._end = asyncio.Event()
        self._calls: list[asyncio.Task[int]] = []

    async def send(self, client: httpx.AsyncClient, path: str, *, count: int, address: str = "203.0.113.9") -> None:
        """So many; returns when each is being waited for, or answered."""
        for _ in range(count):
            waited = asyncio.Event()
            self._calls.append(asyncio.create_task(self._call(client, path, address, waited)))
            await waited.wait()

    async def end(self) -> list[int]:
        """The statuses of all."""
        self._end.set()
        return await asyncio.gather(*self._calls)

    async def _call(self, client: httpx.AsyncClient, path: str, address: str, waited: asyncio.Event) -> int:
        first = True
        status = 0

        async def receive() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"{", "more_body": True}
            waited.set()
            await self._end.wait()
            return {"type": "http.request", "body": b"}", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            waited.set()
            status = message.get("status", status)

        headers = [
            (b"authorization", client.headers["authorization"].encode()),
            (b"content-type", b"text/csv" if path == "/v1/imports" else b"application/json"),
            (b"content-length", b"2"),
        ]
        scope: Any = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
        await self._app({**scope, "query_string": b"", "headers": headers, "client": (address, 1)}, receive, send)
        return status


async def test_bodies_on_their_way_take_no_place_of_those_that_are_answered(app: Application, shop: Shop) -> None:
    """By the key that everybody reads in a page they come as slowly as one likes: the shop's server goes on."""
    await set_plan(app.services.database, shop.tenant_id, "enterprise")
    public, slow = await _key(app, shop, kind="publishable"), _Slow(app)
    for network in range(5):
        await slow.send(public, "/v1/recommend", count=30, address=f"203.0.{network}.9")
    assert (await shop.client.post("/v1/recommend", json={})).status_code == 200
    own = _Slow(app)
    await own.send(shop.client, "/v1/recommend/batch", count=101)
    assert (await shop.client.get("/v1/items")).status_code == 200
    # 25 of a network, 50 of all browsers, 100 of the shop's servers; the others are refused at once.
    assert sorted(Counter(await slow.end()).items()) == [(200, 50), (429, 100)]
    assert sorted(Counter(await own.end()).items()) == [(422, 100), (429, 1)]
    assert (await public.post("/v1/recommend", json={})).status_code == 200


async def test_files_that_are_being_sent_leave_places_for_calls(app: Application, shop: Shop) -> None:
    """They count as calls that are answered, but are 20 of the 100 at most."""
    await set_plan(app.services.database, shop.tenant_id, "pro")
    slow = _Slow(app)
    await slow.send(shop.client, "/v1/imports", count=21)
    assert (await shop.client.get("/v1/items")).status_code == 200
    assert sorted(Counter(await slow.end()).items()) == [(202, 20), (429, 1)]


async def test_a_call_whose_body_is_never_sent_is_counted_where_none_is_needed(
    app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its head says of a body: no call is answered beside the count."""
    monkeypatch.setattr(crowd_module, "MAX_AT_ONCE", 0)
    refused = await shop.client.request("GET", "/v1/items", content=b"a body")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_at_once")
