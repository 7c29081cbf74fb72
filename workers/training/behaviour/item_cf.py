"""Neighbourhoods by correlation: Pearson with significance shrinkage (Herlocker et al., SIGIR 1999)."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.neighbours import NEIGHBOURS, Neighbours, neighbours_of_product

SHRINK: Final = 20.0


def fit_item_cf(matrix: csr_array, *, keep: int = NEIGHBOURS, shrink: float = SHRINK) -> Neighbours:
    """Neighbours of the columns of `matrix` [shoppers × items] by the correlation of their weights.

    Over all shoppers, an event that did not happen counting 0 (over shoppers of both alone, a catalogue of purchases
    correlates everything with everything). A pair of s shared shoppers is shrunk by s / (s + `shrink`), since two
    items of one shopper each correlate perfectly. Only positive correlations.
    """
    rows = max(matrix.shape[0], 1)
    mean = np.asarray(matrix.sum(axis=0), np.float64) / rows
    square = np.bincount(matrix.indices, weights=matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[1])
    deviation = np.sqrt(np.maximum(square / rows - mean**2, 1e-12))
    left = matrix.T.tocsr()
    ones = csr_array((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    ones_left = csr_array((np.ones(left.nnz, np.float32), left.indices, left.indptr), shape=left.shape)
    binary = bool((matrix.data == 1).all())

    def weigh(block: csr_array, row: NDArray[np.int64], start: int) -> NDArray[np.float64]:
        # The same pattern in the same order, as the places of a product do not depend on its values.
        shared = block.data if binary else (ones_left[start : start + block.shape[0]] @ ones).data
        covariance = block.data / rows - mean[row] * mean[block.indices]
        correlation = covariance / (deviation[row] * deviation[block.indices])
        return np.asarray(np.maximum(correlation, 0) * shared / (shared + shrink))

    return neighbours_of_product(left, matrix, keep=keep, weigh=weigh)[0]
