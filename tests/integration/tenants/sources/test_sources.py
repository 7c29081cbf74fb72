"""Each source against its formula, worked out in Python over the rows that the test stored."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tenants.events.event import DEFAULT_WEIGHTS
from tenants.learned.history import HALF_LIFE_DAYS
from tenants.learned.repurchase import due
from tenants.sources.scene import Chosen
from tenants.sources.shopper import ShopperKey
from tests.integration.tenants.sources.conftest import NOW, Floor, places

pytestmark = pytest.mark.anyio

USER = ShopperKey(kind=1, id="ann")
VISITOR = ShopperKey(kind=0, id="v-1")

HISTORY = [("view", 0, 1.0), ("purchase", 1, 3.0), ("view", 2, 40.0), ("view", 2, 5.0), ("impression", 9, 0.1)]


def _history(rows: Sequence[tuple[str, int, float]]) -> dict[int, float]:
    """Weight of each place, as tenants/sources/scene.py documents it."""
    sums: dict[int, float] = {}
    for type_, place, days in rows:
        weight = DEFAULT_WEIGHTS.get(type_, 0.0) * 0.5 ** (days / HALF_LIFE_DAYS)
        sums[place] = sums.get(place, 0.0) + weight
    return {place: total / (1 + total) for place, total in sums.items() if total > 0}


def _summed(history: Mapping[int, float], lists: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for place, weight in history.items():
        for other, score in lists.get(place, {}).items():
            if other not in history:
                scores[other] = scores.get(other, 0.0) + weight * round(score * 32767) / 32767
    return scores


def _order(scores: Mapping[int, float]) -> list[int]:
    return sorted((place for place in scores if scores[place] > 0), key=lambda place: (-round(scores[place], 9), place))


LISTS = {
    0: {5: 0.9, 6: 0.5, 7: 0.31, 1: 0.8},
    1: {6: 0.6, 8: 0.4},
    2: {7: 0.7, 9: 0.2, 5: 0.01},
    3: {11: 1.0},
}


@pytest.mark.parametrize(("name", "kind"), [("bought_together", 4), ("also_viewed", 5), ("item_cf", 6)])
async def test_neighbours_are_summed_over_the_history(floor: Floor, name: str, kind: int) -> None:
    """z is the sum of weight × score over what the shopper met, which is itself left out."""
    await floor.events(USER, HISTORY)
    await floor.neighbours(kind, LISTS)
    found = await floor.find([name], shopper=USER)
    expected = _summed(_history(HISTORY), LISTS)
    assert places(found) == _order(expected)
    best = max(expected.values())
    for hit in found.hits:
        assert hit.score == pytest.approx(expected[int(hit.id)] / best, abs=1e-6)
        assert [part for part, _ in hit.parts] == [name]
    assert found.complete


async def test_seeds_alone_are_the_anchors(floor: Floor) -> None:
    """Of an item's page the history plays no part."""
    await floor.events(USER, HISTORY)
    await floor.neighbours(4, LISTS)
    found = await floor.find(["bought_together"], shopper=USER, seeds=["3", "x"], anchor="seeds", leave_out="anchor")
    assert places(found) == [11]
    assert list(found.known) == ["3"]


async def test_a_session_needs_no_identity(floor: Floor) -> None:
    """What was looked at in the session counts, the last most; nothing else is known."""
    await floor.neighbours(5, LISTS)
    found = await floor.find(["also_viewed"], recent=["3", "0"])
    weights = {3: 2 * 0.85 / (1 + 2 * 0.85), 0: 2 / 3}
    assert places(found) == _order(_summed(weights, LISTS))


async def test_the_graph_filter_folds_the_shopper_in(floor: Floor) -> None:
    """z(j) = Σ w (s_ij + α · source_i · target_j), with each item's weight on itself where it may come back."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(40, 8)).astype(np.float16).astype(np.float64)
    own = rng.random(40).astype(np.float32)
    await floor.behaviour(vectors.astype(np.float32), own)
    await floor.neighbours(3, LISTS)
    await floor.events(USER, HISTORY)
    await floor.execute(
        "insert into behaviour_models (tenant_id, model, status, code_version, settings) "
        "values ($1, 7, 'ready', 'x', '{\"alpha\": 0.2}')"
    )
    history = _history(HISTORY)
    folded = sum(weight * vectors[place, :4] for place, weight in history.items())
    near = dict.fromkeys(history, 0.0) | _summed({}, {})
    for place, weight in history.items():
        near[place] = near.get(place, 0) + weight * float(own[place])
        for other, score in LISTS.get(place, {}).items():
            near[other] = near.get(other, 0) + weight * score
    expected = {place: z + 0.2 * float(folded @ vectors[place, 4:]) for place, z in near.items()}
    found = await floor.find(["graph"], shopper=USER, leave_out="nothing", limit=20)
    assert places(found) == _order(expected)
    best = max(expected.values())
    assert [hit.score for hit in found.hits] == pytest.approx(
        [expected[int(hit.id)] / best for hit in found.hits], abs=5e-3
    )


async def test_factors_are_multiplied_for_what_the_neighbours_name(floor: Floor) -> None:
    """z(j) = (Σ w source_i) · target_j of those; of all items of the model where every item is looked at."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(40, 8)).astype(np.float16).astype(np.float64)
    await floor.behaviour(vectors.astype(np.float32), np.zeros(40, np.float32))
    await floor.events(USER, HISTORY)
    history = _history(HISTORY)
    folded = sum(weight * vectors[place, :4] for place, weight in history.items())
    expected = {place: float(folded @ vectors[place, 4:]) for place in range(40) if place not in history}
    near = list(_summed(history, LISTS))
    await floor.neighbours(3, LISTS)
    found = await floor.find(["als"], shopper=USER, limit=8)
    assert places(found) == _order({place: expected[place] for place in near})
    found = await floor.find(["als"], shopper=USER, limit=8, everything=True)
    assert places(found) == _order(expected)[:8]


async def test_popular_is_by_score_then_by_age(floor: Floor) -> None:
    """Items with events by popularity, all others behind them, the newest first."""
    await floor.scores({3: (0.5, 0, None), 4: (1.0, 0, None), 5: (0.25, 0, None)})
    found = await floor.find(["popular"], limit=6, leave_out="nothing")
    assert places(found) == [4, 3, 5, 39, 38, 37]
    assert [hit.score for hit in found.hits[:3]] == pytest.approx([1.0, 0.5, 0.25])
    everything = await floor.find(["popular"], limit=100, leave_out="nothing")
    assert sorted(places(everything)) == list(range(40))
    assert everything.complete


async def test_popular_knows_the_segment(floor: Floor) -> None:
    """A user of a segment that has scores of its own sees those; everybody else the shop's."""
    await floor.scores({3: (1.0, 0, None)})
    await floor.scores({8: (1.0, 0, None)}, segment="gardeners")
    number = await floor.shopper(USER)
    await floor.execute(
        "insert into users (tenant_id, shopper_no, segments) values ($1, $2, '{unknown,gardeners}')", number
    )
    assert places(await floor.find(["popular"], limit=1, shopper=USER)) == [8]
    assert places(await floor.find(["popular"], limit=1, shopper=VISITOR)) == [3]


async def test_trending_adds_the_last_hour_to_the_trend(floor: Floor) -> None:
    """z = trend + h / (h + 20), h the weighted events of the last hour; an older minute does not count."""
    await floor.scores({1: (0, 0.4, None), 2: (0, 0.3, None)})
    await floor.execute(
        "insert into item_minutes (tenant_id, minute, item_no, views, purchases) values "
        "($1, $2::timestamptz - interval '5 min', $3, 10, 1), ($1, $2::timestamptz - interval '61 min', $4, 999, 0)",
        NOW,
        floor.numbers[2],
        floor.numbers[6],
    )
    found = await floor.find(["trending"], leave_out="nothing")
    assert places(found) == [2, 1]
    assert found.hits[1].score == pytest.approx(0.4 / (0.3 + 20 / 40))


async def test_new_is_by_age(floor: Floor) -> None:
    """The newest first, one after the other."""
    assert places(await floor.find(["new"], limit=3, leave_out="nothing")) == [39, 38, 37]


async def test_on_sale_is_what_costs_less_than_it_did(floor: Floor) -> None:
    """Popularity and the share taken off decide; what has no sale price is not there."""
    await floor.scores({1: (0.3, 0, None)})
    for place, sale in ((1, 900), (2, 510), (3, 2000)):
        await floor.execute(
            "update item_facets set sale_price = $2 where tenant_id = $1 and item_no = $3", sale, floor.numbers[place]
        )
    assert places(await floor.find(["on_sale"], leave_out="nothing")) == [1, 2]


async def test_recently_viewed_is_the_latest_first(floor: Floor) -> None:
    """Each item once, at its latest time; the session's items before all, the last of them first."""
    await floor.events(USER, HISTORY)
    found = await floor.find(["recently_viewed"], shopper=USER, recent=["20", "21"], leave_out="nothing")
    assert places(found) == [21, 20, 0, 1, 2]


async def test_buy_again_peaks_around_the_interval(floor: Floor) -> None:
    """What is due now comes first; the shopper's own pauses count before the item's, those before a guess."""
    days = {10: [40.0, 20.0], 11: [20.0], 12: [2.0], 13: [44.0]}
    await floor.events(USER, [("purchase", place, ago) for place, agos in days.items() for ago in agos])
    await floor.scores({11: (0, 0, 90.0), 12: (0, 0, 2.0)})

    expected = {
        place: float(due(np.array([count]), np.array([since]), np.array([usual]))[0])
        for place, count, since, usual in (
            (10, 2, 20.0, 20.0),
            (11, 1, 20.0, 90.0),
            (12, 1, 2.0, 2.0),
            (13, 1, 44.0, 30.0),
        )
    }
    found = await floor.find(["buy_again"], shopper=USER, leave_out="nothing")
    assert set(places(found)) == set(expected)
    for hit in found.hits:
        assert hit.score == pytest.approx(expected[int(hit.id)] / max(expected.values()), abs=1e-6)


async def test_user_cf_is_what_others_alike_met(floor: Floor) -> None:
    """Likeness times weight, summed over the shoppers alike."""
    numbers = [await floor.shopper(ShopperKey(kind=1, id=name)) for name in ("ann", "bob", "eve")]
    await floor.events(ShopperKey(kind=1, id="bob"), [("purchase", 5, 1.0), ("view", 6, 2.0)])
    await floor.events(ShopperKey(kind=1, id="eve"), [("view", 6, 1.0), ("view", 7, 1.0)])
    await floor.execute(
        "insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores) values ($1, 7, $2, $3, $4)",
        numbers[0],
        numbers[1:],
        [32767, 16384],
    )
    found = await floor.find(["user_cf"], shopper=USER)
    assert places(found) == [5, 6, 7]
    half = 16384 / 32767
    assert [hit.score for hit in found.hits] == pytest.approx([1, (1 + half) / 10, half / 10])


async def test_fresh_is_what_few_met_of_the_other_sources(floor: Floor) -> None:
    """Each source divided by its best among items with fewer than five events, added up; nothing without a source."""
    await floor.neighbours(3, {0: {5: 0.9, 6: 0.5, 7: 0.25, 8: 0.2}})
    await floor.behaviour(np.zeros((40, 8), np.float32), np.zeros(40, np.float32))
    await floor.scores(dict.fromkeys((5, 6), (0.5, 0, None)))
    await floor.execute("update item_scores set events = 5 where tenant_id = $1 and item_no = $2", floor.numbers[5])
    await floor.events(USER, [("view", 0, 1.0)])
    graph, fresh = Chosen(name="graph", weight=1e-9), Chosen(name="fresh", weight=1.0)
    for order in ([graph, fresh], [fresh, graph]):
        found = await floor.find(order, shopper=USER, min_score=1e-6)
        assert places(found) == [6, 7, 8]
        assert [hit.score for hit in found.hits] == pytest.approx([1, 0.5, 0.4], abs=1e-3)
        assert found.hits[0].parts[0][0] == "fresh"
    assert places(await floor.find(["fresh"], shopper=USER)) == []


async def test_attributes_count_rare_values_more(floor: Floor) -> None:
    """The brand that ten of forty share says something, the price of the same band a little."""
    found = await floor.find(["attributes"], seeds=["4"], anchor="seeds", leave_out="anchor", limit=40)
    assert places(found) == [place for place in range(0, 40, 4) if place != 4]


async def test_the_cart_is_what_was_put_in_and_neither_taken_out_nor_bought(floor: Floor) -> None:
    """Its items are the anchors of `cart`, and what `exclude.in_cart` leaves out."""
    await floor.neighbours(4, {0: {20: 0.5}, 1: {21: 0.5}, 2: {22: 0.5}, 3: {23: 0.5}})
    rows = [("add_to_cart", place, 2.0) for place in range(4)]
    await floor.events(USER, [*rows, ("remove_from_cart", 1, 1.0), ("purchase", 2, 1.0), ("view", 3, 0.5)])
    found = await floor.find(["bought_together"], shopper=USER, anchor="cart", leave_out="anchor")
    assert places(found) == [20, 23]
    left = await floor.find(["new"], shopper=USER, leave_out="nothing", in_cart=True, limit=40)
    assert sorted(places(left)) == [place for place in range(40) if place not in (0, 3)]


async def test_events_of_bots_and_of_others_do_not_count(floor: Floor) -> None:
    """Neither a flagged event nor one of another shopper is part of a history."""
    await floor.neighbours(4, LISTS)
    await floor.events(USER, [("view", 0, 1.0)], flags=1)
    await floor.events(VISITOR, [("view", 1, 1.0)])
    assert places(await floor.find(["bought_together"], shopper=USER)) == []
    assert places(await floor.find(["bought_together"], shopper=VISITOR)) == [6, 8]


async def test_two_models_answer_side_by_side(floor: Floor) -> None:
    """Each source by the rows of its model; every item says whose it is."""
    await floor.neighbours(4, {0: {20: 0.5, 21: 0.4}})
    await floor.neighbours(4, {0: {20: 0.2, 22: 0.8}}, build=8)
    sources = [Chosen(name="bought_together", weight=1.0), Chosen(name="bought_together", weight=1.0, model=8)]
    found = await floor.find(sources, seeds=["0"], anchor="seeds", leave_out="anchor")
    assert {int(hit.id): [label for label, _ in hit.parts] for hit in found.hits} == {
        20: ["bought_together", "bought_together@8"],
        21: ["bought_together"],
        22: ["bought_together@8"],
    }


async def test_a_merged_visitor_is_the_user(floor: Floor) -> None:
    """Under the visitor's id the user's history answers."""
    await floor.neighbours(4, LISTS)
    await floor.events(USER, [("view", 3, 1.0)])
    await floor.shopper(VISITOR, merged_into=USER)
    assert places(await floor.find(["bought_together"], shopper=VISITOR)) == [11]


async def test_what_was_disliked_never_comes(floor: Floor) -> None:
    """Nor does it as the fallback."""
    await floor.events(USER, [("dislike", 39, 1.0), ("view", 5, 1.0)])
    found = await floor.find(["trending"], shopper=USER, fallback=True, limit=40)
    assert 39 not in places(found)
    assert len(found.hits) == 39


async def test_seen_and_purchased_are_left_out_when_asked(floor: Floor) -> None:
    """With other variants of them; the fallback obeys too."""
    await floor.execute(
        "update item_facets set group_id = 'g' where tenant_id = $1 and item_no = any($2)",
        [floor.numbers[1], floor.numbers[30]],
    )
    await floor.events(USER, HISTORY)
    seen = await floor.find(["popular"], shopper=USER, leave_out="nothing", seen=True, limit=40, fallback=True)
    assert set(range(40)) - set(places(seen)) == {0, 1, 2, 30}
    bought = await floor.find(["popular"], shopper=USER, leave_out="nothing", purchased=True, limit=40)
    assert set(range(40)) - set(places(bought)) == {1, 30}


async def test_a_seller_never_sees_own_offers(floor: Floor) -> None:
    """Items without a seller, and of others, stay."""
    for place, seller in ((39, "s1"), (38, "s2")):
        await floor.execute(
            "update item_facets set seller_id = $2 where tenant_id = $1 and item_no = $3", seller, floor.numbers[place]
        )
    number = await floor.shopper(USER)
    await floor.execute("insert into users (tenant_id, shopper_no, seller_id) values ($1, $2, 's1')", number)
    assert places(await floor.find(["new"], shopper=USER, leave_out="nothing", limit=2)) == [38, 37]
    assert places(await floor.find(["new"], shopper=VISITOR, leave_out="nothing", limit=2)) == [39, 38]
