"""infra.fetch, the sending half: nothing is sent inward, and no answer costs more than its bound."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import pytest

from infra.addresses import BlockedAddress, Policy, UnknownHost
from infra.allowance import parse_allowances
from infra.errors import KindredError, UpstreamFailed
from infra.fetch import Answered, BadUrl, Fetcher, FetchTimeout, Unreachable, check_receiver
from tests.sites import Reply, Site, answer, redirect, serving

# Taken before the guard of the tests, which takes other notations of 127.0.0.1 for names of the outside.
REAL_LOOKUP = socket.getaddrinfo
LOOPBACK = parse_allowances("127.0.0.0/8")
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
BODY = b'{"type": "webhook.test"}'
HEADERS = {"content-type": "application/json", "webhook-id": "w1"}


async def post(client: Fetcher, url: str, *, timeout_s: float = 20.0, max_bytes: int = 65_536) -> Answered:
    return await client.post(url, content=BODY, headers=HEADERS, max_bytes=max_bytes, timeout_s=timeout_s)


def posted(reply: dict[str, Reply] | Reply, path: str = "/", **options: Any) -> tuple[Answered, Site]:
    """Serve, post once; the answer, and what the server saw."""

    async def scenario() -> tuple[Answered, Site]:
        async with (
            serving(reply) as site,
            Fetcher(allow=LOOPBACK, ports=None, ssl_context=NO_TRUST) as client,
        ):
            return await post(client, site.url(path), **options), site

    return asyncio.run(scenario())


def test_what_is_sent() -> None:
    """The bytes, their length, the headers that were given, and the name of the sender; once."""
    got, site = posted(answer(b"thanks", status="202 Accepted"), "/hook?a=b")
    assert got == Answered(status=202, body=b"thanks")
    assert site.bodies == [BODY]
    (head,) = site.requests
    assert head.startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    for line in (b"webhook-id: w1", b"content-type: application/json", b"User-Agent: Kindred-Webhooks/1"):
        assert line + b"\r\n" in head
    assert head.lower().count(b"content-length") == 1


@pytest.mark.parametrize("status", ["204 No", "400 Bad", "404 No", "410 Gone", "429 Many", "500 Oops", "503 Later"])
def test_every_status_is_told(status: str) -> None:
    """What it means is for who sends."""
    body = b"" if status.startswith("204") else b"no"
    assert posted(answer(body, status=status))[0].status == int(status[:3])


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Same", "308 Same"])
def test_redirects_are_not_followed(status: str) -> None:
    """What was signed for one address is not sent to another."""
    got, site = posted({"/": redirect("/other", status), "/other": answer(b"x")})
    assert got.status == int(status[:3])
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1/", "http://169.254.169.254/latest/", "file:///etc/passwd", "http://u:p@x/", ""]
)
def test_redirects_inward_are_not_followed(location: str) -> None:
    """Wherever they lead."""
    assert posted(redirect(location))[0].status == 302


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(4096))
        await writer.drain()


def test_an_endless_answer_is_cut_off() -> None:
    """Its status counts; of its body no more is kept than was asked for."""
    got, _ = posted(endless, max_bytes=10_000)
    assert got.status == 200
    assert len(got.body) <= 10_000


def test_a_gzip_bomb_is_cut_off() -> None:
    """A packed answer counts by what it unpacks to."""
    got, _ = posted(answer(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"))
    assert got.status == 200
    assert len(got.body) <= 65_536


@pytest.mark.parametrize("packing", ["gzip", "br", "zstd", "nonsense"])
def test_an_answer_that_cannot_be_unpacked(packing: str) -> None:
    """Is without a body, and is a success all the same."""
    assert posted(answer(b"not packed", Content_Encoding=packing))[0] == Answered(status=200, body=b"")


async def dripping_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


def test_an_answer_that_drips() -> None:
    """The status came in time; the body is waited for no longer than for everything."""
    got, _ = posted(dripping_body, timeout_s=0.2)
    assert got.status == 200
    assert set(got.body) <= {ord("x")}


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def dripping_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("reply", [silent, dripping_head])
def test_a_head_that_does_not_come(reply: Reply) -> None:
    """No status in time is a failure that may pass."""
    with pytest.raises(FetchTimeout):
        posted(reply, timeout_s=0.15)


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000])
def test_what_is_no_http(reply: bytes) -> None:
    """A failure that may pass."""
    with pytest.raises(Unreachable):
        posted(reply)


INWARD = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://[::1]/",
    "http://[fe80::1]/",
    "http://[fd00:ec2::254]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[2002:7f00:1::]/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
]


@pytest.mark.parametrize("url", INWARD)
def test_nothing_is_sent_inward(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the address is written."""
    monkeypatch.setattr(socket, "getaddrinfo", REAL_LOOKUP)

    async def scenario() -> None:
        async with Fetcher(ssl_context=NO_TRUST) as client:
            await post(client, url)

    with pytest.raises(UnknownHost if "localhost" in url else (BlockedAddress, BadUrl)):
        asyncio.run(scenario())


@pytest.mark.parametrize("url", [url for url in INWARD if "localhost" not in url])
def test_an_inward_address_is_refused_by_its_text(url: str) -> None:
    """Before anything is sent: who registers it is told at once, with TLS or without."""
    for address in (url, url.replace("http:", "https:")):
        with pytest.raises((BlockedAddress, BadUrl)):
            check_receiver(address, Policy())


def test_a_name_that_turns_inward() -> None:
    """A name that was public for one message and is private for the next is refused at the next connection."""
    results = [["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1", "10.0.0.1"]]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return results.pop(0)

    async def scenario() -> int:
        async with (
            serving(answer(b"x", Connection="close")) as site,
            Fetcher(allow=LOOPBACK, ports=None, ssl_context=NO_TRUST, resolve=resolve) as client,
        ):
            url = site.url(host="hook.test")
            assert (await post(client, url)).status == 200
            for _ in range(2):
                with pytest.raises(UnknownHost):
                    await post(client, url)
            return len(site.requests)

    assert asyncio.run(scenario()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hook.example/",
        "file:///etc/passwd",
        "gopher://hook.example/",
        "javascript:alert(1)",
        "data:text/plain,x",
        "//hook.example/",
        "hook.example/x",
        "",
        "https://",
        "https://user@hook.example/",
        "https://user:pass@hook.example/",
        "https://hook.example:22/",
        "https://hook.example:8443/",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://hook.example/" + "a" * 5000,
        "http://hook.example/",
        "http://8.8.8.8/",
    ],
)
def test_addresses_that_nothing_is_sent_to(url: str) -> None:
    """Other schemes, credentials, ports that are not the web's, and whatever is not encrypted."""
    with pytest.raises(BadUrl):
        check_receiver(url, Policy())


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("", "https://hook.example/in?x=y"),
        ("", "https://hook.example:443/"),
        ("", "https://8.8.8.8/"),
        ("hooks.lan:9000", "http://hooks.lan:9000/in"),
        ("hooks.lan:9000", "https://hooks.lan:9000/in"),
        ("10.0.0.0/8", "http://10.1.2.3/"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
    ],
)
def test_addresses_that_may_be_sent_to(allowed: str, url: str) -> None:
    """Public ones by TLS, and what the operator allowed."""
    check_receiver(url, Policy(allow=parse_allowances(allowed)))


def test_one_host_that_hangs_holds_up_no_other() -> None:
    """As many wait for slow servers as may run in all, and one more server is still reached beside them."""

    async def scenario() -> int:
        all_wait = asyncio.Event()

        async def hanging(writer: asyncio.StreamWriter) -> None:
            if slow.open == 7:
                all_wait.set()
            await silent(writer)

        async with (
            serving(hanging) as slow,
            serving(answer(b"x")) as quick,
            Fetcher(allow=LOOPBACK, ports=None, ssl_context=NO_TRUST, per_host=8, concurrency=8) as client,
        ):
            waiting = [asyncio.ensure_future(post(client, slow.url(f"/{n}"), timeout_s=60.0)) for n in range(7)]
            await all_wait.wait()
            status = (await post(client, quick.url())).status
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert client.waiting_hosts == 0
            return status

    assert asyncio.run(scenario()) == 200


def test_a_server_that_is_gone() -> None:
    """Is an error that may pass, and tells the host alone."""

    async def scenario() -> None:
        async with serving(answer()) as site:
            url = site.url("/secret-path")
        async with Fetcher(allow=LOOPBACK, ports=None, ssl_context=NO_TRUST) as client:
            await post(client, url)

    with pytest.raises(UpstreamFailed) as caught:
        asyncio.run(scenario())
    assert isinstance(caught.value, KindredError)
    assert "secret-path" not in caught.value.detail
