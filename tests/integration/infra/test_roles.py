"""Preparing a server that is not ours, as the administrator that a managed service grants."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from infra.embedded import EmbeddedPostgres
from infra.roles import OWNER, ROLES, PgvectorMissing, bootstrap_roles, database_url


@pytest.fixture
def foreign(open_folder: Any, pg_major: Any) -> Iterator[EmbeddedPostgres]:
    """A server without our roles, and an administrator `manager` who is no superuser."""
    with EmbeddedPostgres(open_folder, major=pg_major, settings={"fsync": "off"}) as server:

        async def spoil() -> None:
            connection = await asyncpg.connect(server.superuser_url)
            await connection.execute("DROP DATABASE kindred")
            for role in ROLES:
                await connection.execute(f"DROP ROLE {role}")
            await connection.execute("CREATE ROLE manager LOGIN CREATEROLE CREATEDB PASSWORD 'pw'")
            await connection.close()

        asyncio.run(spoil())
        yield server


def as_manager(server: EmbeddedPostgres) -> str:
    return "postgresql://manager:pw@" + server.superuser_url.split("@", maxsplit=1)[1]


async def create_extension(server: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(database_url(server.superuser_url, "kindred"))
    await connection.execute("CREATE EXTENSION vector")
    await connection.close()


def test_manager_without_superuser_prepares_a_server(foreign: EmbeddedPostgres) -> None:
    """CREATEROLE and CREATEDB are enough, again and again, with any password; only pgvector may need a superuser."""
    address = foreign.superuser_url.split("@", maxsplit=1)[1]

    async def sign_in(role: str, password: str) -> str:
        url = f"postgresql://{role}:{quote(password, safe='')}@{address}"
        connection = await asyncpg.connect(database_url(url, "kindred"))
        if role == OWNER:
            await connection.execute("CREATE TABLE IF NOT EXISTS mine (v halfvec(3))")
        user: str = await connection.fetchval("SELECT current_user")
        await connection.close()
        return user

    async def run() -> None:
        with pytest.raises(PgvectorMissing, match="CREATE EXTENSION vector"):
            await bootstrap_roles(as_manager(foreign), "first")
        await create_extension(foreign)
        for password in ("plain", "p@ss:/?#w%rd", "пароль"):
            await bootstrap_roles(as_manager(foreign), password)
            assert [await sign_in(role, password) for role in ROLES] == list(ROLES)

    asyncio.run(run())
