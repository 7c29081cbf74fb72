"""The two doors of a transaction: what goes through the driver is inside of it."""

import asyncpg
import pytest

from infra.db import Database, driver, fetch
from infra.ids import uuid7

pytestmark = pytest.mark.anyio


async def test_statements_of_the_driver_are_one_transaction(database: Database) -> None:
    """A session that fails takes back what its driver wrote, though SQLAlchemy itself ran no statement."""
    tenant_id = uuid7()

    async def fail() -> None:
        async with database.system_session(reason="test") as conn:
            raw = await driver(conn)
            await raw.execute("insert into tenants (tenant_id, name) values ($1, $2)", tenant_id, str(tenant_id))
            await raw.execute("select 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await fail()
    async with database.system_session(reason="test") as conn:
        assert await fetch(conn, "select 1 from tenants where tenant_id = $1", tenant_id) == []
    async with database.anonymous_session() as conn:
        raw = await driver(conn)
        assert raw.is_in_transaction()


async def test_a_hot_statement_of_any_length_is_planned_once(database: Database) -> None:
    """The text of a list of many sources is longer than what the driver keeps by its default."""
    long = f"select 1 as one /* {'x' * 20_000} */"
    async with database.hot.connection() as connection:
        for _ in range(3):
            await connection.fetch(long)
        (plans,) = await connection.fetch(
            "select sum(generic_plans + custom_plans)::int as made, count(*)::int as kept from pg_prepared_statements "
            "where statement like 'select 1 as one%'"
        )
    assert (plans["kept"], plans["made"]) == (1, 3)
