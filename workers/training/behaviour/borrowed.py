"""Items with few events borrow the behaviour of those that look alike.

b_j = λ·own_j + (1-λ)·Σ w_jk·own_k over the nearest warm items by content, λ = n_j / (n_j + c) for n_j shoppers. A sum
of a content score and a behaviour score hides cold items, as behaviour knows none of them; borrowed, they have a place
in behaviour space as soon as they are encoded.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from workers.training.behaviour.graph import Graph
from workers.training.behaviour.interactions import Floats
from workers.training.behaviour.neighbours import Neighbours, Weigh, cut_rows, neighbours_of_product

LENDERS: Final = 5
SHRINK: Final = 3.0
"""c: after so many shoppers half of an item's behaviour is its own. Chosen on the windows before the test of both sets:
against 10 the graph filter finds a half more on complete_journey with repeats and a fifth more without, 1 to 4 % more
on online_retail, and 7 % fewer cold items on the former; with 1 less again.
"""

SHARPNESS: Final = 10.0
WARM: Final = 5
QUOTA: Final = 0.2
_ROWS_AT_ONCE: Final = 1_024


class Borrowed(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A graph filter with borrowed behaviour, in the form of `Graph`: `neighbours` and `own` as there; `sources` and
    `targets` float32[n, d] replace V/√degree and V·√degree, which no longer come of one vector.
    """

    neighbours: Neighbours
    own: Floats
    sources: Floats
    targets: Floats
    alpha: float

    def score(self, history: csr_array) -> Floats:
        """float32[b, n] of b shoppers with the histories [b, n]."""
        near = history @ self.neighbours.sparse + history.multiply(self.own[None, :])
        return np.asarray(near.toarray() + self.alpha * ((history @ self.sources) @ self.targets.T), np.float32)


def lenders(
    content: Floats, degree: Floats, *, count: int = LENDERS, warm: int = WARM, sharpness: float = SHARPNESS
) -> Neighbours:
    """The `count` nearest warm items of each item by content, with weights that sum to 1: softmax of 10·cos.

    `content` float32[n, d], rows of length 1, or 0 where an item has no content (it borrows nothing); `degree`
    float32[n] shoppers per item; an item with `warm` or more lends. The exact scan is made a block of rows at a time.
    """
    n = len(content)
    there = np.abs(content).sum(axis=1) > 0
    stock = np.flatnonzero((degree >= warm) & there)
    count = min(count, max(len(stock) - 1, 0))
    ids = np.full((n, count), -1, np.int32)
    weights = np.zeros((n, count), np.float32)
    if count == 0:
        return Neighbours(ids=ids, scores=weights)
    lent = np.ascontiguousarray(content[stock].T)
    place = np.full(n, -1)
    place[stock] = np.arange(len(stock))
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, n))
        rows = rows[there[rows]]
        cosine = content[rows] @ lent
        own = np.flatnonzero(place[rows] >= 0)
        cosine[own, place[rows[own]]] = -np.inf
        best = np.argpartition(cosine, len(stock) - count, axis=1)[:, len(stock) - count :]
        value = np.take_along_axis(cosine, best, axis=1)
        order = np.argsort(-value, axis=1, kind="stable")
        value = np.take_along_axis(value, order, axis=1)
        share = np.exp(sharpness * (value - value[:, :1]))
        ids[rows] = stock[np.take_along_axis(best, order, axis=1)]
        weights[rows] = share / share.sum(axis=1, keepdims=True)
    return Neighbours(ids=ids, scores=weights)


def mixing(degree: Floats, lent: Neighbours, *, shrink: float = SHRINK) -> csr_array:
    """float32[n, n], row j what b_j is made of. An item that nobody lends to keeps its own behaviour whole."""
    borrows = lent.scores.sum(axis=1) > 0
    own = np.where(borrows, degree / (degree + shrink), 1.0).astype(np.float32)
    return csr_array(diags_array(own) + diags_array(1 - own) @ lent.sparse).astype(np.float32)


def borrow(graph: Graph, mix: csr_array, *, quota: float = QUOTA) -> Borrowed:
    """The graph filter with every item's behaviour mixed: as the item that is shown and as the item that is met.

    As many neighbours per item are kept as the graph has; of them up to `quota` (a share) are of items with fewer
    than WARM shoppers, where there are such.
    """
    few = graph.degree < WARM
    shown = _mixed(csr_array(graph.neighbours.sparse + diags_array(graph.own)), csr_array(mix.T), few, graph, quota)
    both = _mixed(mix, shown, few, graph, quota)
    return Borrowed(
        neighbours=cut_rows(both, graph.neighbours.ids.shape[1]),
        own=both.diagonal().astype(np.float32),
        sources=np.asarray(mix @ graph.sources(), np.float32),
        targets=np.asarray(mix @ graph.targets(), np.float32),
        alpha=graph.alpha,
    )


def _mixed(left: csr_array, right: csr_array, few: NDArray[np.bool_], graph: Graph, quota: float) -> csr_array:
    """The product, each row cut to the neighbours of the graph and its own entry.

    Without places of their own, borrowed scores, which are means, would be cut off below the scores that they are
    means of, and cold items be nobody's neighbours (on online_retail cold Recall@20 falls from .049 to .028).
    """
    keep = graph.neighbours.ids.shape[1]
    cold = int(keep * quota)

    def only(chosen: NDArray[np.bool_]) -> Weigh:
        return lambda block, _row, _start: np.where(chosen[block.indices], block.data, 0)

    warm_part, own = neighbours_of_product(left, right, keep=keep, weigh=only(~few))
    if few.any():
        few_part, _ = neighbours_of_product(left, right, keep=cold, weigh=only(few))
        taken = (few_part.ids >= 0).sum(axis=1)
        over = np.arange(keep) >= (keep - taken)[:, None]
        ids, scores = np.where(over, -1, warm_part.ids), np.where(over, 0, warm_part.scores)
        warm_part = Neighbours(ids=np.hstack([ids, few_part.ids]), scores=np.hstack([scores, few_part.scores]))
    return csr_array(warm_part.sparse + diags_array(own))
