"""API keys: their form, their hash, who they belong to and what they may do.

`sk_` (secret, for servers) or `pk_` (publishable, for browsers), two characters that name the cell, ten of
base62 that name the key, 27 of base62 (160 random bits) and six of base62 (CRC-32 of all before them): a typing
error, or a string that merely looks like a key, is told without asking the database. Only an HMAC-SHA256 of the
whole key is stored.
"""

import hmac
import re
import secrets
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.db import Database, TenantId, driver
from infra.errors import FieldError, Forbidden, Invalid, NotFound, Unauthenticated
from tenants.catalog.item import Id

Kind = Literal["secret", "publishable"]
Scope = Literal[
    "catalog:read",
    "catalog:write",
    "events:write",
    "recommend",
    "search",
    "rules:write",
    "experiments:write",
    "analytics:read",
    "billing:read",
    "admin",
]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
PUBLISHABLE_SCOPES: Final[tuple[Scope, ...]] = ("recommend", "search", "events:write")
"""All that a key which everybody can read may do."""

MAX_KEYS: Final = 100

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX: Final[dict[Kind, str]] = {"secret": "sk_", "publishable": "pk_"}
_KIND: Final[dict[str, Kind]] = {prefix: kind for kind, prefix in _PREFIX.items()}
_CELL, _ID, _RANDOM, _SUM = 2, 10, 27, 6
KEY_LENGTH: Final = 3 + _CELL + _ID + _RANDOM + _SUM
_FORM: Final = re.compile(rf"[sp]k_[0-9A-Za-z]{{{KEY_LENGTH - 3}}}", re.ASCII)


class MistypedKey(Unauthenticated):
    """The string is not an API key: its prefix, length or checksum is wrong."""

    code = "mistyped_key"
    title = "The API key looks mistyped"


class KeyNotFound(NotFound):
    """The tenant has no such key."""

    code = "key_not_found"
    title = "There is no such API key"


class ScopesTooWide(Invalid):
    """A publishable key may not have these scopes."""

    code = "scopes_too_wide"
    title = "A publishable key may not do this"


class TooManyKeys(Forbidden):
    """The tenant has as many live keys as it may have."""

    code = "too_many_keys"
    title = "There are too many live API keys"


class ParsedKey(Struct, frozen=True, kw_only=True):
    """What a key says of itself."""

    kind: Kind
    cell: str
    key_id: str


class FoundKey(Struct, frozen=True, kw_only=True):
    """A stored key as requests are checked against it."""

    tenant_id: TenantId
    key_id: str
    kind: Kind
    scopes: frozenset[str]
    placements: frozenset[str] | None
    allowed_origins: frozenset[str] | None
    rate_per_min: int | None
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyInfo(Struct, frozen=True, kw_only=True):
    """A key as its owner sees it; the key itself is shown once, when it is made."""

    key_id: str
    kind: Kind
    name: str
    scopes: list[str]
    placements: list[str] | None
    allowed_origins: list[str] | None
    rate_per_min: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKey(Struct, frozen=True, kw_only=True):
    """A key just made: `key` is the only copy there will ever be."""

    key: str
    info: KeyInfo


Origin = Annotated[
    str, Meta(max_length=256, pattern=r"^https?://[^/\s?#\x00-\x1f\x7f]+$(?!\n)", examples=["https://shop.example"])
]


class KeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/keys`. Absent `scopes`: the kind's usual ones."""

    kind: Kind = "secret"
    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=20)] | None = None
    placements: Annotated[list[Id], Meta(max_length=100)] | None = None
    allowed_origins: Annotated[list[Origin], Meta(max_length=100)] | None = None
    rate_per_min: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


def default_scopes(kind: Kind) -> tuple[Scope, ...]:
    """What a key may do where nothing was said: a secret one everything but `admin`."""
    return PUBLISHABLE_SCOPES if kind == "publishable" else tuple(scope for scope in SCOPES if scope != "admin")


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _SUM)


def make_key(kind: Kind, *, cell: str) -> tuple[str, str]:
    """A new key from the system's randomness; returns the key and its id."""
    key_id = _base62(secrets.randbelow(62**_ID), _ID)
    body = f"{_PREFIX[kind]}{cell}{key_id}{_base62(secrets.randbits(160), _RANDOM)}"
    return body + _checksum(body), key_id


def parse_key(key: str) -> ParsedKey:
    """Check a key's prefix, length, alphabet and checksum, without the database. Raises MistypedKey."""
    if key[:3] not in _KIND:
        raise MistypedKey("The API key looks mistyped: a key begins with sk_ or pk_.")
    if len(key) != KEY_LENGTH:
        raise MistypedKey(
            f"The API key looks mistyped: it has {len(key)} characters instead of {KEY_LENGTH}. Copy it whole."
        )
    if not _FORM.fullmatch(key) or not hmac.compare_digest(_checksum(key[:-_SUM]), key[-_SUM:]):
        raise MistypedKey("The API key looks mistyped: its checksum is wrong. Copy it again.")
    return ParsedKey(kind=_KIND[key[:3]], cell=key[3 : 3 + _CELL], key_id=key[3 + _CELL : 3 + _CELL + _ID])


def hash_key(secret: bytes, key: str) -> bytes:
    """What is stored of a key: HMAC-SHA256 (RFC 2104) under the installation's secret."""
    return hmac.digest(secret, key.encode(), "sha256")


FIND_KEY: Final = (
    "select tenant_id, key_id, kind, scopes, placements, allowed_origins, rate_per_min, expires_at, revoked_at "
    "from find_key($1)"
)


async def find_key(database: Database, key_hash: bytes) -> FoundKey | None:
    """The key with exactly that hash, revoked and expired ones included; one round trip, before any tenant is known."""
    records = await database.hot.fetch(FIND_KEY, key_hash)
    if not records:
        return None
    (record,) = records
    return FoundKey(
        tenant_id=record["tenant_id"],
        key_id=record["key_id"],
        kind=record["kind"],
        scopes=frozenset(record["scopes"]),
        placements=None if record["placements"] is None else frozenset(record["placements"]),
        allowed_origins=None if record["allowed_origins"] is None else frozenset(record["allowed_origins"]),
        rate_per_min=record["rate_per_min"],
        expires_at=record["expires_at"],
        revoked_at=record["revoked_at"],
    )


_COLUMNS: Final = (
    "key_id, kind, name, scopes, placements, allowed_origins, rate_per_min, created_at, expires_at, revoked_at"
)


def _info(record: Any) -> KeyInfo:
    return KeyInfo(**dict(record))


async def create_key(
    conn: AsyncConnection,
    tenant_id: TenantId,
    wanted: KeyRequest,
    *,
    secret: bytes,
    cell: str,
    now: datetime,
    scopes: Sequence[Scope] | None = None,
) -> NewKey:
    """Make and store a key. `scopes` overrides what was wanted. Raises ScopesTooWide, TooManyKeys."""
    granted = list(dict.fromkeys(scopes or wanted.scopes or default_scopes(wanted.kind)))
    if wanted.kind == "publishable" and (excess := [scope for scope in granted if scope not in PUBLISHABLE_SCOPES]):
        raise ScopesTooWide(
            "Everybody can read a publishable key, so it takes only " + ", ".join(PUBLISHABLE_SCOPES) + ".",
            errors=[
                FieldError(pointer="/scopes", code="scope_too_wide", message=f"`{scope}` needs a secret key.")
                for scope in excess
            ],
        )
    if wanted.expires_at is not None and wanted.expires_at <= now:
        fault = FieldError(pointer="/expires_at", code="out_of_range", message="This time has passed.")
        raise Invalid("Let the key expire in the future, or leave `expires_at` out.", errors=[fault])
    raw = await driver(conn)
    live = await raw.fetchval(
        "select count(*) from api_keys where tenant_id = $1 and revoked_at is null "
        "and (expires_at is null or expires_at > $2)",
        tenant_id,
        now,
    )
    if live >= MAX_KEYS:
        raise TooManyKeys(f"A tenant has at most {MAX_KEYS} live API keys; revoke one that is not used.")
    key, key_id = make_key(wanted.kind, cell=cell)
    record = await raw.fetchrow(
        "insert into api_keys (tenant_id, key_id, kind, name, key_hash, scopes, placements, allowed_origins, "
        "rate_per_min, created_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) "
        f"returning {_COLUMNS}",
        tenant_id,
        key_id,
        wanted.kind,
        wanted.name,
        hash_key(secret, key),
        granted,
        wanted.placements,
        None if wanted.allowed_origins is None else [origin.lower() for origin in wanted.allowed_origins],
        wanted.rate_per_min,
        now,
        wanted.expires_at,
    )
    return NewKey(key=key, info=_info(record))


async def list_keys(conn: AsyncConnection, tenant_id: TenantId) -> list[KeyInfo]:
    """All keys of a tenant, revoked ones included, the newest first."""
    raw = await driver(conn)
    records = await raw.fetch(
        f"select {_COLUMNS} from api_keys where tenant_id = $1 order by created_at desc, key_id", tenant_id
    )
    return [_info(record) for record in records]


async def revoke_key(conn: AsyncConnection, tenant_id: TenantId, key_id: str, *, now: datetime) -> KeyInfo:
    """Revoke a key; again is no error. Every API process drops it within a second. Raises KeyNotFound."""
    raw = await driver(conn)
    record = await raw.fetchrow(
        "update api_keys set revoked_at = coalesce(revoked_at, $3) where tenant_id = $1 and key_id = $2 "
        f"returning {_COLUMNS}",
        tenant_id,
        key_id,
        now,
    )
    if record is None:
        raise KeyNotFound(f"There is no API key {key_id!r}; GET /v1/keys lists them.")
    await record_change(conn, tenant_id, "key", key_id)
    return _info(record)
