"""Which model of behaviour serves and how the sources are mixed, decided on the shop's own last weeks.

What was learned before the cut is asked for what shoppers met after it that was new to them (global time, full
ranking, histories left out: as `for_you` answers). Weights are fitted on the rule by which answers are mixed:
Σ_s w_s · z_s / max z_s, held against the best source alone, and drawn towards a prior as far as there are few shoppers
to fit on (workers/training/behaviour/blend.py).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from scipy.sparse import csr_array

from tenants.learned.blend import LISTED
from workers.training.behaviour.blend import Listed, Window, fit_blend, listed, of_items, stacked
from workers.training.behaviour.borrowed import borrow, mixing
from workers.training.behaviour.graph import fit_graph
from workers.training.behaviour.history import served_history
from workers.training.behaviour.interactions import (
    Floats,
    Interactions,
    Ints,
    Longs,
    ShopperItems,
    cap_rows,
    shopper_items,
)
from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.popularity import fit_popularity, met_by_few
from workers.training.behaviour.user_cf import fit_user_cf, met_lately
from workers.training.shop.factors import fit_factors
from workers.training.shop.likes import Likes, lent_to, matrix_of

PRIOR: Final[Mapping[str, float]] = {
    "similar": 1.0,
    "popular": 0.5,
    "graph": 0.5,
    "als": 0.5,
    "buy_again": 0.5,
    "item_cf": 0.25,
    "user_cf": 0.25,
}
"""What does well where little is known: likes of what the shopper looked at, and what sells."""

HELD_OUT: Final = 0.15
"""The last share of the events is asked for."""

MOST_SHOPPERS: Final = 20_000
"""Of a large shop so many are fitted on: the choice needs no more, and a fit of all takes minutes."""

MOST_ASKED: Final = 1_500
BORROWED_TO: Final = 20_000
"""Items up to which the choice is made with what items borrow; with more it takes longer than it tells."""

_ROWS_AT_ONCE: Final = 128

CLEARLY: Final = 0.002
"""The graph filter is served unless factors are better by this: it needs no fit for a new event to count."""


Scorer = Callable[[Longs], Floats]
"""float32[b, n] of the shoppers in these rows."""


class Validation(Struct, frozen=True, kw_only=True):
    """`space`: which of graph and als serves. `recall` at 20 of each source and of the blend, over `asked` shoppers."""

    space: str
    asked: int
    recall: dict[str, float]
    blend: dict[str, float]


def validate(log: Interactions, items: Ints, likes: Likes | None, ready: Collection[str] = ()) -> Validation | None:
    """None where nobody can be asked. `items` are the columns, those of `likes` among them; `ready` names the further
    models that the shop has enough for.
    """
    chosen = _some_shoppers(log)
    positive = chosen.take(chosen.weight > 0)
    if len(positive) < 2:
        return None
    cut = int(np.quantile(positive.ts, 1 - HELD_OUT))
    before, after = chosen.take(chosen.ts < cut), positive.take(positive.ts >= cut)
    train = shopper_items(before, items=items)
    wanted = shopper_items(after, items=items, shoppers=train.shoppers)
    history = served_history(before, items=items, shoppers=train.shoppers, now=cut)
    new = csr_array(wanted.binary - wanted.binary.multiply(train.binary))
    new.eliminate_zeros()
    rows = np.flatnonzero((np.diff(new.indptr) > 0) & (np.diff(history.indptr) > 0))
    if not len(rows):
        return None
    if len(rows) > MOST_ASKED:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_ASKED, replace=False))
    scorers = _scorers(before, train, history, likes, ready, cut)
    asked = new[rows]
    lists = {name: _lists(scorer, train.binary, rows) for name, scorer in scorers.items()}
    column = np.searchsorted(items, before.item).astype(np.int64)
    window = Window(
        lists=lists,
        wanted=asked,
        new=of_items(asked, np.bincount(train.weights.indices, minlength=len(items)) == 0),
        few=met_by_few(before, column, len(items), now=cut),
    )
    blends = {}
    for space, left_out in (("graph", {"als", "near"}), ("als", {"graph"})):
        served = {("graph" if name == "near" else name): one for name, one in lists.items() if name not in left_out}
        blends[space] = fit_blend([msgspec.structs.replace(window, lists=served)], {n: PRIOR[n] for n in served})
    space = "als" if blends["als"].gain > blends["graph"].gain + CLEARLY else "graph"
    recall = blends["graph"].recall | {"als": blends["als"].recall["als"]} | {"blend": blends[space].recall["blend"]}
    return Validation(
        space=space,
        asked=len(rows),
        recall={name: round(value, 4) for name, value in recall.items()},
        blend=blends[space].weights,
    )


def _scorers(
    before: Interactions,
    train: ShopperItems,
    history: csr_array,
    likes: Likes | None,
    ready: Collection[str],
    now: int,
) -> dict[str, Scorer]:
    """The sources by name; `near` is the graph filter without its vectors, whose place the factors would have."""
    items = train.items
    # The choice needs less than what serves: fewer dimensions, and of a large shop nothing borrowed.
    graph = fit_graph(cap_rows(train.weights, train.last, 500), dims=128)
    borrows = likes is not None and len(items) <= BORROWED_TO
    mix = mixing(graph.degree, lent_to(likes, items, graph.degree)) if likes is not None and borrows else None
    served = graph if mix is None else borrow(graph, mix)
    near = msgspec.structs.replace(served, alpha=0.0)
    factors = fit_factors(cap_rows(train.binary, train.last, 500), mix, factors=64)
    column = np.searchsorted(items, before.item).astype(np.int64)
    decayed = fit_popularity(before, column, len(items), now=now).decayed
    scorers: dict[str, Scorer] = {
        "graph": lambda rows: served.score(history[rows]),
        "near": lambda rows: near.score(history[rows]),
        "als": lambda rows: factors.score(history[rows]),
        "popular": lambda rows: np.broadcast_to(decayed, (len(rows), len(items))).copy(),
    }
    if likes is not None:
        alike = matrix_of(likes, items)
        scorers["similar"] = lambda rows: np.asarray((history[rows] @ alike).toarray(), np.float32)
    if "item_cf" in ready:
        together = fit_item_cf(cap_rows(train.binary, train.last)).sparse
        scorers["item_cf"] = lambda rows: np.asarray((history[rows] @ together).toarray(), np.float32)
    if "user_cf" in ready:
        others = fit_user_cf(train.binary, train.last)
        lately = met_lately(before, items=items, shoppers=train.shoppers, now=now)
        scorers["user_cf"] = lambda rows: others.score(rows, lately)
    return scorers


def _lists(scorer: Scorer, met: csr_array, rows: Longs) -> Listed:
    """What a source lists for each of the rows, without what the shopper has met."""
    parts = []
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[at : at + _ROWS_AT_ONCE]
        scores = scorer(some)
        known = met[some]
        scores[np.repeat(np.arange(len(some)), np.diff(known.indptr)), known.indices] = -np.inf
        count = min(LISTED, scores.shape[1])
        best = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        parts.append(listed(scores, np.take_along_axis(best, order, axis=1).astype(np.int32)))
    return stacked(parts)


def _some_shoppers(log: Interactions) -> Interactions:
    shoppers = np.unique(log.shopper)
    if len(shoppers) <= MOST_SHOPPERS:
        return log
    kept = np.random.default_rng(0).choice(shoppers, MOST_SHOPPERS, replace=False)
    return log.take(np.isin(log.shopper, kept))
