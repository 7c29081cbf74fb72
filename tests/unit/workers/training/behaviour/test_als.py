"""Factors, and shoppers folded in."""

import numpy as np
from scipy.sparse import csr_array

from workers.training.behaviour.als import Factors, fit_als


def test_two_tastes_come_apart() -> None:
    """Shoppers of one half of the shop are shown the rest of that half."""
    rng = np.random.default_rng(0)
    matrix = np.zeros((60, 20), np.float32)
    matrix[:30, :10] = rng.random((30, 10)) < 0.6
    matrix[30:, 10:] = rng.random((30, 10)) < 0.6
    model = fit_als(csr_array(matrix), factors=2, threads=1)
    history = np.zeros((1, 20), np.float32)
    history[0, :3] = 1
    scores = model.score(csr_array(history))[0]
    assert scores[3:10].min() > scores[10:].max()


def test_a_fold_in_solves_the_normal_equations() -> None:
    """x minimises Σ c (p - x·y)² + λ|x|², with c = confidence × weight where met and 1 where not."""
    rng = np.random.default_rng(1)
    factors = rng.standard_normal((7, 3)).astype(np.float32)
    model = Factors(items=factors, confidence=5.0, regularization=0.1)
    history = np.array([[0, 2, 0, 1, 0, 0, 0]], np.float32)
    weight = np.where(history[0] > 0, 5 * history[0], 1.0)
    y = factors.astype(np.float64)
    wanted = np.linalg.solve(y.T @ np.diag(weight) @ y + 0.1 * np.eye(3), y.T @ (weight * (history[0] > 0)))
    np.testing.assert_allclose(model.fold_in(csr_array(history))[0], wanted, rtol=1e-5)
