"""Texts that are pending come to have vectors, whatever happens while they are encoded."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from infra.db import Database
from tenants.catalog.store import delete_items, item_numbers
from workers.jobs.encode import FAILED_TEXT, TextLoop, encode_texts
from workers.models import Models

pytestmark = pytest.mark.anyio

STATES = (
    "select d.external_id, i.text_state, i.text_reason from items i join item_ids d on d.tenant_id = $1 "
    "and d.item_no = i.item_no where i.tenant_id = $1 order by d.external_id"
)
FUSED = (
    "select d.external_id, v.text_space, v.image_space, v.vec::text from fused_vectors v join item_ids d "
    "on d.tenant_id = $1 and d.item_no = v.item_no where v.tenant_id = $1 order by d.external_id, v.layout_id"
)


def rows(records: list[Any]) -> dict[str, Any]:
    """Item -> its fused vector."""
    return {record[0]: np.array(json.loads(record[3]), np.float32) for record in records}


def loop(database: Database, models: Models, clock: Any, **options: Any) -> TextLoop:
    """A loop on the test's clock."""
    return TextLoop(database, [models], clock=clock, **options)


async def test_a_stored_item_comes_to_have_the_vector_of_its_text(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any
) -> None:
    """The text half of the fused row is what the encoder says of the item's text; the image half is zeros."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}, {"id": "b", "title": "blue mug"}])
    await loop(database, tiny, clock).step()
    assert await query(tenant_id, STATES) == [("a", 1, None), ("b", 1, None)]
    fused = rows(await query(tenant_id, FUSED))
    expected = tiny.text.encode(["red shoe", "blue mug"])
    np.testing.assert_allclose(fused["a"][:8], expected[0], atol=2e-3)
    np.testing.assert_allclose(fused["b"][:8], expected[1], atol=2e-3)
    assert not fused["a"][8:].any()


async def test_a_text_in_an_unknown_language_gets_the_n_grams(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any
) -> None:
    """The fused row names the space that its text half is of."""
    tenant_id = await make_shop([{"id": "a", "title": "the red shoe"}, {"id": "b", "title": "чашка синяя большая"}])
    await loop(database, tiny, clock).step()
    spaces = {record[0]: record[1] for record in await query(tenant_id, FUSED)}
    assert spaces == {"a": tiny.layout.text_space, "b": tiny.layout.ngrams_space}


async def test_a_text_that_changed_while_it_was_encoded_stays_pending(
    database: Database, tiny: Models, make_shop: Any, store_items: Any, query: Any, clock: Any
) -> None:
    """What was made of the old text is not stored, and the new one is encoded next."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}])
    texts = loop(database, tiny, clock)
    batch = await texts.claim()
    assert batch is not None
    await store_items(tenant_id, [{"id": "a", "title": "blue mug"}])
    await texts.store(batch, encode_texts(batch))
    assert await query(tenant_id, STATES) == [("a", 0, None)]
    assert await query(tenant_id, FUSED) == []
    assert await texts.step() == 1
    np.testing.assert_allclose(
        rows(await query(tenant_id, FUSED))["a"][:8], tiny.text.encode(["blue mug"])[0], atol=2e-3
    )


async def test_storing_a_batch_twice_changes_nothing(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any
) -> None:
    """A worker that was taken for dead may come back with what another has stored."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}])
    texts = loop(database, tiny, clock)
    batch = await texts.claim()
    assert batch is not None
    await texts.store(batch, encode_texts(batch))
    once = await query(tenant_id, FUSED)
    await texts.store(batch, encode_texts(batch))
    assert await query(tenant_id, FUSED) == once


async def test_an_item_deleted_while_it_was_encoded_leaves_nothing(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any
) -> None:
    """No vector appears of an item that is gone."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}])
    texts = loop(database, tiny, clock)
    batch = await texts.claim()
    assert batch is not None
    async with database.tenant_session(tenant_id) as conn:
        await delete_items(conn, tenant_id, list((await item_numbers(conn, tenant_id, ["a"])).values()))
    await texts.store(batch, encode_texts(batch))
    assert await query(tenant_id, "select count(*) from item_vectors where tenant_id = $1") == [(0,)]
    assert await query(tenant_id, FUSED) == []


async def test_what_a_dead_worker_had_claimed_is_claimed_again(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any
) -> None:
    """A claim ends by itself; until then nobody else encodes the same."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}])
    assert await loop(database, tiny, clock).claim() is not None
    assert await loop(database, tiny, clock).claim() is None
    clock.advance(31)
    assert await loop(database, tiny, clock).step() == 1
    assert await query(tenant_id, STATES) == [("a", 1, None)]


async def test_unchanged_content_is_not_encoded_again(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any
) -> None:
    """A pending item whose vector is of the same content keeps it; its fused row is written anew."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}])
    await loop(database, tiny, clock).step()
    await query(tenant_id, "update items set text_state = 0 where tenant_id = $1")
    await query(tenant_id, "delete from fused_vectors where tenant_id = $1")
    batch = await loop(database, tiny, clock).claim()
    assert batch is not None
    (half,) = encode_texts(batch)
    assert half.vectors == {tiny.layout.text_space: None}
    await loop(database, tiny, clock).store(batch, [half])
    assert len(await query(tenant_id, FUSED)) == 1


async def test_a_text_that_becomes_empty_loses_its_vector(
    database: Database, tiny: Models, make_shop: Any, store_items: Any, query: Any, clock: Any
) -> None:
    """An item without a text is absent, not found by what it once said."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}])
    await loop(database, tiny, clock).step()
    await store_items(tenant_id, [{"id": "a"}])
    await loop(database, tiny, clock).step()
    assert await query(tenant_id, STATES) == [("a", 3, None)]
    assert await query(tenant_id, FUSED) == []
    assert await query(tenant_id, "select count(*) from item_vectors where tenant_id = $1") == [(0,)]


async def test_a_text_that_the_encoder_cannot_take_fails_alone(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its batch are encoded, and its owner is told."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}, {"id": "b", "title": "blue mug"}])
    encode = type(tiny.text).encode

    def picky(self: Any, texts: list[str], **options: Any) -> Any:
        if "blue mug" in texts:
            raise RuntimeError("out of range")
        return encode(self, texts, **options)

    monkeypatch.setattr(type(tiny.text), "encode", picky)
    await loop(database, tiny, clock).step()
    assert await query(tenant_id, STATES) == [("a", 1, None), ("b", 2, FAILED_TEXT)]


async def test_a_full_shop_does_not_hold_up_a_small_one(
    database: Database, tiny: Models, make_shop: Any, clock: Any
) -> None:
    """The next batch is that of the shop that was served longest ago."""
    big = await make_shop([{"id": f"i{at}", "title": f"red shoe {at}"} for at in range(40)])
    texts = loop(database, tiny, clock, batch=4)
    served = []
    for turn in range(6):
        if turn == 2:
            small = await make_shop([{"id": "a", "title": "blue mug"}])
        batch = await texts.claim()
        assert batch is not None
        served.append(batch.tenant_id)
        await texts.store(batch, encode_texts(batch))
    assert served == [big, big, small, big, big, big]


async def test_the_loop_encodes_until_it_is_told_to_stop(
    database: Database, tiny: Models, make_shop: Any, query: Any, clock: Any
) -> None:
    """Batches are claimed, encoded and stored side by side, and none is lost or left behind at the stop."""
    tenant_id = await make_shop([{"id": f"i{at:02}", "title": f"red shoe {at}"} for at in range(50)])
    stop = asyncio.Event()
    done = 0

    def stored(_tenant: Any, _modality: str, count: int) -> None:
        nonlocal done
        done += count
        if done >= 50:
            stop.set()

    await loop(database, tiny, clock, batch=7, stored=stored).run(stop)
    assert {state for _, state, _ in await query(tenant_id, STATES)} == {1}
    assert len(await query(tenant_id, FUSED)) == 50


async def test_batches_shrink_where_texts_take_long(database: Database, tiny: Models) -> None:
    """A batch is meant to take a second, whatever the machine; within 8 and 64 texts."""
    texts = TextLoop(database, [tiny])
    limits = [texts.limit]
    for seconds in (64 * 0.002, 64 * 0.1, 64 * 10):
        texts._text_s = 0.0
        texts._pace(64, seconds)
        limits.append(texts.limit)
    assert limits == [64, 64, 10, 8]
