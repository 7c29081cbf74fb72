"""/v1/items/{id}/images/{n} over a real database and a folder."""

import hashlib

import httpx
import pytest

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
