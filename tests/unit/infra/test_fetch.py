"""infra.fetch against real servers on the loopback that misbehave in every way a stranger's server can."""

import asyncio
import gzip
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.addresses import BlockedAddress, UnknownHost
from infra.allowance import Allowance
from infra.errors import Invalid, KindredError, UpstreamFailed
from infra.fetch import (
    BadStatus,
    BadUrl,
    Fetched,
    Fetcher,
    FetchTimeout,
    ServerBusy,
    TooLarge,
    TooManyRedirects,
    Unreachable,
    WrongContentType,
)
from tests.sites import Reply, answer, redirect, serving

LOOPBACK = (Allowance.parse("127.0.0.0/8"),)
# Taken before the guard of the tests, which takes other notations of 127.0.0.1 for names of the outside.
REAL_LOOKUP = socket.getaddrinfo
# Reading the authorities takes 30 ms, and only the tests of certificates need any.
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def fetched(
    reply: dict[str, Reply] | Reply,
    path: str = "/",
    *,
    max_bytes: int = 1000,
    timeout_s: float = 20.0,
    accept: Sequence[str] = (),
    **options: Any,
) -> Fetched:
    """Serve, fetch once, and return what came."""

    async def scenario() -> Fetched:
        async with serving(reply) as site, fetcher(**options) as client:
            return await client.fetch(site.url(path), max_bytes=max_bytes, timeout_s=timeout_s, accept=accept)

    return asyncio.run(scenario())


def fetcher(**options: Any) -> Fetcher:
    return Fetcher(**({"allow": LOOPBACK, "ports": None, "ssl_context": NO_TRUST} | options))


def refused(kind: type[KindredError], url: str, **options: Any) -> KindredError:
    """The error that fetching `url` without any server raises."""

    async def scenario() -> None:
        async with Fetcher(ssl_context=NO_TRUST, **options) as client:
            await client.fetch(url, max_bytes=1000, timeout_s=20.0)

    with pytest.raises(kind) as caught:
        asyncio.run(scenario())
    return caught.value


def test_a_photo_arrives() -> None:
    """A plain answer comes whole, with its type without parameters."""
    got = fetched(answer(b"\xff\xd8photo", content_type="Image/JPEG; charset=binary"), "/a.jpg")
    assert got.body == b"\xff\xd8photo"
    assert got.content_type == "image/jpeg"
    assert got.final_url.endswith("/a.jpg")


def test_a_chunked_answer() -> None:
    """An answer without a length, in chunks, comes whole."""
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert fetched(reply).body == b"abcde"


def test_what_is_sent() -> None:
    """The request names our robot, asks for plain bytes, and carries no cookie, even after one was set."""

    async def scenario() -> list[bytes]:
        async with (
            serving(answer(b"x", Set_Cookie="session=1", Connection="close")) as site,
            fetcher() as client,
        ):
            for _ in range(2):
                await client.fetch(site.url("/a?b=c%20d#fragment"), max_bytes=10, timeout_s=20.0)
            return site.requests

    for request in asyncio.run(scenario()):
        assert request.startswith(b"GET /a?b=c%20d HTTP/1.1\r\n")
        assert b"User-Agent: KindredBot/1" in request
        assert b"Accept-Encoding: identity" in request
        assert b"ookie" not in request


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect for us, past the check: HTTP_PROXY is ignored."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetched(answer(b"direct")).body == b"direct"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://shop.example/a.jpg",
        "file:///etc/passwd",
        "gopher://shop.example/",
        "//shop.example/a.jpg",
        "a.jpg",
        "",
        "http://",
        "http://shop.example:22/",
        "https://shop.example:8443/",
        "http://user@shop.example/",
        "http://user:secret@shop.example/",
        "http://[fe80::1%25eth0]/",
        "http://[::1/",
        "http://shop.example/\n",
        "http://shop.example:99999999/",
        "http://shop.example/" + "a" * 5000,
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
    ],
)
def test_addresses_that_are_never_fetched(url: str) -> None:
    """Only http and https, on the web's ports, without credentials."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("must not be asked")

    error = refused(Invalid if "\n" not in url else KindredError, url, resolve=resolve)
    assert isinstance(error, BadUrl | UnknownHost)


def test_the_secret_in_an_address_is_not_repeated() -> None:
    """An error never repeats the credentials of an address."""
    assert "secret" not in refused(BadUrl, "http://user:secret@shop.example/").detail


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",  # noqa: S104
    ],
)
def test_the_own_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No notation of the own machine is fetched, and nothing connects to it."""
    monkeypatch.setattr(socket, "getaddrinfo", REAL_LOOKUP)

    async def scenario() -> int:
        async with serving(answer(b"secret")) as site, Fetcher(ports=None, ssl_context=NO_TRUST) as client:
            with pytest.raises(UnknownHost if host == "localhost" else (BlockedAddress, BadUrl)):
                await client.fetch(f"http://{host}:{site.port}/", max_bytes=10, timeout_s=20.0)
            return len(site.requests)

    assert asyncio.run(scenario()) == 0


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/",
        "http://10.0.0.1/",
        "//192.168.0.1/a.jpg",
        "http://[::ffff:10.0.0.1]/",
    ],
)
def test_a_redirect_inward(location: str) -> None:
    """A redirect to an inner address is refused like the address itself."""
    with pytest.raises(BlockedAddress):
        fetched(redirect(location))


def test_a_redirect_to_the_own_machine() -> None:
    """A server that is allowed cannot send us to 127.0.0.1."""

    async def scenario() -> list[bytes]:
        async with (
            serving(answer(b"secret")) as inner,
            serving(redirect(inner.url("/admin")), host="127.0.0.2") as outer,
            fetcher(allow=(Allowance.parse("127.0.0.2"),)) as client,
        ):
            with pytest.raises(BlockedAddress):
                await client.fetch(outer.url(host="127.0.0.2"), max_bytes=99, timeout_s=20.0)
            return inner.requests

    assert asyncio.run(scenario()) == []


def test_an_allowed_port_of_a_lan() -> None:
    """A host on a LAN answers on the port that was allowed for it."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async def scenario() -> bytes:
        async with serving(answer(b"photo")) as site:
            allowed = (Allowance.parse(f"photos.lan:{site.port}"),)
            async with Fetcher(allow=allowed, resolve=resolve, ssl_context=NO_TRUST) as client:
                return (await client.fetch(site.url(host="photos.lan"), max_bytes=99, timeout_s=20.0)).body

    assert asyncio.run(scenario()) == b"photo"


@pytest.mark.parametrize("elsewhere", ["127.0.0.2", "admin.lan"])
def test_a_redirect_from_an_allowed_port_to_another_host(elsewhere: str) -> None:
    """An allowed host cannot send us to another one of the same port."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1" if host == "photos.lan" else "127.0.0.2"]

    async def scenario() -> None:
        async with serving(answer(b"unused")) as unused:
            port = unused.port
        async with serving(redirect(f"http://{elsewhere}:{port}/")) as site:
            allowed = (Allowance.parse(f"photos.lan:{site.port}"), Allowance.parse(f"127.0.0.1:{port}"))
            async with Fetcher(allow=allowed, resolve=resolve, ssl_context=NO_TRUST) as client:
                await client.fetch(site.url(host="photos.lan"), max_bytes=99, timeout_s=20.0)

    with pytest.raises(BlockedAddress if elsewhere == "127.0.0.2" else UnknownHost):
        asyncio.run(scenario())


def test_a_port_that_is_allowed_for_nobody() -> None:
    """It is refused before anybody is asked for the host."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("must not be asked")

    refused(BadUrl, "http://photos.lan:9001/", resolve=resolve, allow=(Allowance.parse("photos.lan:9000"),))


def test_a_name_that_turns_inward_between_redirects() -> None:
    """A name that was allowed for the first request is checked anew for the second connection."""
    results = [["127.0.0.1"], ["10.0.0.1"]]
    closing = redirect("/next").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def resolve(host: str, port: int) -> Sequence[str]:
        return results.pop(0)

    async def scenario() -> None:
        async with serving({"/": closing}) as site, fetcher(resolve=resolve) as client:
            await client.fetch(site.url(host="shop.test"), max_bytes=10, timeout_s=20.0)

    with pytest.raises(UnknownHost):
        asyncio.run(scenario())


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_are_followed(status: str) -> None:
    """Each kind of redirect is followed, relative ones too, and the final address is told."""
    got = fetched({"/": redirect("b/c", status), "/b/c": redirect("/d?e=f", status), "/d?e=f": answer(b"here")})
    assert got.body == b"here"
    assert got.final_url.endswith("/d?e=f")


def test_three_redirects_and_no_more() -> None:
    """Three redirects are followed, a fourth is refused."""
    chain: dict[str, Reply] = {f"/{n}": redirect(f"/{n + 1}") for n in range(9)}
    assert fetched(chain | {"/3": answer(b"three")}, "/0").body == b"three"
    with pytest.raises(TooManyRedirects):
        fetched(chain, "/0")


def test_a_redirect_in_a_circle() -> None:
    """A server that redirects to itself is given up."""
    with pytest.raises(TooManyRedirects):
        fetched(redirect("/"))


@pytest.mark.parametrize(
    ("location", "kind"),
    [("", BadStatus), ("ftp://x/", BadUrl), ("http://u:p@127.0.0.1/", BadUrl), ("http://[::1/", BadUrl)],
)
def test_a_redirect_to_nowhere(location: str, kind: type[KindredError]) -> None:
    """A redirect must lead to an address that may be fetched."""
    with pytest.raises(kind):
        fetched(redirect(location))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad", BadStatus),
        ("401 Who", BadStatus),
        ("403 No", BadStatus),
        ("404 Not Found", BadStatus),
        ("410 Gone", BadStatus),
        ("204 Nothing", BadStatus),
        ("206 Part", BadStatus),
        ("304 Same", BadStatus),
        ("408 Slow", ServerBusy),
        ("429 Many", ServerBusy),
        ("500 Oops", ServerBusy),
        ("503 Later", ServerBusy),
    ],
)
def test_statuses(status: str, kind: type[KindredError]) -> None:
    """What will not change is Invalid; what may pass is UpstreamFailed, and so repeated."""
    body = b"" if status[:3] in ("204", "304") else b"no"
    with pytest.raises(kind, match=status[:3]) as caught:
        fetched(answer(body, status=status))
    assert isinstance(caught.value, Invalid if kind is BadStatus else UpstreamFailed)


def test_as_many_bytes_as_allowed() -> None:
    """`max_bytes` is inclusive."""
    assert len(fetched(answer(bytes(1000)), max_bytes=1000).body) == 1000


def test_one_byte_too_many_declared() -> None:
    """A declared length above the limit is refused before the body is read."""

    async def head_only(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        await asyncio.Event().wait()

    with pytest.raises(TooLarge, match="1,000"):
        fetched(head_only)


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    while True:
        writer.write(bytes(4096))
        await writer.drain()


def test_an_endless_body() -> None:
    """A body without end is cut off at the limit."""
    with pytest.raises(TooLarge):
        fetched(endless, max_bytes=50_000)


def test_a_gzip_bomb() -> None:
    """A body that was packed unasked is unpacked in pieces and cut off at the limit."""
    with pytest.raises(TooLarge):
        fetched(answer(gzip.compress(bytes(20_000_000)), Content_Encoding="gzip"), max_bytes=100_000)


@pytest.mark.parametrize("name", ["gzip", "x-gzip"])
def test_a_body_packed_unasked(name: str) -> None:
    """A gzip body is unpacked, whatever its pieces: several members, padding, long matches."""
    body = bytes(70_000) + b"end"
    packed = gzip.compress(body) + gzip.compress(b"more") + bytes(64)
    assert fetched(answer(packed, Content_Encoding=name), max_bytes=100_000).body == body + b"more"


def test_a_packed_body_cut_short() -> None:
    """A gzip body without its end is not taken for a whole one."""
    packed = gzip.compress(bytes(range(256)) * 4)
    with pytest.raises(Unreachable, match="half-way"):
        fetched(answer(packed[:-12], Content_Encoding="gzip"), max_bytes=100_000)


def test_a_damaged_packed_body() -> None:
    """Bytes that are no gzip are called damaged."""
    with pytest.raises(Unreachable, match="damaged"):
        fetched(answer(b"not packed at all", Content_Encoding="gzip"))


@pytest.mark.parametrize("name", ["br", "deflate", "zstd", "gzip, gzip"])
def test_other_packings(name: str) -> None:
    """Any other packing was not asked for and is refused."""
    with pytest.raises(WrongContentType):
        fetched(answer(zlib.compress(b"x"), Content_Encoding=name))


def test_a_body_shorter_than_declared() -> None:
    """A connection that closes before the declared length is a failure that may pass."""
    with pytest.raises(Unreachable, match="half-way"):
        fetched(answer(b"abc", Content_Length="10"))


def test_a_body_longer_than_declared() -> None:
    """Bytes beyond the declared length belong to nothing."""
    assert fetched(answer(b"abcdef", Content_Length="3")).body == b"abc"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
def test_what_is_no_http(reply: bytes) -> None:
    """A server that does not speak HTTP properly cannot be reached."""
    with pytest.raises(Unreachable):
        fetched(reply)


def test_an_ipv6_address() -> None:
    """A server named by its IPv6 address is fetched from, with the brackets where HTTP wants them."""

    async def scenario() -> bytes:
        async with serving(answer(b"six"), host="::1") as site, fetcher(allow=(Allowance.parse("::1"),)) as client:
            got = await client.fetch(site.url(host="[::1]"), max_bytes=10, timeout_s=20.0)
            assert f"Host: [::1]:{site.port}".encode() in site.requests[0]
            return got.body

    try:
        assert asyncio.run(scenario()) == b"six"
    except OSError:
        pytest.skip("this machine has no IPv6")


def test_nobody_listens() -> None:
    """A refused connection is a failure that may pass."""

    async def scenario() -> None:
        async with serving(answer()) as site:
            url = site.url()
        async with fetcher() as client:
            await client.fetch(url, max_bytes=10, timeout_s=20.0)

    with pytest.raises(Unreachable):
        asyncio.run(scenario())


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def dripping_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def dripping_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("behaviour", [silent, dripping_head, dripping_body])
def test_a_slow_server(behaviour: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    """A server that says nothing, or a byte now and then for ever, is given up after `timeout_s`."""
    with pytest.raises(FetchTimeout):
        fetched(behaviour, max_bytes=1_000_000, timeout_s=0.15)


def test_one_silence_too_long() -> None:
    """A single silence beyond `read_timeout_s` ends the fetch before `timeout_s` does."""
    with pytest.raises(FetchTimeout):
        fetched(silent, timeout_s=3600.0, read_timeout_s=0.05)


def test_a_name_server_that_hangs() -> None:
    """The look-up is part of the time."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async def scenario() -> None:
        async with fetcher(resolve=resolve) as client:
            await client.fetch("http://shop.test/", max_bytes=10, timeout_s=0.05)

    with pytest.raises(FetchTimeout):
        asyncio.run(scenario())


def test_the_readers_own_time_is_not_the_servers() -> None:
    """Work done between two reads does not use up the server's time."""
    release = asyncio.Event()

    async def two_pieces(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await writer.drain()
        await release.wait()
        writer.write(b"cd")
        await writer.drain()

    async def scenario() -> bytes:
        got = b""
        loop = asyncio.get_running_loop()
        real = loop.time
        async with (
            serving(two_pieces) as site,
            fetcher() as client,
            client.stream(site.url(), max_bytes=10, timeout_s=5.0) as incoming,
        ):
            async for chunk in incoming:
                got += chunk
                # The reader takes 100 s by the clock of the loop.
                loop.time = lambda: real() + 100.0  # type: ignore[method-assign]
                release.set()
        return got

    assert asyncio.run(scenario()) == b"abcd"


@pytest.mark.parametrize("content_type", ["text/html", "text/html; charset=utf-8", "application/json", "text/plain"])
def test_a_web_page_under_a_photos_name(content_type: str) -> None:
    """An answer of another kind is refused by its declared type."""
    with pytest.raises(WrongContentType):
        fetched(answer(b"<html>", content_type=content_type), "/photo.jpg", accept=("image/",))


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/x-unheard-of", "application/octet-stream", ""])
def test_types_that_may_be_a_photo(content_type: str) -> None:
    """A type that fits, or one that tells nothing, is let through: the bytes decide."""
    assert fetched(answer(b"x", content_type=content_type), accept=("image/",)).body == b"x"


def test_a_feed_as_a_stream() -> None:
    """A stream tells its head first and then its bytes, within the limit."""

    async def scenario() -> tuple[str, int | None, bytes]:
        body = b"<rss>" + bytes(300_000) + b"</rss>"
        async with (
            serving(answer(body, content_type="application/xml")) as site,
            fetcher() as client,
            client.stream(site.url(), max_bytes=10**6, timeout_s=20.0) as incoming,
        ):
            parts = [chunk async for chunk in incoming]
            return incoming.content_type, incoming.content_length, b"".join(parts)

    content_type, length, body = asyncio.run(scenario())
    assert (content_type, length, len(body)) == ("application/xml", 300_011, 300_011)


def test_a_stream_that_is_left_early() -> None:
    """Leaving the block closes an endless answer, and the fetcher works on."""

    async def scenario() -> bytes:
        async with (
            serving({"/endless": endless, "/": answer(b"next")}) as site,
            fetcher(per_host=1) as client,
        ):
            async with client.stream(site.url("/endless"), max_bytes=10**9, timeout_s=20.0) as incoming:
                async for _ in incoming:
                    break
            return (await client.fetch(site.url(), max_bytes=10, timeout_s=20.0)).body

    assert asyncio.run(scenario()) == b"next"


def test_requests_at_one_host_are_bounded() -> None:
    """No more than `per_host` requests run against a host, and waiting for a turn costs none of the time."""

    async def scenario() -> int:
        gate = asyncio.Event()

        async def held(writer: asyncio.StreamWriter) -> None:
            if site.open == 2:
                gate.set()
            await gate.wait()
            writer.write(answer(b"x", Connection="close"))
            await writer.drain()

        async with serving(held) as site, fetcher(per_host=2) as client:
            await asyncio.gather(*(client.fetch(site.url(f"/{n}"), max_bytes=10, timeout_s=20.0) for n in range(8)))
            assert client.waiting_hosts == 0
            return site.most_open

    assert asyncio.run(scenario()) == 2


def test_a_failing_request_gives_its_turn_back() -> None:
    """After more failures than turns the host can still be fetched from."""

    async def scenario() -> bytes:
        replies: dict[str, Reply] = {"/bad": answer(status="404 No"), "/": answer(b"x")}
        async with serving(replies) as site, fetcher(per_host=1, concurrency=1) as client:
            for _ in range(3):
                with pytest.raises(BadStatus):
                    await client.fetch(site.url("/bad"), max_bytes=10, timeout_s=20.0)
            return (await client.fetch(site.url(), max_bytes=10, timeout_s=20.0)).body

    assert asyncio.run(scenario()) == b"x"


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A self-signed certificate for `name`: the server's context and one that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        built.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


async def to_loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def over_tls(folder: Path, reply: Reply, host: str = "shop.test", *, trusted: bool = True) -> bytes:
    async def scenario() -> bytes:
        server, client_side = certificate(folder, "shop.test")
        options: dict[str, Any] = {"ssl_context": client_side if trusted else None}
        async with serving(reply, tls=server) as site, fetcher(resolve=to_loopback, **options) as client:
            return (await client.fetch(site.url(host=host, scheme="https"), max_bytes=99, timeout_s=20.0)).body

    return asyncio.run(scenario())


def test_the_certificate_is_checked_against_the_name(tmp_path: Path) -> None:
    """Although the connection goes to a number, the certificate must be the name's."""
    assert over_tls(tmp_path, answer(b"safe")) == b"safe"
    with pytest.raises(Unreachable, match="certificate"):
        over_tls(tmp_path, answer(b"safe"), "other.test")


def test_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    """An unknown authority is refused with a sentence about the certificate."""
    with pytest.raises(Unreachable, match="certificate"):
        over_tls(tmp_path, answer(b"safe"), trusted=False)


def test_a_redirect_from_https_to_http(tmp_path: Path) -> None:
    """A redirect that drops the encryption is not followed."""
    with pytest.raises(TooManyRedirects, match="https to http"):
        over_tls(tmp_path, redirect("http://shop.test/plain"))
