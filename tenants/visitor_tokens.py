"""Visitor tokens: a shop's server says which of its shoppers a browser speaks for, and in which part of the catalogue.

A JSON Web Token (RFC 7519) signed with HS256 and nothing else, under a signing secret of the tenant
(visitor_secrets.py). Its claims only narrow what the key beside it may do.
"""

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from infra.changes import ChangeFeed
from infra.clock import Clock
from infra.db import Database, TenantId
from infra.errors import Invalid, Unauthenticated
from infra.feedcache import FeedCache
from infra.secret import Secret
from tenants.catalog.filters import parse_filter
from tenants.catalog.item import Id
from tenants.visitor_secrets import SIGNING_CHANGE, VisitorSecrets

MAX_TOKEN: Final = 4096
"""Characters of a token."""

LIFE: Final = timedelta(hours=24)
LEEWAY: Final = timedelta(minutes=5)
"""What the shop's clock may be off by, either way."""

AUDIENCE: Final = "kindred"
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_ALGORITHMS: Final = ("HS256",)


class VisitorTokenRefused(Unauthenticated):
    """The visitor token is not one that this shop's server signed, or says what no token may say."""

    code = "visitor_token_refused"
    title = "The visitor token cannot be used"


class VisitorTokenExpired(Unauthenticated):
    """The visitor token's time is over."""

    code = "visitor_token_expired"
    title = "The visitor token has expired"


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a token says. Times are seconds since 1970 (RFC 7519, 2). Exactly one of `user` and `visitor`."""

    aud: Literal["kindred"]
    tenant: UUID
    exp: Annotated[float, Meta(ge=0, le=1e11)]
    iat: Annotated[float, Meta(ge=0, le=1e11)] | None = None
    user: Id | None = None
    visitor: Id | None = None
    placements: Annotated[list[Id], Meta(max_length=100)] | None = None
    filter: dict[str, Any] | None = None


class Visitor(Struct, frozen=True, kw_only=True):
    """Who a browser speaks for: `kind` 1 a user, 0 a visitor. Every list is narrowed to `filter` and `placements`."""

    kind: int
    id: str
    placements: frozenset[str] | None
    filter: Mapping[str, Any] | None


class _Checked(Struct, frozen=True, kw_only=True):
    visitor: Visitor
    until: float


def sign(claims: Claims, *, kid: str, secret: str) -> str:
    """The token of these claims, as a shop's server makes it."""
    from joserfc import jws
    from joserfc.jwk import OctKey

    header = {"alg": "HS256", "kid": kid}
    return jws.serialize_compact(header, msgspec.json.encode(claims), OctKey.import_key(secret), algorithms=_ALGORITHMS)


def verify(token: str, secrets: Mapping[str, str], tenant_id: TenantId, *, now: datetime) -> Claims:
    """The claims of a token that one of these signing secrets, by `kid`, made. Raises a kind of Unauthenticated."""
    # 14 MB, of which a process of a shop without tokens needs nothing.
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import OctKey

    if len(token) > MAX_TOKEN:
        raise VisitorTokenRefused(
            f"The visitor token has {len(token):,} characters; {MAX_TOKEN:,} are allowed. Shorten its `filter`."
        )
    try:
        signed = jws.extract_compact(token.encode())
    except (JoseError, ValueError) as error:
        raise VisitorTokenRefused("The visitor token is no JSON Web Token; send it as the server made it.") from error
    header = signed.headers()
    if header.get("alg") != "HS256" or not header.keys() <= _HEADER:
        raise VisitorTokenRefused(
            'The header of a visitor token is {"alg": "HS256", "kid": "…"}, `typ` beside them, and nothing else.'
        )
    kid = header.get("kid")
    secret = secrets.get(kid) if isinstance(kid, str) else None
    if secret is None:
        raise VisitorTokenRefused(
            "The `kid` of the visitor token names no live visitor secret; GET /v1/visitor-secrets lists them."
        )
    try:
        good = jws.validate_compact(signed, OctKey.import_key(secret), algorithms=_ALGORITHMS)
    except (JoseError, ValueError):
        good = False
    if not good:
        raise VisitorTokenRefused(
            "The signature of the visitor token is wrong. Sign with the secret that its `kid` names, as it was shown."
        )
    return _checked(signed.payload, tenant_id, now)


def _checked(payload: bytes, tenant_id: TenantId, now: datetime) -> Claims:
    try:
        claims = msgspec.json.decode(payload, type=Claims)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VisitorTokenRefused(f"The claims of the visitor token cannot be used: {error}.") from error
    if claims.tenant != tenant_id:
        raise VisitorTokenRefused("The visitor token is of another tenant than the key.")
    if (claims.user is None) == (claims.visitor is None):
        raise VisitorTokenRefused("A visitor token names a `user` or a `visitor`, and not both.")
    if claims.filter is not None:
        try:
            # One level is kept for the request's own filter, which it is joined with.
            parse_filter({"and": [claims.filter]})
        except Invalid as error:
            raise VisitorTokenRefused(f"The `filter` of the visitor token cannot be used. {error.detail}") from error
    moment = now.timestamp()
    if claims.exp + LEEWAY.total_seconds() <= moment:
        raise VisitorTokenExpired("The visitor token has expired; fetch another from the shop's server.")
    if claims.exp > moment + (LIFE + LEEWAY).total_seconds():
        raise VisitorTokenRefused("A visitor token lives 24 hours at most; bring `exp` nearer.")
    if claims.iat is not None and claims.iat > moment + LEEWAY.total_seconds():
        raise VisitorTokenRefused("The visitor token is of the future; put the shop's clock right.")
    return claims


class VisitorTokens:
    """Tells who a token speaks for; what was checked is cached until the change feed, or a minute, drops it."""

    def __init__(self, database: Database, feed: ChangeFeed, *, secret: Secret, clock: Clock) -> None:
        self._secrets = VisitorSecrets(database, feed, secret=secret)
        self._clock = clock
        self._cache_key = os.urandom(32)
        self._cache: FeedCache[tuple[TenantId, bytes], _Checked] = FeedCache(
            feed, kinds=frozenset({SIGNING_CHANGE, "tenant"})
        )

    async def read(self, tenant_id: TenantId, token: str) -> Visitor:
        """Who the token speaks for. Raises VisitorTokenRefused, VisitorTokenExpired."""
        # A digest, so that the cache holds no token. Of the tenant, so that one's token says nothing to another.
        name = (tenant_id, blake2b(token.encode(), key=self._cache_key, digest_size=32).digest())
        checked = self._cache.get(name)
        now = self._clock()
        if checked is None or checked.until <= now.timestamp():
            mark = self._cache.mark
            claims = verify(token, await self._secrets.of(tenant_id), tenant_id, now=now)
            checked = _Checked(visitor=_visitor(claims), until=claims.exp + LEEWAY.total_seconds())
            self._cache.put(name, checked, tenant_id=tenant_id, mark=mark)
        return checked.visitor


def _visitor(claims: Claims) -> Visitor:
    return Visitor(
        kind=0 if claims.user is None else 1,
        id=claims.user or claims.visitor or "",
        placements=None if claims.placements is None else frozenset(claims.placements),
        filter=claims.filter,
    )
