"""/v1/retention, and that nothing older than its class's days is left after upkeep."""

import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from api.app import Application
from infra.blob import BlobStore
from infra.db import driver
from infra.partitions import ensure_partitions, floor_to, make_partition
from tenants.answers import first_id
from tenants.retention import CLASSES, kept
from tests.conftest import START
from tests.integration.api.conftest import Shop
from workers.jobs.upkeep import Upkeep

pytestmark = pytest.mark.anyio

Plant = Callable[[Any, Shop, datetime], Awaitable[None]]
Age = Callable[[Any, Shop], Awaitable[list[datetime]]]

_JOB: Final = (
    "insert into jobs (tenant_id, job_id, kind, status, payload, created_at, finished_at) "
    "values ($1, $2, 'import', $3, '{}', $4, $5)"
)


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """A database of the test's own: upkeep works on all tenants, and drops partitions."""
    return fresh_database_url


async def _event(raw: Any, shop: Shop, at: datetime) -> None:
    await make_partition(raw, "events", "month", floor_to("month", at))
    await raw.execute(
        "insert into events (tenant_id, ts, event_no, type) values ($1, $2, $3, 'view')",
        shop.tenant_id,
        at,
        _id(at),
    )


async def _answer(raw: Any, shop: Shop, at: datetime) -> None:
    await make_partition(raw, "answers", "month", floor_to("month", at))
    await raw.execute(
        "insert into answers (answer_id, tenant_id, kind, strategy, key_id, gen, request, items, scores, sources, "
        "flags, took_us) values ($1, $2, 0, 's', 'k', 1, '{}', '{}', '{}', '{}', '{}', 1)",
        _id(at),
        shop.tenant_id,
    )


async def _seen(raw: Any, shop: Shop, at: datetime) -> None:
    week = floor_to("week", at)
    await make_partition(raw, "event_seen", "week", week)
    await raw.execute(
        "insert into event_seen (tenant_id, event_id, week, body_hash, ts, event_no) values ($1, $2, $3, 'x', $4, $5)",
        shop.tenant_id,
        str(_id(at)),
        week.date(),
        at,
        _id(at),
    )


async def _minute(raw: Any, shop: Shop, at: datetime) -> None:
    await make_partition(raw, "item_minutes", "day", floor_to("day", at))
    await raw.execute(
        "insert into item_minutes (tenant_id, minute, item_no) values ($1, $2, 1) on conflict do nothing",
        shop.tenant_id,
        at,
    )


async def _fault(raw: Any, shop: Shop, at: datetime) -> None:
    # The fault is as old as its job's end; a held one has none.
    held = at.microsecond % 2 == 0
    job_id = _id(at)
    await raw.execute(_JOB, shop.tenant_id, job_id, "held" if held else "failed", at, None if held else at)
    await raw.execute(
        "insert into job_faults (tenant_id, job_id, seq, severity, code, pointer, message) "
        "values ($1, $2, 0, 'error', 'x', '/x', 'x')",
        shop.tenant_id,
        job_id,
    )


async def _job(raw: Any, shop: Shop, at: datetime) -> None:
    status = ("done", "failed", "cancelled", "held")[at.microsecond % 4]
    await raw.execute(_JOB, shop.tenant_id, _id(at), status, at, None if status == "held" else at)


async def _delivery(raw: Any, shop: Shop, at: datetime) -> None:
    event_id = _id(at)
    for statement in (
        "insert into webhook_events (tenant_id, event_id, type, data, at) values ($1, $2, 'job.finished', '{}', $3)",
        "insert into webhook_deliveries (tenant_id, endpoint_id, event_id, due, created_at) "
        "values ($1, $2, $2, $3, $3)",
        "insert into webhook_attempts (tenant_id, endpoint_id, event_id, attempt, at, duration_ms) "
        "values ($1, $2, $2, 1, $3, 1)",
    ):
        await raw.execute(statement, shop.tenant_id, event_id, at)


async def _change(raw: Any, shop: Shop, at: datetime) -> None:
    await raw.execute("insert into changes (tenant_id, kind, at) values ($1, 'retained', $2)", shop.tenant_id, at)


def _id(at: datetime) -> UUID:
    """A UUIDv7 of that moment."""
    return UUID(int=first_id(at).int | 0x7 << 76 | 0b10 << 62 | random.getrandbits(60))


_UUID_TIME: Final = "to_timestamp(('x' || substr(replace({}::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)"

# How something of an age is made, and which ages are there.
ROWS: dict[str, tuple[Plant, str]] = {
    "events": (_event, "select ts from events where tenant_id = $1"),
    "answers": (_answer, f"select {_UUID_TIME.format('answer_id')} from answers where tenant_id = $1"),
    "event_ids": (_seen, "select ts from event_seen where tenant_id = $1"),
    "minutes": (_minute, "select minute from item_minutes where tenant_id = $1"),
    "reports": (
        _fault,
        "select coalesce(j.finished_at, j.created_at) from job_faults f join jobs j on j.tenant_id = $1 "
        "and j.job_id = f.job_id where f.tenant_id = $1",
    ),
    "jobs": (_job, "select coalesce(finished_at, created_at) from jobs where tenant_id = $1 and kind = 'import'"),
    "deliveries": (
        _delivery,
        "select a.at from webhook_attempts a full join webhook_events e on e.tenant_id = a.tenant_id "
        "and e.event_id = a.event_id full join webhook_deliveries d on d.tenant_id = a.tenant_id "
        "and d.event_id = a.event_id where coalesce(a.tenant_id, e.tenant_id, d.tenant_id) = $1",
    ),
    "changes": (_change, "select at from changes where tenant_id = $1 and kind = 'retained'"),
}
FILES = {"uploads": "imports", "exports": "exports"}
ELSEWHERE = {"deleted_tenants"}
"""Tested in test_tenant.py."""


def test_every_class_with_days_is_tested() -> None:
    """A new class is planted here."""
    assert {each.name for each in CLASSES if each.days is not None} == ROWS.keys() | FILES.keys() | ELSEWHERE


def _ages(days: float) -> list[timedelta]:
    """Some on both sides, and those around the very end."""
    longest = timedelta(days=days)
    some = [longest * random.random() * 2 for _ in range(20)]
    around = [longest - timedelta(seconds=2), longest + timedelta(seconds=2), longest / 100, longest * 2]
    return [age + timedelta(microseconds=at) for at, age in enumerate(some + around)]


async def _tend(app: Application) -> None:
    services = app.services
    upkeep = Upkeep(
        services.database,
        services.blobs,
        clock=lambda: START,
        secret=services.secret,
        events_days=services.settings.events_retention_days,
    )
    for task in (upkeep.prune, upkeep.partitions, upkeep.retain, upkeep.sweep_files):
        await task()


@pytest.mark.parametrize("name", ROWS)
async def test_no_row_is_older_than_its_class(app: Application, shop: Shop, name: str) -> None:
    """And none of those that may stay is gone, but for what is dropped by whole partitions a little early: none is."""
    plant, ages = ROWS[name]
    longest = kept(name)
    planted = [START - age for age in _ages(longest.total_seconds() / 86_400)]
    async with app.services.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        await ensure_partitions(raw, START)
        for at in planted:
            await plant(raw, shop, at)
    await _tend(app)
    async with app.services.database.system_session(reason="test look") as conn:
        left = [record[0] for record in await (await driver(conn)).fetch(ages, shop.tenant_id)]
    assert [at for at in left if at < START - longest - timedelta(seconds=1)] == []
    strict = name not in ("event_ids", "minutes")
    young = [at for at in planted if at > START - longest + timedelta(seconds=1)]
    assert len(left) >= (len(young) if strict else len([at for at in young if at > START - longest / 3]))


@pytest.mark.parametrize("name", FILES)
async def test_no_file_is_older_than_its_class(app: Application, shop: Shop, name: str) -> None:
    """Whatever its job says; and one that no job needs goes after an hour."""
    blobs: BlobStore = app.services.blobs
    made = {}
    async with app.services.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        for at in [START - age for age in _ages(kept(name).days)]:
            number = _id(at)
            key = f"tenants/{shop.tenant_id}/{FILES[name]}/{number}"
            made[key] = at
            await blobs.put(key, b"x")
            await raw.execute(
                "insert into jobs (tenant_id, job_id, kind, status, payload, created_at, started_at, finished_at) "
                "values ($1, $2, $3, $4, jsonb_build_object('source', jsonb_build_object('key', $5::text)), $6, $6, "
                "$7)",
                shop.tenant_id,
                number,
                "import" if name == "uploads" else "export",
                "queued" if name == "uploads" else "done",
                key,
                at,
                None if name == "uploads" else at,
            )
    orphan = f"tenants/{shop.tenant_id}/{FILES[name]}/{_id(START - timedelta(hours=2))}"
    fresh = f"tenants/{shop.tenant_id}/{FILES[name]}/{_id(START - timedelta(minutes=50))}"
    for key in (orphan, fresh):
        await blobs.put(key, b"x")
    await _tend(app)
    left = {key async for key in blobs.iter_keys(f"tenants/{shop.tenant_id}/")}
    assert left == {key for key, at in made.items() if at > START - kept(name)} | {fresh}


async def test_a_tenant_may_have_less_kept(app: Application, shop: Shop) -> None:
    """Its own rows go earlier, to the day; another's stay."""
    stored = await shop.client.put("/v1/retention", json={"events": 30, "answers": 5})
    assert stored.status_code == 200, stored.text
    shown = {each["name"]: each for each in (await shop.client.get("/v1/retention")).json()["classes"]}
    assert (shown["events"]["days"], shown["events"]["most"]) == (30, 800)
    assert (shown["answers"]["days"], shown["answers"]["most"]) == (5, 92)
    assert shown["deleted_tenants"]["days"] == 7
    assert shown["people"]["days"] is None
    async with app.services.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        for days in (1, 4, 6, 29, 31):
            await _event(raw, shop, START - timedelta(days=days))
            await _answer(raw, shop, START - timedelta(days=days))
    await _tend(app)
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        for table, count in (("events", 4), ("answers", 2)):
            found = await raw.fetchval(f"select count(*) from {table} where tenant_id = $1", shop.tenant_id)
            assert (table, found) == (table, count)
    assert (await shop.client.put("/v1/retention", json={})).status_code == 200
    again = {each["name"]: each for each in (await shop.client.get("/v1/retention")).json()["classes"]}
    assert (again["events"]["days"], again["answers"]["days"]) == (800, 92)


async def _keep(app: Application, shop: Shop, chosen: str) -> None:
    """Have the shop keep what no call can set: a bundle of a stranger might."""
    async with app.services.database.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute(
            "update tenants set settings = jsonb_build_object('retention', $2::text::jsonb) where tenant_id = $1",
            shop.tenant_id,
            chosen,
        )


async def test_a_class_that_nobody_chooses_is_none(app: Application, shop: Shop) -> None:
    """The others hold."""
    await _keep(app, shop, '{"clicks": 30, "events": 20}')
    shown = await shop.client.get("/v1/retention")
    assert shown.status_code == 200, shown.text
    assert {each["name"]: each["days"] for each in shown.json()["classes"]}["events"] == 20


async def test_one_shop_stops_the_retention_of_no_other(
    app: Application, make_shop: Callable[[], Awaitable[Shop]]
) -> None:
    """Whatever stands in its settings: the next one's old rows go all the same."""
    shops = sorted([await make_shop() for _ in range(2)], key=lambda each: each.tenant_id)
    await _keep(app, shops[0], '{"events": "x"}')
    async with app.services.database.system_session(reason="test set-up") as conn:
        await _event(await driver(conn), shops[1], START - timedelta(days=801))
    await _tend(app)
    async with app.services.database.system_session(reason="test look") as conn:
        left = await (await driver(conn)).fetchval(
            "select count(*) from events where tenant_id = $1", shops[1].tenant_id
        )
    assert left == 0


@pytest.mark.parametrize(
    "body",
    [
        {"events": 801},
        {"answers": 93},
        {"events": 0},
        {"events": -1},
        {"events": "30"},
        {"events": 1.5},
        {"jobs": 3},
        [],
    ],
)
async def test_more_than_the_installation_keeps_is_refused(shop: Shop, body: Any) -> None:
    """422, by field; nothing is changed."""
    refused = await shop.client.put("/v1/retention", json=body)
    assert refused.status_code == 422
    assert (await shop.client.get("/v1/retention")).json()["classes"][0]["days"] == 800
