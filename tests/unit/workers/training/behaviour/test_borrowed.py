"""Borrowed behaviour."""

import numpy as np
from scipy.sparse import csr_array

from workers.training.behaviour.borrowed import borrow, lenders, mixing
from workers.training.behaviour.graph import fit_graph


def _content(*angles: float) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def test_lenders_are_the_nearest_warm_items_and_never_oneself() -> None:
    """Weights add up to 1 and fall with the distance; a cold item lends nothing."""
    found = lenders(_content(0, 0.1, 0.5, 0.05), np.array([9, 9, 9, 0], np.float32), count=2)
    assert found.ids.tolist() == [[1, 2], [0, 2], [1, 0], [0, 1]]
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-6)
    assert (found.scores[:, 0] >= found.scores[:, 1]).all()


def test_an_item_without_content_keeps_its_own_behaviour() -> None:
    """And nobody borrows from it."""
    content = _content(0, 0.1, 0.2)
    content[1] = 0
    mix = mixing(np.array([9, 9, 9], np.float32), lenders(content, np.array([9, 9, 9], np.float32), count=1))
    assert mix.toarray()[1].tolist() == [0, 1, 0]
    assert mix.toarray()[[0, 2], 1].tolist() == [0, 0]


def test_scores_are_those_of_the_mixed_history_mixed_again() -> None:
    """Where nothing is cut: an item is met and shown as what it is made of, so a cold one scores as its lenders do."""
    rng = np.random.default_rng(0)
    matrix = (rng.random((40, 6)) < 0.5).astype(np.float32)
    matrix[:, 5] = 0
    degree = matrix.sum(axis=0)
    graph = fit_graph(csr_array(matrix), keep=12, dims=3)
    mix = mixing(degree, lenders(_content(0, 0.3, 0.6, 0.9, 1.2, 0.1), degree, count=2), shrink=10)
    plain = graph.score(csr_array(matrix @ mix.toarray()))
    np.testing.assert_allclose(
        borrow(graph, mix, quota=0.5).score(csr_array(matrix)), plain @ mix.toarray().T, atol=1e-5
    )
    assert mix.toarray()[5].tolist()[5] == 0


def test_cold_items_have_places_among_the_neighbours() -> None:
    """However low a mean is against what it is a mean of."""
    rng = np.random.default_rng(0)
    matrix = (rng.random((60, 30)) < 0.5).astype(np.float32)
    matrix[:, 25:] = 0
    degree = matrix.sum(axis=0)
    graph = fit_graph(csr_array(matrix), keep=10, dims=4)
    content = rng.standard_normal((30, 4)).astype(np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    mix = mixing(degree, lenders(content, degree))
    cold = (borrow(graph, mix, quota=0.2).neighbours.ids[:25] >= 25).sum(axis=1)
    assert (cold == 2).all()
