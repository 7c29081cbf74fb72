"""What API.md promises of every list, for random requests over a shop with everything in it."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.recommend.pipeline import serve
from api.recommend.types import Answer, Query, Strategy
from infra.secret import Secret
from tenants.placements import SOURCE_NAMES, PlacementSource
from tenants.sources.shopper import ShopperKey
from tenants.vectors.form import halfvec_text
from tests.integration.tenants.sources.conftest import NOW, Floor, floor, make_tenant

pytestmark = pytest.mark.anyio
__all__ = ["floor", "make_tenant"]

SECRET = b"0123456789abcdef0123456789abcdef"
SIZE = 40
DEAD = {20, 21, 22, 23}
GROUPED = {place: f"g{place // 8}" for place in (0, 4, 8, 12, 16, 28, 24)}
DISLIKED = 33
OWN = 34
BOUGHT = {5, 6}
SEEN = {5, 6, 7, 8, 9, DISLIKED}
USER = ShopperKey(kind=1, id="ann")


@pytest.fixture
async def shop(floor: Floor) -> Floor:
    """Dead items, groups, a seller, a shopper with a history, and something learned of each kind."""
    changes = ["hidden = true", "availability = 3", f"expires_at = '{NOW}'", f"available_from = '{NOW + timedelta(1)}'"]
    for place, change in zip(sorted(DEAD), changes, strict=True):
        await floor.execute(
            f"update item_facets set {change} where tenant_id = $1 and item_no = $2", floor.numbers[place]
        )
    for place, group in GROUPED.items():
        await floor.execute(
            "update item_facets set group_id = $2 where tenant_id = $1 and item_no = $3", group, floor.numbers[place]
        )
    await floor.execute(
        "update item_facets set seller_id = 'ann-sells', sale_price = 5 where tenant_id = $1 and item_no = $2",
        floor.numbers[OWN],
    )
    await floor.events(USER, [("view", place, 1.0 + place / 10) for place in (7, 8, 9)])
    await floor.events(USER, [("purchase", place, 20.0) for place in sorted(BOUGHT)] + [("dislike", DISLIKED, 2.0)])
    number = await floor.shopper(USER)
    await floor.execute("insert into users (tenant_id, shopper_no, seller_id) values ($1, $2, 'ann-sells')", number)
    rng = np.random.default_rng(9)
    for kind in (3, 4, 5, 6):
        lists = {
            place: {int(other): float(rng.random()) for other in rng.choice(SIZE, 8) if other != place}
            for place in range(SIZE)
        }
        await floor.neighbours(kind, lists)
    await floor.scores({place: (float(rng.random()), float(rng.random()), 20.0) for place in range(0, SIZE, 3)})
    await floor.behaviour(rng.normal(size=(SIZE, 8)).astype(np.float32), np.ones(SIZE, np.float32))
    await floor.execute(
        "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
        "select 0, $1, 1, n, 1, 3, v::halfvec from unnest($2::int4[], $3::text[]) x(n, v)",
        floor.numbers[:36],
        [halfvec_text(row) for row in rng.normal(size=(36, 12)).astype(np.float32)],
    )
    return floor


_IDS = st.sampled_from([str(place) for place in range(SIZE)] + ["unknown"])
_QUERIES = st.fixed_dictionaries(
    {"count": st.sampled_from([1, 3, 10, 37, 100])},
    optional={
        "strategy": st.sampled_from(get_args(Strategy)),
        "item_ids": st.lists(_IDS, max_size=3),
        "user_id": st.sampled_from(["ann", "nobody"]),
        "session": st.fixed_dictionaries({"recent_items": st.lists(_IDS, max_size=4)}),
        "filter": st.sampled_from(
            [{"lt": ["price", 1150]}, {"eq": ["brand", "b2"]}, {"not": {"eq": ["brand", "b1"]}}, {"eq": ["id", "9"]}]
        ),
        "exclude": st.fixed_dictionaries(
            {},
            optional={
                "ids": st.lists(_IDS, max_size=3),
                "seen": st.booleans(),
                "purchased": st.booleans(),
                "in_cart": st.booleans(),
            },
        ),
        "max_per": st.just({"brand": 2}),
        "diversity": st.sampled_from([0.3, 1.0]),
        "weights": st.sampled_from([{"behaviour": 1.0}, {"text": 1.0, "behaviour": 0.0}, {"image": 1.0}]),
        "min_score": st.sampled_from([0.3]),
        "include": st.just(["out_of_stock"]),
        "explain": st.booleans(),
    },
)
_SOURCES: st.SearchStrategy[list[str]] = st.one_of(
    st.just([]),
    st.lists(st.sampled_from(SOURCE_NAMES), min_size=1, max_size=4, unique=True),
)


async def _answer(shop: Floor, query: dict[str, Any], sources: list[str]) -> Answer:
    served = await serve(
        shop.database,
        shop.tenant,
        msgspec.convert(query, Query),
        now=NOW,
        secret=Secret(current=SECRET),
        sources=[PlacementSource(strategy=name) for name in sources],  # type: ignore[arg-type]
    )
    return served.answer


def _allowed(query: dict[str, Any]) -> set[int]:
    """The places that the request lets be shown, whatever the strategy leaves out."""
    allowed = set(range(SIZE)) - DEAD
    if query.get("include"):
        allowed |= {21}
    exclude = query.get("exclude", {})
    allowed -= {int(name) for name in exclude.get("ids", []) if name != "unknown"}
    out: set[int] = set()
    if query.get("user_id") == "ann":
        allowed -= {DISLIKED, OWN}
        out |= SEEN if exclude.get("seen") else BOUGHT if exclude.get("purchased") else set()
    if exclude.get("seen"):
        out |= {int(name) for name in query.get("session", {}).get("recent_items", []) if name != "unknown"}
    groups = {GROUPED[place] for place in out if place in GROUPED}
    allowed = {place for place in allowed - out if GROUPED.get(place) not in groups or place not in GROUPED}
    match query.get("filter"):
        case {"lt": _}:
            allowed &= set(range(15))
        case {"eq": ["brand", _]}:
            allowed = {place for place in allowed if place % 4 == 2}
        case {"not": _}:
            allowed = {place for place in allowed if place % 4 != 1}
        case {"eq": ["id", _]}:
            allowed &= {9}
    return allowed


def _matches(allowed: set[int], capped: bool) -> int:
    """How long a list of them can be: one of a group, and under the cap two of a brand."""
    units = {GROUPED.get(place, f"alone {place}"): place % 4 for place in allowed}
    if not capped:
        return len(units)
    return sum(min(2, count) for count in Counter(units.values()).values())


async def test_every_list_keeps_the_promises(shop: Floor) -> None:
    """Only what may be shown, nothing twice, one of a group, within the caps, and as long as it can be."""
    drawn: list[tuple[dict[str, Any], list[str]]] = []

    @settings(max_examples=120)
    @given(_QUERIES, _SOURCES)
    def collect(query: dict[str, Any], sources: list[str]) -> None:
        drawn.append((query, [] if "strategy" in query else sources))

    await asyncio.to_thread(collect)
    for query, sources in drawn:
        answer = await _answer(shop, query, sources)
        shown = [int(item.id) for item in answer.items]
        allowed = _allowed(query)
        said = (query, sources, shown)
        assert set(shown) <= allowed, said
        assert len(shown) == len(set(shown)), said
        groups = [GROUPED[place] for place in shown if place in GROUPED]
        assert len(groups) == len(set(groups)), said
        if "max_per" in query:
            assert max(Counter(place % 4 for place in shown).values(), default=0) <= 2, said
        assert [item.rank for item in answer.items] == list(range(1, len(shown) + 1)), said
        assert all(0 <= item.score <= 1 for item in answer.items), said
        assert answer.fallback_used == any(item.fallback for item in answer.items), said
        # What is asked about is kept out of a list that starts from it, with its variants.
        named = {int(name) for name in query.get("item_ids", []) if name != "unknown"}
        recent = {int(name) for name in query.get("session", {}).get("recent_items", []) if name != "unknown"}
        kept_out = {GROUPED.get(place, place) for place in named | recent | (SEEN if "user_id" in query else set())}
        surely = {place for place in allowed if GROUPED.get(place, place) not in kept_out}
        if "min_score" not in query:
            possible = _matches(surely, "max_per" in query)
            assert len(shown) >= min(query["count"], possible), said
            assert len(shown) <= min(query["count"], _matches(allowed, "max_per" in query)), said
        else:
            assert all(item.score >= 0.29 for item in answer.items), said


@pytest.mark.parametrize("strategy", ["for_you", "popular", "new", "similar", "bought_together", "trending"])
async def test_pages_repeat_nothing_and_leave_nothing_out(shop: Floor, strategy: str) -> None:
    """From page to page by the cursor every item that can be shown comes once."""
    query: dict[str, Any] = {"strategy": strategy, "count": 7, "user_id": "ann"}
    if strategy in ("similar", "bought_together"):
        query["item_ids"] = ["1"]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        answer = await _answer(shop, {**query, **({"cursor": cursor} if cursor else {})}, [])
        seen += [item.id for item in answer.items]
        cursor = answer.cursor
        if cursor is None:
            break
    assert cursor is None
    assert len(seen) == len(set(seen))
    allowed = _allowed({"user_id": "ann"})
    assert len(seen) == _matches(allowed, False) - (strategy in ("similar", "bought_together"))


@pytest.mark.parametrize(
    ("weights", "counted"),
    [({"text": 1e-166, "image": 142}, {"image": 142}), ({"text": 1, "image": 1e-7}, {"text": 1})],
    ids=str,
)
async def test_a_weight_of_next_to_nothing_is_none(
    shop: Floor, weights: dict[str, float], counted: dict[str, float]
) -> None:
    """The square of the first is too small a number for PostgreSQL, which is an error there."""
    query = {"strategy": "similar", "item_ids": ["0"], "count": 10, "explain": True}
    answer = await _answer(shop, {**query, "weights": weights}, [])
    assert not answer.fallback_used
    assert answer.items == (await _answer(shop, {**query, "weights": {"text": 0, "image": 0} | counted}, [])).items
