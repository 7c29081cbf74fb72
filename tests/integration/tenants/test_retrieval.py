"""Lists from the database are the exact ones, compared with numpy over the stored half-precision values."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from msgspec import Struct
from numpy.typing import NDArray

from infra.db import Database, driver
from tenants.catalog import store as catalog
from tenants.catalog.filters import parse_filter
from tenants.catalog.item import Item
from tenants.lifecycle import TenantRef
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.newest import find_newest
from tenants.retrieval.search import Spoken, find_spoken
from tenants.retrieval.wanted import Wanted
from tenants.vectors.form import halfvec_text
from tests.integration.tenants.conftest import MakeTenant

pytestmark = pytest.mark.anyio

_NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
_SIZE = 300


class _Shop(Struct, frozen=True):
    """A tenant and what numpy needs to know of it."""

    tenant: TenantRef
    items: list[Item]
    numbers: NDArray[np.int64]
    vectors: NDArray[np.float64]
    text_space: NDArray[np.int64]
    image_space: NDArray[np.int64]


def _items() -> list[Item]:
    return [
        Item(
            id=str(number),
            title=f"item {number}",
            brand=f"b{number % 10}",
            price=number,
            group_id=f"g{number % 40}" if number % 3 == 0 else None,
            hidden=number % 17 == 5,
            availability="out_of_stock" if number % 19 == 3 else "in_stock",
            expires_at=_NOW if number % 23 == 7 else None,
            available_from=_NOW + timedelta(days=1) if number % 29 == 11 else None,
            categories=["A > B" if number % 2 else "A > C"],
            attributes={"k": number},
        )
        for number in range(_SIZE)
    ]


async def _shop(database: Database, make_tenant: MakeTenant) -> _Shop:
    tenant = await make_tenant()
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(_SIZE, 12)).astype(np.float32)
    vectors[:, :8] /= np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    vectors[:, 8:] /= np.linalg.norm(vectors[:, 8:], axis=1, keepdims=True)
    vectors[50:60] = vectors[40:50]  # ties, broken by number
    text_space = rng.choice([0, 1, 1, 1, 1, 2], _SIZE)
    image_space = rng.choice([0, 3, 3, 3], _SIZE)
    vectors[text_space == 0, :8] = 0
    vectors[image_space == 0, 8:] = 0
    halves = vectors.astype(np.float16)
    async with database.tenant_session(tenant.tenant_id) as connection:
        await catalog.upsert_items(connection, tenant, _items(), now=_NOW - timedelta(days=2))
        numbers = await catalog.item_numbers(connection, tenant.tenant_id, [str(n) for n in range(_SIZE)])
        order = np.array([numbers[str(number)] for number in range(_SIZE)])
        rows = (text_space > 0) | (image_space > 0)
        await (await driver(connection)).execute(
            "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
            "select 0, $1, 1, n, t, i, v::halfvec from unnest($2::int4[], $3::int2[], $4::int2[], $5::text[]) "
            "x(n, t, i, v)",
            tenant.tenant_id,
            order[rows].tolist(),
            text_space[rows].tolist(),
            image_space[rows].tolist(),
            [halfvec_text(row) for row in halves[rows].astype(np.float32)],
        )
    return _Shop(tenant, _items(), order, halves.astype(np.float64), text_space, image_space)


def _eligible(item: Item) -> bool:
    return (
        not item.hidden
        and item.availability != "out_of_stock"
        and (item.expires_at is None or item.expires_at > _NOW)
        and (item.available_from is None or item.available_from <= _NOW)
    )


def _expected(shop: _Shop, seed: int, weights: tuple[float, float], allowed: Any) -> list[str]:
    """All eligible items by likeness to one seed, the slow and obvious way."""
    spaces = {1: (0.2, 0.3), 2: (0.1, 0.2)}
    weight_text = weights[0] if shop.text_space[seed] else 0.0
    weight_image = weights[1] if shop.image_space[seed] else 0.0
    scored = []
    for number, item in enumerate(shop.items):
        norm = total = 0.0
        if weight_text and shop.text_space[number] == shop.text_space[seed]:
            mean, dev = spaces[int(shop.text_space[seed])]
            cosine = shop.vectors[number, :8] @ shop.vectors[seed, :8]
            total, norm = total + weight_text * (cosine - mean) / dev, norm + weight_text**2
        if weight_image and shop.image_space[number]:
            cosine = shop.vectors[number, 8:] @ shop.vectors[seed, 8:]
            total, norm = total + weight_image * (cosine - 0.3) / 0.4, norm + weight_image**2
        if norm and _eligible(item) and allowed(item) and number != seed:
            scored.append((-round(total / norm**0.5, 9), shop.numbers[number], item))
    groups = {shop.items[seed].group_id} - {None}
    found = []
    for _, _, item in sorted(scored, key=lambda row: row[:2]):
        if item.group_id is None or item.group_id not in groups:
            groups.add(item.group_id)
            found.append(item.id)
    return found


_FILTERS: list[tuple[dict[str, Any] | None, Any]] = [
    (None, lambda item: True),
    ({"exists": "price"}, lambda item: True),
    ({"lt": ["price", 60]}, lambda item: item.price < 60),
    ({"eq": ["brand", "b3"]}, lambda item: item.brand == "b3"),
    ({"in": ["attributes.k", [5, 17, 80, 81, 82]]}, lambda item: item.price in (5, 17, 80, 81, 82)),
    ({"not": {"eq": ["categories", "A > B"]}}, lambda item: item.categories == ["A > C"]),
    ({"eq": ["brand", "none"]}, lambda item: False),
]


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (0.9, 0.1)])
async def test_similar_is_exact_and_full(
    database: Database, make_tenant: MakeTenant, weights: tuple[float, float]
) -> None:
    """With any filter, weights and missing halves the list is numpy's, as long as min(count, matches)."""
    shop = await _shop(database, make_tenant)
    for seed in (0, 3, 41, 55, 120, 299):
        for tree, allowed in _FILTERS:
            expected = _expected(shop, seed, weights, allowed)
            for count in (1, 10, 100):
                wanted = Wanted(now=_NOW, limit=count, filter=parse_filter(tree) if tree else None)
                likeness = Likeness(seeds=[str(seed)], text_weight=weights[0], image_weight=weights[1])
                found = await find_similar(database, shop.tenant, wanted, likeness)
                assert [hit.id for hit in found.hits] == expected[:count], (seed, tree, count)
                assert list(found.known) == [str(seed)]


async def test_scores_fall_and_explain_themselves(database: Database, make_tenant: MakeTenant) -> None:
    """A score is the sum of its parts cut to 0..1, and an identical item would have 1."""
    shop = await _shop(database, make_tenant)
    likeness = Likeness(seeds=["0"], text_weight=0.5, image_weight=0.5)
    found = await find_similar(database, shop.tenant, Wanted(now=_NOW, limit=50), likeness)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    for hit in found.hits:
        assert hit.score == pytest.approx(min(1, max(0, (hit.text or 0) + (hit.image or 0))))
    twin = await find_similar(
        database, shop.tenant, Wanted(now=_NOW, limit=1), Likeness(seeds=["45"], text_weight=1, image_weight=0)
    )
    if shop.text_space[45] and shop.text_space[45] == shop.text_space[55]:
        assert twin.hits[0].score == pytest.approx(1, abs=2e-3)


async def test_min_score_same_and_exclude_are_obeyed(database: Database, make_tenant: MakeTenant) -> None:
    """The list has exactly the items that pass all of them, unknown ids ignored."""
    shop = await _shop(database, make_tenant)
    likeness = Likeness(seeds=["0", "nobody"], text_weight=0.5, image_weight=0.5, same=["brand", "categories"])
    found = await find_similar(database, shop.tenant, Wanted(now=_NOW, limit=100, exclude_ids=["10", "gone"]), likeness)
    expected = _expected(
        shop, 0, (0.5, 0.5), lambda item: item.brand == "b0" and item.categories == ["A > C"] and item.id != "10"
    )
    assert [hit.id for hit in found.hits] == expected
    assert list(found.known) == ["0"]
    cut = found.hits[len(found.hits) // 2].score
    strict = await find_similar(
        database,
        shop.tenant,
        Wanted(now=_NOW, limit=100, exclude_ids=["10"]),
        Likeness(seeds=["0"], text_weight=0.5, image_weight=0.5, same=["brand", "categories"], min_score=cut),
    )
    assert [hit.id for hit in strict.hits] == [hit.id for hit in found.hits if hit.score >= cut]


async def test_newest_come_first_one_of_a_group(database: Database, make_tenant: MakeTenant) -> None:
    """All eligible items are listed once, the newest number first where times are equal."""
    shop = await _shop(database, make_tenant)
    found = await find_newest(database, shop.tenant, Wanted(now=_NOW, limit=1000))
    groups: set[str] = set()
    expected = []
    for item in reversed(shop.items):
        if _eligible(item) and item.group_id not in groups:
            if item.group_id is not None:
                groups.add(item.group_id)
            expected.append(item.id)
    assert [hit.id for hit in found.hits] == expected
    assert found.complete


async def test_words_find_an_item_that_has_no_vector(database: Database, make_tenant: MakeTenant) -> None:
    """The item whose title is searched for comes first, before anything is encoded."""
    tenant = await make_tenant()
    items = [
        Item(id="1", title="Desk lamp", description="red"),
        Item(id="2", title="Red lamp"),
        Item(id="3", title="Красная лампа"),
        Item(id="4", title="Red lamp", hidden=True),
    ]
    async with database.tenant_session(tenant.tenant_id) as connection:
        await catalog.upsert_items(connection, tenant, items, now=_NOW)
    for query, expected in ((["red", "lamp"], ["2", "1"]), (["красная"], ["3"]), (["nothing"], []), ([], [])):
        found = await find_spoken(database, tenant, Wanted(now=_NOW, limit=10), Spoken(tokens=query))
        assert [hit.id for hit in found.hits] == expected


async def test_search_joins_words_and_vectors(database: Database, make_tenant: MakeTenant) -> None:
    """An item that both lists name beats one that only one list names."""
    shop = await _shop(database, make_tenant)
    target = next(n for n in range(20, _SIZE) if shop.text_space[n] == 1 and _eligible(shop.items[n]))
    vector = shop.vectors[target, :8].astype(np.float32)
    spoken = Spoken(tokens=["item", str(target)], text=vector, ngrams=np.zeros(8, dtype=np.float32))
    found = await find_spoken(database, shop.tenant, Wanted(now=_NOW, limit=5), spoken)
    assert found.hits[0].id == str(target)
    assert found.hits[0].score == pytest.approx(1, abs=0.02)


async def test_a_group_that_was_shown_does_not_come_again(database: Database, make_tenant: MakeTenant) -> None:
    """Neither a variant of what an earlier page had, nor one of what the list stands beside."""
    tenant = await make_tenant()
    rows = [Item(id="a1", group_id="a"), Item(id="a2", group_id="a"), Item(id="b1", group_id="b"), Item(id="c")]
    async with database.tenant_session(tenant.tenant_id) as connection:
        await catalog.upsert_items(connection, tenant, rows, now=_NOW - timedelta(days=2))
        numbers = await catalog.item_numbers(connection, tenant.tenant_id, ["a1"])

    async def listed(**without: Any) -> set[str]:
        found = await find_newest(database, tenant, Wanted(now=_NOW, limit=10, **without))
        return {hit.id for hit in found.hits}

    assert await listed(exclude_nos=[numbers["a1"]]) == {"b1", "c"}
    assert await listed(apart_from=["a1"]) == {"b1", "c"}
    assert await listed(exclude_ids=["a1"]) == {"a2", "b1", "c"}
