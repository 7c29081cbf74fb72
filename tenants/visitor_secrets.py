"""What a shop's server signs visitor tokens with.

A signing secret is derived from the installation's, the tenant and a number, and stored nowhere: the table says which
numbers live. Two live at once, so that a shop can change its own without a token being refused.
"""

import hmac
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import ChangeFeed, record_change
from infra.db import Database, TenantId, driver
from infra.errors import Conflict, NotFound
from infra.feedcache import FeedCache
from infra.outage import AWAY
from infra.secret import Secret, mark_of

SIGNING_CHANGE: Final = "visitor_secret"
"""The change that tells of a signing secret made or ended."""

MAX_LIVE: Final = 2
_KID: Final = "v"


class VisitorSecretNotFound(NotFound):
    """The tenant has no live signing secret of that name."""

    code = "visitor_secret_not_found"
    title = "There is no such visitor secret"


class TooManyVisitorSecrets(Conflict):
    """Two signing secrets live already: the one in use, and the one that replaces it."""

    code = "too_many_visitor_secrets"
    title = "Two visitor secrets are live already"


class VisitorSecretInfo(Struct, frozen=True, kw_only=True):
    """A signing secret as its owner sees it. `kid` stands in the header of every token that it signs."""

    kid: str
    created_at: datetime


class NewVisitorSecret(Struct, frozen=True, kw_only=True):
    """A signing secret just made, shown once; `tenant` stands in every token."""

    kid: str
    secret: str
    tenant: str
    created_at: datetime


def derive_secret(installation: bytes, tenant_id: TenantId, secret_no: int) -> str:
    """The signing secret of a number: 43 characters of base64url, used as they are (HMAC-SHA256, 256 bits)."""
    derived = hmac.digest(installation, b"visitor tokens" + tenant_id.bytes + secret_no.to_bytes(4), "sha256")
    return urlsafe_b64encode(derived).decode().rstrip("=")


def kid_of(secret_no: int) -> str:
    """What a signing secret is called in tokens."""
    return f"{_KID}{secret_no}"


def secret_no_of(kid: str) -> int | None:
    """The number that a `kid` names; None where it names none."""
    digits = kid.removeprefix(_KID)
    return int(digits) if kid[:1] == _KID and digits.isascii() and digits.isdigit() and len(digits) < 10 else None


async def create_visitor_secret(
    conn: AsyncConnection, tenant_id: TenantId, *, secret: bytes, now: datetime
) -> NewVisitorSecret:
    """A new signing secret beside the one there is. Raises TooManyVisitorSecrets."""
    raw = await driver(conn)
    # The tenant's row is the lock: two calls at once make no third secret, and no number twice.
    await raw.execute("select 1 from tenants where tenant_id = $1 for update", tenant_id)
    last, live = await raw.fetchrow(
        "select coalesce(max(secret_no), 0), count(*) filter (where revoked_at is null) "
        "from visitor_secrets where tenant_id = $1",
        tenant_id,
    )
    if live >= MAX_LIVE:
        raise TooManyVisitorSecrets(
            "Two visitor secrets are live. Delete the one that no server signs with any more, then make the next."
        )
    await raw.execute(
        "insert into visitor_secrets (tenant_id, secret_no, derived_under, created_at) values ($1, $2, $3, $4)",
        tenant_id,
        last + 1,
        mark_of(secret),
        now,
    )
    await record_change(conn, tenant_id, SIGNING_CHANGE, kid_of(last + 1))
    return NewVisitorSecret(
        kid=kid_of(last + 1),
        secret=derive_secret(secret, tenant_id, last + 1),
        tenant=str(tenant_id),
        created_at=now,
    )


async def list_visitor_secrets(conn: AsyncConnection, tenant_id: TenantId) -> list[VisitorSecretInfo]:
    """The live ones, the newest first; the secrets themselves were shown once."""
    records = await (await driver(conn)).fetch(
        "select secret_no, created_at from visitor_secrets where tenant_id = $1 and revoked_at is null "
        "order by secret_no desc",
        tenant_id,
    )
    return [VisitorSecretInfo(kid=kid_of(record["secret_no"]), created_at=record["created_at"]) for record in records]


async def revoke_visitor_secret(conn: AsyncConnection, tenant_id: TenantId, kid: str, *, now: datetime) -> None:
    """End a signing secret: within a second no token of it is believed. Raises VisitorSecretNotFound."""
    raw = await driver(conn)
    revoked = await raw.fetchval(
        "update visitor_secrets set revoked_at = $3 where tenant_id = $1 and secret_no = $2 and revoked_at is null "
        "returning 1",
        tenant_id,
        secret_no_of(kid) or 0,
        now,
    )
    if revoked is None:
        raise VisitorSecretNotFound(f"There is no live visitor secret {kid!r}; GET /v1/visitor-secrets lists them.")
    await record_change(conn, tenant_id, SIGNING_CHANGE, kid)


async def newest_visitor_secret(conn: AsyncConnection, tenant_id: TenantId, secret: Secret) -> tuple[str, str] | None:
    """`kid` and secret of the newest live one that can be derived here: to sign a token for trying."""
    records = await (await driver(conn)).fetch(
        "select secret_no, derived_under from visitor_secrets where tenant_id = $1 and revoked_at is null "
        "order by secret_no desc",
        tenant_id,
    )
    for record in records:
        derived = _derived(secret, tenant_id, record)
        if derived is not None:
            return kid_of(record["secret_no"]), derived
    return None


async def count_visitor_secrets(system: AsyncConnection) -> Counter[str]:
    """Live signing secrets of all tenants by the mark of the secret that they are derived from."""
    records = await (await driver(system)).fetch(
        "select derived_under, count(*) as count from visitor_secrets where revoked_at is null group by 1"
    )
    return Counter({record["derived_under"]: record["count"] for record in records})


def _derived(secret: Secret, tenant_id: TenantId, record: Any) -> str | None:
    for each in secret.every:
        if mark_of(each) == record["derived_under"]:
            return derive_secret(each, tenant_id, record["secret_no"])
    return None


_LIVE: Final = "select secret_no, derived_under from visitor_secrets where tenant_id = $2::uuid and revoked_at is null"


class VisitorSecrets:
    """The signing secrets of the tenants that this process serves, cached until the change feed says otherwise."""

    def __init__(self, database: Database, feed: ChangeFeed, *, secret: Secret) -> None:
        self._database = database
        self._secret = secret
        self._cache: FeedCache[TenantId, Mapping[str, str]] = FeedCache(
            feed, kinds=frozenset({SIGNING_CHANGE, "tenant"})
        )

    async def of(self, tenant_id: TenantId) -> Mapping[str, str]:
        """By `kid`, the live ones, as they were last known where the database is away."""
        known = self._cache.get(tenant_id)
        if known is not None:
            return known
        mark = self._cache.mark
        try:
            records = await self._database.fetch_scoped(tenant_id, _LIVE)
        except AWAY:
            known = self._cache.get_stale(tenant_id)
            if known is None:
                raise
            return known
        known = {
            kid_of(record["secret_no"]): derived
            for record in records
            if (derived := _derived(self._secret, tenant_id, record)) is not None
        }
        self._cache.put(tenant_id, known, tenant_id=tenant_id, mark=mark)
        return known
