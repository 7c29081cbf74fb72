"""The audit log in the database: noted with its change or not at all, sealed once, tampering found, old parts gone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from infra.db import Database, TenantId, driver
from infra.embedded import EmbeddedPostgres
from infra.roles import database_name, database_url
from tenants.audit import sealing
from tenants.audit.chain import check_export
from tenants.audit.log import SYSTEM, Wanted, list_entries, note
from tenants.audit.sealing import check, export_lines, prune, seal, unsealed_tenants

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
def tenant_id() -> TenantId:
    """A tenant of this test's own."""
    return TenantId(uuid4())


@pytest.fixture
async def tamper(
    database: Database, cluster: EmbeddedPostgres, anyio_backend: str
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Runs a statement as a superuser who has switched the triggers off: the worst that can be done."""
    url = database_url(cluster.superuser_url, database_name(database.url))
    connection = await asyncpg.connect(url, server_settings={"session_replication_role": "replica"})
    yield connection.execute
    await connection.close()


async def _note(database: Database, tenant_id: TenantId, *subjects: str, at: datetime = NOON) -> list[UUID]:
    async with database.tenant_session(tenant_id) as conn:
        return [
            await note(
                conn,
                tenant_id,
                SYSTEM,
                "thing.change",
                subject=subject,
                details={"n": 1.5},
                now=at + timedelta(microseconds=number),  # of one moment they are in the order of their random ids
            )
            for number, subject in enumerate(subjects)
        ]


async def _export(database: Database, tenant_id: TenantId) -> list[bytes]:
    return [line async for line in export_lines(database, tenant_id, now=NOON)]


async def test_an_entry_stands_or_falls_with_its_change(database: Database, tenant_id: TenantId) -> None:
    """A transaction that fails leaves none."""

    async def fail() -> None:
        async with database.tenant_session(tenant_id) as conn:
            await note(conn, tenant_id, SYSTEM, "thing.change", now=NOON)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await _export(database, tenant_id) == []
    await _note(database, tenant_id, "a")
    assert len(await _export(database, tenant_id)) == 1


async def test_entries_are_sealed_in_batches(database: Database, tenant_id: TenantId) -> None:
    """Each once, in the order of their time; the export of it all is checked without the database."""
    await _note(database, tenant_id, "b", at=NOON + timedelta(seconds=1))
    await _note(database, tenant_id, "a", "c", at=NOON)
    assert tenant_id in await unsealed_tenants(database)
    assert await seal(database, tenant_id, now=NOON, most=2) == 2
    assert await seal(database, tenant_id, now=NOON, most=2) == 1
    assert await seal(database, tenant_id, now=NOON) == 0
    assert tenant_id not in await unsealed_tenants(database)
    await _note(database, tenant_id, "d")
    checked = await check(database, tenant_id)
    assert (checked.first, checked.last, checked.entries, checked.unsealed) == (1, 2, 3, 1)
    assert checked.difference is None
    assert check_export(await _export(database, tenant_id)) == checked


async def test_a_transaction_that_commits_late_is_sealed_later(database: Database, tenant_id: TenantId) -> None:
    """Its entry is older than those of the seal before; nothing is left out for that."""
    async with database.tenant_session(tenant_id) as slow:
        await note(slow, tenant_id, SYSTEM, "thing.change", subject="slow", now=NOON)
        await _note(database, tenant_id, "quick", at=NOON + timedelta(seconds=1))
        assert await seal(database, tenant_id, now=NOON) == 1
    assert await seal(database, tenant_id, now=NOON) == 1
    checked = await check(database, tenant_id)
    assert (checked.entries, checked.unsealed, checked.difference) == (2, 0, None)


async def test_two_sealers_make_one_chain(database_url: str, tenant_id: TenantId, anyio_backend: str) -> None:
    """While entries are being noted; none is sealed twice, or forgotten."""
    databases = [Database(database_url, hot=0, sessions=2) for _ in range(3)]
    writing = asyncio.gather(*(_note(databases[0], tenant_id, str(number)) for number in range(30)))

    async def sealing(database: Database) -> None:
        while not writing.done():
            await seal(database, tenant_id, now=NOON, most=3)

    await asyncio.gather(writing, sealing(databases[1]), sealing(databases[2]))
    while await seal(databases[0], tenant_id, now=NOON):
        pass
    checked = await check(databases[0], tenant_id)
    assert (checked.entries, checked.unsealed, checked.difference) == (30, 0, None)
    for database in databases:
        await database.close()


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("update audit set subject = 'x' where tenant_id = $1 and audit_id = $2", 2),
        ("update audit set at = at + interval '1 microsecond' where tenant_id = $1 and audit_id = $2", 2),
        ("update audit set details = '{}' where tenant_id = $1 and audit_id = $2", 2),
        ("update audit set actor = 'else' where tenant_id = $1 and audit_id = $2", 2),
        ("update audit set network = 'x' where tenant_id = $1 and audit_id = $2", 2),
        ("delete from audit where tenant_id = $1 and audit_id = $2", 2),
        ("update audit_seals set ids = ids[2:2] || ids[1:1] || ids[3:3] where tenant_id = $1 and $2 = any(ids)", 1),
    ],
)
async def test_tampering_is_found_and_named(
    database: Database, tenant_id: TenantId, tamper: Any, statement: str, place: int
) -> None:
    """The first entry that differs, with its place and id, in the database and in its export."""
    ids = await _note(database, tenant_id, "a", "b", "c")
    await seal(database, tenant_id, now=NOON)
    await _note(database, tenant_id, "d")
    await seal(database, tenant_id, now=NOON)
    await tamper(statement, tenant_id, ids[1])
    found = (await check(database, tenant_id)).difference
    assert found is not None
    assert (found.seal, found.place) == (1, place)
    assert found.entry == ids[1]
    exported = check_export(await _export(database, tenant_id)).difference
    assert exported is not None
    assert (exported.seal, exported.place) == (1, place)


@pytest.mark.parametrize(
    ("statement", "seal_no"),
    [
        ("update audit_seals set previous = hash where tenant_id = $1 and seal = 1", 1),
        ("update audit_seals set sealed_at = sealed_at + interval '1 s' where tenant_id = $1 and seal = 2", 2),
        ("delete from audit_seals where tenant_id = $1 and seal = 2", 2),
    ],
)
async def test_a_changed_seal_is_found(
    database: Database, tenant_id: TenantId, tamper: Any, statement: str, seal_no: int
) -> None:
    """By its number."""
    for subject in "abc":
        await _note(database, tenant_id, subject)
        await seal(database, tenant_id, now=NOON)
    await tamper(statement, tenant_id)
    found = (await check(database, tenant_id)).difference
    assert found is not None
    assert found.seal == seal_no


async def test_an_entry_put_in_around_the_log_is_found(database: Database, tenant_id: TenantId, tamper: Any) -> None:
    """It is in no seal and waits for none; so is one that was taken away before it was sealed."""
    await _note(database, tenant_id, "a")
    await seal(database, tenant_id, now=NOON)
    forged = uuid4()
    await tamper(
        "insert into audit (tenant_id, audit_id, at, actor_kind, actor, action, subject, details) "
        "values ($1, $2, now(), 'key', 'k', 'key.create', '', '{}')",
        tenant_id,
        forged,
    )
    found = (await check(database, tenant_id)).difference
    assert found is not None
    assert (found.entry, found.message) == (forged, "The entry is in no seal, and was not noted by the log.")
    await tamper("delete from audit where tenant_id = $1 and audit_id = $2", tenant_id, forged)
    (gone,) = await _note(database, tenant_id, "b")
    await tamper("delete from audit where tenant_id = $1 and audit_id = $2", tenant_id, gone)
    assert await seal(database, tenant_id, now=NOON) == 0
    found = (await check(database, tenant_id)).difference
    assert found is not None
    assert (found.entry, found.message) == (gone, "The entry was noted, and is gone.")


async def test_old_entries_go_and_the_rest_is_a_chain(database: Database, tenant_id: TenantId) -> None:
    """Whole seals from the front; where all go, the next seal follows an empty one."""
    for number, days in enumerate((0, 100, 200)):
        at = NOON + timedelta(days=days)
        await _note(database, tenant_id, str(number), at=at)
        await seal(database, tenant_id, now=at)
    kept = timedelta(days=400)
    assert await prune(database, now=NOON + kept, kept=kept) == 0
    await prune(database, now=NOON + timedelta(days=150) + kept, kept=kept)
    checked = await check(database, tenant_id)
    assert (checked.first, checked.last, checked.entries, checked.difference) == (3, 3, 1, None)
    late = NOON + timedelta(days=1000)
    await prune(database, now=late, kept=kept)
    await prune(database, now=late + timedelta(days=500), kept=kept)
    checked = await check(database, tenant_id)
    assert (checked.first, checked.last, checked.entries, checked.difference) == (4, 4, 0, None)
    await _note(database, tenant_id, "new", at=late)
    await seal(database, tenant_id, now=late)
    checked = await check(database, tenant_id)
    assert (checked.first, checked.last, checked.entries, checked.difference) == (4, 5, 1, None)
    assert check_export(await _export(database, tenant_id)) == checked


async def _daily(database: Database, tenant_id: TenantId, *days: int) -> None:
    """A seal of one entry on each of these days."""
    for day in days:
        at = NOON + timedelta(days=day)
        await _note(database, tenant_id, f"day {day}", at=at)
        await seal(database, tenant_id, now=at)


async def test_what_goes_while_it_is_checked_is_no_tampering(
    database: Database, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check sees the log as it was at its beginning."""
    await _daily(database, tenant_id, 0, 1, 2, 3)
    real = sealing._next_seal

    async def read(raw: Any, tenant: TenantId, after: int) -> Any:
        found = await real(raw, tenant, after)
        if after == 0:
            await prune(database, now=NOON + timedelta(days=402))
        return found

    monkeypatch.setattr(sealing, "_next_seal", read)
    checked = await check(database, tenant_id)
    assert (checked.first, checked.last, checked.difference) == (1, 4, None)
    monkeypatch.undo()
    assert (await check(database, tenant_id)).first == 3


@pytest.mark.parametrize("begins", [401, 403, 1000])
async def test_what_goes_while_it_is_exported_is_not_missing(
    database: Database, tenant_id: TenantId, begins: int
) -> None:
    """However slowly it is read within a day: what is to go by then is not in it, so the file is a whole chain."""
    await _daily(database, tenant_id, 0, 1, 2, 3, 4)
    now = NOON + timedelta(days=begins)
    lines = []
    async for line in export_lines(database, tenant_id, now=now):
        if not lines:
            await prune(database, now=now + timedelta(hours=23))
        lines.append(line)
    checked = check_export(lines)
    assert (checked.first, checked.difference) == ({401: 3, 403: 5, 1000: 5}[begins], None)


async def test_entries_are_found_by_time_and_action(database: Database, tenant_id: TenantId) -> None:
    """The newest first; `end` is not among them; a page goes on after the last entry of the one before."""
    ids = []
    for hours in range(4):
        ids += await _note(database, tenant_id, str(hours), at=NOON + timedelta(hours=hours))
    async with database.tenant_session(tenant_id) as conn:
        await note(conn, tenant_id, SYSTEM, "other.do", now=NOON)
        first = await list_entries(conn, tenant_id, Wanted(action="thing.change"), limit=3)
        assert [entry.id for entry in first] == ids[:0:-1]
        rest = await list_entries(
            conn, tenant_id, Wanted(action="thing.change"), before=(first[-1].at, first[-1].id), limit=3
        )
        assert [entry.id for entry in rest] == ids[:1]
        window = Wanted(start=NOON + timedelta(hours=1), end=NOON + timedelta(hours=3))
        assert [entry.subject for entry in await list_entries(conn, tenant_id, window, limit=9)] == ["2", "1"]
        assert await (await driver(conn)).fetchval("select count(*) from audit where tenant_id = $1", tenant_id) == 5
