"""warming: the lists that were asked for most, made before a new process takes traffic.

What was busy lately is read from the answer log; each list is made as its next request would have it, and goes into the
caches. Bounded in lists and in time, and nobody depends on it: what was not warmed is made when it is asked for.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from api.recommend.answering import Answering
from api.recommend.asked import Asked, strategy_of
from api.recommend.types import Query
from infra.clock import Clock
from infra.db import Database
from infra.errors import KindredError
from infra.telemetry import Children, counter
from tenants.answers import Busy, busy_requests
from tenants.directory import Directory
from tenants.placements import Placements

BUDGET_S: Final = 3.0
MOST: Final = 200
"""Lists."""

_AT_ONCE: Final = 2
"""In the database at a time: the process answers meanwhile."""

_warmed: Final = Children(counter("cache_warmed_total", "Lists that were made at start, and what came of it.", ["how"]))
_log = structlog.get_logger(__name__)


class Warming:
    """Warms the caches of one process, once."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        placements: Placements,
        answering: Answering,
        *,
        clock: Clock,
    ) -> None:
        self._database = database
        self._directory = directory
        self._placements = placements
        self._answering = answering
        self._clock = clock

    async def run(self, *, budget_s: float = BUDGET_S) -> None:
        """Make the lists; returns when they are made, the time is over, or it cannot be done. Never raises."""
        try:
            async with asyncio.timeout(budget_s):
                await self._warm(await busy_requests(self._database, now=self._clock(), limit=MOST))
        except Exception as error:
            _log.warning("caches.not_warmed", error=type(error).__name__)

    async def _warm(self, busy: Sequence[Busy]) -> None:
        # One iterator for all: each takes the next of the busiest that are left.
        left = iter(busy)

        async def take() -> None:
            for each in left:
                _warmed(await self._one(each)).inc()

        await asyncio.gather(*(take() for _ in range(_AT_ONCE)))
        _log.info("caches.warmed", lists=len(busy))

    async def _one(self, busy: Busy) -> str:
        try:
            query = msgspec.json.decode(busy.request, type=Query)
            asked = Asked(query=query)
            if query.placement is not None:
                placement = await self._placements.get(busy.tenant_id, query.placement)
                asked = Asked(query=query, placement=placement, sources=tuple(placement.sources))
                if strategy_of(asked) != busy.strategy:
                    asked = Asked(query=query, placement=placement)  # the request named a strategy of its own
            if strategy_of(asked) != busy.strategy:
                return "changed"
            return (
                "kept" if await self._answering.warm(await self._directory.get(busy.tenant_id), asked) else "personal"
            )
        except (KindredError, msgspec.ValidationError):
            return "changed"
