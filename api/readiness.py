"""What must be there before this process takes traffic: database, migrations, change feed, encoders, warm-up."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any, Final

import asyncpg
import sqlalchemy.exc
import structlog
from sqlalchemy import text

from infra import migrate
from infra.changes import ChangeFeed
from infra.db import Database
from tenants.keys import FIND_KEY

Warmer = Callable[["asyncpg.Connection[Any]"], Awaitable[object]]
Filler = Callable[[], Awaitable[None]]
"""Fills the caches, in a time of its own; never raises."""

_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    sqlalchemy.exc.SQLAlchemyError,
    RuntimeError,
)

KEPT_S: Final = 0.5
"""How long an answer is good."""

_WARM_UP_S: Final = 5.0

_MODELS_KNOWN: Final = text("select exists (select 1 from layouts)")

_log = structlog.get_logger(__name__)


async def warm_key_look_up(connection: "asyncpg.Connection[Any]") -> object:
    """Plans the look-up that every request begins with."""
    return await connection.fetch(FIND_KEY, b"\0")


class Readiness:
    """Asked by /health/ready. What was once seen at its goal is not asked again, but for the feed and the database."""

    def __init__(
        self,
        database: Database,
        feed: ChangeFeed,
        *,
        warmers: list[Warmer],
        fill: Filler | None = None,
    ) -> None:
        self._database = database
        self._feed = feed
        self._warmers = [warm_key_look_up, *warmers]
        self._fill = fill
        self._filling: asyncio.Task[None] | None = None
        self._migrated = False
        self._warm = False
        self._warming = asyncio.Lock()
        self._asking: asyncio.Future[dict[str, str]] | None = None
        self._told_at = 0.0

    async def missing(self) -> dict[str, str]:
        """What is missing -> why, or what to do; empty when ready. Half a second old at most.

        Health costs nobody a use of a limit, so who asks all the time is told what the others are.
        """
        if self._asking is None or (self._asking.done() and monotonic() - self._told_at >= KEPT_S):
            self._asking = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, str]:
        try:
            return await self._look()
        finally:
            self._told_at = monotonic()

    async def _look(self) -> dict[str, str]:
        missing: dict[str, str] = {}
        try:
            await self._database_state(missing)
        except _AWAY as error:
            _log.debug("readiness.database_away", error=type(error).__name__)
            missing["database"] = "The database does not answer; `kindred doctor` says more."
            return missing
        if not self._feed.fresh:
            missing["change_feed"] = "The changes of other processes are not being read yet."
        if "migrations" not in missing and not self._warm:
            try:
                await self.warm_up()
            except _AWAY:
                missing["warm_up"] = "The hot statements could not be run yet."
        if not missing and self._fill is not None:
            # Once, whoever asks how often; who asks and hangs up does not end it.
            self._filling = self._filling or asyncio.ensure_future(self._fill())
            await asyncio.shield(self._filling)
        return missing

    async def warm_up(self) -> None:
        """Open every hot connection and run the hot statements on each, so that no customer pays for it."""
        async with self._warming:
            if self._warm:
                return
            async with AsyncExitStack() as held:
                hot = self._database.hot
                async with asyncio.timeout(_WARM_UP_S):
                    connections = [await held.enter_async_context(hot.connection()) for _ in range(hot.size)]
                for connection in connections:
                    for warmer in self._warmers:
                        await warmer(connection)
            self._warm = True

    async def _database_state(self, missing: dict[str, str]) -> None:
        if not self._migrated:
            revision = await migrate.current(self._database)
            self._migrated = revision == migrate.head()
            if not self._migrated:
                missing["migrations"] = f"The database is at {revision}, not at {migrate.head()}: `kindred migrate`."
                return
        # Asked however often it was seen: this also tells that the database answers.
        async with self._database.anonymous_session() as connection:
            known = await connection.scalar(_MODELS_KNOWN)
        if not known:
            missing["models"] = "No worker has named its encoders yet: start `python -m workers`."
