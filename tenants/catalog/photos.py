"""Uploaded photos of items: which there are; their bytes lie in the blob store under their hash."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeVar
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_items
from infra.db import TenantId, driver
from infra.errors import Invalid, NotFound
from infra.secret import Secret
from tenants.catalog.item import MAX_PHOTOS, ItemNotFound

PHOTO_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif")
MAX_PHOTO_BYTES: Final = 10_000_000


class PhotoNotFound(NotFound):
    """The item has no uploaded photo at that position."""

    code = "photo_not_found"
    title = "There is no such photo"


class BadPosition(Invalid):
    """A photo position outside 0 to 9."""

    code = "bad_photo_position"
    title = "There is no such photo position"


class Photo(Struct, frozen=True, kw_only=True):
    """One uploaded photo."""

    position: int
    content_type: str
    size: int
    sha256: str


T = TypeVar("T")
U = TypeVar("U")

_TAG = 12


def by_position(urls: Sequence[T], uploaded: Mapping[int, U]) -> list[T | U]:
    """The photos of an item in order: an upload replaces the address at its position, or follows them."""
    placed: dict[int, T | U] = dict(enumerate(urls))
    placed.update(uploaded)
    return [placed[position] for position in sorted(placed)]


def _tag(secret: bytes, body: bytes) -> bytes:
    return blake2b(body, key=secret[:64], digest_size=_TAG, person=b"photo").digest()


def photo_path(secret: bytes, tenant_id: TenantId, sha256: str) -> str:
    """A public path of an uploaded photo: whoever was given it may see this photo, and nothing else."""
    body = tenant_id.bytes + bytes.fromhex(sha256)
    return "/photos/" + urlsafe_b64encode(body + _tag(secret, body)).decode()


def read_photo_token(secret: Secret, token: str) -> tuple[TenantId, str]:
    """The tenant and hash that `photo_path` put into a token. Raises PhotoNotFound."""
    try:
        raw = urlsafe_b64decode(token)
    except ValueError:
        raw = b""
    body, tag = raw[:-_TAG], raw[-_TAG:]
    if len(body) != 48 or not any(hmac.compare_digest(tag, _tag(each, body)) for each in secret.every):
        raise PhotoNotFound("The address of the photo is not complete.")
    return TenantId(UUID(bytes=body[:16])), body[16:].hex()


def photo_key(tenant_id: TenantId, sha256: str) -> str:
    """Where the bytes of an uploaded photo lie in the blob store; one copy however many items show it."""
    return f"tenants/{tenant_id}/photos/{sha256}"


_LOCK: Final = "hashtextextended('photo ' || {}::uuid::text || encode({}::bytea, 'hex'), 0)"


async def hold_unused(conn: AsyncConnection, photos: Sequence[tuple[UUID, bytes]]) -> list[int]:
    """Which of these (tenant, sha256) no item shows, by their places; none of all of them comes into use until the
    transaction ends. `conn` is a system session.
    """
    raw = await driver(conn)
    named = [tenant_id for tenant_id, _ in photos], [sha256 for _, sha256 in photos]
    # In one order everywhere. A statement of its own: what waited for a lock sees what was committed meanwhile.
    await raw.execute(
        f"select pg_advisory_xact_lock(l.key) from (select {_LOCK.format('g.tenant_id', 'g.sha256')} as key "
        "from unnest($1::uuid[], $2::bytea[]) g(tenant_id, sha256) order by 1) l",
        *named,
    )
    return await list_unused(conn, photos)


async def list_unused(conn: AsyncConnection, photos: Sequence[tuple[UUID, bytes]]) -> list[int]:
    """Which of these (tenant, sha256) no item shows now, by their places. `conn` is a system session."""
    records = await (await driver(conn)).fetch(
        "select g.at from unnest($1::uuid[], $2::bytea[]) with ordinality g(tenant_id, sha256, at) "
        "where not exists (select 1 from item_photos p where p.tenant_id = g.tenant_id and p.sha256 = g.sha256)",
        [tenant_id for tenant_id, _ in photos],
        [sha256 for _, sha256 in photos],
    )
    return [record["at"] - 1 for record in records]


async def store_photo(
    conn: AsyncConnection,
    tenant_id: TenantId,
    external_id: str,
    position: int,
    *,
    sha256: bytes,
    content_type: str,
    size: int,
) -> None:
    """Put an uploaded photo at a position (0 to 9), replacing what was there. Raises ItemNotFound.

    From here until the transaction ends no sweep takes the photo's bytes away. One that was quicker has: look then
    whether they are there still.
    """
    if not 0 <= position < MAX_PHOTOS:
        raise BadPosition(f"Photo positions are 0 to {MAX_PHOTOS - 1}.")
    raw = await driver(conn)
    await raw.execute(f"select pg_advisory_xact_lock_shared({_LOCK.format('$1', '$2')})", tenant_id, sha256)
    item_no = await _lock_item(raw, tenant_id, external_id)
    changed = await raw.fetchval(
        "insert into item_photos as p (tenant_id, item_no, position, sha256, content_type, size) "
        "values ($1, $2, $3, $4, $5, $6) on conflict (tenant_id, item_no, position) do update "
        "set sha256 = excluded.sha256, content_type = excluded.content_type, size = excluded.size "
        "where p.sha256 <> excluded.sha256 returning 1",
        tenant_id,
        item_no,
        position,
        sha256,
        content_type,
        size,
    )
    if changed:
        await _photos_changed(conn, tenant_id, item_no)


async def delete_photo(conn: AsyncConnection, tenant_id: TenantId, external_id: str, position: int) -> None:
    """Remove an uploaded photo. Raises ItemNotFound, PhotoNotFound."""
    raw = await driver(conn)
    item_no = await _lock_item(raw, tenant_id, external_id)
    removed = await raw.fetchval(
        "delete from item_photos where tenant_id = $1 and item_no = $2 and position = $3 returning 1",
        tenant_id,
        item_no,
        position,
    )
    if not removed:
        raise PhotoNotFound(f"Item {external_id!r} has no uploaded photo at position {position}.")
    await _photos_changed(conn, tenant_id, item_no)


async def get_photo(conn: AsyncConnection, tenant_id: TenantId, external_id: str, position: int) -> Photo:
    """The uploaded photo at a position. Raises PhotoNotFound."""
    raw = await driver(conn)
    record = await raw.fetchrow(
        "select p.position, p.content_type, p.size, p.sha256 from item_ids d join item_photos p "
        "on p.tenant_id = $1 and p.item_no = d.item_no "
        "where d.tenant_id = $1 and d.external_id = $2 and p.position = $3",
        tenant_id,
        external_id,
        position,
    )
    if record is None:
        raise PhotoNotFound(f"Item {external_id!r} has no uploaded photo at position {position}.")
    return Photo(
        position=record["position"],
        content_type=record["content_type"],
        size=record["size"],
        sha256=record["sha256"].hex(),
    )


async def _lock_item(raw: Any, tenant_id: TenantId, external_id: str) -> int:
    item_no: int | None = await raw.fetchval(
        "select i.item_no from item_ids d join items i on i.tenant_id = $1 and i.item_no = d.item_no "
        "where d.tenant_id = $1 and d.external_id = $2 for update of i",
        tenant_id,
        external_id,
    )
    if item_no is None:
        raise ItemNotFound(f"There is no item {external_id!r}. Store it first with PUT /v1/items/{{id}}.")
    return item_no


async def _photos_changed(conn: AsyncConnection, tenant_id: TenantId, item_no: int) -> None:
    """Queue the item's photos again, also when none is left: the worker then takes the vector away."""
    await record_items(conn, tenant_id, [item_no])
    raw = await driver(conn)
    await raw.execute(
        "update items set image_version = image_version + 1, image_due = '-infinity', image_attempts = 0, "
        "image_reason = null, image_state = 0 where tenant_id = $1 and item_no = $2",
        tenant_id,
        item_no,
    )
