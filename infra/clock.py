"""What time it is: by this machine, or by the database's server, whose time all processes share."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import structlog

from infra.background import Background
from infra.db import Database, driver
from infra.telemetry import gauge

Clock = Callable[[], datetime]

EVERY_S: Final = 30.0
"""How often a process asks the server for the time."""

_RETRY_S: Final = 1.0
_TOLD_S: Final = 1.0
"""A machine whose clock is further off than this is told of, once."""

_ahead: Final = gauge("clock_ahead_seconds", "How far this machine's clock is ahead of the database's.")
_log = structlog.get_logger(__name__)


_FIRST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 30, tzinfo=UTC)


def within_reach(moment: datetime) -> datetime:
    """The moment, or the nearest that can be counted with: at the ends of time an offset, or a fraction of a second,
    leads out of the years 1 to 9999, which the database's driver answers with an error."""
    return min(max(moment, _FIRST), _LAST)


def utc_now() -> datetime:
    """The time of this machine, with its zone."""
    return datetime.now(UTC)


class Offset:
    """How far another clock is ahead of ours: of what it told, the reading that can be wrong by least."""

    __slots__ = ("ahead_s", "doubt_s")

    def __init__(self) -> None:
        self.ahead_s: float | None = None
        self.doubt_s = float("inf")

    def learn(self, told_s: float, *, asked_s: float, answered_s: float) -> None:
        """It told `told_s` at some moment between our asking and its answer."""
        doubt_s = (answered_s - asked_s) / 2
        measured = told_s - (asked_s + doubt_s)
        # Another clock, as after a failover, shows as a difference that the doubts of both do not explain.
        if doubt_s <= self.doubt_s or abs(measured - (self.ahead_s or 0.0)) > doubt_s + self.doubt_s:
            self.ahead_s, self.doubt_s = measured, doubt_s


async def server_now(database: Database) -> datetime:
    """The time of the database's server, for a program that asks once. Raises what asyncpg raises."""
    async with database.system_session(reason="read the server's clock") as conn:
        now: datetime = await (await driver(conn)).fetchval("select clock_timestamp()")
        return now


class ServerClock:
    """The time of the database's server, right to some milliseconds; this machine's until the server told its own.

    By it leases, tokens and keys end everywhere at once, and events of one shopper are in order whichever process took
    them, though the clocks of the machines differ.
    """

    def __init__(self, database: Database, *, machine: Clock = utc_now, ticks: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._machine = machine
        self._ticks = ticks
        self._offset = Offset()
        self._told = False
        self._background = Background("clock", self._run)

    def __call__(self) -> datetime:
        """Now."""
        ahead_s = self._offset.ahead_s
        return self._machine() if ahead_s is None else datetime.fromtimestamp(self._ticks() + ahead_s, UTC)

    async def measure(self) -> None:
        """Ask the server. Raises what asyncpg raises."""
        async with self._database.system_session(reason="read the server's clock") as conn:
            raw = await driver(conn)
            asked_s = self._ticks()
            told_s: float = await raw.fetchval("select extract(epoch from clock_timestamp())::float8")
            self._offset.learn(told_s, asked_s=asked_s, answered_s=self._ticks())
        ahead_s = (self._machine() - self()).total_seconds()
        _ahead.set(ahead_s)
        if abs(ahead_s) >= _TOLD_S and not self._told:
            self._told = True
            _log.warning(
                "clock.differs", ahead_s=round(ahead_s, 3), mend="let both machines follow a time server (NTP)"
            )

    async def start(self) -> None:
        """Ask once, where the server answers, and from then on now and again."""
        with suppress(Exception):  # asked again in a second, and whatever is wrong is logged then
            await self.measure()
        self._background.start()

    async def close(self) -> None:
        """Ask no more."""
        await self._background.end()

    async def _run(self) -> None:
        pause_s = _RETRY_S if self._offset.ahead_s is None else EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.measure()
            except Exception as error:
                # Until it answers, time goes on from what it told last.
                _log.warning("clock.not_read", error=type(error).__name__)
                pause_s = _RETRY_S
            else:
                pause_s = EVERY_S
