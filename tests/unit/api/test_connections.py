"""Connections that say nothing, or are too many."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
import uvicorn
from structlog.testing import capture_logs

from api import connections as connections_module
from api.connections import Connections, Protocol

pytestmark = pytest.mark.anyio

_ANSWER = b"HTTP/1.1 200 OK\r\n"


async def _ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def _serving(
    connections: Connections, *, head_s: float = 30.0, app: Callable[[Any, Any, Any], Awaitable[None]] = _ok
) -> AsyncIterator[Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]]:
    """A server, and what connects to it; whatever is open is closed at its end."""
    protocol: Any = partial(Protocol, connections, head_s=head_s)
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    opened: list[asyncio.StreamWriter] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.startup(sockets=[listening])

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            opened.append(writer)
            return reader, writer

        try:
            yield connect
        finally:
            for writer in opened:
                writer.close()
            await server.shutdown(sockets=[listening])


async def _until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes) -> bytes:
    """All that is answered on a connection that goes on dripping until it is closed."""
    answered = b""
    with suppress(ConnectionError):
        while True:
            writer.write(drop)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    if not (piece := await reader.read(1000)):
                        break
                    answered += piece
    return answered


def _any_number() -> Connections:
    return Connections(trusted=(), most=0)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nx-slow: "], ids=["nothing", "half a head"])
async def test_a_connection_without_a_whole_head_is_closed(said: bytes) -> None:
    """Though it sends a byte now and then."""
    async with _serving(_any_number(), head_s=0.02) as connect:
        reader, writer = await connect()
        writer.write(said)
        assert await _until_closed(reader, writer, b"x" if said else b"") == b""


@pytest.mark.parametrize("more", [b"GET / HTTP/1.1\r\nx-slow: ", b"x"], ids=["half a head", "a body that is not read"])
async def test_what_drips_after_an_answer_is_closed(more: bytes) -> None:
    """Every byte puts off the time after which a kept connection is closed, but not this."""
    length = 0 if more.startswith(b"GET") else 10_000
    async with _serving(_any_number(), head_s=0.02) as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: kindred\r\ncontent-length: %d\r\n\r\n%b" % (length, more))
        assert (await _until_closed(reader, writer, b"x")).startswith(_ANSWER)


async def test_a_call_may_take_as_long_as_it_takes() -> None:
    """What is being answered is not silent; afterwards the connection goes on."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.1)
        await _ok(scope, receive, send)

    async with _serving(_any_number(), head_s=0.02, app=slow) as connect:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nhost: kindred\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(_ANSWER)


async def test_an_address_holds_so_many_and_no_more() -> None:
    """One more is closed before it says anything; where one ends there is room again."""
    connections = Connections(trusted=(), most=2)
    async with _serving(connections) as connect:
        first, leaving = await connect()
        kept, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: kindred\r\n\r\n")
        await kept.readuntil(b"\r\n\r\n")
        with capture_logs() as logs:
            assert await _until_closed(*await connect(), b"") == b""
        assert [line["event"] for line in logs] == ["connections.refused"]
        assert "127.0.0.1" not in str(logs)
        leaving.write(b"GET / HTTP/1.1\r\nhost: kindred\r\nconnection: close\r\n\r\n")
        assert (await first.read()).startswith(_ANSWER)
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: kindred\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(_ANSWER)


def test_whose_connections_are_counted_together() -> None:
    """Those of an IPv4 address, of an IPv6 /64; not those of a trusted proxy, nor of a socket of the machine."""
    connections = Connections(trusted=(ip_network("10.0.0.0/8"),), most=1)
    names = [connections.enter(each) for each in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1")]
    assert None not in names
    assert connections.enter("192.0.2.1") is None
    assert connections.enter("::ffff:192.0.2.1") is None
    assert connections.enter("2001:db8::2") is None
    assert [connections.enter(each) for each in ("10.1.2.3", "10.1.2.3", "", "")] == [""] * 4
    for name in names:
        connections.leave(name or "")
    assert len(connections) == 0
    assert connections.enter("192.0.2.1") is not None


async def test_requests_being_answered_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is answered 503; connections that ask nothing are not counted."""
    monkeypatch.setattr(connections_module, "MAX_ANSWERING", 1)
    inside, go = asyncio.Event(), asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        inside.set()
        await go.wait()
        await _ok(scope, receive, send)

    async with _serving(_any_number(), app=waiting) as connect:
        for _ in range(3):
            await connect()
        first, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: kindred\r\n\r\n")
        await inside.wait()
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: kindred\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
        go.set()
        assert (await first.readuntil(b"\r\n\r\n")).startswith(_ANSWER)
