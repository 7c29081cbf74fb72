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
