"""Two tenants against every table, as the application role: row-level security alone, without our predicates."""

from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from api.app import Application
from infra.db import TenantId, driver
from infra.roles import OWNER, role_url
from tests.integration.api.conftest import Shop
from tests.isolation.conftest import ADDED_TO_ONLY, OF_PEOPLE, SYSTEM_ONLY, Victim, rows_of, tenant_tables

pytestmark = pytest.mark.anyio

# Tables that belong to nobody. A new table is listed here, or has a tenant_id and its policy.
SHARED = {"alembic_version", "layouts", "spaces"}


async def test_every_table_is_a_tenants_or_known_to_be_shared(app: Application) -> None:
    """A new table without a tenant must be named."""
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        records = await raw.fetch(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') "
            "and not relispartition"
        )
        assert {record["relname"] for record in records} == SHARED | SYSTEM_ONLY | OF_PEOPLE | set(
            await tenant_tables(raw)
        )


async def test_every_tenant_table_forces_its_policy(app: Application) -> None:
    """Enabled and forced, with a policy for the application that checks reading and writing, and no other for it."""
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        for table in await tenant_tables(raw):
            enabled, forced = await raw.fetchrow(
                "select relrowsecurity, relforcerowsecurity from pg_class where relname = $1", table
            )
            assert (table, enabled, forced) == (table, True, True)
            policies = await raw.fetch(
                "select qual, with_check from pg_policies where tablename = $1 and "
                "('kindred_app' = any(roles) or 'public' = any(roles))",
                table,
            )
            assert policies, table
            for policy in policies:
                for condition in policy:
                    assert "app.tenant_id" in (condition or ""), table


async def test_the_application_cannot_touch_what_is_the_systems(app: Application) -> None:
    """No right at all, and a policy that would show it nothing."""
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        for table in SYSTEM_ONLY:
            assert not await raw.fetchval(
                "select has_table_privilege('kindred_app', $1, 'select, insert, update, delete')", table
            )
            assert await raw.fetchval(
                "select relrowsecurity and relforcerowsecurity from pg_class where relname = $1", table
            )


async def test_no_partition_can_be_read_around_its_parent(app: Application) -> None:
    """A partition's own policy does not hold where its parent's is asked; so nobody but the owner may touch it."""
    async with app.services.database.system_session(reason="test look") as conn:
        reachable = await (await driver(conn)).fetch(
            "select c.relname from pg_class c where c.relispartition and c.relkind in ('r', 'p') "
            "and c.relnamespace = 'public'::regnamespace "
            "and has_table_privilege('kindred_app', c.oid, 'select, insert, update, delete')"
        )
        assert reachable == []


async def test_the_application_role_is_under_the_policies(app: Application) -> None:
    """Neither superuser nor BYPASSRLS, and not the owner of anything."""
    async with app.services.database.anonymous_session() as conn:
        raw = await driver(conn)
        assert await raw.fetchval("select current_user") == "kindred_app"
        assert not await raw.fetchval("select rolsuper or rolbypassrls from pg_roles where rolname = current_user")
        owned = await raw.fetchval("select count(*) from pg_class where relowner = 'kindred_app'::regrole")
        assert owned == 0


async def test_the_victim_has_rows_in_every_table(app: Application, victim: Victim) -> None:
    """Else the tests below would prove nothing."""
    empty = [table for table, rows in (await rows_of(app, victim.shop.tenant_id)).items() if not rows]
    assert empty == []


async def test_another_tenant_sees_no_row(app: Application, attacker: Shop, victim: Victim) -> None:
    """Not even when it asks for the other's id by name."""
    async with app.services.database.tenant_session(attacker.tenant_id) as conn:
        raw = await driver(conn)
        for table in await tenant_tables(raw):
            seen = await raw.fetchval(f"select count(*) from {table} where tenant_id = $1", victim.shop.tenant_id)
            assert (table, seen) == (table, 0)
            others = await raw.fetchval(f"select count(*) from {table} where tenant_id <> $1", attacker.tenant_id)
            assert (table, others) == (table, 0)


async def test_nobody_sees_no_row(app: Application, victim: Victim) -> None:
    """A connection whose tenant is not set sees nothing at all."""
    async with app.services.database.anonymous_session() as conn:
        raw = await driver(conn)
        for table in await tenant_tables(raw):
            assert (table, await raw.fetchval(f"select count(*) from {table}")) == (table, 0)


async def test_another_tenant_changes_no_row(app: Application, attacker: Shop, victim: Victim) -> None:
    """Update and delete without any predicate touch the attacker's rows alone."""
    before = await rows_of(app, victim.shop.tenant_id)
    async with app.services.database.tenant_session(attacker.tenant_id) as conn:
        raw = await driver(conn)
        for table in reversed(await tenant_tables(raw)):
            if table in ADDED_TO_ONLY:
                continue
            await raw.execute(f"update {table} set tenant_id = tenant_id")
            if table != "tenants":
                await raw.execute(f"delete from {table}")
    assert await rows_of(app, victim.shop.tenant_id) == before


async def test_no_row_can_be_given_to_another_tenant(app: Application, attacker: Shop, victim: Victim) -> None:
    """An own row cannot be moved there, in any table."""
    async with app.services.database.system_session(reason="test look") as conn:
        tables = await tenant_tables(await driver(conn))
    for table in set(tables) - ADDED_TO_ONLY:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await _move(app, table, attacker.tenant_id, victim.shop.tenant_id)


async def _move(app: Application, table: str, own: TenantId, other: TenantId) -> None:
    async with app.services.database.tenant_session(own) as conn:
        await (await driver(conn)).execute(f"update {table} set tenant_id = $1 where tenant_id = $2", other, own)


@pytest.mark.parametrize("table", sorted(ADDED_TO_ONLY))
async def test_the_audit_log_is_only_added_to(app: Application, attacker: Shop, victim: Victim, table: str) -> None:
    """The application may neither change nor delete; nobody may change, the owner of the tables neither."""
    before = await rows_of(app, victim.shop.tenant_id)
    for statement in (f"update {table} set tenant_id = tenant_id", f"delete from {table}", f"truncate {table}"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await _run(app, attacker.tenant_id, statement)
    owner = await asyncpg.connect(role_url(app.services.database.direct_url, OWNER))
    try:
        for statement in (f"update {table} set tenant_id = tenant_id", f"truncate {table}"):
            with pytest.raises(asyncpg.RestrictViolationError, match="only ever added to"):
                await owner.execute(statement)
    finally:
        await owner.close()
    async with app.services.database.system_session(reason="test look") as conn:
        assert not await (await driver(conn)).fetchval("select has_table_privilege($1, 'update, truncate')", table)
    assert await rows_of(app, victim.shop.tenant_id) == before


async def _run(app: Application, tenant_id: TenantId, statement: str) -> None:
    async with app.services.database.tenant_session(tenant_id) as conn:
        await (await driver(conn)).execute(statement)


async def test_the_application_takes_no_events_of_another_tenant(
    app: Application, attacker: Shop, victim: Victim
) -> None:
    """The function runs with its owner's rights, and looks whose events they are itself."""
    rows = (
        f'[{{"t": "{victim.shop.tenant_id}", "e": "{uuid4()}", "y": "view", "m": "{datetime.now(UTC).isoformat()}"}}]'
    )
    statement = f"select * from take_own_events('{rows}', now())"
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="of another tenant"):
        await _run(app, attacker.tenant_id, statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
        await _run(app, attacker.tenant_id, statement.replace("own_", ""))


async def test_no_entry_of_the_audit_log_can_be_forged_for_another_tenant(
    app: Application, attacker: Shop, victim: Victim
) -> None:
    """Nor a seal, which the application may not write at all."""
    for table, columns, error in (
        ("audit_unsealed", "(tenant_id, audit_id)", "row-level security"),
        ("audit_seals", "(tenant_id, seal)", "permission denied"),
    ):
        statement = f"insert into {table} {columns} values ('{victim.shop.tenant_id}', "
        statement += "'00000000-0000-7000-8000-000000000000')" if "audit_id" in columns else "9)"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=error):
            await _run(app, attacker.tenant_id, statement)


async def test_no_row_can_be_inserted_for_another_tenant(app: Application, attacker: Shop, victim: Victim) -> None:
    """As a forged change would be, which drops the other's caches."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await _forge(app, attacker.tenant_id, victim.shop.tenant_id)


async def _forge(app: Application, own: TenantId, other: TenantId) -> None:
    async with app.services.database.tenant_session(own) as conn:
        await (await driver(conn)).execute("insert into changes (tenant_id, kind) values ($1, 'tenant')", other)


async def test_a_made_up_tenant_is_nobody(app: Application, victim: Victim) -> None:
    """A tenant that does not exist sees nothing."""
    async with app.services.database.tenant_session(TenantId(uuid4())) as conn:
        raw = await driver(conn)
        assert await raw.fetchval("select count(*) from items") == 0
