"""Connections for the statements where each 100 µs counts, the last used first.

asyncpg's own pool makes a task, a timer and a proxy for each statement: 20 µs warm, and several times that in a
process that slept meanwhile. Here a statement takes a connection off a list and puts it back.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

IDLE_S: Final = 300.0
"""A connection that lay longer is replaced: what stands between may have forgotten it without a word."""


REFUSING_S: Final = 0.25
"""After a connection could not be opened, none is tried for so long: nobody waits for what others just waited for."""


class HotPool:
    """Up to `size` connections, opened as they are needed.

    They are for single statements in autocommit that leave nothing set, so a connection needs no reset; one that
    failed in any way but by an error of the server's is dropped. Who waits is served in turn.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], size: int, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._connect = connect
        self._clock = clock
        self.size = size
        self._open = 0
        self._refusing_until = 0.0
        self._idle: list[tuple[Connection, float]] = []
        self._used: set[Connection] = set()
        # Each gets a connection, or None: there is room for one of its own.
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._closing = False
        self._all_closed = asyncio.Event()

    @property
    def opened(self) -> int:
        """Connections that are open or being opened."""
        return self._open

    async def fetch(self, sql: str, *args: object, timeout_s: float | None = None) -> list[asyncpg.Record]:
        """Run one statement. Raises what asyncpg raises, TimeoutError among it: the statement is cancelled."""
        connection = await self._take()
        self._used.add(connection)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args, timeout=timeout_s)
            return rows
        except asyncpg.PostgresError:
            raise
        except BaseException:
            # Cancelled, timed out or cut off: nobody knows what will still come over it.
            connection.terminate()
            raise
        finally:
            self._give_back(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for several statements."""
        connection = await self._take()
        self._used.add(connection)
        try:
            yield connection
        finally:
            self._give_back(connection)

    def cut(self, for_s: float) -> None:
        """Give up every connection, and open none for so long: the server does not answer. What is under way fails."""
        self._refusing_until = self._clock() + for_s
        for connection in (*self._used, *(idle for idle, _ in self._idle)):
            connection.terminate()

    async def close(self) -> None:
        """Close every connection; waits for those in use."""
        self._closing = True
        while self._idle:
            connection, _ = self._idle.pop()
            await connection.close()
            self._forget()
        while self._waiting:
            self._hand_over(None)
        if self._open:
            await self._all_closed.wait()

    async def _take(self) -> Connection:
        while True:
            if self._closing:
                raise asyncpg.InterfaceError("the pool is closed")
            while self._idle:
                connection, since = self._idle.pop()
                if not connection.is_closed() and self._clock() - since < IDLE_S:
                    return connection
                connection.terminate()
                self._forget()
            if self._open < self.size:
                return await self._open_one()
            given = await self._wait()
            if given is not None:
                return given

    async def _open_one(self) -> Connection:
        if self._clock() < self._refusing_until:
            raise ConnectionRefusedError("The database could not be reached a moment ago.")
        self._open += 1
        try:
            return await self._connect()
        except BaseException as error:
            if isinstance(error, Exception):
                self._refusing_until = self._clock() + REFUSING_S
            self._forget()
            raise

    async def _wait(self) -> "Connection | None":
        waiting: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            # Cancelled after it was served: somebody else may have what it was given.
            if waiting.done() and not waiting.cancelled():
                given = waiting.result()
                if given is None:
                    self._hand_over(None)
                else:
                    self._give_back(given)
            raise

    def _give_back(self, connection: Connection) -> None:
        self._used.discard(connection)
        if self._closing or connection.is_closed():
            connection.terminate()
            self._forget()
        elif not self._hand_over(connection):
            self._idle.append((connection, self._clock()))

    def _forget(self) -> None:
        """One connection less; who waits may open another."""
        self._open -= 1
        if self._closing and not self._open:
            self._all_closed.set()
        self._hand_over(None)

    def _hand_over(self, connection: "Connection | None") -> bool:
        """Serve the one who waited longest; False when nobody waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False
