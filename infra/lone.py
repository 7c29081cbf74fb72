"""One connection of its own for a task that must not wait behind requests; opened when it is needed."""

import asyncio
from typing import Any, Final

import asyncpg

from infra.db import Database
from infra.roles import SYSTEM, role_url

_CONNECT_S: Final = 2.0


class LoneConnection:
    """Runs statements across tenants one after the other; a connection that failed in any way is given up."""

    def __init__(self, database: Database, *, name: str, timeout_s: float = 2.0) -> None:
        """`name` is what PostgreSQL shows of it; `timeout_s` bounds each statement."""
        self._url = role_url(database.direct_url, SYSTEM)
        self._name = name
        self._timeout_s = timeout_s
        self._connection: asyncpg.Connection[Any] | None = None
        self._one = asyncio.Lock()

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """The rows of one statement, in autocommit. Raises what asyncpg raises, TimeoutError among it."""
        async with self._one:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(
                    self._url, timeout=_CONNECT_S, server_settings={"application_name": self._name, "jit": "off"}
                )
            try:
                rows: list[asyncpg.Record] = await self._connection.fetch(sql, *args, timeout=self._timeout_s)
                return rows
            except BaseException:
                connection, self._connection = self._connection, None
                connection.terminate()
                raise

    async def close(self) -> None:
        """Disconnect; a later statement would connect again."""
        async with self._one:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.close(timeout=1)
