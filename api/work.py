"""The unit of work of a route that writes: one transaction, committed with all that belongs to it or not at all.

What belongs to it, besides the effect: the entry of the audit log that the route declares, and the answer to be
repeated where the request has an Idempotency-Key. With `?dry_run=true` the same transaction is carried out, answered,
and rolled back: what would be refused is refused, and nothing is changed.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from litestar import Response
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from msgspec import Struct, structs
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller
from api.contract import KEY, Contract, NoQuery, WriteQuery
from api.deps import caller_of, services_of
from api.network import client_network
from api.wire import JSON, AnyRequest, read_query
from infra.db import TenantId
from infra.errors import Invalid
from infra.telemetry import counter
from tenants import idempotency
from tenants.audit import log as audit
from tenants.audit.log import Actor, network_hash
from tenants.idempotency import Attempt, KeptAnswer, make_attempt, make_mark

_replayed: Final = counter("requests_replayed_total", "Requests that were answered as the first time.")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_plain: Final = msgspec.json.Encoder(order="deterministic").encode


class BadIdempotencyKey(Invalid):
    """The Idempotency-Key is not 1 to 255 visible ASCII characters, or is given twice."""

    code = "bad_idempotency_key"
    title = "The Idempotency-Key cannot be used"


class Intent(Struct, frozen=True, kw_only=True):
    """What a request says of itself beside its content."""

    dry_run: bool = False
    key: str | None = None

    @property
    def plain(self) -> bool:
        """Whether it says nothing: then a large write may be several transactions."""
        return not self.dry_run and self.key is None


async def intended(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard: reads `dry_run` and the Idempotency-Key, before anything is done or the body is read.

    Raises InvalidFields, BadIdempotencyKey.
    """
    said = handler.opt.get(KEY)
    if not isinstance(said, Contract):
        return
    if not (said.writes or said.computes):
        if connection.scope.get("method") == "POST":  # of nobody's tenant yet: it cannot be tried out
            read_query(connection, NoQuery)
        return
    dry_run = False
    if said.writes:
        query: Any = read_query(connection, said.query or WriteQuery)
        dry_run = query.dry_run
    key = _read_key(connection) if connection.scope.get("method") == "POST" else None
    connection.scope["state"]["intent"] = Intent(dry_run=dry_run, key=key)


def _read_key(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    given = connection.headers.getall("idempotency-key", [])
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise BadIdempotencyKey("Send one Idempotency-Key of 1 to 255 visible ASCII characters, such as a random UUID.")
    return given[0]


def intent_of(request: AnyRequest) -> Intent:
    """What the guard read."""
    intent = request.scope["state"]["intent"]
    assert isinstance(intent, Intent)
    return intent


class Repeated(Exception):
    """The request was carried out before: no error, and told as an answer by `answer_repeat`."""

    def __init__(self, kept: KeptAnswer) -> None:
        super().__init__()
        self.kept = kept


def answer_repeat(_: AnyRequest, error: Repeated) -> Response[bytes]:
    """Litestar's exception handler of a repeat: the first answer again, said to be so."""
    _replayed.inc()
    headers = {**error.kept.headers, "idempotent-replayed": "true"}
    if error.kept.shortened:
        headers["idempotent-results"] = "omitted"
    return Response(error.kept.body, status_code=error.kept.status, media_type=JSON, headers=headers)


class _Undone(Exception):
    """Rolls a dry run back."""


R = TypeVar("R", Response[bytes], Response[None])


class Work:
    """What a handler writes in: `conn` is the connection of the tenant's transaction."""

    def __init__(self, request: AnyRequest, conn: AsyncConnection) -> None:
        said = request.route_handler.opt[KEY]
        assert isinstance(said, Contract)
        self.conn = conn
        self.dry_run = intent_of(request).dry_run
        self.tenant_id = caller_of(request).tenant_id
        self.now = services_of(request).clock()
        self._request = request
        self._action = said.audit
        self._noted = False
        self._response: Response[Any] | None = None

    async def note(self, subject: str = "", **details: Any) -> None:
        """Note the route's action in the audit log; `details` are plain JSON, without ids of shoppers."""
        assert self._action is not None, "the route declares no `audit`"
        actor = actor_of(caller_of(self._request))
        await noted(self._request, self.conn, self.tenant_id, actor, self._action, subject, **details)
        self._noted = True

    def answered(self, response: R) -> R:
        """The answer that is given, and kept for a repeat, if and when this commits."""
        if self.dry_run:
            response.headers["dry-run"] = "true"
        self._response = response
        return response

    def kept(self) -> KeptAnswer:
        """The answer as it is kept. Raises RuntimeError where the handler made none, or noted nothing."""
        if self._response is None:
            raise RuntimeError(f"{self._request.route_handler} gave its answer past `answered`")
        if self._action is not None and not self._noted:
            raise RuntimeError(f"{self._request.route_handler} declares `{self._action}`, and did not note it")
        content = self._response.content
        return KeptAnswer(
            status=self._response.status_code or 200,
            headers=dict(self._response.headers),
            body=content if isinstance(content, bytes) else b"",
        )


def actor_of(caller: Caller) -> Actor:
    """The caller as the audit log names it."""
    if caller.person_id is not None:
        return Actor(kind="person", id=str(caller.person_id))
    return Actor(kind="key", id=caller.key_id)


async def noted(
    request: AnyRequest,
    conn: AsyncConnection,
    tenant_id: TenantId,
    actor: Actor,
    action: str,
    subject: str = "",
    **details: Any,
) -> None:
    """Note in the audit log what a request does in this transaction, from where: for what is no route of the API."""
    services = services_of(request)
    network = client_network(request.scope, services.settings.trusted_proxies)
    await audit.note(
        conn,
        tenant_id,
        actor,
        action,
        subject=subject,
        details=details,
        network=network_hash(services.secret.current, network),
        request_id=request.scope["state"]["request_id"],
        now=services.clock(),
    )


@asynccontextmanager
async def writing(request: AnyRequest) -> AsyncIterator[Work]:
    """The transaction of a write; it ends, and so commits, before the answer is sent.

    To be entered after the body was read: a slow client must not hold one of three connections. Raises Repeated for a
    request that was carried out before, RequestRunning, KeyReused, and whatever the commit raises.
    """
    services, caller, intent = services_of(request), caller_of(request), intent_of(request)
    # Nothing of a dry run is kept, so there is nothing to be repeated either.
    attempts = [] if intent.key is None or intent.dry_run else await _attempts(request, intent.key)
    try:
        async with services.database.tenant_session(caller.tenant_id) as conn:
            if attempts:
                before = await idempotency.begin(
                    conn, caller.tenant_id, attempts[0], now=services.clock(), others=attempts[1:]
                )
                if before is not None:
                    raise Repeated(before)
            work = Work(request, conn)
            yield work
            kept = work.kept()
            if attempts:
                await idempotency.keep(conn, caller.tenant_id, attempts[0], kept, now=work.now)
            if intent.dry_run:
                raise _Undone
    except _Undone:
        pass


async def _attempts(request: AnyRequest, key: str) -> list[Attempt]:
    """The request under each secret that is believed, the current one first."""
    caller, content = caller_of(request), await _content(request)
    return [
        make_attempt(secret, caller.tenant_id, key_id=caller.key_id, key=key, content=content)
        for secret in services_of(request).secret.every
    ]


async def _content(request: AnyRequest) -> bytes:
    """What a request with an Idempotency-Key asks for: its body as the digest that was made while it was read."""
    scope = request.scope
    sent = scope["state"]["sent"]
    if not sent.whole:  # of a route that takes no body, and so read none
        await request.body()
    return b"\0".join([scope["method"].encode(), scope["path"].encode(), scope["query_string"], sent.digest.digest()])


async def marked_caller(request: AnyRequest) -> Caller:
    """The caller of a request that only computes.

    With an Idempotency-Key its answers carry a mark in the answer log, the same for every repeat: they are computed
    anew, and billed once. Nothing of the request is kept that a repeat could be held against, so all that makes it
    another one is in the mark: its content, and for whom a visitor token speaks.
    """
    caller, intent = caller_of(request), intent_of(request)
    if intent.key is None:
        return caller
    content = await _content(request)
    visitor = caller.visitor
    if visitor is not None:
        # Not the token itself: the same shopper's next one makes no other request of this one.
        content += _plain([visitor.kind, visitor.id, visitor.filter])
    mark = make_mark(
        services_of(request).secret.current, caller.tenant_id, key_id=caller.key_id, key=intent.key, content=content
    )
    return structs.replace(caller, once=mark)
