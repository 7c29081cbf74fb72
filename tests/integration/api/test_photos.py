"""/v1/items/{id}/images/{n} over a real database and a folder."""

import asyncio
import hashlib
from typing import Any

import httpx
import pytest

from api.app import Application
from infra.db import driver
from tenants.catalog.photos import photo_key
from tests.integration.api.conftest import Shop
from workers.jobs.upkeep import Upkeep

pytestmark = pytest.mark.anyio

PHOTOS = {
    "image/jpeg": b"\xff\xd8\xff\xe0 bytes",
    "image/png": b"\x89PNG\r\n\x1a\n bytes",
    "image/gif": b"GIF89a bytes bytes",
    "image/webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "image/avif": b"\x00\x00\x00\x20ftypavif bytes",
}
JPEG = PHOTOS["image/jpeg"]


@pytest.fixture
async def item(client: httpx.AsyncClient) -> str:
    """The address of a stored item."""
    await client.put("/v1/items/a%2F1", json={"title": "x"})
    return "/v1/items/a%2F1"


async def _put(client: httpx.AsyncClient, url: str, data: bytes, content_type: str | None) -> httpx.Response:
    return await client.put(url, content=data, headers={"content-type": content_type} if content_type else {})


@pytest.mark.parametrize("content_type", PHOTOS)
async def test_every_format_is_taken_and_given_back(client: httpx.AsyncClient, item: str, content_type: str) -> None:
    """The very bytes, with their type; the item is encoded anew."""
    data = PHOTOS[content_type]
    answer = await _put(client, f"{item}/images/0", data, content_type)
    assert answer.json() == {
        "position": 0,
        "content_type": content_type,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    back = await client.get(f"{item}/images/0")
    assert (back.content, back.headers["content-type"]) == (data, content_type)
    shown = (await client.get(item)).json()
    assert shown["encoding"]["image"] == "pending"
    assert [photo["url"] for photo in shown["photos"]] == [f"{item}/images/0"]


async def test_bytes_without_a_type_are_told_by_their_beginning(client: httpx.AsyncClient, item: str) -> None:
    """`application/octet-stream`, or nothing said."""
    assert (await _put(client, f"{item}/images/1", JPEG, None)).json()["content_type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        (b"<!doctype html><html>", "image/jpeg", 422, "not_a_photo"),
        (PHOTOS["image/png"], "image/jpeg", 422, "not_a_photo"),
        (b"", "image/png", 422, "not_a_photo"),
        (b"%PDF-1.7", "application/pdf", 415, "unsupported_media_type"),
        (b"%PDF-1.7", "application/octet-stream", 415, "unsupported_media_type"),
    ],
)
async def test_what_is_no_photo_is_refused(
    client: httpx.AsyncClient, item: str, data: bytes, content_type: str, status: int, code: str
) -> None:
    """The type must be one of ours and the bytes must be of it."""
    answer = await _put(client, f"{item}/images/0", data, content_type)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_photo_over_ten_megabytes_is_refused(client: httpx.AsyncClient, item: str) -> None:
    """One byte more than 10,000,000."""
    answer = await _put(client, f"{item}/images/0", JPEG.ljust(10_000_001), "image/jpeg")
    assert answer.status_code == 413
    assert (await _put(client, f"{item}/images/0", JPEG.ljust(10_000_000), "image/jpeg")).status_code == 200


@pytest.mark.parametrize("position", ["10", "-1", "x", "%20"])
async def test_there_are_ten_positions(client: httpx.AsyncClient, item: str, position: str) -> None:
    """0 to 9."""
    assert (await _put(client, f"{item}/images/{position}", JPEG, "image/jpeg")).status_code == 422


async def test_a_photo_needs_its_item(client: httpx.AsyncClient) -> None:
    """The item comes first."""
    answer = await _put(client, "/v1/items/none/images/0", JPEG, "image/jpeg")
    assert (answer.status_code, answer.json()["code"]) == (404, "item_not_found")


async def test_a_deleted_photo_is_gone(client: httpx.AsyncClient, item: str) -> None:
    """204, then 404."""
    await _put(client, f"{item}/images/0", JPEG, "image/jpeg")
    assert (await client.delete(f"{item}/images/0")).status_code == 204
    assert (await client.get(f"{item}/images/0")).json()["code"] == "photo_not_found"
    assert (await client.delete(f"{item}/images/0")).status_code == 404


async def test_put_of_the_item_keeps_its_photos(client: httpx.AsyncClient, item: str) -> None:
    """Only the fields are replaced."""
    await _put(client, f"{item}/images/3", JPEG, "image/jpeg")
    await client.put(item, json={"title": "other"})
    assert [photo["position"] for photo in (await client.get(item)).json()["photos"]] == [3]


async def test_a_photo_that_is_uploaded_again_while_it_is_swept_stays(
    app: Application, shop: Shop, item: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload waits for the sweep, finds that its bytes were taken, and stores them again."""
    services = app.services
    key = photo_key(shop.tenant_id, hashlib.sha256(JPEG).hexdigest())
    put, delete = services.blobs.put, services.blobs.delete
    there = asyncio.Event()
    uploads = []

    async def noted(*args: Any, **options: Any) -> Any:
        stored = await put(*args, **options)
        there.set()
        return stored

    async def overtaken(doomed: str) -> None:
        if doomed == key:
            there.clear()
            uploads.append(asyncio.create_task(_put(shop.client, f"{item}/images/0", JPEG, "image/jpeg")))
            await there.wait()
            waiting = 0
            while not waiting:
                async with services.database.tenant_session(shop.tenant_id) as conn:
                    waiting = await (await driver(conn)).fetchval(
                        "select count(*) from pg_locks where locktype = 'advisory' and not granted"
                    )
        await delete(doomed)

    await put(key, JPEG)
    monkeypatch.setattr(services.blobs, "put", noted)
    monkeypatch.setattr(services.blobs, "delete", overtaken)
    upkeep = Upkeep(services.database, services.blobs)
    await upkeep.sweep()
    await upkeep.sweep()
    (upload,) = uploads
    assert (await upload).status_code == 200
    assert (await shop.client.get(f"{item}/images/0")).content == JPEG
