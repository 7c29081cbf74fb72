"""Every table, as every role, by plain SQL without a predicate: made from PostgreSQL's catalog."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest

from api.app import Application
from infra.db import driver
from infra.roles import APP, INGEST, OWNER, role_url
from tests.conftest import START
from tests.integration.api.conftest import Shop
from tests.isolation.conftest import Victim, tenant_tables

pytestmark = pytest.mark.anyio

LOOKED_UP: Final = {"api_keys", "event_seen", "item_minutes", "tenants"}
"""Tables that the owner's functions read: a key by its hash, before its tenant is known; events that were taken before,
and the counts that they add to."""

AS_OWNER: Final = {
    "admit_attempt": "kindred_app",
    "drop_partition": "kindred_system",
    "find_identity": "kindred_app",
    "find_key": "kindred_app",
    "find_person": "kindred_app",
    "find_session": "kindred_app",
    "find_signup": "kindred_app",
    "find_token": "kindred_app",
    "make_partition": "kindred_system",
    "organisation_of_issuer": "kindred_app",
    "people_of_organisation": "kindred_app",
    "plans_of_organisation": "kindred_app",
    "shops_of_organisation": "kindred_app",
    "spend_token": "kindred_app",
    "take_events": "kindred_ingest",
    "take_own_events": "kindred_app",
    "void_tokens": "kindred_app",
}
"""Functions that run with the owner's rights, and who may call them. A new one is a decision."""


@asynccontextmanager
async def _as(app: Application, role: str) -> AsyncIterator[Any]:
    """A connection of a role, in a transaction that is taken back."""
    connection = await asyncpg.connect(role_url(app.services.database.direct_url, role))
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def _tables(app: Application) -> list[str]:
    async with app.services.database.system_session(reason="test look") as conn:
        return await tenant_tables(await driver(conn))


async def _every_table(app: Application) -> list[str]:
    """Tables and partitions, whoever's they are."""
    async with app.services.database.system_session(reason="test look") as conn:
        records = await (await driver(conn)).fetch(
            "select relname from pg_class "
            "where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')"
        )
    return [record["relname"] for record in records]


async def test_the_application_reads_its_tenants_rows_alone(app: Application, attacker: Shop, victim: Victim) -> None:
    """Of each table every row that it sees is its own, and some are: the test sees what there is."""
    async with _as(app, APP) as raw:
        await raw.execute("select set_config('app.tenant_id', $1, true)", str(attacker.tenant_id))
        for table in await _tables(app):
            seen = await raw.fetch(f"select distinct tenant_id from {table}")
            assert [record["tenant_id"] for record in seen] == [attacker.tenant_id], table


@pytest.mark.parametrize("said", ["", "00000000-0000-0000-0000-000000000000", None])
async def test_the_application_without_a_tenant_reads_nothing(
    app: Application, victim: Victim, said: str | None
) -> None:
    """Not set, set to nothing, set to nobody."""
    async with _as(app, APP) as raw:
        if said is not None:
            await raw.execute("select set_config('app.tenant_id', $1, true)", said)
        for table in await _tables(app):
            assert (table, await raw.fetchval(f"select count(*) from {table}")) == (table, 0)


async def test_the_application_joins_no_other_tenants_rows(app: Application, attacker: Shop, victim: Victim) -> None:
    """Nor by a subquery, a lateral or a union over tables, which a forgotten predicate looks like."""
    tables = await _tables(app)
    union = " union all ".join(f"select tenant_id from {table}" for table in tables)
    async with _as(app, APP) as raw:
        await raw.execute("select set_config('app.tenant_id', $1, true)", str(attacker.tenant_id))
        assert await raw.fetchval(f"select count(*) from ({union}) u where tenant_id <> $1", attacker.tenant_id) == 0
        for table in tables:
            joined = await raw.fetchval(
                f"select count(*) from items i join lateral (select tenant_id from {table}) o on true "
                "where o.tenant_id <> i.tenant_id"
            )
            assert (table, joined) == (table, 0)


@pytest.mark.parametrize("verb", ["select", "update", "delete", "truncate", "references", "trigger"])
async def test_ingest_does_nothing_but_insert(app: Application, victim: Victim, verb: str) -> None:
    """It writes rows of any tenant, so it may read none, of no table at all."""
    async with _as(app, INGEST) as raw:
        for table in await _every_table(app):
            assert not await raw.fetchval("select has_table_privilege($1, $2)", table, verb), table


async def test_ingest_reads_nothing_though_it_tries(app: Application, victim: Victim) -> None:
    """Refused, not empty: there is no right that a policy would have to bound."""
    for table in await _tables(app):
        async with _as(app, INGEST) as raw:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await raw.fetch(f"select * from {table} limit 1")


async def test_ingest_cannot_read_what_it_inserts(app: Application, victim: Victim) -> None:
    """RETURNING reads."""
    async with _as(app, INGEST) as raw:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.fetch("insert into events default values returning *")


async def test_the_owner_is_under_the_policies_too(app: Application, victim: Victim) -> None:
    """It makes tables, and reads none of a tenant's rows but those that its functions look up."""
    async with _as(app, OWNER) as raw:
        for table in await _tables(app):
            count = await raw.fetchval(f"select count(*) from {table}")
            assert (table, count > 0) == (table, table in LOOKED_UP)


async def test_no_role_is_above_the_policies(app: Application) -> None:
    """Neither superuser nor BYPASSRLS, nor a member of a role that is."""
    async with _as(app, OWNER) as raw:
        above = await raw.fetch(
            "select r.rolname from pg_roles r where r.rolname like 'kindred%' and exists (select 1 from pg_roles o "
            "where (o.rolsuper or o.rolbypassrls) and pg_has_role(r.oid, o.oid, 'member'))"
        )
        assert above == []


async def test_functions_with_the_owners_rights_are_these(app: Application) -> None:
    """Each for one role: they see what their caller may not."""
    async with _as(app, OWNER) as raw:
        records = await raw.fetch(
            "select p.proname, (select string_agg(pg_get_userbyid(a.grantee), ', ') "
            "from aclexplode(p.proacl) a where a.grantee <> p.proowner) as callers "
            "from pg_proc p where p.pronamespace = 'public'::regnamespace and p.prosecdef"
        )
    assert {record["proname"]: record["callers"] for record in records} == AS_OWNER


async def test_every_function_looks_into_temporary_tables_last(app: Application) -> None:
    """Of a path that does not name them they come first; also where a function with the owner's rights calls it."""
    async with _as(app, OWNER) as raw:
        records = await raw.fetch(
            "select p.proname, p.proconfig from pg_proc p where p.pronamespace = 'public'::regnamespace "
            "and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')"
        )
    assert {record["proname"] for record in records} > AS_OWNER.keys()
    for record in records:
        assert "search_path=pg_catalog, public, pg_temp" in (record["proconfig"] or ()), record["proname"]


@pytest.mark.parametrize("table", ["event_seen", "events", "item_minutes"])
async def test_no_temporary_table_runs_as_the_owner(app: Application, attacker: Shop, table: str) -> None:
    """A table of the caller's, by the name of one that an owner's function writes: its trigger is never called."""
    row = {"t": str(attacker.tenant_id), "e": str(uuid4()), "y": "view", "m": "2026-01-15T12:00:00Z", "d": "e", "h": ""}
    async with _as(app, APP) as raw:
        await raw.execute(f"create temporary table {table} (like public.{table} including all)")
        await raw.execute(f"grant all on {table} to public")
        await raw.execute(
            "create function pg_temp.tell() returns trigger language plpgsql as "
            "$$ begin raise exception 'runs as %', current_user; end $$"
        )
        await raw.execute(
            f"create trigger tell before insert on pg_temp.{table} for each statement execute function pg_temp.tell()"
        )
        await raw.execute("select set_config('app.tenant_id', $1, true)", str(attacker.tenant_id))
        batch = json.dumps([{**row, "i": 1}])
        assert await raw.fetch("select * from take_own_events($1::text::jsonb, $2)", batch, START) == []
        assert await raw.fetchval(f"select count(*) from public.{table} where tenant_id = $1", attacker.tenant_id)


async def test_a_key_is_found_by_its_whole_hash_alone(app: Application, attacker: Shop, victim: Victim) -> None:
    """The one look-up before the tenant is known gives one row for one hash, and none for a part of it or nothing."""
    async with _as(app, OWNER) as owner:
        hashes = await owner.fetch("select key_hash from api_keys")
    async with _as(app, APP) as raw:
        for record in hashes:
            assert len(await raw.fetch("select * from find_key($1)", record["key_hash"])) <= 1
        for wrong in (b"", hashes[0]["key_hash"][:-1], None, b"%"):
            assert await raw.fetch("select * from find_key($1)", wrong) == []
