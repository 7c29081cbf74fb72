"""Correlation with shrinkage."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.user_cf import fit_user_cf


@pytest.mark.parametrize("binary", [True, False])
def test_the_score_is_pearson_shrunk_by_support(binary: bool) -> None:
    """Against NumPy's correlation of the dense columns; negative ones are left out."""
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((50, 9)) < 0.4, 1 if binary else rng.integers(1, 5, (50, 9)), 0).astype(np.float32)
    found = fit_item_cf(csr_array(weights), keep=9, shrink=10).sparse.toarray()
    shared = (weights > 0).astype(np.float64).T @ (weights > 0)
    wanted = np.maximum(np.corrcoef(weights.T), 0) * shared / (shared + 10)
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_shopper_is_scored_by_those_alike() -> None:
    """Two who share a taste give each other what the other lacks."""
    matrix = csr_array(np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]], np.float32))
    model = fit_user_cf(matrix, np.arange(matrix.nnz))
    scores = model.score(np.array([1]), matrix)[0]
    assert scores[2] > 0
    assert scores[3] == scores[4] == 0
