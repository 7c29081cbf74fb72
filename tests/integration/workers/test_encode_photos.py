"""Photos that are pending come to have one vector per item, and what went wrong is told in the shop's words."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from infra.blob_folder import FolderBlobs
from infra.db import Database
from infra.fetch import BadStatus, ServerBusy
from tenants.catalog.photos import photo_key, store_photo
from workers.jobs.encode import TextLoop, encode_texts
from workers.jobs.photos import PhotoLoop
from workers.models import Models

pytestmark = pytest.mark.anyio

STATES = (
    "select d.external_id, i.text_state, i.image_state, i.image_reason, i.image_attempts from items i join item_ids d "
    "on d.tenant_id = $1 and d.item_no = i.item_no where i.tenant_id = $1 order by d.external_id"
)
FUSED = (
    "select d.external_id, v.text_space > 0, v.image_space > 0, v.vec::text from fused_vectors v join item_ids d "
    "on d.tenant_id = $1 and d.item_no = v.item_no where v.tenant_id = $1 order by d.external_id"
)


class Web:
    """Addresses and what their servers answer: bytes, or an error."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        answer = self.answers[url]
        if isinstance(answer, Exception):
            raise answer
        data: bytes = answer
        return data


def solid(red: int, green: int, blue: int) -> np.ndarray[Any, Any]:
    """The decoded photo of one colour."""
    return np.full((8, 12, 3), (red, green, blue), np.uint8)


@pytest.fixture
def loop(database: Database, tiny: Models, blobs: FolderBlobs, clock: Any) -> Any:
    """A photo loop over these answers."""

    def make(answers: dict[str, Any], **options: Any) -> PhotoLoop:
        return PhotoLoop(database, [tiny], blobs, Web(answers), clock=clock, **options)

    return make


async def test_several_photos_are_pooled_to_one_vector(
    tiny: Models, make_shop: Any, query: Any, loop: Any, png: Any
) -> None:
    """The image half is the normalised mean of the photos' rows; the text half stays what it was."""
    images = ["https://shop.example/1.png", "https://shop.example/2.png"]
    tenant_id = await make_shop([{"id": "a", "images": images}])
    await loop({images[0]: png(200, 0, 0), images[1]: png(0, 0, 200)}).step()
    assert await query(tenant_id, STATES) == [("a", 3, 1, None, 0)]
    ((_, has_text, has_image, vec),) = await query(tenant_id, FUSED)
    assert (has_text, has_image) == (False, True)
    mean = tiny.image.encode([solid(200, 0, 0), solid(0, 0, 200)]).mean(axis=0)
    np.testing.assert_allclose(json.loads(vec)[8:], mean / np.linalg.norm(mean), atol=2e-3)


async def test_an_uploaded_photo_is_read_from_the_blob_store(
    database: Database, make_shop: Any, query: Any, loop: Any, png: Any, blobs: FolderBlobs
) -> None:
    """It needs no address, and takes the place of one."""
    tenant_id = await make_shop([{"id": "a", "images": ["https://shop.example/private.png"]}])
    info = await blobs.put(photo_key(tenant_id, "ab" * 32), png(1, 2, 3))
    async with database.tenant_session(tenant_id) as conn:
        await store_photo(
            conn, tenant_id, "a", 0, sha256=bytes.fromhex("ab" * 32), content_type="image/png", size=info.size
        )
    await loop({}).step()
    assert await query(tenant_id, STATES) == [("a", 3, 1, None, 0)]


async def test_a_failed_photo_leaves_the_text_usable(
    database: Database, tiny: Models, make_shop: Any, query: Any, loop: Any, clock: Any
) -> None:
    """The item fails for its photo alone and says which one and why."""
    url = "https://shop.example/1.png"
    tenant_id = await make_shop([{"id": "a", "title": "red shoe", "images": [url]}])
    await TextLoop(database, [tiny], clock=clock).step()
    await loop({url: BadStatus("the server answered 404.")}).step()
    assert await query(tenant_id, STATES) == [
        ("a", 1, 2, "The photo could not be fetched: the server answered 404.", 0)
    ]
    ((_, has_text, has_image, _),) = await query(tenant_id, FUSED)
    assert (has_text, has_image) == (True, False)


async def test_one_good_photo_is_enough(make_shop: Any, query: Any, loop: Any, png: Any) -> None:
    """The item is done, with a note on the photo that cannot be used."""
    images = ["https://shop.example/1.png", "https://shop.example/2.png"]
    tenant_id = await make_shop([{"id": "a", "images": images}])
    await loop({images[0]: b"<html><body>not found", images[1]: png(0, 0, 200)}).step()
    ((_, _, state, reason, _),) = await query(tenant_id, STATES)
    assert state == 1
    assert reason.startswith("Photo 1 of 2 cannot be used: This is a web page")


async def test_a_server_in_trouble_is_asked_five_times(make_shop: Any, query: Any, loop: Any, clock: Any) -> None:
    """Meanwhile the item is pending and says why; then it has failed."""
    url = "https://shop.example/1.png"
    tenant_id = await make_shop([{"id": "a", "images": [url]}])
    photos = loop({url: ServerBusy("the server has trouble.")})
    for attempt in range(1, 5):
        assert len(await _prepare(photos)) == 1
        ((_, _, state, reason, attempts),) = await query(tenant_id, STATES)
        assert (state, attempts) == (0, attempt)
        assert reason == "The photo could not be fetched: the server has trouble."
        assert await _prepare(loop({})) == []
        clock.advance(300)
    await _prepare(photos)
    ((_, _, state, _, _),) = await query(tenant_id, STATES)
    assert state == 2


async def _prepare(photos: PhotoLoop) -> list[Any]:
    """One step by a loop that has not just found that there was nothing to claim."""
    claimed = await photos.claim()
    prepared = [await photos.prepare(one) for one in claimed]
    if prepared:
        await photos._finish(prepared)
    return prepared


async def test_the_same_photos_are_not_encoded_again(
    tiny: Models, make_shop: Any, query: Any, loop: Any, png: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new address with the old bytes keeps the vector."""
    url = "https://shop.example/1.png"
    tenant_id = await make_shop([{"id": "a", "images": [url]}])
    await loop({url: png(200, 0, 0)}).step()
    await query(tenant_id, "update items set image_state = 0 where tenant_id = $1")

    def never(*_: object) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr(type(tiny.image), "encode", never)
    await loop({url: png(200, 0, 0)}).step()
    assert await query(tenant_id, STATES) == [("a", 3, 1, None, 0)]
    assert len(await query(tenant_id, FUSED)) == 1


async def test_text_and_photos_stored_at_once_keep_both_halves(
    database: Database, tiny: Models, make_shop: Any, query: Any, loop: Any, png: Any, clock: Any
) -> None:
    """Two encoders of one item never lose each other's half, whoever commits first."""
    items = [{"id": f"i{at}", "title": "red shoe", "images": [f"https://s.example/{at}"]} for at in range(8)]
    tenant_id = await make_shop(items)
    photos = loop({f"https://s.example/{at}": png(at, 0, 0) for at in range(8)})
    texts = TextLoop(database, [tiny], clock=clock, batch=8)
    claimed = await photos.claim()
    batch = await texts.claim()
    assert batch is not None
    prepared = [await photos.prepare(one) for one in claimed]
    await asyncio.gather(texts.store(batch, encode_texts(batch)), photos._finish(prepared))
    assert {(text, image) for _, text, image, _ in await query(tenant_id, FUSED)} == {(True, True)}
    assert len(await query(tenant_id, FUSED)) == 8


async def test_the_loop_encodes_photos_until_it_is_told_to_stop(
    make_shop: Any, query: Any, loop: Any, png: Any
) -> None:
    """Items are fetched side by side and encoded together; all of them are done at the stop."""
    items = [{"id": f"i{at:02}", "images": [f"https://s.example/{at}"]} for at in range(30)]
    tenant_id = await make_shop(items)
    stop = asyncio.Event()
    done = 0

    def stored(_tenant: Any, _modality: str, count: int) -> None:
        nonlocal done
        done += count
        if done == 30:
            stop.set()

    await loop({f"https://s.example/{at}": png(at, 9, 9) for at in range(30)}, stored=stored).run(stop)
    assert {record[2] for record in await query(tenant_id, STATES)} == {1}


async def test_a_slow_server_holds_up_its_own_shop_only(make_shop: Any, query: Any, loop: Any, png: Any) -> None:
    """Another shop's photo is encoded while the slow ones are still awaited."""
    slow = await make_shop([{"id": f"i{at:02}", "images": [f"https://slow.example/{at}"]} for at in range(30)])
    quick = await make_shop([{"id": "a", "images": ["https://quick.example/1"]}])
    release, stop = asyncio.Event(), asyncio.Event()
    order = []

    def stored(tenant: Any, _modality: str, count: int) -> None:
        order.extend([tenant] * count)
        release.set()
        if len(order) == 31:
            stop.set()

    photos = loop({}, stored=stored)

    async def fetch(url: str) -> bytes:
        if "slow" in url:
            await release.wait()
        data: bytes = png(3, 3, 3)
        return data

    photos._fetch = fetch
    await photos.run(stop)
    assert order[0] == quick
    assert order.count(slow) == 30
