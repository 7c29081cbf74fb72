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
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.clock import within_reach
from infra.db import Database, TenantId, driver
from infra.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, Unauthenticated
from infra.secret import mark_of
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
MAX_OVERLAP_S: Final = 30 * 86_400

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX: Final[dict[Kind, str]] = {"secret": "sk_", "publishable": "pk_"}
_KIND: Final[dict[str, Kind]] = {prefix: kind for kind, prefix in _PREFIX.items()}
_CELL, _ID, _RANDOM, _SUM = 2, 10, 27, 6
KEY_LENGTH: Final = 3 + _CELL + _ID + _RANDOM + _SUM
KEY_PATTERN: Final = rf"\b[sp]k_[0-9A-Za-z]{{{KEY_LENGTH - 3}}}\b"
"""What a scanner looks for in texts; `parse_key` then tells by the checksum what only looks like a key."""
_IN_TEXT: Final = re.compile(KEY_PATTERN, re.ASCII)
_FORM: Final = re.compile(rf"[sp]k_[0-9A-Za-z]{{{KEY_LENGTH - 3}}}", re.ASCII)


class MistypedKey(Unauthenticated):
    """The string is not an API key: its prefix, length or checksum is wrong."""

    code = "mistyped_key"
    title = "The API key looks mistyped"


class KeyNotFound(NotFound):
    """The tenant has no such key."""

    code = "key_not_found"
    title = "There is no such API key"


class KeyNotLive(Conflict):
    """A revoked or expired key is neither changed nor replaced."""

    code = "key_not_live"
    title = "The API key is revoked or has expired"


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
    hashed_under: str | None = None


class KeyInfo(Struct, frozen=True, kw_only=True):
    """A key as its owner sees it; the key itself is shown once, when it is made.

    `last_used_at` is the hour of the last use that was noted, `last_used_from` the host of the page, or
    `network` and a hash of the network, that it came from; both may lag by a minute.
    """

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
    last_used_at: datetime | None
    last_used_from: str | None


class NewKey(Struct, frozen=True, kw_only=True):
    """A key just made: `key` is the only copy there will ever be."""

    key: str
    info: KeyInfo


Origin = Annotated[
    str, Meta(max_length=256, pattern=r"^https?://[^/\s?#\x00-\x1f\x7f]+$(?!\n)", examples=["https://shop.example"])
]


KeyName = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]
Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=20)]
KeyPlacements = Annotated[list[Id], Meta(max_length=100)]
Origins = Annotated[list[Origin], Meta(max_length=100)]
RatePerMin = Annotated[int, Meta(ge=1, le=10_000_000)]
Moment = Annotated[datetime, Meta(tz=True)]


class KeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/keys`. Absent `scopes`: the kind's usual ones.

    `placements`: lists are asked for by one of these alone; no strategy of its own, no search.
    """

    kind: Kind = "secret"
    name: KeyName
    scopes: Scopes | None = None
    placements: KeyPlacements | None = None
    allowed_origins: Origins | None = None
    rate_per_min: RatePerMin | None = None
    expires_at: Moment | None = None


class KeyPatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `PATCH /v1/keys/{id}` (RFC 7396): what is absent stays, null takes a bound away."""

    name: KeyName | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    placements: KeyPlacements | UnsetType | None = UNSET
    allowed_origins: Origins | UnsetType | None = UNSET
    rate_per_min: RatePerMin | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class KeyRotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/keys/{id}/rotate`: seconds that the old key still works, a day when absent."""

    overlap_s: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_S)] = 86_400


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


def find_keys(text: str) -> Iterator[tuple[int, ParsedKey]]:
    """Every API key in a text, with its place: for scanners of logs, pages and repositories."""
    for found in _IN_TEXT.finditer(text):
        try:
            yield found.start(), parse_key(found.group())
        except MistypedKey:
            continue


def hash_key(secret: bytes, key: str) -> bytes:
    """What is stored of a key: HMAC-SHA256 (RFC 2104) under the installation's secret."""
    return hmac.digest(secret, key.encode(), "sha256")


FIND_KEY: Final = (
    "select tenant_id, key_id, kind, scopes, placements, allowed_origins, rate_per_min, expires_at, revoked_at, "
    "hashed_under from find_key($1)"
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
        hashed_under=record["hashed_under"],
    )


async def rehash_key(database: Database, found: FoundKey, key: str, *, secret: bytes) -> None:
    """Store the hash under another secret than it was found by: when a key is used, for only then is it known."""
    async with database.tenant_session(found.tenant_id) as conn:
        raw = await driver(conn)
        await raw.execute(
            "update api_keys set key_hash = $3, hashed_under = $4 where tenant_id = $1 and key_id = $2",
            found.tenant_id,
            found.key_id,
            hash_key(secret, key),
            mark_of(secret),
        )


_COLUMNS: Final = (
    "key_id, kind, name, scopes, placements, allowed_origins, rate_per_min, created_at, expires_at, revoked_at, "
    "last_used_at, last_used_from"
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
    _expect_narrow(wanted.kind, granted)
    _expect_future(wanted.expires_at, now)
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
        "insert into api_keys (tenant_id, key_id, kind, name, key_hash, hashed_under, scopes, placements, "
        "allowed_origins, rate_per_min, created_at, expires_at) "
        "values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
        f"returning {_COLUMNS}",
        tenant_id,
        key_id,
        wanted.kind,
        wanted.name,
        hash_key(secret, key),
        mark_of(secret),
        granted,
        wanted.placements,
        _stored_origins(wanted.allowed_origins),
        wanted.rate_per_min,
        now,
        None if wanted.expires_at is None else within_reach(wanted.expires_at),
    )
    return NewKey(key=key, info=_info(record))


def _expect_narrow(kind: str, granted: Sequence[str]) -> None:
    if kind == "publishable" and (excess := [scope for scope in granted if scope not in PUBLISHABLE_SCOPES]):
        raise ScopesTooWide(
            "Everybody can read a publishable key, so it takes only " + ", ".join(PUBLISHABLE_SCOPES) + ".",
            errors=[
                FieldError(pointer="/scopes", code="scope_too_wide", message=f"`{scope}` needs a secret key.")
                for scope in excess
            ],
        )


def _expect_future(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        fault = FieldError(pointer="/expires_at", code="out_of_range", message="This time has passed.")
        raise Invalid("Let the key expire in the future, or leave `expires_at` out.", errors=[fault])


def _stored_origins(origins: Sequence[str] | None) -> list[str] | None:
    return None if origins is None else [origin.lower() for origin in origins]


async def patch_key(
    conn: AsyncConnection, tenant_id: TenantId, key_id: str, patch: KeyPatch, *, now: datetime
) -> KeyInfo:
    """Change what a live key may do; every API process knows within a second.

    Raises KeyNotFound, KeyNotLive, ScopesTooWide, and Invalid for a time that has passed.
    """
    raw = await driver(conn)
    old = await _lock_live(raw, tenant_id, key_id, now)
    changes = {name: value for name in patch.__struct_fields__ if (value := getattr(patch, name)) is not UNSET}
    if "scopes" in changes:
        changes["scopes"] = list(dict.fromkeys(changes["scopes"]))
        _expect_narrow(old.kind, changes["scopes"])
    if "allowed_origins" in changes:
        changes["allowed_origins"] = _stored_origins(changes["allowed_origins"])
    _expect_future(changes.get("expires_at"), now)
    if changes.get("expires_at") is not None:
        changes["expires_at"] = within_reach(changes["expires_at"])
    if not changes:
        return old
    # The names are those of the struct's fields.
    assignments = ", ".join(f"{name} = ${place}" for place, name in enumerate(changes, 3))
    record = await raw.fetchrow(
        f"update api_keys set {assignments} where tenant_id = $1 and key_id = $2 returning {_COLUMNS}",
        tenant_id,
        key_id,
        *changes.values(),
    )
    await record_change(conn, tenant_id, "key", key_id)
    return _info(record)


async def rotate_key(
    conn: AsyncConnection,
    tenant_id: TenantId,
    key_id: str,
    rotation: KeyRotation,
    *,
    secret: bytes,
    cell: str,
    now: datetime,
) -> NewKey:
    """Make a key of the same name that may do the same, and let the old one expire after the overlap.

    A key that was made for a time gets the same time again. Raises KeyNotFound, KeyNotLive, TooManyKeys.
    """
    raw = await driver(conn)
    old = await _lock_live(raw, tenant_id, key_id, now)
    wanted = KeyRequest(
        kind=old.kind,
        name=old.name,
        placements=old.placements,
        allowed_origins=old.allowed_origins,
        rate_per_min=old.rate_per_min,
        expires_at=None if old.expires_at is None else now + (old.expires_at - old.created_at),
    )
    scopes = [scope for scope in SCOPES if scope in old.scopes]
    made = await create_key(conn, tenant_id, wanted, secret=secret, cell=cell, now=now, scopes=scopes)
    await raw.execute(
        "update api_keys set expires_at = least(expires_at, $3) where tenant_id = $1 and key_id = $2",
        tenant_id,
        key_id,
        now + timedelta(seconds=rotation.overlap_s),
    )
    await record_change(conn, tenant_id, "key", key_id)
    return made


async def _lock_live(raw: Any, tenant_id: TenantId, key_id: str, now: datetime) -> KeyInfo:
    record = await raw.fetchrow(
        f"select {_COLUMNS} from api_keys where tenant_id = $1 and key_id = $2 for update", tenant_id, key_id
    )
    if record is None:
        raise _unknown(key_id)
    found = _info(record)
    if found.revoked_at is not None or (found.expires_at is not None and found.expires_at <= now):
        raise KeyNotLive("A revoked or expired key stays what it is. Make another with POST /v1/keys.")
    return found


def _unknown(key_id: str) -> KeyNotFound:
    return KeyNotFound(f"There is no API key {key_id!r}; GET /v1/keys lists them.")


async def list_keys(conn: AsyncConnection, tenant_id: TenantId) -> list[KeyInfo]:
    """All keys of a tenant, revoked ones included, the newest first."""
    raw = await driver(conn)
    records = await raw.fetch(
        f"select {_COLUMNS} from api_keys where tenant_id = $1 order by created_at desc, key_id", tenant_id
    )
    return [_info(record) for record in records]


async def count_keys(system: AsyncConnection) -> Counter[str]:
    """Live keys of all tenants by the mark of the secret that they are hashed under; "" for those of before marks."""
    raw = await driver(system)
    records = await raw.fetch(
        "select coalesce(hashed_under, '') as mark, count(*) as count from api_keys "
        "where revoked_at is null and (expires_at is null or expires_at > now()) group by 1"
    )
    return Counter({record["mark"]: record["count"] for record in records})


class KeyUse(Struct, frozen=True, kw_only=True):
    """That a key was used, to the hour, and coarsely from where."""

    tenant_id: TenantId
    key_id: str
    hour: datetime
    place: str


async def store_key_uses(system: AsyncConnection, uses: Sequence[KeyUse]) -> None:
    """Note the uses of keys of any tenants. A key that is just being changed is noted the next time."""
    raw = await driver(system)
    await raw.execute(
        "with used as (select k.tenant_id, k.key_id, u.hour, u.place from api_keys k "
        "join unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[]) u(tenant_id, key_id, hour, place) "
        "on k.tenant_id = u.tenant_id and k.key_id = u.key_id "
        "where k.last_used_at is distinct from u.hour or k.last_used_from is distinct from u.place "
        "for update of k skip locked) "
        "update api_keys k set last_used_at = greatest(k.last_used_at, used.hour), last_used_from = used.place "
        "from used where k.tenant_id = used.tenant_id and k.key_id = used.key_id",
        [use.tenant_id for use in uses],
        [use.key_id for use in uses],
        [use.hour for use in uses],
        [use.place for use in uses],
    )


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
        raise _unknown(key_id)
    await record_change(conn, tenant_id, "key", key_id)
    return _info(record)
