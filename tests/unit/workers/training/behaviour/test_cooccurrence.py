"""Significance of what goes together."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from workers.training.behaviour.cooccurrence import fit_cosine, fit_llr, pairs_matrix, sessions
from workers.training.behaviour.interactions import Interactions


def _g2(k11: int, k12: int, k21: int, k22: int) -> float:
    """Dunning's ratio by the sum over the cells of observed × ln(observed ÷ expected)."""
    total = k11 + k12 + k21 + k22
    cells = ((k11, k11 + k12, k11 + k21), (k12, k11 + k12, k12 + k22))
    cells += ((k21, k21 + k22, k11 + k21), (k22, k21 + k22, k12 + k22))
    return 2 * sum(k * math.log(k * total / (row * column)) for k, row, column in cells if k)


def test_the_ratio_is_that_of_the_two_by_two_table() -> None:
    """On random baskets, for every pair above chance and support."""
    rng = np.random.default_rng(0)
    baskets = (rng.random((80, 12)) < 0.3).astype(np.float32)
    found = fit_llr(csr_array(baskets), keep=12, support=2).sparse.toarray()
    both = baskets.T @ baskets
    for i in range(12):
        for j in range(12):
            n_i, n_j, k = int(both[i, i]), int(both[j, j]), int(both[i, j])
            above = i != j and k >= 2 and k * 80 > n_i * n_j
            wanted = _g2(k, n_i - k, n_j - k, 80 - n_i - n_j + k) if above else 0
            assert found[i, j] == pytest.approx(wanted, abs=1e-4)


def test_a_pair_met_once_is_chance() -> None:
    """Two items of one basket each are no evidence, however unlikely."""
    baskets = np.zeros((50, 2), np.float32)
    baskets[0] = 1
    assert (fit_llr(csr_array(baskets)).ids == -1).all()


def test_cosine_is_that_of_the_columns() -> None:
    """Of binary columns."""
    found = fit_cosine(csr_array(np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0]], np.float32)))
    assert found.ids[0, :2].tolist() == [1, 2]
    np.testing.assert_allclose(found.scores[0, :2], [2 / math.sqrt(6), 1 / math.sqrt(3)], rtol=1e-6)


def _log(shopper: list[int], item: list[int], ts: list[int], weight: list[float] | None = None) -> Interactions:
    return Interactions(
        shopper=np.array(shopper, np.int64),
        item=np.array(item, np.int32),
        weight=np.array(weight or [1.0] * len(item), np.float32),
        ts=np.array(ts, np.int64),
    )


def test_a_pause_ends_a_session() -> None:
    """Of the same shopper; others never share one."""
    log = _log([1, 2, 1, 1], [1, 1, 2, 3], [0, 10, 1_800, 3_601])
    assert len(set(sessions(log).tolist())) == 3
    assert sessions(log)[0] == sessions(log)[2] != sessions(log)[3]


def test_repeats_in_a_basket_count_once_and_returns_not_at_all() -> None:
    """Groups are sets of what was wanted."""
    log = _log([1, 1, 1, 2], [5, 5, 6, 5], [0, 1, 2, 3], [1.0, 1.0, -1.0, 1.0])
    matrix = pairs_matrix(log, log.shopper, np.array([5, 6], np.int32))
    assert matrix.toarray().tolist() == [[1.0, 0.0], [1.0, 0.0]]
