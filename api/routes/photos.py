"""/v1/items/{id}/images/{n}: photos that are not public, uploaded as bytes."""

import hashlib
from contextlib import suppress
from typing import Any, Final

from litestar import Response, delete, get, put
from litestar.params import FromPath
from msgspec import Struct

from api.conditions import not_modified
from api.contract import contract
from api.deps import caller_of, services_of
from api.problems import UnsupportedMediaType
from api.wire import AnyRequest, answer, decode_id, expect_media_type, no_content
from api.work import intent_of, writing
from infra.blob import BlobMissing
from infra.decode import InvalidFields
from infra.errors import FieldError, Invalid
from infra.outage import AWAY
from tenants.catalog import photos
from tenants.catalog import store as catalog
from tenants.catalog.item import MAX_PHOTOS, ItemNotFound
from tenants.catalog.photos import MAX_PHOTO_BYTES, PHOTO_TYPES, PhotoNotFound, photo_key, read_photo_token
from tenants.lifecycle import TenantNotFound

_DATA: Final = "Photos are parts of items."

# Where each format says what it is: offset and the bytes there, any one of them.
_MAGIC: Final[dict[str, tuple[tuple[int, tuple[bytes, ...]], ...]]] = {
    "image/jpeg": ((0, (b"\xff\xd8\xff",)),),
    "image/png": ((0, (b"\x89PNG\r\n\x1a\n",)),),
    "image/gif": ((0, (b"GIF87a", b"GIF89a")),),
    "image/webp": ((0, (b"RIFF",)), (8, (b"WEBP",))),
    "image/avif": ((4, (b"ftyp",)), (8, (b"avif", b"avis", b"mif1", b"msf1"))),
}


class NotAPhoto(Invalid):
    """The bytes are not of the type that the Content-Type says."""

    code = "not_a_photo"
    title = "The bytes are not such a photo"


class StoredPhoto(Struct, frozen=True, kw_only=True):
    """An uploaded photo, as it was stored."""

    position: int
    content_type: str
    size: int
    sha256: str


def photo_type(head: bytes) -> str | None:
    """The type that the first bytes of a photo tell, or None."""
    for content_type, marks in _MAGIC.items():
        if all(head[at : at + len(options[0])] in options for at, options in marks):
            return content_type
    return None


@put(
    "/v1/items/{item_id:str}/images/{position:str}",
    status_code=200,
    opt=contract(
        scope="catalog:write",
        tag="Photos",
        summary="Upload a photo of an item",
        body_types=dict.fromkeys(PHOTO_TYPES),
        answer=StoredPhoto,
        answer_example=StoredPhoto(position=0, content_type="image/jpeg", size=48_213, sha256="9f86d081…"),
        unaudited=_DATA,
        max_body=MAX_PHOTO_BYTES,
    ),
)
async def put_photo(request: AnyRequest, item_id: FromPath[str], position: FromPath[str]) -> Response[bytes]:
    """Puts the bytes (at most 10 MB) at a position, 0 to 9, replacing what was there; encoded within a minute."""
    external_id, at = decode_id(item_id), _position(position)
    content_type = expect_media_type(request, "application/octet-stream", *PHOTO_TYPES)
    data = await request.body()
    told = photo_type(data[:16])
    if content_type == "application/octet-stream" and told is not None:
        content_type = told
    if content_type == "application/octet-stream":
        raise UnsupportedMediaType(f"Say what the photo is by Content-Type: {', '.join(PHOTO_TYPES)}.")
    if told != content_type:
        is_html = data[:200].lstrip()[:1] == b"<"
        raise NotAPhoto(
            f"The Content-Type says {content_type}, but the bytes are "
            + ("a web page." if is_html else f"{told}." if told else "no photo." if data else "missing.")
            + " Send the photo itself."
        )
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    async with services.database.tenant_session(tenant_id) as conn:
        await _expect_item(conn, tenant_id, external_id)
    # The bytes first: a row never names a photo that is not there. Between the two no connection is held.
    sha256 = hashlib.sha256(data)
    key, dry_run = photo_key(tenant_id, sha256.hexdigest()), intent_of(request).dry_run
    if not dry_run:
        await services.blobs.put(key, data, content_type=content_type)
    stored = StoredPhoto(position=at, content_type=content_type, size=len(data), sha256=sha256.hexdigest())
    async with writing(request) as work:
        await photos.store_photo(
            work.conn,
            tenant_id,
            external_id,
            at,
            sha256=sha256.digest(),
            content_type=content_type,
            size=len(data),
        )
        # A sweep may have found them unused a moment ago.
        if not dry_run and not await services.blobs.exists(key):
            await services.blobs.put(key, data, content_type=content_type)
        return work.answered(answer(stored))


@get(
    "/v1/items/{item_id:str}/images/{position:str}",
    opt=contract(
        scope="catalog:read",
        tag="Photos",
        summary="Show an uploaded photo",
        answer_types=PHOTO_TYPES,
        tagged=True,
    ),
)
async def get_photo(request: AnyRequest, item_id: FromPath[str], position: FromPath[str]) -> Response[bytes]:
    """The bytes as they were uploaded."""
    external_id, at = decode_id(item_id), _position(position)
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    async with services.database.tenant_session(tenant_id) as conn:
        photo = await photos.get_photo(conn, tenant_id, external_id, at)
    etag = f'"{photo.sha256}"'
    if (same := not_modified(request, etag)) is not None:
        return same
    data = await services.blobs.get(photo_key(tenant_id, photo.sha256))
    headers = {
        "etag": etag,
        "cache-control": "private, max-age=60",
        # Whatever the bytes are, a browser runs nothing in them.
        "content-security-policy": "default-src 'none'; sandbox",
    }
    return Response(data, media_type=photo.content_type, headers=headers)


@get(
    "/photos/{token:str}",
    opt=contract(
        scope="public",
        tag="Photos",
        summary="Show an uploaded photo on a page",
        answer_types=PHOTO_TYPES,
    ),
)
async def show_photo(request: AnyRequest, token: FromPath[str]) -> Response[bytes]:
    """The photo behind an address that an answer gave; the address opens this photo alone, and needs no key."""
    services = services_of(request)
    tenant_id, sha256 = read_photo_token(services.secret, token)
    try:
        with suppress(*AWAY):  # pages keep their photos
            await services.directory.get(tenant_id)
        data = await services.blobs.get(photo_key(tenant_id, sha256))
    except (BlobMissing, TenantNotFound) as error:
        raise PhotoNotFound("The photo was removed.") from error
    headers = {
        "cache-control": "public, max-age=86400, immutable",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
    }
    return Response(data, media_type=photo_type(data[:16]) or "application/octet-stream", headers=headers)


@delete(
    "/v1/items/{item_id:str}/images/{position:str}",
    status_code=204,
    opt=contract(scope="catalog:write", tag="Photos", summary="Delete an uploaded photo", unaudited=_DATA, status=204),
)
async def delete_photo(request: AnyRequest, item_id: FromPath[str], position: FromPath[str]) -> Response[None]:
    """Takes the photo away; the item's encoding follows."""
    external_id, at = decode_id(item_id), _position(position)
    async with writing(request) as work:
        await photos.delete_photo(work.conn, work.tenant_id, external_id, at)
        return work.answered(no_content())


def _position(raw: str) -> int:
    if len(raw) == 1 and raw.isascii() and raw.isdigit():
        return int(raw)
    fault = FieldError(pointer="/position", code="out_of_range", message=f"Expected 0 to {MAX_PHOTOS - 1}.")
    raise InvalidFields(f"Photo positions are 0 to {MAX_PHOTOS - 1}.", errors=[fault])


async def _expect_item(conn: Any, tenant_id: Any, external_id: str) -> None:
    if not await catalog.item_numbers(conn, tenant_id, [external_id]):
        raise ItemNotFound(f"There is no item {external_id!r}. Store it first with PUT /v1/items/{{id}}.")


ROUTES: Final = (put_photo, get_photo, delete_photo, show_photo)
