"""Weights of sources."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.training.behaviour.blend import blended, fit_weights, listed, unite


def _source(rng: np.random.Generator, wanted: np.ndarray, strength: float) -> np.ndarray:  # type: ignore[type-arg]
    return (rng.random(wanted.shape) + strength * wanted).astype(np.float32)


def _fit(shoppers: int, strengths: list[float]) -> list[float]:
    rng = np.random.default_rng(0)
    wanted = rng.random((shoppers, 30)) < 0.1
    ids = np.broadcast_to(np.arange(30, dtype=np.int32), (shoppers, 30))
    union = unite([listed(_source(rng, wanted, s), ids) for s in strengths], 30)
    prior = np.array([0.2, 0.8])
    return fit_weights(union, wanted[union.row, union.item], prior).tolist()


def test_the_source_that_knows_gets_the_weight() -> None:
    """Of one that finds what shoppers wanted and one of chance, with the prior against it."""
    knowing, chance = _fit(800, [0.5, 0.0])
    assert knowing > 0.8
    assert abs(knowing + chance - 1) < 1e-9


def test_a_small_shop_stays_near_the_prior() -> None:
    """Three shoppers prove little, none nothing."""
    assert abs(_fit(3, [0.5, 0.0])[0] - 0.2) < 0.1
    assert _fit(0, [0.5, 0.0]) == [0.2, 0.8]


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
