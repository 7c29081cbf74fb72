"""Requests to addresses that strangers gave us: photos and feeds are fetched from them, webhooks are sent to them.

Nothing here trusts the address or the server. Only public hosts are reached (`infra/addresses.py`), on every
redirect anew; time, bytes and redirects are bounded; no cookies, credentials or proxies are used.
"""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import ClassVar, Final, Self

import certifi
import httpcore
import httpx
import msgspec

from infra.addresses import WEB_PORTS, BlockedAddress, GuardedBackend, Policy, Resolve, literal_address
from infra.allowance import Allowance
from infra.errors import Invalid, UpstreamFailed

USER_AGENT: Final = "KindredBot/1 (+fetches product feeds and photos on behalf of their shop)"
SENDER: Final = "Kindred-Webhooks/1"
MAX_REDIRECTS: Final = 3
_MAX_URL_CHARS: Final = 4096
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN: Final = frozenset({408, 425, 429})
# What a store of files says when it was told nothing better; the bytes are judged by whoever reads them.
_TELLS_NOTHING: Final = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download"})
_INFLATE_BYTES: Final = 64 * 1024


class BadUrl(Invalid):
    """Not an address that we would ever fetch."""

    code: ClassVar[str] = "bad_url"
    title: ClassVar[str] = "The address cannot be fetched"


class TooLarge(Invalid):
    """The answer has more bytes than allowed."""

    code: ClassVar[str] = "fetch_too_large"
    title: ClassVar[str] = "The file is too large"


class TooManyRedirects(Invalid):
    """The server keeps pointing elsewhere, or from https to http."""

    code: ClassVar[str] = "fetch_redirects"
    title: ClassVar[str] = "The address leads elsewhere too often"


class BadStatus(Invalid):
    """The server says that there is nothing for us at this address."""

    code: ClassVar[str] = "fetch_refused"
    title: ClassVar[str] = "The server refused the file"


class WrongContentType(Invalid):
    """The server sends something else than was expected at this address."""

    code: ClassVar[str] = "wrong_content_type"
    title: ClassVar[str] = "The address leads to another kind of file"


class FetchTimeout(UpstreamFailed):
    """The server was too slow."""

    code: ClassVar[str] = "fetch_timeout"
    title: ClassVar[str] = "The server is too slow"


class Unreachable(UpstreamFailed):
    """No connection, a bad certificate, or an answer that broke off."""

    code: ClassVar[str] = "fetch_unreachable"
    title: ClassVar[str] = "The server cannot be reached"


class ServerBusy(UpstreamFailed):
    """The server answers that it has trouble (5xx) or wants to be asked later (408, 425, 429)."""

    code: ClassVar[str] = "fetch_server_busy"
    title: ClassVar[str] = "The server has trouble"


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `content_type` is lower case without parameters ("" when absent)."""

    body: bytes
    content_type: str
    final_url: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answered to something that was sent to it: any status, and the beginning of its body."""

    status: int
    body: bytes


class _Budget:
    """The seconds that may be spent waiting for the other side; our own work between reads is not counted."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    @asynccontextmanager
    async def waiting(self, host: str) -> AsyncIterator[None]:
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            async with asyncio.timeout(max(0.0, self._left_s)):
                yield
        except TimeoutError:
            raise _too_slow(host) from None
        finally:
            self._left_s -= clock() - start


class Incoming:
    """An answer that is being received: its head, and its bytes by `async for`, once.

    `content_type` is lower case without parameters; `content_length` is what the server declared, None if
    nothing.
    """

    def __init__(self, response: httpcore.Response, *, url: httpx.URL, max_bytes: int, budget: _Budget) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self._budget = budget
        self._host = url.host
        headers = {name.lower(): value.decode("latin-1").strip() for name, value in response.headers}
        self.final_url = str(url)
        self.content_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        self.content_encoding = headers.get(b"content-encoding", "").lower()
        declared = headers.get(b"content-length", "")
        self.content_length = int(declared) if declared.isdecimal() else None

    def check(self, accept: Collection[str]) -> None:
        """Refuse by the head alone what is too large, of another kind, or packed in a way not asked for."""
        if self.content_length is not None and self.content_length > self._max_bytes:
            raise _too_large(self._host, self._max_bytes)
        fits = any(self.content_type.startswith(prefix) for prefix in accept)
        if accept and not fits and self.content_type not in _TELLS_NOTHING:
            what = "a web page" if self.content_type == "text/html" else f'"{self.content_type[:80]}"'
            raise WrongContentType(
                f"{self._host} sends {what} at this address, not the file that belongs there. Check that the "
                "address leads to the file itself and needs no sign-in."
            )
        if self.content_encoding not in ("", "identity", "gzip", "x-gzip"):
            packing = self.content_encoding[:40]
            raise WrongContentType(
                f"{self._host} packs the file ({packing}) although the plain file was asked for. "
                "Switch that off for this address."
            )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._plain():
            received += len(chunk)
            if received > self._max_bytes:
                raise _too_large(self._host, self._max_bytes)
            yield chunk

    async def _plain(self) -> AsyncIterator[bytes]:
        if self.content_encoding in ("", "identity"):
            async for chunk in self._wire():
                yield chunk
            return
        # Some servers pack whatever ends in .gz. Inflated in small pieces, so that a bomb meets the limit
        # early.
        inflate = zlib.decompressobj(wbits=31)
        async for chunk in self._wire():
            packed = chunk
            while packed:
                if inflate.eof:
                    inflate = zlib.decompressobj(wbits=31)
                try:
                    plain = inflate.decompress(packed, _INFLATE_BYTES)
                except zlib.error as error:
                    raise Unreachable(f"The answer of {self._host} is damaged (gzip). Try again later.") from error
                # A new member may follow, or the zeros that some writers pad with.
                packed = inflate.unused_data.lstrip(b"\0") if inflate.eof else inflate.unconsumed_tail
                if plain:
                    yield plain
        if not inflate.eof:
            # All input may be taken while the end of a match is still owed.
            yield inflate.flush()
        if not inflate.eof:
            raise Unreachable(f"The answer of {self._host} broke off half-way. Try again later.")

    async def _wire(self) -> AsyncIterator[bytes]:
        received = 0
        chunks = aiter(self._response.aiter_stream())
        while True:
            async with self._budget.waiting(self._host):
                with _explained(self._host):
                    chunk = await anext(chunks, None)
            if chunk is None:
                return
            received += len(chunk)
            if received > self._max_bytes:
                raise _too_large(self._host, self._max_bytes)
            yield chunk


class Fetcher:
    """Fetches from hostile addresses, and posts to them. A connection pool: one for each purpose; close it.

    `allow` adds hosts and networks to the public internet (KINDRED_FETCH_ALLOW: shops whose photos are on a LAN);
    `ports` are the ports that may be named elsewhere (None: any). At most `per_host` requests run against one host
    and `concurrency` in all; waiting for a turn does not count as the server's time. `read_timeout_s`
    bounds every single wait within `timeout_s`, which bounds the sum of all waiting for the server, from
    look-up to last byte.
    """

    def __init__(
        self,
        *,
        allow: Sequence[Allowance] = (),
        ports: Collection[int] | None = WEB_PORTS,
        per_host: int = 4,
        concurrency: int = 64,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 15.0,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._per_host = per_host
        self._turns = asyncio.Semaphore(concurrency)
        self._hosts: dict[str, _Host] = {}
        self._timeouts = {"connect": connect_timeout_s, "read": read_timeout_s, "write": read_timeout_s}
        self._backend = GuardedBackend(allow=allow, ports=ports, resolve=resolve, inner=network)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or trusted_authorities(),
            max_connections=concurrency,
            max_keepalive_connections=concurrency // 4,
            keepalive_expiry=5.0,
            network_backend=self._backend,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def waiting_hosts(self) -> int:
        """Hosts with a request that runs or awaits its turn; 0 when idle."""
        return len(self._hosts)

    async def aclose(self) -> None:
        """Close the connections and give the threads back."""
        await self._pool.aclose()
        self._backend.close()

    async def fetch(self, url: str, *, max_bytes: int, timeout_s: float, accept: Collection[str] = ()) -> Fetched:
        """The whole answer, at most `max_bytes` of it (after unpacking too).

        `accept` holds prefixes of content types (`("image/",)`); an absent or meaningless type is let
        through, for only the bytes tell. Raises `BadUrl`, `BlockedAddress`, `TooLarge`, `TooManyRedirects`,
        `BadStatus` and `WrongContentType` (all `Invalid`: do not repeat), `FetchTimeout`, `UnknownHost`,
        `Unreachable` and `ServerBusy` (all `UpstreamFailed`: repeat later).
        """
        body = bytearray()
        async with self.stream(url, max_bytes=max_bytes, timeout_s=timeout_s, accept=accept) as incoming:
            async for chunk in incoming:
                body += chunk
        return Fetched(body=bytes(body), content_type=incoming.content_type, final_url=incoming.final_url)

    @asynccontextmanager
    async def stream(
        self, url: str, *, max_bytes: int, timeout_s: float, accept: Collection[str] = ()
    ) -> AsyncIterator[Incoming]:
        """The answer as it arrives, for feeds: `async for chunk in incoming` inside the block.

        Leaving the block closes the connection. Raises as `fetch` does, on entering or while reading.
        """
        target = parse_url(url, self._backend.policy)
        budget = _Budget(timeout_s)
        for _ in range(MAX_REDIRECTS + 1):
            # The turn is given back before a redirect is followed: two hosts pointing at each other never
            # deadlock.
            async with self._turn(target.host):
                response = await self._request(target, budget)
                try:
                    if response.status not in _REDIRECTS:
                        _check_status(response.status, target.host)
                        incoming = Incoming(response, url=target, max_bytes=max_bytes, budget=budget)
                        incoming.check(accept)
                        yield incoming
                        return
                    target = self._follow(target, response)
                finally:
                    # Closes rather than drains: an endless body ends here.
                    await response.aclose()
        raise TooManyRedirects(f"The address leads elsewhere more than {MAX_REDIRECTS} times. Use the final address.")

    async def post(
        self, url: str, *, content: bytes, headers: Mapping[str, str], max_bytes: int, timeout_s: float
    ) -> Answered:
        """Send `content` once, and tell the answer, whatever its status; redirects are told too, not followed.

        The status counts, so an answer whose body is late, damaged or longer than `max_bytes` is cut off there.
        Raises `BadUrl` and `BlockedAddress` (`Invalid`), `FetchTimeout`, `UnknownHost` and `Unreachable`
        (`UpstreamFailed`): then nobody knows whether it has arrived.
        """
        target = parse_url(url, self._backend.policy)
        budget = _Budget(timeout_s)
        received = bytearray()
        async with self._turn(target.host):
            response = await self._request(target, budget, content=content, headers=headers)
            try:
                incoming = Incoming(response, url=target, max_bytes=max_bytes, budget=budget)
                with suppress(TooLarge, UpstreamFailed):
                    async for chunk in incoming:
                        received += chunk
            finally:
                await response.aclose()
        return Answered(status=response.status, body=bytes(received))

    def _follow(self, source: httpx.URL, response: httpcore.Response) -> httpx.URL:
        location = next((value for name, value in response.headers if name.lower() == b"location"), b"")
        if not location:
            raise BadStatus(f"{source.host} answers with a redirect to nowhere.")
        try:
            joined = str(source.join(location.decode("utf-8", "surrogateescape")))
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise BadUrl(f"{source.host} redirects to something that is no web address.") from error
        target = parse_url(joined, self._backend.policy)
        if source.scheme == "https" and target.scheme == "http":
            raise TooManyRedirects(f"{source.host} redirects from https to http, which is not followed.")
        return target

    async def _request(
        self, url: httpx.URL, budget: _Budget, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpcore.Response:
        request = httpcore.Request(
            "GET" if content is None else "POST",
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=[
                (b"Host", url.netloc),
                (b"User-Agent", (USER_AGENT if content is None else SENDER).encode()),
                (b"Accept", b"*/*"),
                (b"Accept-Encoding", b"identity"),
                *((name.encode(), value.encode()) for name, value in (headers or {}).items()),
                *(() if content is None else ((b"Content-Length", str(len(content)).encode()),)),
            ],
            content=content,
            extensions={"timeout": self._timeouts},
        )
        async with budget.waiting(url.host):
            with _explained(url.host):
                return await self._pool.handle_async_request(request)

    @asynccontextmanager
    async def _turn(self, host: str) -> AsyncIterator[None]:
        entry = self._hosts.get(host)
        if entry is None:
            entry = self._hosts[host] = _Host(self._per_host)
        entry.users += 1
        try:
            async with entry.turns, self._turns:
                yield
        finally:
            entry.users -= 1
            if entry.users == 0:
                del self._hosts[host]


def parse_url(url: str, policy: Policy) -> httpx.URL:
    """The address, if it is one that may be asked for as far as its text tells. Raises BadUrl."""
    if len(url) > _MAX_URL_CHARS:
        raise BadUrl(f"The address has more than {_MAX_URL_CHARS} characters.")
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError) as error:
        raise BadUrl("The address is not a valid web address.") from error
    if parsed.scheme not in ("http", "https"):
        raise BadUrl("The address must begin with https:// or http://.")
    if not parsed.host or "%" in parsed.host:
        raise BadUrl("The address names no host.")
    if parsed.userinfo:
        raise BadUrl("The address must not contain a user name or password.")
    if not policy.may_name(_port(parsed)):
        raise BadUrl(f"The address names port {parsed.port}, which is not fetched from. Use 80 or 443.")
    return parsed.copy_with(fragment=None)


def check_receiver(url: str, policy: Policy) -> None:
    """Refuse an address to send to as far as its text tells; what its name stands for is seen at every connection.

    Without TLS only to what the operator allowed. Raises BadUrl, BlockedAddress.
    """
    parsed = parse_url(url, policy)
    literal = literal_address(parsed.host)
    if literal is not None and not policy.permits(parsed.host, literal, _port(parsed)):
        raise BlockedAddress("The address is not on the public internet, so nothing is sent to it. Use a public one.")
    if parsed.scheme == "http" and not policy.allowed(parsed.host, literal, _port(parsed)):
        raise BadUrl("The address must begin with https://, so that nobody on the way reads or changes what is sent.")


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


class _Host:
    """The turns at one host and how many requests hold or await one."""

    def __init__(self, turns: int) -> None:
        self.turns = asyncio.Semaphore(turns)
        self.users = 0


def trusted_authorities() -> ssl.SSLContext:
    """The system's authorities (SSL_CERT_FILE names a company's own), and certifi's where it has none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@contextmanager
def _explained(host: str) -> Iterator[None]:
    """httpcore's exceptions -> ours."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise _too_slow(host) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, OSError) as error:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            detail = f"The certificate of {host} is not valid, so we do not talk to it. Renew it."
        elif "without sending complete" in text or "closed connection" in text:
            detail = f"The answer of {host} broke off half-way. Try again later."
        else:
            detail = f"{host} cannot be reached or does not answer as a web server. Check it and try again."
        raise Unreachable(detail) from error


def _check_status(status: int, host: str) -> None:
    if status == 200:
        return
    if status >= 500 or status in _TRY_AGAIN:
        raise ServerBusy(f"{host} answers with status {status}: it has trouble or is asked too often. Try again later.")
    if status in (401, 403):
        raise BadStatus(f"{host} does not let us in (status {status}). Make the file public, or upload it.")
    if status in (404, 410):
        raise BadStatus(f"{host} has no file at this address (status {status}). Check the address.")
    raise BadStatus(f"{host} answers with status {status} instead of the file. Check the address.")


def _too_large(host: str, max_bytes: int) -> TooLarge:
    return TooLarge(f"The file at {host} has more than {max_bytes:,} bytes, which is the limit. Make it smaller.")


def _too_slow(host: str) -> FetchTimeout:
    return FetchTimeout(f"{host} is too slow: its answer did not arrive in time. Try again later.")
