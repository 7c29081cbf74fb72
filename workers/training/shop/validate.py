"""Which model of behaviour serves and how the sources are mixed, decided on the shop's own last weeks.

What was learned before the cut is asked for what shoppers met after it that was new to them (global time, full
ranking, histories left out: as `for_you` answers). Weights are fitted on the rule by which answers are mixed:
Σ_s w_s · z_s / max z_s, and drawn towards a prior as far as there are few shoppers to fit on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.blend import LISTED, Listed, Union, blended, fit_weights, listed, unite
from workers.training.behaviour.borrowed import borrow, mixing
from workers.training.behaviour.graph import fit_graph
from workers.training.behaviour.interactions import Floats, Interactions, Ints, Longs, cap_rows, shopper_items
from workers.training.behaviour.popularity import fit_popularity
from workers.training.shop.factors import fit_factors
from workers.training.shop.likes import Likes, lent_to, matrix_of

PRIOR: Final[Mapping[str, float]] = {"similar": 1.0, "popular": 0.5, "graph": 0.5, "als": 0.5}
"""What does well where little is known: likes of what the shopper looked at, and what sells."""

HELD_OUT: Final = 0.15
"""The last share of the events is asked for."""

MOST_SHOPPERS: Final = 20_000
"""Of a large shop so many are fitted on: the choice needs no more, and a fit of all takes minutes."""

MOST_ASKED: Final = 1_500
BORROWED_TO: Final = 20_000
"""Items up to which the choice is made with what items borrow; with more it takes longer than it tells."""

K: Final = 20

_HISTORY: Final = 30
_ROWS_AT_ONCE: Final = 128
_CLEARLY: Final = 0.002
"""The graph filter is served unless the other is better by this: it needs no fit for a new event to count."""

_LEAST: Final = 0.03
"""A source below this share of the weight is left out: its part of the statement would cost more than it says."""


Scorer = Callable[[csr_array], Floats]
"""float32[b, n] of b histories."""


class Validation(Struct, frozen=True, kw_only=True):
    """`space`: which of graph and als serves. `recall` at 20 of each source and of the blend, over `asked` shoppers."""

    space: str
    asked: int
    recall: dict[str, float]
    blend: dict[str, float]


def validate(log: Interactions, items: Ints, likes: Likes | None) -> Validation | None:
    """None where nobody can be asked. `items` are the columns, those of `likes` among them."""
    chosen = _some_shoppers(log)
    positive = chosen.take(chosen.weight > 0)
    if len(positive) < 2:
        return None
    cut = int(np.quantile(positive.ts, 1 - HELD_OUT))
    before, after = chosen.take(chosen.ts < cut), positive.take(positive.ts >= cut)
    train = shopper_items(before, items=items)
    wanted = shopper_items(after, items=items, shoppers=train.shoppers)
    history = cap_rows(train.binary, train.last, _HISTORY)
    new = csr_array(wanted.binary - wanted.binary.multiply(train.binary))
    new.eliminate_zeros()
    rows = np.flatnonzero((np.diff(new.indptr) > 0) & (np.diff(history.indptr) > 0))
    if not len(rows):
        return None
    if len(rows) > MOST_ASKED:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_ASKED, replace=False))
    # The choice needs less than what serves: fewer dimensions, and of a large shop nothing borrowed.
    graph = fit_graph(cap_rows(train.weights, train.last, 500), dims=128)
    alike = None if likes is None else matrix_of(likes, items)
    borrows = likes is not None and len(items) <= BORROWED_TO
    mix = mixing(graph.degree, lent_to(likes, items, graph.degree)) if likes is not None and borrows else None
    served = graph if mix is None else borrow(graph, mix)
    factors = fit_factors(cap_rows(train.binary, train.last, 500), mix, factors=64)
    column = np.searchsorted(items, before.item).astype(np.int64)
    decayed = fit_popularity(before, column, len(items), now=cut).decayed
    scorers: dict[str, Scorer] = {
        "graph": served.score,
        "als": factors.score,
        "popular": lambda h: np.broadcast_to(decayed, (h.shape[0], len(items))).copy(),
    }
    if alike is not None:
        scorers["similar"] = lambda h: np.asarray((h @ alike).toarray(), np.float32)
    lists = {name: _lists(scorer, history, train.binary, rows) for name, scorer in scorers.items()}
    asked = new[rows]
    recall = {name: _recall([one], np.ones(1), asked) for name, one in lists.items()}
    space = "als" if recall["als"] > recall["graph"] + _CLEARLY else "graph"
    names = [name for name in lists if name not in {"graph", "als"} - {space}]
    union = unite([lists[name] for name in names], len(items))
    prior = np.array([PRIOR[name] for name in names])
    weights = fit_weights(union, _wanted(union, asked), prior)
    recall["blend"] = _recall([lists[name] for name in names], weights, asked)
    return Validation(
        space=space,
        asked=len(rows),
        recall={name: round(value, 4) for name, value in recall.items()},
        blend={name: round(float(weight), 3) for name, weight in zip(names, weights, strict=True) if weight >= _LEAST},
    )


def _lists(scorer: Scorer, history: csr_array, met: csr_array, rows: Longs) -> Listed:
    """What a source lists for each of the rows, without what the shopper has met."""
    parts = []
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[at : at + _ROWS_AT_ONCE]
        scores = scorer(history[some])
        known = met[some]
        scores[np.repeat(np.arange(len(some)), np.diff(known.indptr)), known.indices] = -np.inf
        count = min(LISTED, scores.shape[1])
        best = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        parts.append(listed(scores, np.take_along_axis(best, order, axis=1).astype(np.int32)))
    return Listed(ids=np.vstack([part.ids for part in parts]), scores=np.vstack([part.scores for part in parts]))


def _wanted(union: Union, asked: csr_array) -> NDArray[np.bool_]:
    width = np.int64(asked.shape[1])
    rows = np.repeat(np.arange(asked.shape[0], dtype=np.int64), np.diff(asked.indptr))
    return np.isin(union.row * width + union.item, rows * width + asked.indices)


def _recall(lists: Sequence[Listed], weights: NDArray[np.float64], asked: csr_array) -> float:
    """Recall@K of the lists, mixed."""
    shown = blended(unite(lists, asked.shape[1]), weights, asked.shape[0], K)
    rows = np.repeat(np.arange(len(shown), dtype=np.int64), K)
    width = np.int64(asked.shape[1])
    wanted = np.repeat(np.arange(len(shown), dtype=np.int64), np.diff(asked.indptr)) * width + asked.indices
    hit = np.isin(rows * width + shown.ravel(), wanted) & (shown.ravel() >= 0)
    found = np.bincount(rows[hit], minlength=len(shown))
    return float(np.mean(found / np.minimum(np.diff(asked.indptr), K)))


def _some_shoppers(log: Interactions) -> Interactions:
    shoppers = np.unique(log.shopper)
    if len(shoppers) <= MOST_SHOPPERS:
        return log
    kept = np.random.default_rng(0).choice(shoppers, MOST_SHOPPERS, replace=False)
    return log.take(np.isin(log.shopper, kept))
