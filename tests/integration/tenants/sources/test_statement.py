"""The statement around the sources: blending, what may be shown, the fallback, precomputed neighbours."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from infra.db import Database, TenantId
from tenants.catalog.filters import parse_filter
from tenants.learned.blend import blend
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.wanted import Wanted
from tenants.sources.scene import Chosen
from tenants.sources.shopper import ShopperKey
from tenants.sources.statement import SOURCES
from tenants.vectors.form import halfvec_text
from tenants.vectors.generations import ensure_space
from tests.integration.tenants.sources.conftest import BUILD, NOW, Floor, places

pytestmark = pytest.mark.anyio

USER = ShopperKey(kind=1, id="ann")

BOUGHT = {0: {5: 0.9, 6: 0.5, 7: 0.3}}
VIEWED = {0: {6: 0.2, 7: 0.4, 8: 0.1}}


async def test_the_blend_is_that_of_the_offline_code(floor: Floor) -> None:
    """SQL's scores are those of `tenants.learned.blend.blend` over the same columns, and their parts add up to them."""
    await floor.neighbours(4, BOUGHT)
    await floor.neighbours(5, VIEWED)
    await floor.scores({7: (0.8, 0, None), 9: (0.2, 0, None)})
    sources = [
        Chosen(name="bought_together", weight=2.0),
        Chosen(name="also_viewed", weight=1.0),
        Chosen(name="popular", weight=0.5),
    ]
    found = await floor.find(sources, seeds=["0"], anchor="seeds", leave_out="anchor", limit=40)
    columns: Mapping[str, Any] = {
        "bought_together": np.array([BOUGHT[0].get(place, np.nan) for place in range(40)]),
        "also_viewed": np.array([VIEWED[0].get(place, np.nan) for place in range(40)]),
        "popular": np.array([{7: 0.8, 9: 0.2}.get(place, 0.0) for place in range(40)]),
    }
    expected = blend(columns, {chosen.name: chosen.weight for chosen in sources})
    assert places(found)[:5] == sorted(range(40), key=lambda place: -expected[place])[:5]
    for hit in found.hits:
        # The tail of what is popular, by age, lies below a thousandth.
        assert hit.score == pytest.approx(expected[int(hit.id)], abs=2e-3)
        assert hit.score == pytest.approx(sum(part for _, part in hit.parts))
        assert [part for _, part in hit.parts] == sorted((part for _, part in hit.parts), reverse=True)


async def test_a_source_names_no_more_than_its_limit(floor: Floor) -> None:
    """The best of it."""
    await floor.neighbours(4, BOUGHT)
    found = await floor.find(
        [Chosen(name="bought_together", weight=1.0, limit=2)], seeds=["0"], anchor="seeds", leave_out="anchor"
    )
    assert places(found) == [5, 6]


async def test_the_fallback_fills_behind_and_is_marked(floor: Floor) -> None:
    """In order of popularity, nothing twice, no more than asked for."""
    await floor.neighbours(4, BOUGHT)
    await floor.scores({6: (1.0, 0, None), 11: (0.5, 0, None)})
    found = await floor.find(
        ["bought_together"], seeds=["0"], anchor="seeds", leave_out="anchor", fallback=True, limit=6
    )
    assert places(found) == [5, 6, 7, 11, 39, 38]
    assert [hit.fallback for hit in found.hits] == [False] * 3 + [True] * 3
    assert not (await floor.find(["popular"], fallback=True, leave_out="nothing", limit=5)).hits[0].fallback


async def test_every_source_obeys_what_may_be_shown(floor: Floor) -> None:
    """Hidden, out of stock, expired, not yet there, filtered, excluded, of one group: under each source."""
    changes = ["hidden = true", "availability = 3", f"expires_at = '{NOW}'", f"available_from = '{NOW + timedelta(1)}'"]
    for place, change in enumerate(changes, 20):
        await floor.execute(
            f"update item_facets set {change} where tenant_id = $1 and item_no = $2", floor.numbers[place]
        )
    await floor.execute(
        "update item_facets set group_id = 'g', sale_price = 5 where tenant_id = $1 and item_no = any($2)",
        [floor.numbers[24], floor.numbers[25]],
    )
    every = {place: {other: 0.5 for other in range(40) if other != place} for place in range(3)}
    for kind in (3, 4, 5, 6):
        await floor.neighbours(kind, every)
    await floor.scores(dict.fromkeys(range(40), (0.5, 0.5, None)))
    rng = np.random.default_rng(1)
    await floor.behaviour(np.abs(rng.normal(size=(40, 8))).astype(np.float32), np.ones(40, np.float32))
    await floor.events(USER, [("view", place, 1.0) for place in range(3)])
    other = await floor.shopper(ShopperKey(kind=1, id="bob"))
    await floor.events(ShopperKey(kind=1, id="bob"), [("purchase", place, 2.0) for place in range(40)])
    await floor.execute(
        "insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores) values ($1, 7, 1, $2, $3)",
        [other],
        [32767],
    )
    await _vectors(floor)
    for name in SOURCES:
        for tree in (None, {"lt": ["price", 1280]}):
            for everything in (False, True):
                found = await floor.find(
                    [name],
                    shopper=USER,
                    limit=40,
                    everything=everything,
                    wanted={"filter": None if tree is None else parse_filter(tree), "exclude_ids": ["30", "10"]},
                )
                shown = places(found)
                allowed = set(range(40)) - {0, 1, 2, 10, 20, 21, 22, 23, 30}
                if tree is not None:
                    allowed &= set(range(28))
                assert set(shown) <= allowed, name
                assert len(set(shown) & {24, 25}) <= 1, name
                assert len(shown) == len(set(shown)), name
                if name in ("graph", "als", "bought_together", "popular", "new", "trending"):
                    assert len(shown) == len(allowed) - 1, (name, tree, everything)


async def _vectors(floor: Floor, seed: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(40, 12)).astype(np.float32)
    vectors[:, :8] /= np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    vectors[:, 8:] /= np.linalg.norm(vectors[:, 8:], axis=1, keepdims=True)
    vectors = vectors.astype(np.float16).astype(np.float32)
    await floor.execute(
        "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
        "select 0, $1, 1, n, 1, 3, v::halfvec from unnest($2::int4[], $3::text[]) x(n, v)",
        floor.numbers,
        [halfvec_text(row) for row in vectors],
    )
    return vectors.astype(np.float64)


async def test_content_is_what_similar_finds(floor: Floor) -> None:
    """From one item, the source's order and scores are those of the exact list."""
    await _vectors(floor)
    found = await floor.find(["similar"], seeds=["4"], anchor="seeds", leave_out="anchor", absolute=True, limit=20)
    exact = await find_similar(
        floor.database,
        floor.tenant,
        Wanted(now=NOW, limit=20),
        Likeness(seeds=["4"], text_weight=0.5, image_weight=0.5),
    )
    positive = [hit for hit in exact.hits if hit.score > 0]
    assert places(found)[: len(positive)] == places(exact)[: len(positive)]
    assert len(found.hits) == len(exact.hits)
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in exact.hits], abs=2e-3)


async def test_precomputed_neighbours_are_merged_with_what_came_since(floor: Floor) -> None:
    """Lists answer without a scan; an item encoded since is scored exactly, a dead one dropped."""
    vectors = await _vectors(floor, seed=8)
    floor.tenant = msgspec.structs.replace(
        floor.tenant, generation=msgspec.structs.replace(floor.tenant.generation, neighbours_build=BUILD)
    )
    await floor.execute(
        "insert into neighbour_builds (tenant_id, build, layout_id, recipe, watermark, items, status) "
        "values ($1, $2, 1, '', $3, 40, 'ready')",
        BUILD,
        NOW - timedelta(hours=1),
    )
    # Not what the vectors say, so that it shows which of the two answered.
    await floor.neighbours(1, {4: {10: 0.9, 11: 0.8, 12: 0.7, 13: 0.6}}, build=BUILD)
    await floor.execute("update item_facets set hidden = true where tenant_id = $1 and item_no = $2", floor.numbers[11])
    async with floor.database.system_session(reason="test set-up") as connection:
        await ensure_space(connection, name="test-text", kind="text", dim=384)
    await floor.execute(
        "insert into item_vectors (tenant_id, space_id, item_no, content_hash, vec, encoded_at) "
        "select $1, s.space_id, $2, '', '[1]', $3 from spaces s limit 1",
        floor.numbers[12],
        NOW,
    )
    arguments: dict[str, Any] = {"seeds": ["4"], "anchor": "seeds", "leave_out": "anchor", "absolute": True}
    found = await floor.find(["similar"], **arguments)
    scores = {int(hit.id): hit.score for hit in found.hits}
    text, image = vectors[12, :8] @ vectors[4, :8], vectors[12, 8:] @ vectors[4, 8:]
    exact = ((text - 0.2) / 0.3 + (image - 0.3) / 0.4) / ((1 - 0.2) / 0.3 + (1 - 0.3) / 0.4)
    expected = {10: 0.9, 13: 0.6, 12: exact}
    assert scores == pytest.approx(expected, abs=2e-3)
    live = await floor.find(["similar"], live=True, **arguments)
    assert places(live)[:1] != [10]


async def test_one_statement_finds_a_whole_list(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine sources, the fallback, evidence and vectors: one round trip."""
    await floor.events(USER, [("view", 0, 1.0)])
    calls = 0
    fetch = Database.fetch_scoped

    async def counted(self: Database, tenant_id: TenantId, inner: str, *args: object, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        return await fetch(self, tenant_id, inner, *args, **more)

    monkeypatch.setattr(Database, "fetch_scoped", counted)
    names = ["graph", "similar", "item_cf", "user_cf", "also_viewed", "trending", "popular", "buy_again", "attributes"]
    found = await floor.find(
        names, shopper=USER, recent=["3"], fallback=True, with_evidence=True, with_vectors=True, seen=True
    )
    assert len(found.hits) == 10
    assert calls == 1


async def test_evidence_is_the_anchor_that_says_most(floor: Floor) -> None:
    """The neighbour's own anchor, or the nearest of them where a source does not say, with the cosines to it."""
    vectors = await _vectors(floor)
    await floor.neighbours(5, {0: {20: 0.9, 21: 0.1}, 1: {21: 0.9}})
    await floor.events(USER, [("view", 0, 1.0), ("view", 1, 1.0)])
    found = await floor.find(["also_viewed"], shopper=USER, with_evidence=True)
    assert {hit.id: hit.because for hit in found.hits} == {"20": "0", "21": "1"}
    hit = next(each for each in found.hits if each.id == "20")
    assert hit.text_cosine == pytest.approx(vectors[20, :8] @ vectors[0, :8], abs=1e-3)
    assert hit.image_cosine == pytest.approx(vectors[20, 8:] @ vectors[0, 8:], abs=1e-3)
    near = await floor.find(["similar"], shopper=USER, with_evidence=True, limit=3)
    for hit in near.hits:
        place = int(hit.id)
        nearest = max((0, 1), key=lambda anchor: float(vectors[place] @ vectors[anchor]))
        assert hit.because == str(nearest)
