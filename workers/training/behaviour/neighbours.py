"""Per item the items that go with it most: the form in which every item-to-item model is kept and served."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.interactions import Floats, Ints

NEIGHBOURS: Final = 200
"""Neighbours kept per item (FACTS: 200 lose 1 % of Recall@20 against all, 50 lose 4 %)."""

PRODUCTS_AT_ONCE: Final = 4_000_000
"""Entries of a block of a product matrix that are held at once: 8 bytes each, and as much again while they are cut."""


class Neighbours(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`ids` int32[n, k] columns of the neighbours, best first, -1 where there are fewer; `scores` float32[n, k], 0
    there. Row i answers "who goes with i"; a row never names itself.
    """

    ids: Ints
    scores: Floats

    @property
    def sparse(self) -> csr_array:
        """float32[n, n], row i the scores of i's neighbours."""
        return to_sparse(self)


def to_sparse(neighbours: Neighbours, columns: int | None = None) -> csr_array:
    """The lists as a matrix of `columns` columns (default: as many as rows)."""
    there = neighbours.ids >= 0
    rows = len(neighbours.ids)
    indptr = np.r_[0, np.cumsum(there.sum(axis=1))].astype(np.int32)
    matrix = csr_array(
        (neighbours.scores[there], neighbours.ids[there], indptr), shape=(rows, rows if columns is None else columns)
    )
    matrix.sort_indices()
    return matrix


def cut_rows(matrix: csr_array, keep: int = NEIGHBOURS, *, first_row: int | None = 0) -> Neighbours:
    """The `keep` highest positive entries of each row.

    The entry on the diagonal is left out, where row 0 of the matrix is row `first_row` of the whole; None keeps it.
    Equal scores are taken in the order of columns.
    """
    rows = matrix.shape[0]
    ids = np.full((rows, keep), -1, np.int32)
    scores = np.zeros((rows, keep), np.float32)
    row = np.repeat(np.arange(rows, dtype=np.int32), np.diff(matrix.indptr))
    kept = matrix.data > 0
    if first_row is not None:
        kept &= matrix.indices != row + first_row
    row, columns, values = row[kept], matrix.indices[kept], matrix.data[kept]
    starts = np.searchsorted(row, np.arange(rows + 1))
    chosen = np.ones(len(row), bool)
    for long in np.flatnonzero(np.diff(starts) > keep):
        lo, hi = starts[long], starts[long + 1]
        chosen[lo:hi] = _highest(values[lo:hi], columns[lo:hi], keep)
    row, columns, values = row[chosen], columns[chosen], values[chosen]
    order = np.lexsort((columns, -values, row))
    row = row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    ids[row, rank] = columns[order]
    scores[row, rank] = values[order]
    return Neighbours(ids=ids, scores=scores)


def _highest(values: NDArray[Any], columns: NDArray[Any], keep: int) -> NDArray[np.bool_]:
    """Which of more than `keep` values are the highest; of those at the edge the first columns, as which of equals is
    kept must not depend on the partition.
    """
    if keep == 0:
        return np.zeros(len(values), bool)
    edge = np.partition(values, len(values) - keep)[len(values) - keep]
    above = np.asarray(values > edge)
    level = np.flatnonzero(values == edge)
    above[level[np.argsort(columns[level])][: keep - int(above.sum())]] = True
    return above


Weigh = Callable[[csr_array, NDArray[np.int64], int], NDArray[Any]]
"""Scores of a block of a product matrix: the block, the row in the whole of each stored entry, and that of the block's
first row in; one value per stored entry out, in its order."""


def neighbours_of_product(
    left: csr_array,
    right: csr_array,
    *,
    keep: int = NEIGHBOURS,
    weigh: Weigh | None = None,
    products: int = PRODUCTS_AT_ONCE,
) -> tuple[Neighbours, Floats]:
    """Cut `left @ right` (n × n) row by row, a block of rows at a time, so that the whole product never exists.

    Returns the neighbours and the diagonal of the product (before `weigh`), float32[n].
    """
    count = left.shape[0]
    ids = np.full((count, keep), -1, np.int32)
    scores = np.zeros((count, keep), np.float32)
    diagonal = np.zeros(count, np.float32)
    # An upper bound of the entries of each row of the product.
    sizes = np.diff(right.indptr)
    cumulated = np.r_[0, np.cumsum(sizes[left.indices], dtype=np.int64)]
    bound = np.minimum(cumulated[left.indptr[1:]] - cumulated[left.indptr[:-1]], right.shape[1])
    start = 0
    while start < count:
        room = np.searchsorted(np.cumsum(bound[start:]), products, side="right")
        end = min(count, start + max(1, int(room)))
        block = left[start:end] @ right
        row = np.repeat(np.arange(start, end, dtype=np.int64), np.diff(block.indptr))
        own = np.flatnonzero(block.indices == row)
        diagonal[row[own]] = block.data[own]
        if weigh is not None:
            block = csr_array((weigh(block, row, start), block.indices, block.indptr), shape=block.shape)
        del row
        part = cut_rows(block, keep, first_row=start)
        ids[start:end], scores[start:end] = part.ids, part.scores
        start = end
    return Neighbours(ids=ids, scores=scores), diagonal
