"""What goes together: pairs within a basket, a session or a shopper's history, by how unlikely chance is."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.interactions import CAP, Floats, Interactions, Ints, cap_rows
from workers.training.behaviour.neighbours import NEIGHBOURS, Neighbours, neighbours_of_product

SUPPORT: Final = 2
"""Groups that a pair must share: of pairs met once nearly all are chance, and they are most of all pairs."""

SESSION_S: Final = 1_800


def pairs_matrix(log: Interactions, group: NDArray[np.int64], items: Ints, *, cap: int = CAP) -> csr_array:
    """Groups × items, 1 where an item is in the group, its latest `cap` items at most.

    `group` int64[len(log)] numbers the basket, session or shopper of each event; `items` (ascending) the columns.
    Events of weight 0 and less do not count.
    """
    counted = log.weight > 0
    group, item, ts = group[counted], log.item[counted], log.ts[counted]
    place = np.minimum(np.searchsorted(items, item), max(len(items) - 1, 0)).astype(np.int64)
    known = items[place] == item if len(items) else np.zeros(len(item), bool)
    group, place, ts = group[known], place[known], ts[known]
    _, row = np.unique(group, return_inverse=True)
    order = np.lexsort((ts, place, row))
    row, place, ts = row[order], place[order], ts[order]
    latest = np.r_[(row[1:] != row[:-1]) | (place[1:] != place[:-1]), True] if len(row) else np.zeros(0, bool)
    row, place, ts = row[latest], place[latest], ts[latest]
    rows = int(row[-1]) + 1 if len(row) else 0
    indptr = np.searchsorted(row, np.arange(rows + 1)).astype(np.int32)
    matrix = csr_array((np.ones(len(row), np.float32), place.astype(np.int32), indptr), shape=(rows, len(items)))
    return cap_rows(matrix, ts, cap)


def sessions(log: Interactions, *, gap_s: int = SESSION_S) -> NDArray[np.int64]:
    """A session number for each event: a shopper's events with pauses of at most `gap_s` seconds between them."""
    order = np.lexsort((log.ts, log.shopper))
    shopper, ts = log.shopper[order], log.ts[order]
    begins = np.r_[True, (shopper[1:] != shopper[:-1]) | (ts[1:] - ts[:-1] > gap_s)] if len(log) else np.zeros(0, bool)
    number = np.empty(len(log), np.int64)
    number[order] = np.cumsum(begins)
    return number


def fit_llr(matrix: csr_array, *, keep: int = NEIGHBOURS, support: int = SUPPORT) -> Neighbours:
    """Neighbours by the log-likelihood ratio of Dunning (1993) over groups [groups × items, binary].

    With k11 groups of both, k12 and k21 of one, k22 of neither: 2 · Σ k · ln(k · N / (row · column)), the G² of the
    2 × 2 table; only pairs met more often than by chance, in at least `support` groups.
    """
    groups = matrix.shape[0]
    count = np.bincount(matrix.indices, minlength=matrix.shape[1])
    # x ln x of every whole number that may appear: four look-ups instead of four logarithms a pair.
    number = np.arange(groups + 1, dtype=np.float64)
    entropy = number * np.log(np.maximum(number, 1))
    margin = entropy[count] + entropy[groups - count] - entropy[groups] / 2

    def weigh(block: csr_array, row: NDArray[np.int64], _start: int) -> NDArray[np.float64]:
        scores = np.zeros(block.nnz)
        both = np.rint(block.data).astype(np.int64)
        likely = np.flatnonzero(both >= support)
        column, row = block.indices[likely], row[likely]
        both, n_row, n_column = both[likely], count[row], count[column]
        more = both * groups > n_row * n_column
        ratio = entropy[both] + entropy[n_row - both] + entropy[n_column - both]
        ratio += entropy[groups - n_row - n_column + both] - margin[row] - margin[column]
        scores[likely] = np.where(more, np.maximum(2 * ratio, 0), 0)
        return scores

    return neighbours_of_product(matrix.T.tocsr(), matrix, keep=keep, weigh=weigh)[0]


def fit_cosine(matrix: csr_array, *, keep: int = NEIGHBOURS) -> Neighbours:
    """Neighbours by the cosine of the items' columns: shoppers of both ÷ √(shoppers of one × of the other)."""
    root: Floats = np.sqrt(np.bincount(matrix.indices, minlength=matrix.shape[1])).astype(np.float32)

    def weigh(block: csr_array, row: NDArray[np.int64], _start: int) -> Floats:
        return np.asarray(block.data / (root[row] * root[block.indices]), np.float32)

    return neighbours_of_product(matrix.T.tocsr(), matrix, keep=keep, weigh=weigh)[0]
