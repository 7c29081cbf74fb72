"""Products cut to the best of each row."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from workers.training.behaviour.neighbours import cut_rows, neighbours_of_product


def _random(rows: int, columns: int, seed: int = 0) -> csr_array:
    rng = np.random.default_rng(seed)
    return csr_array((rng.random((rows, columns)) < 0.2).astype(np.float32) * rng.random((rows, columns), np.float32))


@pytest.mark.parametrize("products", [1, 50, 1_000_000])
def test_blocks_of_any_size_give_the_cut_of_the_whole_product(products: int) -> None:
    """Each row has the highest entries of the whole product beside itself, best first; the diagonal comes apart."""
    matrix = _random(40, 25)
    found, diagonal = neighbours_of_product(matrix.T.tocsr(), matrix, keep=4, products=products)
    whole = (matrix.T @ matrix).toarray()
    np.testing.assert_allclose(diagonal, np.diagonal(whole), rtol=1e-6)
    np.fill_diagonal(whole, 0)
    for row in range(25):
        count = min(4, int((whole[row] > 0).sum()))
        np.testing.assert_allclose(found.scores[row, :count], np.sort(whole[row])[::-1][:count], rtol=1e-6)
        np.testing.assert_allclose(whole[row, found.ids[row, :count]], found.scores[row, :count], rtol=1e-6)
        assert (found.ids[row, count:] == -1).all()


def test_of_equal_scores_the_first_columns_stay() -> None:
    """A repeated fit keeps the same neighbours."""
    found = cut_rows(csr_array(np.array([[0.0, 1.0, 1.0, 2.0, 1.0]], np.float32)), 3)
    assert found.ids.tolist() == [[3, 1, 2]]


def test_the_lists_are_the_matrix_again() -> None:
    """Nothing is lost where everything fits."""
    matrix = _random(6, 6)
    matrix = csr_array(matrix - csr_array(np.diag(matrix.diagonal())))
    np.testing.assert_array_equal(cut_rows(matrix, 6).sparse.toarray(), matrix.toarray())
