"""API key -> Caller, and the guards that routes name as data: `opt={"scope": "catalog:read"}`."""

import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NoReturn
from uuid import UUID

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from msgspec import Struct, structs

from infra.changes import ChangeFeed
from infra.clock import Clock
from infra.db import Database, TenantId
from infra.errors import Forbidden, Unauthenticated
from infra.feedcache import FeedCache
from infra.outage import AWAY
from infra.secret import Secret, mark_of
from tenants.keys import FoundKey, Kind, find_key, hash_key, parse_key, rehash_key
from tenants.visitor_tokens import Visitor, VisitorTokens

_log = structlog.get_logger(__name__)


class KeyMissing(Unauthenticated):
    """The request carries no API key."""

    code = "key_missing"
    title = "An API key is needed"


class AmbiguousKey(Unauthenticated):
    """The request carries two keys, or two visitor tokens, that differ: nobody can tell which one is meant."""

    code = "ambiguous_key"
    title = "The request carries two API keys"


class KeyUnknown(Unauthenticated):
    """No tenant has this key."""

    code = "key_unknown"
    title = "The API key is unknown"


class KeyRevoked(Unauthenticated):
    """The key was revoked."""

    code = "key_revoked"
    title = "The API key was revoked"


class KeyExpired(Unauthenticated):
    """The key's time is over."""

    code = "key_expired"
    title = "The API key has expired"


class ScopeMissing(Forbidden):
    """The key is valid but lacks the scope of this route."""

    code = "scope_missing"
    title = "The API key may not do this"


class OriginRefused(Forbidden):
    """A publishable key is used from a page that it is not for."""

    code = "origin_refused"
    title = "The API key is not for this origin"


class UserIdRefused(Forbidden):
    """A publishable key identifies nobody, so it may not speak for a user."""

    code = "user_id_refused"
    title = "A publishable key may not name a user"


class ShopperRefused(Forbidden):
    """A visitor token speaks for one shopper, and the request names another."""

    code = "shopper_refused"
    title = "The visitor token speaks for another shopper"


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks: a tenant, by one of its keys; `visitor`: for whom alone, where a visitor token came with it."""

    tenant_id: TenantId
    key_id: str
    kind: Kind
    scopes: frozenset[str]
    placements: frozenset[str] | None
    rate_per_min: int | None
    visitor: Visitor | None = None
    person_id: UUID | None = None
    """Whose session it is, where no key asks."""
    once: str | None = None
    """Of a request that may be a repeat: what the answers to all its repeats are marked with, hexadecimal."""


class _Checked(Struct, frozen=True, kw_only=True):
    caller: Caller
    allowed_origins: frozenset[str] | None
    expires_at: datetime | None


class Authenticator:
    """Tells who a key belongs to; found keys are cached until the change feed, or a minute, drops them."""

    def __init__(self, database: Database, feed: ChangeFeed, *, secret: Secret, clock: Clock) -> None:
        self._database = database
        self._secret = secret
        self._mark = mark_of(secret.current)
        self._visitors = VisitorTokens(database, feed, secret=secret, clock=clock)
        self._cache_key = os.urandom(32)
        self._clock = clock
        self._cache: FeedCache[bytes, _Checked] = FeedCache(feed, kinds=frozenset({"key", "tenant"}))

    async def authenticate(
        self,
        key: str | None,
        origin: str | None,
        token: str | None = None,
        admit: Callable[[], Awaitable[None]] | None = None,
    ) -> Caller:
        """The caller with that key, from a page of that origin, for whom the visitor token speaks.

        `admit` is waited for before the database is asked about a key that nobody here knows: anybody can make one up
        that looks good. Raises a kind of Unauthenticated, or OriginRefused, and what `admit` raises.
        """
        if not key:
            raise KeyMissing("Send `Authorization: Bearer <key>`, or `X-API-Key: <key>`.")
        # A digest of the key, so that the cache holds none. Not the stored HMAC, whose OpenSSL costs a process that
        # slept 80 µs; a key that is found needs no second look at its checksum either.
        name = blake2b(key.encode(), key=self._cache_key, digest_size=32).digest()
        checked = self._cache.get(name)
        if checked is None:
            parse_key(key)
            if admit is not None and self._cache.get_stale(name) is None:
                await admit()
            mark = self._cache.mark
            try:
                found = await self._find(key)
            except AWAY:
                checked = self._cache.get_stale(name)
                if checked is None:
                    raise
            else:
                checked = _check(found)
                self._cache.put(name, checked, tenant_id=checked.caller.tenant_id, mark=mark)
        if checked.expires_at is not None and checked.expires_at <= self._clock():
            raise KeyExpired(f"This API key expired at {checked.expires_at.isoformat()}. Use another, or make one.")
        if checked.allowed_origins is not None and (origin is None or origin.lower() not in checked.allowed_origins):
            raise OriginRefused(
                f"This key works on pages of {', '.join(sorted(checked.allowed_origins))} only; "
                + ("the request names no origin." if origin is None else f"the request is of {origin!r}.")
            )
        return checked.caller if token is None else await self._narrowed(checked.caller, token)

    async def _find(self, key: str) -> FoundKey | None:
        """The key under whichever secret it is stored; from now on under the current one."""
        for each in self._secret.every:
            found = await find_key(self._database, hash_key(each, key))
            if found is None:
                continue
            if found.hashed_under != self._mark:
                try:
                    await rehash_key(self._database, found, key, secret=self._secret.current)
                except Exception as error:
                    # The key is good all the same; its next use tries again.
                    _log.warning("keys.rehash_failed", key_id=found.key_id, error=type(error).__name__)
            return found
        return None

    async def _narrowed(self, caller: Caller, token: str) -> Caller:
        visitor = await self._visitors.read(caller.tenant_id, token)
        placements = caller.placements
        if visitor.placements is not None:
            placements = visitor.placements if placements is None else placements & visitor.placements
        return structs.replace(caller, visitor=visitor, placements=placements)


def _check(found: FoundKey | None) -> _Checked:
    if found is None:
        raise KeyUnknown("This API key is of no tenant here. GET /v1/keys, with another key, lists those there are.")
    if found.revoked_at is not None:
        raise KeyRevoked(f"This API key was revoked at {found.revoked_at.isoformat()}. Use another, or make one.")
    return _Checked(
        caller=Caller(
            tenant_id=found.tenant_id,
            key_id=found.key_id,
            kind=found.kind,
            scopes=found.scopes,
            placements=found.placements,
            rate_per_min=found.rate_per_min,
        ),
        # A secret key is for servers, which send no origin.
        allowed_origins=found.allowed_origins if found.kind == "publishable" else None,
        expires_at=found.expires_at,
    )


PUBLIC: Final = "public"
"""The scope of a route that needs no key."""


async def requires(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard of every route: the caller has the scope that the route names. Raises what it lacks.

    A coroutine, though it awaits nothing: Litestar would run a plain function in a thread, at ten times the cost.
    """
    scope = handler.opt.get("scope")
    # create_app refuses a route without a scope; the framework's own answers to OPTIONS have none.
    if scope == PUBLIC or connection.scope.get("method") == "OPTIONS":
        return
    caller = connection.scope["state"].get("caller")
    if isinstance(caller, Caller):
        if scope not in caller.scopes:
            raise ScopeMissing(
                f"This needs the scope `{scope}`; the key {caller.key_id} has "
                + (", ".join(sorted(caller.scopes)) or "none")
                + "."
            )
        return
    _refuse(caller)


def _refuse(reason: object) -> NoReturn:
    if isinstance(reason, Exception):
        raise reason
    raise KeyMissing("Send `Authorization: Bearer <key>`, or `X-API-Key: <key>`.")
