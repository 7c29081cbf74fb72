"""The pool of the hot statements, over connections of the test's own."""

import asyncio
from typing import Any, cast

import asyncpg
import pytest

from infra.hotpool import IDLE_S, REFUSING_S, Connection, HotPool

pytestmark = pytest.mark.anyio


class _Connection:
    """Answers its number; "cut" ends it, "wrong" is an error of the server's, "hang" never answers."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self.hanging: asyncio.Future[None] | None = None

    async def fetch(self, sql: str, *_: object, timeout: float | None = None) -> list[int]:
        if sql == "wrong":
            raise asyncpg.UndefinedTableError("no such table")
        if sql == "cut":
            raise ConnectionResetError
        if sql == "hang":
            self.hanging = asyncio.get_running_loop().create_future()
            await self.hanging
        return [self.number]

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True
        if self.hanging is not None and not self.hanging.done():
            self.hanging.set_exception(ConnectionResetError())

    async def close(self) -> None:
        self.closed = True


class _Server:
    def __init__(self) -> None:
        self.made: list[_Connection] = []
        self.away = False
        self.now = 0.0

    async def connect(self) -> Connection:
        if self.away:
            raise ConnectionRefusedError
        self.made.append(_Connection(len(self.made)))
        return cast(Connection, self.made[-1])

    def pool(self, size: int = 2) -> HotPool:
        return HotPool(self.connect, size, clock=lambda: self.now)


async def _number(pool: HotPool, sql: str = "select") -> Any:
    return (await pool.fetch(sql))[0]


async def _turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_connection_used_last_is_used_next() -> None:
    """Its plans are warm, and the others may rest."""
    pool = _Server().pool()
    async with pool.connection(), pool.connection():
        pass
    assert [await _number(pool), await _number(pool)] == [await _number(pool)] * 2


async def test_no_more_than_size_are_opened() -> None:
    """Who comes when all are in use waits, and is served in turn."""
    server = _Server()
    pool = server.pool(size=1)
    order: list[int] = []

    async def use(who: int) -> None:
        async with pool.connection():
            order.append(who)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(who) for who in range(4)))
    assert (order, len(server.made), pool.opened) == ([0, 1, 2, 3], 1, 1)


async def test_an_error_of_the_server_keeps_the_connection() -> None:
    """It says all about the statement and nothing about the connection."""
    server = _Server()
    pool = server.pool()
    with pytest.raises(asyncpg.UndefinedTableError):
        await pool.fetch("wrong")
    assert (await _number(pool), len(server.made)) == (0, 1)


async def test_a_cut_connection_is_replaced() -> None:
    """The next statement has a new one."""
    pool = _Server().pool()
    with pytest.raises(ConnectionResetError):
        await pool.fetch("cut")
    assert (await _number(pool), pool.opened) == (1, 1)


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    """As after a restart of the server."""
    server = _Server()
    pool = server.pool()
    await _number(pool)
    server.made[0].closed = True
    assert (await _number(pool), pool.opened) == (1, 1)


async def test_a_connection_that_lay_too_long_is_replaced() -> None:
    """Something between may have dropped it in silence."""
    server = _Server()
    pool = server.pool()
    await _number(pool)
    server.now = IDLE_S - 1
    assert await _number(pool) == 0
    server.now += IDLE_S
    assert await _number(pool) == 1
    assert server.made[0].closed


async def test_a_cancelled_statement_ends_its_connection() -> None:
    """Nobody knows what will still come over it; who waits gets another."""
    server = _Server()
    pool = server.pool(size=1)
    hanging = asyncio.create_task(pool.fetch("hang"))
    await _turns()
    waiting = asyncio.create_task(_number(pool))
    await _turns()
    hanging.cancel()
    assert (await waiting, server.made[0].closed, pool.opened) == (1, True, 1)


async def test_a_connection_handed_to_one_who_gave_up_is_not_lost() -> None:
    """The next in turn has it."""
    server = _Server()
    pool = server.pool(size=1)
    waiting: list[asyncio.Task[Any]] = []
    async with pool.connection():
        waiting += [asyncio.create_task(_number(pool)) for _ in range(2)]
        await _turns()
    waiting[0].cancel()
    assert (await waiting[1], pool.opened) == (0, 1)


async def test_a_failed_connect_leaves_room_for_the_next() -> None:
    """A server that was away for a moment is no loss for good."""
    server = _Server()
    pool = server.pool(size=1)
    server.away = True
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await pool.fetch("select")
        server.now += REFUSING_S
    server.away = False
    assert await _number(pool) == 0


async def test_closing_waits_for_those_in_use() -> None:
    """And refuses who comes later."""
    server = _Server()
    pool = server.pool()
    held = pool.connection()
    await held.__aenter__()
    closing = asyncio.create_task(pool.close())
    await _turns()
    assert not closing.done()
    await held.__aexit__(None, None, None)
    await closing
    assert server.made[0].closed
    with pytest.raises(asyncpg.InterfaceError):
        await pool.fetch("select")


@pytest.mark.parametrize("end", ["cut", "wrong"])
async def test_a_failure_serves_who_waits(end: str) -> None:
    """With the same connection, or with a new one in its place."""
    server = _Server()
    pool = server.pool(size=1)
    results = await asyncio.gather(pool.fetch(end), _number(pool), return_exceptions=True)

    assert results[1] == (1 if end == "cut" else 0)


async def test_nobody_waits_for_what_another_just_waited_for() -> None:
    """After a connection was refused the next are not tried for a moment; then they are."""
    server = _Server()
    pool = server.pool()
    server.away = True
    with pytest.raises(ConnectionRefusedError):
        await _number(pool)
    server.away = False
    with pytest.raises(ConnectionRefusedError):
        await _number(pool)
    assert server.made == []
    server.now += REFUSING_S
    assert await _number(pool) == 0


async def test_a_server_that_hangs_is_given_up() -> None:
    """Statements under way fail, who waits is told at once, and nobody tries again before the time."""
    server = _Server()
    pool = server.pool(size=1)
    hanging = asyncio.ensure_future(pool.fetch("hang"))
    await _turns()
    waiting = asyncio.ensure_future(_number(pool))
    await _turns()
    pool.cut(3.0)
    with pytest.raises(ConnectionResetError):
        await hanging
    with pytest.raises(ConnectionRefusedError):
        await waiting
    assert pool.opened == 0
    server.now += 3.0
    assert await _number(pool) == 1
