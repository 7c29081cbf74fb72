"""Every header that is read, with whatever may stand in it, over a real connection: refused or ignored, never a defect.

What the HTTP parser itself refuses (a control character, a length that is none) is a plain 400 of the server.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.api.server import Server, make_shop_key, running

# What a header says is the same on every PostgreSQL.
pytestmark = pytest.mark.parametrize("pg_major", [18], ids=["pg18"], indirect=True, scope="session")

HEADERS: Final = (
    *("accept", "accept-language", "access-control-request-headers", "access-control-request-method"),
    *("authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host"),
    *("idempotency-key", "if-match", "if-modified-since", "if-none-match", "if-range", "kindred-shop", "origin"),
    *("range", "te", "transfer-encoding", "upgrade", "user-agent", "x-api-key", "x-forwarded-for"),
    *("x-forwarded-proto", "x-request-id", "x-visitor-token"),
)
LINES: Final = (
    b"POST /v1/recommend",
    b"POST /v1/events",
    b"PUT /v1/items/lamp",
    b"GET /v1/items",
    b"GET /v1/audit",
    b"OPTIONS /v1/recommend",
    b"GET /signin",
    b"POST /signin",
    b"GET /health/live",
    b"GET /nowhere",
)
VALUES: Final = (
    *(
        b"",
        b" ",
        b",",
        b";",
        b"=",
        b'"',
        b'"unclosed',
        b"\\",
        b"%",
        b"%zz",
        b"*",
        b"-1",
        b"0",
        b"1e9",
        b"9" * 40,
        b"null",
    ),
    *(b"Bearer", b"Bearer ", b"Basic Og==", b"a,b", b"a;q=x", b"W/", b'W/"', b"bytes=9-1", b"bytes=-", b"text/", b"/"),
    *(b"application/json; charset=\xff", b"gzip, gzip", b"a=b=c;;d", b"__Host-kindred=", b"\x80\xff", "ключ".encode()),
    *(b"http://", b"https://[::", b"null", b"chunked, chunked", b"127.0.0.1:99999", b"x" * 8_000, b"\x01", b"a\tb"),
)


@pytest.fixture(scope="module")
def server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(database_url, tmp_path_factory.mktemp("api"), KINDRED_BODY_TIMEOUT_S="1") as started:
        yield started


@pytest.fixture(scope="module")
def key(database_url: str) -> str:
    return asyncio.run(make_shop_key(database_url))


async def _answer(
    server: Server, key: str, line: bytes, headers: list[tuple[bytes, bytes]]
) -> tuple[int, dict[str, str], bytes]:
    """What one request is answered on a connection of its own: status, headers, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    body = b"" if line.startswith((b"GET", b"OPTIONS")) else b"{}"
    sent = {
        b"host": b"kindred",
        b"connection": b"close",
        b"content-length": b"%d" % len(body),
        b"authorization": b"Bearer " + key.encode(),
        **dict(headers),
    }
    head = b"".join(b"%s: %s\r\n" % pair for pair in sent.items())
    writer.write(line + b" HTTP/1.1\r\n" + head + b"\r\n" + body)
    try:
        async with asyncio.timeout(60):
            status = 100
            while status < 200:
                begin = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip()
                first, *rest = begin.split("\r\n")
                status = int(first.split(" ")[1])
            named = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
            content = await reader.readexactly(int(named.get("content-length", 0)))
    finally:
        writer.close()
    return status, named, content


def _check(status: int, headers: dict[str, str], content: bytes) -> None:
    assert 200 <= status < 500, (status, content)
    assert status != 429
    if status >= 400 and "x-request-id" in headers and not headers["content-type"].startswith("text/html"):
        assert headers["content-type"] == "application/problem+json", (status, content)
        assert json.loads(content)["status"] == status


@pytest.mark.parametrize("name", HEADERS)
def test_no_value_of_a_header_is_a_defect(server: Server, key: str, name: str) -> None:
    """On routes of every kind; what is refused says why."""

    async def ask() -> None:
        for line in LINES:
            for answer in await asyncio.gather(
                *(_answer(server, key, line, [(name.encode(), value)]) for value in VALUES)
            ):
                _check(*answer)

    asyncio.run(ask())


@given(
    line=st.sampled_from(LINES),
    headers=st.lists(st.tuples(st.sampled_from(HEADERS).map(str.encode), st.binary(max_size=200)), max_size=6),
)
def test_nor_is_any_mixture(server: Server, key: str, line: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Several at once, of any bytes; a line break among them ends the head early, and is the parser's to refuse."""
    _check(*asyncio.run(_answer(server, key, line, headers)))
