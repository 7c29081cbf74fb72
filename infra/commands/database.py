"""The database that a command works on: the settings', or the embedded one."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps
from typing import TypeAlias

from infra import migrate
from infra.db import Database
from infra.embedded import EmbeddedPostgres
from infra.errors import Conflict
from infra.roles import APP, ensure_roles
from infra.settings import Settings

Work: TypeAlias = Callable[[Database, Settings, Namespace], Awaitable[int]]
Run: TypeAlias = Callable[[Settings, Namespace], int]


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of the settings, or the embedded one: found running, or run for as long as this command does."""
    server = None
    url = settings.database_url
    if url is None:
        server = EmbeddedPostgres(settings.data_dir)
        await asyncio.to_thread(server.start)
        url = server.url(APP)
    database = Database(url, direct_url=settings.direct_database_url, hot=0, sessions=1)
    try:
        yield database
    finally:
        await database.close()
        if server is not None:
            await asyncio.to_thread(server.stop)


def with_database(work: Work) -> Run:
    """A command that works on a database of this program's version. Raises SchemaBehind."""

    @wraps(work)
    def run(settings: Settings, arguments: Namespace) -> int:
        async def inside() -> int:
            async with open_database(settings) as database:
                await require_schema(database, settings)
                return await work(database, settings, arguments)

        return asyncio.run(inside())

    return run


class SchemaBehind(Conflict):
    """The database is older or newer than this program."""

    code = "schema_behind"
    title = "The database is not at this version"


async def require_schema(database: Database, settings: Settings) -> None:
    """Bring the embedded database to this version; another is its administrator's to migrate. Raises SchemaBehind."""
    if await migrate.current(database) == migrate.head():
        return
    if settings.database_url is not None:
        raise SchemaBehind("Run `kindred migrate`, then this again.")
    await migrate_up(replace(settings, database_url=database.url))


async def migrate_up(settings: Settings) -> None:
    """Roles where they are missing and may be made, then every migration."""
    assert settings.database_url is not None
    url = settings.direct_database_url or settings.database_url
    await ensure_roles(url)
    await migrate.upgrade(url)
