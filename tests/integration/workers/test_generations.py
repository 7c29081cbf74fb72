"""Another encoder fills a generation beside the one that serves, takes over when complete, and can be undone."""

from typing import Any

import numpy as np
import pytest

from infra.blob_folder import FolderBlobs
from infra.db import Database
from tenants.lifecycle import load_tenant
from tenants.vectors import shards
from workers.jobs.encode import TextLoop
from workers.jobs.generations import Keeper
from workers.jobs.photos import PhotoLoop
from workers.jobs.upkeep import Upkeep
from workers.models import Models

pytestmark = pytest.mark.anyio

WORDS = ["red", "blue", "green", "shoe", "shirt", "lamp", "mug"]


def items(count: int) -> list[dict[str, Any]]:
    """Items of differing texts."""
    return [{"id": f"i{at:03}", "title": f"{WORDS[at % 7]} {WORDS[at // 7 % 7]} {at}"} for at in range(count)]


async def drain(database: Database, keeper: Keeper, models: list[Models], clock: Any, ticks: int = 12) -> None:
    """Encode all that is pending, and let the keeper see it, until nothing happens any more."""
    for _ in range(ticks):
        texts = TextLoop(database, models, clock=clock, stored=keeper.stored)
        while await texts.step():
            pass
        await keeper.tick()


async def test_a_new_tenant_gets_a_generation_without_being_asked(
    database: Database, tiny: Models, make_shop: Any
) -> None:
    """It is served by the encoders of the settings, with the figures that come with the packs."""
    tenant_id = await make_shop()
    async with database.tenant_session(tenant_id) as conn:
        generation = (await load_tenant(conn, tenant_id)).generation
    assert generation.layout_id == tiny.layout.layout_id
    assert (generation.text.mean, generation.text.dev) == (0.15, 0.12)
    assert generation.ngrams.space_id == tiny.layout.ngrams_space


async def test_a_change_of_encoder_fills_and_then_switches(
    database: Database, tiny: Models, load: Any, make_shop: Any, store_items: Any, query: Any, clock: Any
) -> None:
    """The old generation serves until the new one is complete, items that change meanwhile included."""
    tenant_id = await make_shop(items(20))
    await drain(database, Keeper(database, tiny), [tiny], clock, ticks=1)
    other = await load("text2")
    keeper = Keeper(database, other)
    await keeper.retarget()
    active = (
        "select active_gen, (select count(*) from generations where tenant_id = $1) from tenants where tenant_id = $1"
    )
    assert await query(tenant_id, active) == [(1, 2)]
    await store_items(tenant_id, [{"id": "i003", "title": "green lamp"}, {"id": "new", "title": "red mug"}])
    texts = TextLoop(database, [other, tiny], clock=clock, stored=keeper.stored)
    await texts.step()
    layouts = "select layout_id, count(*) from fused_vectors where tenant_id = $1 group by layout_id order by layout_id"
    assert await query(tenant_id, layouts) == [(tiny.layout.layout_id, 21), (other.layout.layout_id, 2)]
    await drain(database, keeper, [other, tiny], clock)
    assert await query(tenant_id, active) == [(2, 2)]
    assert await query(tenant_id, layouts) == [(tiny.layout.layout_id, 21), (other.layout.layout_id, 21)]
    assert await query(tenant_id, "select count(*) from changes where tenant_id = $1 and kind = 'tenant'") == [(2,)]


async def test_switching_back_first_renews_what_changed(
    database: Database, tiny: Models, load: Any, make_shop: Any, store_items: Any, query: Any, clock: Any
) -> None:
    """The earlier generation never serves a vector of an old text."""
    tenant_id = await make_shop(items(5))
    await drain(database, Keeper(database, tiny), [tiny], clock, ticks=1)
    other = await load("text2")
    keeper = Keeper(database, other)
    await keeper.retarget()
    await drain(database, keeper, [other, tiny], clock)
    await store_items(tenant_id, [{"id": "i001", "title": "green lamp"}])
    await drain(database, keeper, [other, tiny], clock, ticks=1)
    vectors = (
        "select count(*) from item_vectors v join items i on i.tenant_id = $1 and i.item_no = v.item_no "
        "and i.text_hash = v.content_hash where v.tenant_id = $1 and v.space_id = $2"
    )
    assert await query(tenant_id, vectors, tiny.layout.text_space) == [(4,)]
    back = Keeper(database, tiny)
    await back.retarget()
    await drain(database, back, [tiny, other], clock)
    assert await query(tenant_id, "select active_gen from tenants where tenant_id = $1") == [(1,)]
    assert await query(tenant_id, vectors, tiny.layout.text_space) == [(5,)]


async def test_a_worker_without_the_serving_encoder_leaves_its_vectors(
    database: Database, tiny: Models, load: Any, make_shop: Any, store_items: Any, query: Any, clock: Any
) -> None:
    """While only the new encoder is loaded, what serves is kept, for an old vector is better than none."""
    tenant_id = await make_shop(items(3))
    await drain(database, Keeper(database, tiny), [tiny], clock, ticks=1)
    other = await load("text2")
    await Keeper(database, other).retarget()
    await store_items(tenant_id, [{"id": "i001", "title": "green lamp"}])
    await TextLoop(database, [other], clock=clock).step()
    serving = "select count(*) from fused_vectors where tenant_id = $1 and layout_id = $2"
    assert await query(tenant_id, serving, tiny.layout.layout_id) == [(3,)]


async def test_a_shop_of_a_hundred_items_is_calibrated_on_its_own(
    database: Database, tiny: Models, make_shop: Any, store_items: Any, query: Any, clock: Any
) -> None:
    """The figures are those of pairs of its items, and the next measurement comes at two hundred."""
    tenant_id = await make_shop(items(120))
    keeper = Keeper(database, tiny)
    await drain(database, keeper, [tiny], clock, ticks=2)
    async with database.tenant_session(tenant_id) as conn:
        text = (await load_tenant(conn, tenant_id)).generation.text
    rows = tiny.text.encode([item["title"] for item in items(120)])
    cosines = (rows @ rows.T)[~np.eye(120, dtype=bool)]
    assert text.mean == pytest.approx(cosines.mean(), abs=0.12)
    assert text.dev == pytest.approx(cosines.std(), abs=0.1)
    generations = "select count(*) from generations where tenant_id = $1"
    assert await query(tenant_id, generations) == [(2,)]
    await store_items(tenant_id, items(150))
    await drain(database, keeper, [tiny], clock, ticks=2)
    assert await query(tenant_id, generations) == [(2,)]
    await store_items(tenant_id, items(200))
    await drain(database, keeper, [tiny], clock, ticks=2)
    assert await query(tenant_id, generations) == [(3,)]


async def test_a_change_of_encoder_renews_photos_too(
    database: Database, tiny: Models, load: Any, make_shop: Any, query: Any, clock: Any, blobs: FolderBlobs, png: Any
) -> None:
    """The image space is the same here, so the photos' vectors are kept and both halves are in the new rows."""
    url = "https://shop.example/1.png"
    tenant_id = await make_shop([{"id": "a", "title": "red shoe", "images": [url]}])

    async def fetch(_: str) -> bytes:
        data: bytes = png(1, 2, 3)
        return data

    await TextLoop(database, [tiny], clock=clock).step()
    await PhotoLoop(database, [tiny], blobs, fetch, clock=clock).step()
    other = await load("text2")
    keeper = Keeper(database, other)
    await keeper.retarget()
    await drain(database, keeper, [other, tiny], clock)
    halves = "select text_space, image_space from fused_vectors where tenant_id = $1 and layout_id = $2"
    assert await query(tenant_id, halves, other.layout.layout_id) == [
        (other.layout.text_space, other.layout.image_space)
    ]


async def test_a_tenant_with_its_own_shard_switches_once_its_graphs_are_built(
    database: Database,
    tiny: Models,
    load: Any,
    make_shop: Any,
    query: Any,
    blobs: FolderBlobs,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Upkeep indexes the new vectors first, so that no list is made by a scan in between."""
    monkeypatch.setattr(shards, "INDEXED_FROM", 20)
    tenant_id = await make_shop(items(30))
    await drain(database, Keeper(database, tiny), [tiny], clock, ticks=1)
    upkeep = Upkeep(database, blobs)
    assert await upkeep.shards(above=20) == 1
    other = await load("text2")
    keeper = Keeper(database, other)
    await keeper.retarget()
    await drain(database, keeper, [other, tiny], clock)
    before = await query(tenant_id, "select active_gen from tenants where tenant_id = $1")
    await upkeep.shards(above=20)
    await keeper.tick()
    after = await query(tenant_id, "select active_gen from tenants where tenant_id = $1")
    assert (before, after) == ([(1,)], [(2,)])
