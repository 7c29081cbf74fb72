"""Migrations: run as the owner, one runner at a time, never waiting long for a lock.

They only go forward, so none has a `downgrade`: a way back that drops columns loses rows. Restore a backup instead.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from infra.db import Database, driver, owner_engine
from infra.partitions import ensure_partitions

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x6B696E64  # "kind": any constant that no other program of the database uses
_FOLDER = Path(__file__).parent / "migrations"


def config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration for our folder; no ini file is needed."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(_FOLDER))
    made.set_main_option("path_separator", "os")
    if connection is not None:
        made.attributes["connection"] = connection
    return made


def head() -> str:
    """The newest revision in the code: files are named by theirs, which count up.

    Without Alembic, which an API process has no other need of.
    """
    return max(path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*.py"))


def _upgrade(connection: Connection) -> None:
    from alembic import command

    # A session lock: the migrations below commit one by one.
    connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
    try:
        connection.execute(text("set lock_timeout = '5s'"))
        connection.commit()
        command.upgrade(config(connection), "head")
        connection.commit()
    finally:
        connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": _LOCK})


async def upgrade(url: str) -> None:
    """Bring the database at `url` to the newest revision, signing in as kindred_owner.

    The partitions of the coming months are made too: an event is taken before any worker runs.
    """
    engine = owner_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)
        async with engine.begin() as connection:
            await ensure_partitions(await driver(connection), datetime.now(UTC))
    finally:
        await engine.dispose()


async def current(database: Database) -> str | None:
    """The revision the database is at; None when it was never migrated."""
    async with database.anonymous_session() as connection:
        known = await connection.scalar(text("select to_regclass('public.alembic_version') is not null"))
        if not known:
            return None
        revision: str | None = await connection.scalar(text("select version_num from alembic_version"))
        return revision
