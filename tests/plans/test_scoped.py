"""The one-statement form: no plan reads before the tenant is set, and indexes are used under row-level security."""

from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from infra.db import Database, TenantId, scoped
from infra.roles import APP, OWNER, role_url
from tenants.catalog import store as catalog
from tenants.catalog.item import Item
from tests.integration.tenants.conftest import MakeTenant, make_tenant

pytestmark = pytest.mark.anyio
__all__ = ["make_tenant"]

_NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
_SHAPES = {
    "plain": "select f.item_no from item_facets f where f.tenant_id = $2::uuid",
    "join": (
        "select f.item_no from item_facets f join items i on i.item_no = f.item_no and i.tenant_id = $2::uuid "
        "where f.tenant_id = $2::uuid"
    ),
    "semi-join": (
        "select f.item_no from item_facets f where f.tenant_id = $2::uuid and f.item_no in "
        "(select a.item_no from item_attrs a where a.tenant_id = $2::uuid and a.name = 'tags')"
    ),
    "hashed": (
        "select f.item_no from item_facets f where f.tenant_id = $2::uuid and (f.price = 5 or f.item_no in "
        "(select a.item_no from item_attrs a where a.tenant_id = $2::uuid and a.name = 'tags'))"
    ),
    "cte": (
        "with c as materialized (select item_no from items where tenant_id = $2::uuid) "
        "select f.item_no from c join item_facets f on f.item_no = c.item_no and f.tenant_id = $2::uuid limit 10"
    ),
}
_JOINS = ("enable_nestloop", "enable_hashjoin", "enable_mergejoin")


async def _two_shops(database: Database, make: MakeTenant) -> list[TenantId]:
    tenants = []
    for _ in range(2):
        tenant = await make()
        async with database.tenant_session(tenant.tenant_id) as connection:
            await catalog.upsert_items(
                connection, tenant, [Item(id=str(n), tags=["x"], price=5) for n in range(3)], now=_NOW
            )
        tenants.append(tenant.tenant_id)
    return tenants


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
@pytest.mark.parametrize("off", [None, *_JOINS])
async def test_every_plan_sees_the_tenant_and_no_other(
    database: Database, make_tenant: MakeTenant, database_url: str, mode: str, off: str | None
) -> None:
    """Whatever joins the planner may use, custom or generic, each shape returns the tenant's own three rows."""
    first, second = await _two_shops(database, make_tenant)
    settings = {"plan_cache_mode": mode} | ({off: "off"} if off else {})
    connection = await asyncpg.connect(role_url(database_url, APP), server_settings=settings)
    try:
        for name, inner in _SHAPES.items():
            for tenant in (first, second, first, TenantId(uuid4())):
                rows = await connection.fetch(scoped(inner), str(tenant), tenant)
                assert len(rows) == (3 if tenant in (first, second) else 0), name
            # A setting for one tenant and a predicate for another: the floor holds.
            assert await connection.fetch(scoped(inner), str(first), second) == [], name
            assert await connection.fetchval("select current_setting('app.tenant_id', true)") in (None, "")
    finally:
        await connection.close()


_FILL = (
    "insert into item_ids (tenant_id, item_no, external_id) select '{0}', n, n::text from generate_series(1, 5000) n",
    "insert into item_facets (tenant_id, item_no, brand, price, currency, availability, hidden, available_from, "
    "expires_at, created_at) select '{0}', n, n::text, n, 'EUR', 0, false, '-infinity', 'infinity', now() "
    "from generate_series(1, 5000) n",
    "insert into item_attrs (tenant_id, item_no, name, value_text, value_num) "
    "select '{0}', n, 'x', n::text, n from generate_series(1, 5000) n",
)


async def test_filters_use_their_index_under_row_level_security(
    database: Database, make_tenant: MakeTenant, database_url: str
) -> None:
    """As the application role, custom and generic plans: a selective filter is an index condition."""
    tenant = str((await make_tenant()).tenant_id)
    async with database.system_session(reason="test set-up") as session:
        for statement in _FILL:
            await session.exec_driver_sql(statement.format(tenant))
    owner = await asyncpg.connect(role_url(database_url, OWNER))
    await owner.execute("analyze item_ids, item_facets, item_attrs")
    await owner.close()
    facets = "select f.item_no from item_facets f where f.tenant_id = $2::uuid and"
    attrs = "select a.item_no from item_attrs a where a.tenant_id = $2::uuid and a.name = 'x' and"
    shapes = {
        f"{facets} f.brand = any($3::text[])": ("item_facets_brand", "array['a']"),
        f"{facets} f.price = any($3::int8[])": ("item_facets_price", "array[1]"),
        f"{attrs} a.value_text = any($3::text[])": ("item_attrs_text", "array['a']"),
        f"{attrs} a.value_num = any($3::float8[])": ("item_attrs_num", "array[1]"),
        "select d.item_no from item_ids d where d.tenant_id = $2::uuid and d.external_id = any($3::text[])": (
            "item_ids_tenant_id_external_id_key",
            "array['a']",
        ),
    }
    for mode in ("force_generic_plan", "force_custom_plan"):
        connection = await asyncpg.connect(role_url(database_url, APP), server_settings={"plan_cache_mode": mode})
        for inner, (index, value) in shapes.items():
            kind = inner.rpartition("$3::")[2].rstrip(")")
            await connection.execute(f"prepare checked(text, uuid, {kind}) as {scoped(inner)}")
            rows = await connection.fetch(f"explain execute checked('{tenant}', '{tenant}', {value})")
            plan = "\n".join(row[0] for row in rows)
            assert index in plan, plan
            assert "Seq Scan" not in plan, plan
            await connection.execute("deallocate checked")
        await connection.close()
