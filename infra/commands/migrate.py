"""`kindred migrate`: bring a database to this version."""

import asyncio
from argparse import Namespace
from dataclasses import replace

from infra import migrate
from infra.commands.database import migrate_up, open_database
from infra.roles import bootstrap_roles, database_name, url_password
from infra.settings import Settings


def run(settings: Settings, arguments: Namespace) -> int:
    """Roles and database first, where an administrator's address is given; then every migration."""
    return asyncio.run(_run(settings, arguments))


async def _run(settings: Settings, arguments: Namespace) -> int:
    async with open_database(settings) as database:
        if arguments.admin_url is not None:
            await bootstrap_roles(
                arguments.admin_url, url_password(database.url) or "", database=database_name(database.url)
            )
        await migrate_up(replace(settings, database_url=database.url))
        print(f"kindred: the database is at revision {await migrate.current(database)}.")
    return 0
