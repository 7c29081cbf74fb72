"""Weights of sources."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from workers.evaluation.metrics import hits, ranking_metrics
from workers.training.behaviour.blend import (
    Exam,
    Listed,
    Window,
    blended,
    choose_weights,
    fit_blend,
    fresh_of,
    listed,
    of_items,
    unite,
)


def _source(rng: np.random.Generator, wanted: np.ndarray, strength: float) -> np.ndarray:  # type: ignore[type-arg]
    return (rng.random(wanted.shape) + strength * wanted).astype(np.float32)


def _exam(shoppers: int, strengths: list[float], *, seed: int = 0) -> Exam:
    rng = np.random.default_rng(seed)
    wanted = rng.random((shoppers, 40)) < 0.1
    ids = np.broadcast_to(np.arange(40, dtype=np.int32), (shoppers, 40))
    union = unite([listed(_source(rng, wanted, s), ids) for s in strengths], 40)
    return Exam(union=union, wanted=wanted[union.row, union.item], asked=wanted.sum(axis=1))


def _fit(shoppers: int, strengths: list[float]) -> list[float]:
    return choose_weights(_exam(shoppers, strengths), np.array([0.2, 0.8])).tolist()


def test_the_source_that_knows_gets_the_weight() -> None:
    """Of one that finds what shoppers wanted and one of chance, with the prior against it."""
    knowing, chance = _fit(800, [0.5, 0.0])
    assert knowing > 0.8
    assert abs(knowing + chance - 1) < 1e-9


def test_two_that_know_different_things_are_mixed() -> None:
    """Neither alone gains as much."""
    exam = _exam(800, [0.25, 0.25])
    weights = choose_weights(exam, np.array([0.5, 0.5]))
    assert min(weights) > 0.2
    assert exam.gains(weights).mean() > max(exam.gains(one).mean() for one in np.eye(2))


def test_what_is_not_clearly_better_gives_way_to_the_best_source() -> None:
    """A second source of chance adds nothing, so that none of its weight is left on many shoppers."""
    assert _fit(4000, [0.5, 0.0]) == [1.0, 0.0]


def test_a_small_shop_stays_near_the_prior() -> None:
    """Three shoppers prove little, none nothing."""
    assert abs(_fit(3, [0.5, 0.0])[0] - 0.2) < 0.1
    assert _fit(0, [0.5, 0.0]) == [0.2, 0.8]


def test_gains_are_the_metrics_of_the_blended_lists() -> None:
    """The same lists as `blended`, measured as an evaluation measures them."""
    exam = _exam(50, [0.3, 0.1])
    weights = np.array([0.7, 0.3])
    lists = blended(exam.union, weights, 50, 20)
    relevant = np.zeros((50, 40), np.float32)
    relevant[exam.union.row[exam.wanted], exam.union.item[exam.wanted]] = 1
    asked = exam.asked[exam.asked > 0]
    found = ranking_metrics(hits(lists, csr_array(relevant))[exam.asked > 0], asked, (20,))
    np.testing.assert_allclose(exam.recall(weights), found["recall@20"])
    np.testing.assert_allclose(exam.gains(weights), (found["recall@20"] + found["ndcg@20"]) / 2)


def test_fresh_is_what_few_met_of_each_source_by_its_best() -> None:
    """Added up over the sources; an item that many met is not there."""
    one = Listed(ids=np.array([[3, 1, 2]], np.int32), scores=np.array([[1.0, 0.5, 0.25]], np.float32))
    other = Listed(ids=np.array([[2, 0, -1]], np.int32), scores=np.array([[1.0, 0.1, 0.0]], np.float32))
    fresh = fresh_of([one, other], np.array([True, True, True, False]), 4)
    assert fresh.ids[0, :3].tolist() == [2, 1, 0]
    np.testing.assert_allclose(fresh.scores[0, :4], [1, 1 / 1.5, 0.1 / 1.5, 0], rtol=1e-5)


def test_items_that_nobody_met_get_a_weight_that_finds_them() -> None:
    """Where content knows them and behaviour does not; what it is drawn from is asked too."""
    rng = np.random.default_rng(3)
    wanted = np.zeros((400, 60), bool)
    wanted[np.arange(400), rng.integers(30, size=400)] = True
    wanted[np.arange(400), rng.integers(30, 60, size=400)] = True
    cold = np.arange(60) >= 30
    ids = np.broadcast_to(np.arange(60, dtype=np.int32), (400, 60))
    scores = {"popular": _source(rng, wanted & ~cold, 0.9) * ~cold, "similar": _source(rng, wanted & cold, 0.3)}
    lists = {
        name: listed(score, np.take_along_axis(ids, np.argsort(-score, axis=1), axis=1).astype(np.int32))
        for name, score in scores.items()
    }
    asked = csr_array(wanted.astype(np.float32))
    window = Window(lists=lists, wanted=asked, new=of_items(asked, cold), few=cold)
    found = fit_blend([window], {"popular": 0.5, "similar": 0.5})
    assert found.weights["fresh"] > 0
    assert found.weights["similar"] > 0
    assert fit_blend([], {"popular": 0.5, "similar": 1.5}).weights == {"popular": 0.25, "similar": 0.75}


def _window(rng: np.random.Generator, strengths: tuple[float, float, float]) -> Window:
    """300 shoppers, 60 items, the last 30 unmet; `popular` and `item_cf` know the first, `similar` the last."""
    wanted = rng.random((300, 60)) < np.where(np.arange(60) < 30, 0.1, 0.03)
    wanted[:, 0] |= ~wanted.any(axis=1)
    cold = np.arange(60) >= 30
    ids = np.broadcast_to(np.arange(60, dtype=np.int32), wanted.shape)
    lists = {}
    for (name, known), strength in zip(
        [("popular", ~cold), ("item_cf", ~cold), ("similar", cold)], strengths, strict=True
    ):
        score = _source(rng, wanted, strength) * known
        order = np.argsort(-score, axis=1).astype(np.int32)
        lists[name] = listed(score, np.take_along_axis(ids, order, axis=1))
    asked = csr_array(wanted.astype(np.float32))
    return Window(lists=lists, wanted=asked, new=of_items(asked, cold), few=cold)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(st.floats(0, 0.6), st.floats(0, 0.6), st.floats(0, 0.6)))
def test_new_items_cost_at_most_half_of_what_the_mixture_gains(
    seed: int, strengths: tuple[float, float, float]
) -> None:
    """Against the best source alone, on the shoppers that the weights are fitted on."""
    window = _window(np.random.default_rng(seed), strengths)
    found = fit_blend([window], dict.fromkeys(window.lists, 1e-9))
    without = _recall_of(window, {name: w for name, w in found.weights.items() if name != "fresh"})
    best = max(found.recall[name] for name in window.lists)
    spent = without - found.recall["blend"]
    assert spent <= max(without - best, 0) / 2 + 2e-3


def test_nothing_is_spent_on_new_items_where_nothing_is_gained() -> None:
    """Every place of the best source is wanted and content knows nothing: that source stays alone."""
    rng = np.random.default_rng(0)
    wanted = rng.random((300, 60)) < np.where(np.arange(60) < 20, 0.9, np.where(np.arange(60) < 30, 0.0, 0.03))
    cold = np.arange(60) >= 30
    ids = np.broadcast_to(np.arange(60, dtype=np.int32), wanted.shape)
    scores = {"popular": np.where(np.arange(60) < 20, 1 - np.arange(60) / 100, 0), "similar": rng.random(60) * cold}
    lists = {
        name: listed(np.broadcast_to(score, wanted.shape).astype(np.float32), ids[:, np.argsort(-score)])
        for name, score in scores.items()
    }
    asked = csr_array(wanted.astype(np.float32))
    window = Window(lists=lists, wanted=asked, new=of_items(asked, cold), few=cold)
    assert fit_blend([window], {"popular": 1.0, "similar": 1e-9}).weights == {"popular": 1.0}


def _recall_of(window: Window, weights: dict[str, float]) -> float:
    union = unite([window.lists[name] for name in weights], 60)
    lists = blended(union, np.array(list(weights.values())), 300, 20)
    sizes = np.diff(window.wanted.indptr)
    return float((hits(lists, window.wanted).sum(axis=1) / sizes).mean())


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.integers(1, 12))
def test_lists_are_of_different_items_and_of_full_length(weights: list[float], k: int) -> None:
    """For every shopper: each item once, best first, as many as the sources hold."""
    rng = np.random.default_rng(1)
    scores = [rng.random((4, 10)).astype(np.float32) for _ in weights]
    ids = np.tile(np.arange(6, dtype=np.int32), (4, 1))
    union = unite([listed(score, ids + offset) for offset, score in enumerate(scores)], 10)
    lists = blended(union, np.array(weights) + 0.1, 4, k)
    for row in lists:
        there = row[row >= 0]
        assert len(set(there.tolist())) == len(there) == min(k, 7)


def test_scores_of_any_scale_compare() -> None:
    """Only the ratio to the best of the list counts; 0 and -inf are not listed."""
    scores = np.array([[3.0, 6.0, 0.0, -np.inf]], np.float32)
    one, other = (listed(scores * scale, np.array([[1, 0, 2, 3]], np.int32)) for scale in (1, 1000))
    assert one.ids.tolist() == other.ids.tolist() == [[1, 0, -1, -1]]
    np.testing.assert_allclose(one.scores, other.scores)
    np.testing.assert_allclose(one.scores[0, :2], [1, 0.5])
