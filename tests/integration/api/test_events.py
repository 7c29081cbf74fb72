"""Events over HTTP: each has its outcome, what is accepted is stored, and no shop disturbs another."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest

from api.app import Application
from api.ingest import IngestBusy
from infra.db import driver
from tenants.events.event import EventRow
from tests.integration.api.conftest import MakeShop, Shop

pytestmark = pytest.mark.anyio

VISITOR = "3f0c2a9e5b7d41f8a6c4e2d09b8f7a61"


async def rows(app: Application, shop: Shop, sql: str) -> list[tuple[Any, ...]]:
    """What a statement of the tenant finds; `$1` is the tenant."""
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        return [tuple(record) for record in await (await driver(conn)).fetch(sql, shop.tenant_id)]


async def send(shop: Shop, *events: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The answer to these events, which is a 200."""
    answer = await shop.client.post("/v1/events", json={"events": list(events)}, **options)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


STORED = """
select e.type, s.kind, s.external_id, d.external_id, e.line, e.quantity, e.price, e.value, e.flags
from events e left join shopper_ids s on s.tenant_id = $1 and s.shopper_no = e.shopper_no
left join item_ids d on d.tenant_id = $1 and d.item_no = e.item_no
where e.tenant_id = $1 order by e.event_no, e.line
"""


async def test_events_are_stored_as_they_are_sent(app: Application, shop: Shop) -> None:
    """One row per item; shoppers and items that nobody knows get a number."""
    answer = await send(
        shop,
        {"type": "view", "visitor_id": VISITOR, "item_id": "a"},
        {
            "type": "purchase",
            "user_id": "u",
            "value": 500,
            "items": [{"id": "a", "quantity": 2, "price": 100}, {"id": "b", "quantity": 1, "price": 300}],
        },
        {"type": "search", "context": {"query": "lamp"}},
    )
    assert (answer["accepted"], answer["duplicate"], answer["rejected"]) == (3, 0, 0)
    assert await rows(app, shop, STORED) == [
        ("view", 0, VISITOR, "a", 0, None, None, None, 0),
        ("purchase", 1, "u", "a", 0, 2.0, 100, 500, 0),
        ("purchase", 1, "u", "b", 1, 1.0, 300, None, 0),
        ("search", None, None, None, 0, None, None, None, 0),
    ]


async def test_a_bad_event_loses_none_of_the_good_ones(app: Application, shop: Shop) -> None:
    """Every bad field is named, by index and pointer."""
    now = datetime.now(UTC)
    bad = [
        {"type": "view", "item_id": "x", "ts": (now + timedelta(minutes=6)).isoformat()},
        {"type": "view", "item_id": "x", "ts": (now - timedelta(days=1100)).isoformat()},
        {"type": "purchase", "items": [{"id": "x", "price": -1}]},
        {"type": "purchase", "items": [{"id": str(n)} for n in range(5000)]},
        {"type": "view", "item_id": "x\u0000"},
        {"type": "view", "item_id": "x" * 129},
        {"type": "view"},
        {"type": "Nice Type", "currency": "eur"},
        {"type": "view", "item_id": "x", "colour": "red"},
        {"type": "search", "context": {"query": "a\u0000b"}},
        "what",
    ]
    answer = await send(shop, *bad, {"type": "view", "item_id": "good"})  # type: ignore[arg-type]
    assert (answer["accepted"], answer["rejected"]) == (1, len(bad))
    named = [[fault["pointer"] for fault in result["error"]["errors"]] for result in answer["results"][:-1]]
    assert named == [
        ["/ts"],
        ["/ts"],
        ["/items/0/price"],
        ["/items"],
        ["/item_id"],
        ["/item_id"],
        ["/item_id"],
        ["/type", "/currency"],
        ["/colour"],
        ["/context"],
        [""],
    ]
    assert [row[3] for row in await rows(app, shop, STORED)] == ["good"]


async def test_a_repeat_is_a_duplicate(app: Application, shop: Shop) -> None:
    """In one call and in two; with another body it is told."""
    event = {"event_id": "e1", "type": "view", "item_id": "a", "user_id": "u"}
    first = await send(shop, event, event, {"type": "view", "item_id": "a", "user_id": "u"})
    assert [result["status"] for result in first["results"]] == ["accepted", "duplicate", "accepted"]
    second = await send(shop, event, {**event, "item_id": "b"})
    assert (second["accepted"], second["duplicate"]) == (0, 2)
    assert "warning" not in second["results"][0]
    assert second["results"][1]["warning"]["code"] == "other_body"
    assert len(await rows(app, shop, STORED)) == 2


async def test_two_shops_may_use_one_event_id(app: Application, make_shop: MakeShop) -> None:
    """It is unique per tenant."""
    one, two = await make_shop(), await make_shop()
    for shop in (one, two):
        answer = await send(shop, {"event_id": "e", "type": "view", "item_id": "a"})
        assert answer["accepted"] == 1


async def test_calls_at_once_are_stored_together(app: Application, make_shop: MakeShop) -> None:
    """Every one has its own answer, also where all name the same new ids and the same event."""
    shops = [await make_shop() for _ in range(3)]
    calls = [
        send(
            shop, {"event_id": "same", "type": "view", "item_id": "i", "user_id": "u"}, {"type": "view", "item_id": "j"}
        )
        for shop in shops
        for _ in range(8)
    ]
    answers = await asyncio.gather(*calls)
    assert sum(answer["accepted"] for answer in answers) == 3 * 8 + 3
    assert sum(answer["duplicate"] for answer in answers) == 3 * 7
    for shop in shops:
        assert len(await rows(app, shop, STORED)) == 9
        assert len(await rows(app, shop, "select 1 from shopper_ids where tenant_id = $1")) == 1


async def test_one_shops_poison_fails_nobody_else(app: Application, make_shop: MakeShop) -> None:
    """A row that PostgreSQL refuses is refused alone, and the rest of its own batch is stored."""
    good, bad = await make_shop(), await make_shop()

    def row(shop: Shop, number: int, **more: Any) -> list[EventRow]:
        at = more.pop("m", datetime.now(UTC))
        return [EventRow(t=shop.tenant_id, e=f"0198c0de-0000-7000-8000-{number:012x}", y="view", m=at, **more)]

    poison = row(bad, 3, m=datetime(1970, 1, 1, tzinfo=UTC))  # no partition takes it
    ingest = app.services.ingest
    outcomes = await asyncio.gather(
        ingest.take([row(good, 0)]),
        ingest.take([row(bad, 2), poison, row(bad, 4)]),
        ingest.take([row(good, 1)]),
    )
    assert [list(outcome.unstorable) for outcome in outcomes] == [[], [poison[0].e], []]
    assert len(await rows(app, good, "select 1 from events where tenant_id = $1")) == 2
    assert len(await rows(app, bad, "select 1 from events where tenant_id = $1")) == 2


async def test_the_end_of_the_process_stores_what_waits(app: Application, shop: Shop) -> None:
    """Also where nobody waits for the answer any more."""
    now = datetime.now(UTC)
    ingest = app.services.ingest
    batches = [
        [[EventRow(t=shop.tenant_id, e=f"0198c0de-0000-7000-8000-{number:012x}", y="view", m=now)]]
        for number in range(20)
    ]
    calls = [asyncio.create_task(ingest.take(batch)) for batch in batches]
    await asyncio.sleep(0)  # they have begun
    for call in calls:
        call.cancel()
    await ingest.close()
    assert await rows(app, shop, "select count(*) from events where tenant_id = $1") == [(20,)]


async def test_a_full_buffer_says_come_again(app: Application, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, and nothing of the call is stored."""
    monkeypatch.setattr("api.ingest.MAX_WAITING_BYTES", 400)
    event = {"type": "view", "item_id": "i", "user_id": "u"}
    await send(shop, event)
    answers = await asyncio.gather(*(shop.client.post("/v1/events", json={"events": [event] * 10}) for _ in range(20)))
    busy = [answer for answer in answers if answer.status_code == 503]
    assert busy
    assert busy[0].json()["code"] == IngestBusy.code
    assert busy[0].headers["retry-after"] == "1"
    stored = sum(answer.json()["accepted"] for answer in answers if answer.status_code == 200)
    assert len(await rows(app, shop, STORED)) == stored + 1


async def test_minutes_count_what_happened_to_an_item(app: Application, shop: Shop) -> None:
    """By type, and only what people did."""
    agent = {"context": {"user_agent": "Googlebot/2.1"}}
    await send(
        shop,
        *({"type": kind, "item_id": "i"} for kind in ("impression", "impression", "click", "view", "favorite")),
        {"type": "add_to_cart", "item_id": "i"},
        {"type": "purchase", "items": [{"id": "i"}, {"id": "j"}]},
        {"type": "view", "item_id": "i", **agent},
    )
    sums = "sum(impressions), sum(clicks), sum(views), sum(carts), sum(purchases)"
    assert await rows(app, shop, f"select {sums} from item_minutes where tenant_id = $1") == [(2, 1, 1, 1, 2)]
    flagged = "select count(*) from events where tenant_id = $1 and flags = 1"
    assert await rows(app, shop, flagged) == [(1,)]


async def test_a_call_over_its_limits_is_refused_whole(app: Application, shop: Shop) -> None:
    """1,000 events and 2 MB."""
    event = {"type": "view", "item_id": "i"}
    many = await shop.client.post("/v1/events", json={"events": [event] * 1001})
    assert (many.status_code, many.json()["code"]) == (413, "too_large")
    large = await shop.client.post("/v1/events", content=b" " * 2_000_001, headers={"content-type": "application/json"})
    assert large.status_code == 413
    assert await rows(app, shop, STORED) == []


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b"{", 400, None),
        (b"[1", 400, None),
        (b'{"events": 1}', 422, "/events"),
        (b'{"events": [], "more": 1}', 422, "/more"),
        (b"3", 422, "/events"),
    ],
)
async def test_a_body_that_is_no_batch(shop: Shop, body: bytes, status: int, pointer: str | None) -> None:
    """It is said what it lacks."""
    answer = await shop.client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert [fault["pointer"] for fault in answer.json().get("errors", [])] == ([pointer] if pointer else [])


async def test_one_event_needs_no_list(app: Application, shop: Shop) -> None:
    """And a bare list is understood as well."""
    event = {"type": "view", "item_id": "i"}
    assert (await shop.client.post("/v1/events", json=event)).json()["accepted"] == 1
    assert (await shop.client.post("/v1/events", json=[event, event])).json()["accepted"] == 2


async def test_a_body_of_google_analytics_is_understood(app: Application, shop: Shop) -> None:
    """Names, ids, amounts in major units and times in microseconds."""
    micros = int((datetime.now(UTC) - timedelta(hours=1)).timestamp() * 1_000_000)
    body = {
        "client_id": "123456.7890",
        "user_id": "u",
        "timestamp_micros": micros,
        "events": [
            {
                "name": "purchase",
                "params": {
                    "transaction_id": "T1",
                    "value": 72.05,
                    "currency": "EUR",
                    "items": [{"item_id": "a", "price": 30.03, "quantity": 2}, {"item_id": "b", "price": 11.99}],
                },
            },
            {"name": "search", "params": {"search_term": "lamp"}},
        ],
    }
    answer = await shop.client.post("/v1/events", json=body)
    assert answer.json()["accepted"] == 2, answer.text
    assert await rows(app, shop, STORED) == [
        ("purchase", 1, "u", "a", 0, 2.0, 3003, 7205, 0),
        ("purchase", 1, "u", "b", 1, None, 1199, None, 0),
        ("search", 1, "u", None, 0, None, None, None, 0),
    ]


async def test_a_dry_run_changes_nothing(app: Application, shop: Shop) -> None:
    """It says what a real one would."""
    answer = await send(shop, {"type": "view", "item_id": "i"}, {"type": "view"}, params={"dry_run": "true"})
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert await rows(app, shop, "select 1 from item_ids where tenant_id = $1") == []


# Publishable keys


@pytest.fixture
async def publishable(shop: Shop) -> str:
    """A publishable key of the shop."""
    made = await shop.client.post("/v1/keys", json={"kind": "publishable", "name": "web"})
    key: str = made.json()["key"]
    return key


BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"}


async def test_a_beacon_needs_no_header(
    app: Application, shop: Shop, anonymous: httpx.AsyncClient, publishable: str
) -> None:
    """The key in the query, and JSON as text/plain."""
    content = msgspec.json.encode({"events": [{"type": "view", "item_id": "i", "visitor_id": VISITOR}]})
    headers = {"content-type": "text/plain;charset=UTF-8", **BROWSER}
    answer = await anonymous.post(f"/v1/events?key={publishable}", content=content, headers=headers)
    assert answer.json()["accepted"] == 1
    assert await rows(app, shop, STORED) == [("view", 0, VISITOR, "i", 0, None, None, None, 0)]


async def test_a_secret_key_is_not_taken_from_an_address(shop: Shop, anonymous: httpx.AsyncClient) -> None:
    """Addresses are logged by others."""
    answer = await anonymous.post(f"/v1/events?key={shop.secret_key}", json={"events": []})
    assert answer.json()["code"] == "key_missing"


async def test_no_other_route_takes_a_key_in_the_query(anonymous: httpx.AsyncClient, publishable: str) -> None:
    """It is for beacons alone."""
    answer = await anonymous.post(f"/v1/recommend?key={publishable}", json={})
    assert answer.json()["code"] == "key_missing"


async def test_a_publishable_key_identifies_nobody(anonymous: httpx.AsyncClient, publishable: str) -> None:
    """A user is 403, a visitor's id that could be guessed is rejected."""
    path, view = f"/v1/events?key={publishable}", {"type": "view", "item_id": "i"}
    user = await anonymous.post(path, json={"events": [{**view, "user_id": "u"}]}, headers=BROWSER)
    assert (user.status_code, user.json()["code"]) == (403, "user_id_refused")
    events = [{**view, "visitor_id": given} for given in ("7", "1234567890", VISITOR, str(uuid4()), "x" * 22)]
    answer = await anonymous.post(path, json={"events": events}, headers=BROWSER)
    assert [result["status"] for result in answer.json()["results"]] == ["rejected", "rejected", *["accepted"] * 3]


@pytest.mark.parametrize(("agent", "flag"), [(BROWSER["user-agent"], 0), ("Mozilla/5.0 Googlebot/2.1", 1), ("", 1)])
async def test_a_browser_that_says_it_is_a_program(
    app: Application, shop: Shop, anonymous: httpx.AsyncClient, publishable: str, agent: str, flag: int
) -> None:
    """Its events are kept apart."""
    events = [{"type": "view", "item_id": "i", "visitor_id": VISITOR}]
    path = f"/v1/events?key={publishable}"
    await anonymous.post(path, json={"events": events}, headers={"user-agent": agent})
    assert await rows(app, shop, "select flags from events where tenant_id = $1") == [(flag,)]


async def test_a_shopper_faster_than_a_person_is_flagged(app: Application, shop: Shop) -> None:
    """From the event on that nobody can have done by hand; others are not."""
    await send(shop, *[{"type": "click", "item_id": "i", "user_id": "robot"}] * 310, {"type": "click", "item_id": "i"})
    assert await rows(app, shop, "select flags, count(*) from events where tenant_id = $1 group by 1 order by 1") == [
        (0, 301),
        (1, 10),
    ]


async def test_the_ingest_role_reads_and_writes_no_table(app: Application) -> None:
    """It has one function."""
    ingest = app.services.database.ingest
    for statement in ("select 1 from events", "select 1 from event_seen", "delete from events", "select 1 from items"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ingest.execute(statement)


async def test_a_history_is_queued(shop: Shop) -> None:
    """The job is there at once; a worker reads the file."""
    file = b"user_id,item_id,ts\nu,i,2025-12-01T00:00:00Z\n"
    answer = await shop.client.post("/v1/events/import?type=purchase&format=csv", content=file)
    assert answer.status_code == 202
    job = (await shop.client.get(answer.headers["location"])).json()
    assert (job["kind"], job["status"]) == ("events_import", "queued")
    assert (await shop.client.post("/v1/events/import", content=b"")).status_code == 400
    assert (await shop.client.post("/v1/events/import?type=Bad", content=file)).status_code == 422


async def test_a_lost_connection_is_replaced(app: Application, shop: Shop) -> None:
    """A call is refused with 503 at worst; those after it are taken, and nothing acknowledged is missing."""
    event = {"type": "view", "item_id": "i"}
    await send(shop, event)
    async with app.services.database.ingest.acquire() as connection:
        pid = connection.get_server_pid()
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        # A role may end its own sessions only, so the ingest role ends itself.
        assert await raw.fetchval("select count(*) from pg_stat_activity where pid = $1", pid) == 1
    with suppress(asyncpg.PostgresError, OSError):
        await app.services.database.ingest.execute("select pg_terminate_backend(pg_backend_pid())")
    taken = 1
    for _ in range(3):
        answer = await shop.client.post("/v1/events", json={"events": [event]})
        assert answer.status_code in (200, 503)
        taken += answer.status_code == 200
    assert answer.status_code == 200
    assert len(await rows(app, shop, STORED)) == taken
