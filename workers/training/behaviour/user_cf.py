"""Shoppers alike: the same correlation as between items, between shoppers."""

from typing import Final

import msgspec
import numpy as np
from scipy.sparse import csr_array

from tenants.learned.history import OTHERS, OTHERS_DAYS, OTHERS_EVENTS
from workers.training.behaviour.interactions import (
    CAP,
    DAY,
    Floats,
    Interactions,
    Ints,
    Longs,
    cap_rows,
    shopper_items,
)
from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.neighbours import Neighbours, to_sparse

KEEP: Final = 50
SHRINK: Final = 5.0


class ShopperNeighbours(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`neighbours` int32/float32[m, 50] name rows of the matrix: shoppers alike, the likest first."""

    neighbours: Neighbours

    def score(self, rows: Longs, lately: csr_array) -> Floats:
        """float32[b, n] of the shoppers in these rows: Σ over the OTHERS likest of likeness × what they met lately."""
        first = np.arange(self.neighbours.ids.shape[1]) < OTHERS
        ids, scores = self.neighbours.ids[rows], self.neighbours.scores[rows]
        alike = Neighbours(ids=np.where(first, ids, -1), scores=np.where(first, scores, 0))
        return np.asarray((to_sparse(alike, lately.shape[0]) @ lately).toarray(), np.float32)


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
    return ShopperNeighbours(neighbours=fit_item_cf(capped, keep=keep, shrink=shrink))


def met_lately(log: Interactions, *, items: Ints, shoppers: Longs, now: int) -> csr_array:
    """float32[shoppers, items]: the weights of each shopper's last events, as serving reads them of those alike."""
    log = log.take((log.weight > 0) & (log.ts > now - OTHERS_DAYS * DAY))
    log = log.take(np.lexsort((-log.ts, log.shopper)))
    place = np.arange(len(log)) - np.searchsorted(log.shopper, log.shopper)
    return shopper_items(log.take(place < OTHERS_EVENTS), items=items, shoppers=shoppers).weights
