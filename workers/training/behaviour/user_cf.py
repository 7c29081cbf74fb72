"""Shoppers alike: the same correlation as between items, between shoppers."""

from typing import Final

import msgspec
import numpy as np
from scipy.sparse import csr_array

from workers.training.behaviour.interactions import CAP, Floats, Longs, cap_rows
from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.neighbours import Neighbours

KEEP: Final = 50
SHRINK: Final = 5.0


class ShopperNeighbours(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`neighbours` int32/float32[m, 50] name rows of `weights` [m, n]: shoppers alike, and what each of them likes."""

    neighbours: Neighbours
    weights: csr_array

    def score(self, rows: Longs) -> Floats:
        """float32[b, n] of the shoppers in these rows: Σ over those alike of likeness × weight."""
        return np.asarray((self.neighbours.sparse[rows] @ self.weights).toarray(), np.float32)


def fit_user_cf(
    matrix: csr_array, last: Longs, *, keep: int = KEEP, shrink: float = SHRINK, cap: int = CAP
) -> ShopperNeighbours:
    """Neighbours of the rows of `matrix` [shoppers × items].

    `last` int64[nnz] are the times of its entries: of each item the latest `cap` shoppers count, as those of a best
    seller have little in common and are most of all pairs.
    """
    order = csr_array((np.arange(1, matrix.nnz + 1), matrix.indices, matrix.indptr), shape=matrix.shape).T.tocsr()
    by_item = csr_array((matrix.data[order.data - 1], order.indices, order.indptr), shape=order.shape)
    capped = cap_rows(by_item, last[order.data - 1], cap)
    return ShopperNeighbours(neighbours=fit_item_cf(capped, keep=keep, shrink=shrink), weights=matrix)
