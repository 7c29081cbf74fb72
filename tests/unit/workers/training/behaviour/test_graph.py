"""The graph filter against the formula written out densely."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.graph import fit_exact_graph, fit_graph
from workers.training.behaviour.spectrum import leading_vectors

Doubles = NDArray[np.float64]


def _shop(shoppers: int = 60, items: int = 40, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    taste = rng.integers(4, size=shoppers)[:, None] == rng.integers(4, size=items)[None, :]
    return (rng.random((shoppers, items)) < np.where(taste, 0.4, 0.05)).astype(np.float32)


def _reference(matrix: NDArray[Any], history: NDArray[Any], dims: int, alpha: float) -> Doubles:
    """The paper's formula in doubles, by NumPy's own dense decomposition."""
    r = matrix.astype(np.float64)
    by_shopper = np.diag(1 / np.sqrt(np.maximum(r.sum(axis=1), 1)))
    degree = np.maximum(r.sum(axis=0), 1)
    normal = by_shopper @ r @ np.diag(1 / np.sqrt(degree))
    v = np.linalg.svd(normal)[2][:dims].T
    low_pass = np.diag(degree**-0.5) @ v @ v.T @ np.diag(degree**0.5)
    return np.asarray(history @ (normal.T @ normal + alpha * low_pass))


@pytest.mark.parametrize("dims", [3, 10])
def test_both_forms_are_the_formula(dims: int) -> None:
    """To 1e-6, where nothing is cut; a shopper who was not in the fit is scored as well."""
    matrix = _shop()
    history = np.vstack([matrix[:10], _shop(seed=1)[:5]]).astype(np.float32)
    wanted = _reference(matrix, history, dims, 0.3)
    sparse, asked = csr_array(matrix), csr_array(history)
    whole = fit_exact_graph(sparse, dims=dims, alpha=0.3)
    served = fit_graph(sparse, keep=40, dims=dims, alpha=0.3)
    np.testing.assert_allclose(whole.score(asked), wanted, atol=1e-6)
    np.testing.assert_allclose(served.score(asked), wanted, atol=1e-6)


def test_the_cut_keeps_the_order_of_the_best() -> None:
    """With half of the neighbours the first item of most shoppers is the same."""
    matrix = csr_array(_shop(200, 80))
    whole, served = fit_exact_graph(matrix), fit_graph(matrix, keep=40)
    same = whole.score(matrix).argmax(axis=1) == served.score(matrix).argmax(axis=1)
    assert same.mean() > 0.8


def test_vectors_survive_half_precision() -> None:
    """PostgreSQL holds halfvec: entries of V lie in -1…1, so the scores move by less than a thousandth."""
    matrix = csr_array(_shop())
    graph = fit_graph(matrix, dims=8)
    half = graph.vectors.astype(np.float16).astype(np.float32)
    assert np.abs(graph.vectors).max() <= 1.0001
    np.testing.assert_allclose(half @ half.T, graph.vectors @ graph.vectors.T, atol=1e-3)


@pytest.mark.parametrize(("shoppers", "items"), [(0, 0), (0, 3), (3, 0), (1, 1), (5, 5)])
def test_shops_without_events_give_zeros(shoppers: int, items: int) -> None:
    """Empty sides and empty matrices are no error."""
    graph = fit_graph(csr_array((shoppers, items), dtype=np.float32))
    assert graph.score(csr_array((2, items), dtype=np.float32)).tolist() == [[0.0] * items] * 2


@pytest.mark.parametrize(("rows", "columns"), [(600, 1500), (1300, 1500)])
def test_a_large_decomposition_is_that_of_numpy(rows: int, columns: int) -> None:
    """By the Gram matrix of the short side, or by block Lanczos: the values agree, and the vectors are orthonormal."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((rows, 12)), rng.standard_normal((12, columns))
    dense = (left * 2.0 ** -np.arange(12)) @ right + 0.001 * rng.standard_normal((rows, columns))
    vectors, values = leading_vectors(csr_array(dense.astype(np.float32)), 10)
    wanted = np.linalg.svd(dense, full_matrices=False)
    np.testing.assert_allclose(values, wanted.S[:10], rtol=1e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(10), atol=1e-3)
    np.testing.assert_allclose(vectors @ vectors.T, wanted.Vh[:10].T @ wanted.Vh[:10], atol=2e-3)
