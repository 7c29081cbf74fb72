"""The one wrapper around the framework: request id, caller, rate limits, CORS, metrics and the access line.

Pure ASGI and outside Litestar, because five middlewares cost more than one, and because an error of the framework
itself must still be answered as problem+json, counted and logged.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote

import msgspec
import structlog
from litestar.types import ASGIApp, Receive, Send

from api.auth import AmbiguousKey, Authenticator, Caller
from api.direct import PLAIN, PLAIN_BODY, DirectRoute, whole_body
from api.headers import cross_origin, safe
from api.key_usage import KeyUsage
from api.limits.again import Headers
from api.limits.crowd import Sent
from api.limits.gate import Gate, Standing, too_many
from api.problems import BadRequest, Problem, RequestTimeout, headers_for, known, problem
from api.sessions import Sessions
from billing.plans import Meter
from infra.errors import TooLarge
from infra.ids import request_id
from infra.telemetry import Children, counter, histogram
from tenants.limits.leases import Refusal

MAX_BODY: Final = 10_000_000
"""Bytes of a body, where the route's `opt["max_body"]` says nothing else (None there: any size)."""

BODY_TIMEOUT_S: Final = 30.0
"""Seconds without a byte of the body after which the request is given up, where the settings say nothing else."""

_SLOWEST: Final = 2_000
"""Bytes a second below which a body is given up, however steadily it drips."""

_requests: Final = Children(counter("http_requests_total", "Requests answered.", ["method", "route", "status"]))
_seconds: Final = Children(histogram("http_request_seconds", "Time to answer a request.", ["method", "route"]))

_BEACONS: Final = "/v1/events"
"""Where a publishable key may stand in the query: a browser's beacon can set no header."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNRESERVED: Final = "-._~!$&'()*+,;=:@"
# Ids that are also the last part of a route; escaped, they reach the route of an item.
_SHADOWED: Final = {"/v1/items/bulk": "/v1/items/%62ulk", "/v1/items/delete": "/v1/items/%64elete"}

_log = structlog.get_logger("api.access")


class ClientGone(BadRequest):
    """The client hung up before its body was whole; nothing of it was stored."""

    code = "client_gone"
    title = "The connection was closed early"


class SlowBody(RequestTimeout):
    """The body stopped coming, or came too slowly, for the connection to be kept; nothing of it was stored."""

    code = "slow_body"
    title = "The body came too slowly"


class Edge:
    """Wraps the framework's application. `body_timeout_s` is how long a body may stand still."""

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        direct: Mapping[tuple[str, str], DirectRoute] | None = None,
        gate: Gate | None = None,
        *,
        sessions: Sessions | None = None,
        body_timeout_s: float = BODY_TIMEOUT_S,
        usage: KeyUsage | None = None,
    ) -> None:
        self._app = app
        self._usage = usage
        self._sessions = sessions
        self._authenticator = authenticator
        self._direct = direct or {}
        self._gate = gate
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        gate = self._gate
        if gate is not None and gate.again and (said := _again(gate, scope)) is not None:
            await _give(send, 429, *said)
            _count_refused(scope)
            return
        exchange = _Exchange(scope, receive, send, self._body_timeout_s, gate)
        try:
            if exchange.path.startswith("/v1/") and scope["method"] != "OPTIONS":
                caller = scope["state"]["caller"] = await self._caller(exchange)
                if isinstance(caller, Caller):
                    exchange.caller = caller
            if gate is not None and await exchange.refused(gate):
                return
            # Each request of the server runs in a context of its own, so nothing needs to be taken back.
            structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
            if exchange.preflight:
                await exchange.answer(204, [], b"")
                return
            route = self._direct.get((scope["method"], exchange.path))
            if route is not None and exchange.plain and await self._answer(exchange, route):
                return
            await self._app(scope, exchange.receive, exchange.send)
            exchange.count(scope["route_handler"].opt.get("meter") if "route_handler" in scope else None)
        except Exception as error:
            await exchange.fail(error)
        finally:
            exchange.account(perf_counter() - started)

    async def _answer(self, exchange: "_Exchange", route: DirectRoute) -> bool:
        """Answer without the framework; False where the caller may not, which the framework is to say."""
        caller = exchange.caller
        if caller is None or route.scope not in caller.scopes:
            return False
        exchange.route()
        if route.meter is not None:
            exchange.require(route.meter)
        body = await route.handle(caller, await whole_body(exchange.receive))
        await exchange.answer(200, [(b"content-type", b"application/json")], body)
        exchange.count(route.meter)
        return True

    async def _caller(self, exchange: "_Exchange") -> object:
        """The caller, or the exception that says why there is none: only the route knows whether one is needed."""
        try:
            if exchange.key is None and exchange.shop is not None and self._sessions is not None:
                await exchange.admit()
                return await self._sessions.caller(exchange.scope, exchange.shop)
            if exchange.ambiguous:
                raise AmbiguousKey("Send one API key, and one visitor token: two that differ came with the request.")
            caller = await self._authenticator.authenticate(
                exchange.key, exchange.origin, exchange.token, exchange.admit
            )
            if self._usage is not None:
                self._usage.note(caller, exchange.origin, exchange.scope)
            return caller
        except Exception as error:
            return error


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Any, receive: Receive, send: Send, body_timeout_s: float, gate: Gate | None) -> None:
        self.scope = scope
        self._body_timeout_s = body_timeout_s
        self._body_whole = False
        self._taken = 0
        self._slowest_end = 0.0
        self._receive = receive
        self._send = send
        self._left: float | None = None
        self._length: int | None = None
        self._gate = gate
        self._standing: Standing | None = None
        self._refusal: Refusal | None = None
        self._quiet = False
        self.caller: Caller | None = None
        self.status = 0
        self.key: str | None = None
        self.token: str | None = None
        # Two keys, or two tokens, that differ: a proxy and we must not believe different ones.
        self.ambiguous = False
        self.origin: str | None = None
        self.shop: str | None = None
        self.preflight = False
        self._https = scope.get("scheme") == "https"
        # Whether there is nothing about it but a key and a body of JSON that is not large.
        self.plain = True
        self.sent = Sent()
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                self._take_key(_bearer(value))
            elif name == b"x-api-key":
                self._take_key(value.decode("latin-1").strip())
            elif name == b"x-visitor-token":
                token = value.decode("latin-1").strip()
                self.ambiguous |= self.token is not None and self.token != token
                self.token = token
            elif name == b"origin":
                # A second one makes it no origin at all.
                origin = value.decode("latin-1")
                self.origin = origin if self.origin in (None, origin) else f"{self.origin}, {origin}"
            elif name == b"kindred-shop":
                self.shop = value.decode("latin-1")
            elif name == b"content-length":
                self._length = int(value) if value.isdigit() else None
            elif name == b"x-request-id":
                given = value
            elif name == b"x-forwarded-proto":
                # Believed for what only concerns who sends it: a browser heeds the header over HTTPS alone.
                self._https = value == b"https"
            elif name == b"access-control-request-method":
                self.preflight = scope["method"] == "OPTIONS"
            elif name == b"idempotency-key":
                self.plain = False
                self.sent.digest = hashlib.blake2b(digest_size=32)
            elif name in PLAIN and not PLAIN[name](value):
                self.plain = False
        if self._length is None or self._length > PLAIN_BODY:
            self.plain = False
        if self.key is None and scope["path"] == _BEACONS and scope["method"] == "POST" and scope["query_string"]:
            self.key, token = _beacon(scope["query_string"])
            self.token = self.token or token
        self.request_id = request_id(given)
        self.path = scope["path"]
        raw_path = scope.get("raw_path")
        if raw_path and b"%" in raw_path:
            # Routed undecoded, so that a "/" inside an id stays inside its segment.
            self.path = scope["path"] = _canonical(raw_path)
        if "//" in self.path or self.path[-1:] == "/":
            # The framework routes them so, after costs and the routes of our own were looked up.
            self.path = scope["path"] = "/" + "/".join(part for part in self.path.split("/") if part)
        if self.path in _SHADOWED and scope["method"] != "POST":
            scope["path"] = _SHADOWED[self.path]
        state = scope.setdefault("state", {})
        state["request_id"] = self.request_id
        state["path"] = self.path
        state["sent"] = self.sent

    def _take_key(self, key: str | None) -> None:
        if key:
            self.ambiguous |= self.key is not None and self.key != key
            self.key = key

    def route(self) -> None:
        """Count it under its path, which no framework finds for it."""
        self.scope["path_template"] = self.path

    async def admit(self) -> None:
        """Use one of its network's limit, before the database is asked who this is. Raises TooManyRequests."""
        if self._gate is not None:
            self._standing, self._refusal = await self._gate.enter(None, self.scope, self.path, 0)
            if self._refusal is not None:
                raise too_many(self._refusal)

    async def refused(self, gate: Gate) -> bool:
        """Whether the rate limits let it not pass; then it is answered. Nothing of the body was read."""
        scope = self.scope
        refusal = self._refusal
        if self._standing is None or self.caller is not None:
            self._standing, refusal = await gate.enter(self.caller, scope, self.path, self._length, self.preflight)
        scope["state"]["standing"] = self._standing
        if refusal is None:
            if self._standing.crowd is not None and self.caller is not None:
                self.sent.join(self._standing.crowd, self.caller.kind)
            return False
        self._quiet = True
        self.status = 429
        told = problem(too_many(refusal), path=self.path, request_id=self.request_id)
        headers = list(gate.refuse(self._standing, refusal, scope["headers"], told))
        body = msgspec.json.encode(told)
        headers += ((b"content-length", b"%d" % len(body)), (b"x-request-id", self.request_id.encode()))
        if self.origin is not None:
            headers += cross_origin(self.origin, self.path, scope["state"].get("caller"), preflight=False)
        await _give(self._send, 429, headers, body)
        return True

    def require(self, meter: Meter) -> None:
        """Raises MonthlyQuotaReached."""
        if self._gate is not None and self._standing is not None:
            self._gate.require(self._standing, meter)

    def count(self, meter: Meter | None) -> None:
        """Note what a good answer used of the month's quota."""
        if meter is not None and 200 <= self.status < 300 and self._gate is not None and self._standing is not None:
            self._gate.count(self._standing, meter, self.scope["state"].get("rows", 1))

    async def receive(self) -> Any:
        """The framework's `receive`: refuses a body over the limit of the route, which is known by now."""
        if self._left is None:
            handler = self.scope.get("route_handler")
            limit = handler.opt.get("max_body", MAX_BODY) if handler is not None else MAX_BODY
            self._left = float("inf") if limit is None else limit
            if self._length is not None and self._length > self._left:
                raise _too_large(limit)
            if self._gate is not None:
                self.sent.begin(self.scope, self._gate.trusted, any_size=limit is None)
        message = await self._next()
        if message["type"] == "http.request":
            self._body_whole = self.sent.whole = not message.get("more_body", False)
            if self._body_whole:
                self.sent.enter()
            if self.sent.digest is not None:
                self.sent.digest.update(message["body"])
            self._taken += len(message["body"])
            self._left -= len(message["body"])
            if self._left < 0:
                raise _too_large(self.scope["route_handler"].opt.get("max_body", MAX_BODY))
        elif message["type"] == "http.disconnect" and not self.status:
            raise ClientGone("The connection was closed before the request was whole. Nothing of it was stored.")
        return message

    async def _next(self) -> Any:
        """The next message. Raises SlowBody, lest connections that send nothing use up those there are."""
        if self._body_whole:  # what is waited for now is that the client hangs up
            return await self._receive()
        clock = asyncio.get_running_loop().time
        if not self._slowest_end:
            self._slowest_end = clock() + self._body_timeout_s
        due = min(clock() + self._body_timeout_s, self._slowest_end + self._taken / _SLOWEST)
        try:
            async with asyncio.timeout_at(due):
                return await self._receive()
        except TimeoutError:
            raise SlowBody(
                f"Within {self._body_timeout_s:g} s no more of the body came, or it came at less than "
                f"{_SLOWEST:,} bytes a second. Nothing of it was stored; send it again, in smaller calls."
            ) from None

    async def send(self, message: Any) -> None:
        """The framework's `send`: adds the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = safe(message["headers"], self.path, https=self._https)
            headers.append((b"x-request-id", self.request_id.encode()))
            if self.path in _SHADOWED:
                headers = [(name, b"%b, POST" % value if name == b"allow" else value) for name, value in headers]
            if self._gate is not None and self._standing is not None:
                headers += self._gate.fields(self._standing)
            if self.origin is not None:
                caller = self.scope["state"].get("caller")
                headers += cross_origin(self.origin, self.path, caller, preflight=self.preflight)
            message = {**message, "headers": headers}
        await self._send(message)

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """A whole answer, without the framework."""
        headers = [*headers, (b"content-length", str(len(body)).encode())] if status != 204 else headers
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: Exception) -> None:
        """The error of last resort: one that the framework let through."""
        told = known(error)
        if self.status:  # too late for another status: the cut connection tells the client
            raise error
        body: Problem = problem(told, path=self.path, request_id=self.request_id)
        headers = [(b"content-type", b"application/problem+json")]
        headers += [(name.encode(), value.encode()) for name, value in headers_for(told).items()]
        self.scope["state"]["error_code"] = told.code
        await self.answer(body.status, headers, msgspec.json.encode(body))

    def account(self, seconds: float) -> None:
        """Count the request, and log one line: its route, never its address, which may hold a key or name a person."""
        scope = self.scope
        self.sent.leave()
        if self._quiet:
            _count_refused(scope)
            return
        route = scope.get("path_template") or ("preflight" if self.preflight else "unknown")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        _requests(method, route, str(self.status)).inc()
        _seconds(method, route).observe(seconds)
        state = scope["state"]
        caller = state.get("caller")
        told: dict[str, str] = {}
        if isinstance(caller, Caller):
            told = {"tenant_id": str(caller.tenant_id), "key_id": caller.key_id}
        if "error_code" in state:
            told["error"] = state["error_code"]
        write = _log.debug if route.startswith("/health") else _log.info
        write(
            "http.request",
            method=method,
            route=route,
            status=self.status,
            ms=round(seconds * 1000, 2),
            **told,
        )


def _again(gate: Gate, scope: Any) -> tuple[Headers, bytes] | None:
    """The answer for a caller that was refused a moment ago."""
    path: str = scope["path"]
    if not path.startswith("/v1/") or scope["method"] == "OPTIONS" or b"%" in (scope.get("raw_path") or b""):
        return None
    return gate.refused_again(scope["headers"], path)


async def _give(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer as it is."""
    start: Any = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _count_refused(scope: Any) -> None:
    """Neither routed nor logged one by one: a refusal is to cost as little as can be."""
    _requests(scope["method"] if scope["method"] in _METHODS else "other", "refused", "429").inc()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body may have {limit:,} bytes. Nothing of it was stored; send it in several calls.")


def _beacon(query: bytes) -> tuple[str | None, str | None]:
    """The publishable key and the visitor token of the query. A secret key is not believed there: addresses end up in
    logs."""
    given = parse_qs(query.decode("latin-1"))
    keys, tokens = given.get("key", []), given.get("visitor_token", [])
    if len(keys) != 1 or not keys[0].startswith("pk_") or len(tokens) > 1:
        return None, None
    return keys[0], tokens[0] if tokens else None


def _bearer(value: bytes) -> str | None:
    scheme, _, key = value.decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _canonical(raw_path: bytes) -> str:
    """The path with every segment escaped in one way only: "%2f" and "%2F", "%41" and "A" are the same (RFC 3986)."""
    segments = raw_path.decode("latin-1").split("/")
    return "/".join(
        quote(unquote(segment, errors="surrogateescape"), safe=_UNRESERVED, errors="surrogateescape")
        if "%" in segment
        else segment
        for segment in segments
    )
