"""Which model of behaviour serves and how the sources are mixed, decided on the shop's own last weeks.

Weights are fitted on the rule by which answers are mixed: Σ_s w_s · z_s / max z_s, held against the best source alone,
and drawn towards a prior as far as there are few shoppers to fit on (workers/training/behaviour/blend.py). Then the
whole is held against what serves.
"""

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from workers.training.behaviour.blend import fit_blend
from workers.training.behaviour.borrowed import Borrowed, borrow, mixing
from workers.training.behaviour.graph import fit_graph
from workers.training.behaviour.interactions import Interactions, Ints, cap_rows
from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.popularity import fit_popularity
from workers.training.behaviour.user_cf import fit_user_cf, met_lately
from workers.training.shop.factors import ServedFactors, fit_factors
from workers.training.shop.gate import Contender, compare
from workers.training.shop.likes import Likes, lent_to, matrix_of
from workers.training.shop.plan import Champion, Comparison
from workers.training.shop.trial import Scorer, Trial, trial_at

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

MOST_SHOPPERS: Final = 8_000
"""Of a large shop so many are fitted on: 1,500 are asked, and a fit on 20,000 took a quarter of all learning."""

BORROWED_TO: Final = 20_000
"""Items up to which the choice is made with what items borrow; with more it takes longer than it tells."""

CLEARLY: Final = 0.002
"""The graph filter is served unless factors are better by this: it needs no fit for a new event to count."""


class Validation(Struct, frozen=True, kw_only=True):
    """`space`: which of graph and als serves. `recall` at 20 of each source and of the blend, over `asked` shoppers.
    `comparison` with the model that serves, where there is one and somebody has done something since.
    """

    space: str
    asked: int
    recall: dict[str, float]
    blend: dict[str, float]
    comparison: Comparison | None = None


def validate(
    log: Interactions,
    items: Ints,
    likes: Likes | None,
    ready: Collection[str] = (),
    champion: Champion | None = None,
    served: Borrowed | ServedFactors | None = None,
) -> Validation | None:
    """None where nobody can be asked. `items` are the columns, those of `likes` among them; `ready` names the further
    models that the shop has enough for; `served` is the champion's model over the same columns.
    """
    chosen = _some_shoppers(log)
    positive = chosen.ts[chosen.weight > 0]
    if len(positive) < 2:
        return None
    trial = trial_at(chosen, items, int(np.quantile(positive, 1 - HELD_OUT)))
    if trial is None:
        return None
    scorers = _scorers(trial, likes, ready, factors=True)
    lists = {name: trial.lists(scorer) for name, scorer in scorers.items()}
    blends = {
        space: fit_blend([trial.window(named)], {name: PRIOR[name] for name in named})
        for space in ("graph", "als")
        for named in [_of_space(lists, space)]
    }
    space = "als" if blends["als"].gain > blends["graph"].gain + CLEARLY else "graph"
    recall = blends["graph"].recall | {"als": blends["als"].recall["als"]} | {"blend": blends[space].recall["blend"]}
    comparison = None
    if champion is not None and served is not None:
        later: Trial | None = trial
        if champion.until >= trial.cut:
            # The champion has seen a part of what was held out: both are asked for what came after, and what stands
            # for the new model here may learn from all that the champion has.
            later = trial_at(chosen, items, champion.until + 1)
            scorers = {} if later is None else _scorers(later, likes, ready, factors=space == "als")
        if later is not None:
            comparison = compare(
                later,
                Contender(scorers=_of_space(scorers, space), blend=blends[space].weights),
                _standing(champion, served, later, scorers),
                model=champion.model,
            )
    return Validation(
        space=space,
        asked=trial.asked,
        recall={name: round(value, 4) for name, value in recall.items()},
        blend=blends[space].weights,
        comparison=comparison,
    )


def _scorers(trial: Trial, likes: Likes | None, ready: Collection[str], *, factors: bool) -> dict[str, Scorer]:
    """The sources as they are before the trial's moment; `near` is the graph filter without its vectors, whose place
    the `factors` would have. The choice needs less than what serves: fewer dimensions, and of a large shop nothing
    borrowed.
    """
    train, history, items = trial.train, trial.history, trial.train.items
    graph = fit_graph(cap_rows(train.weights, train.last, 500), dims=128)
    borrows = likes is not None and len(items) <= BORROWED_TO
    mix = mixing(graph.degree, lent_to(likes, items, graph.degree)) if likes is not None and borrows else None
    served = graph if mix is None else borrow(graph, mix)
    near = msgspec.structs.replace(served, alpha=0.0)
    column = np.searchsorted(items, trial.before.item).astype(np.int64)
    decayed = fit_popularity(trial.before, column, len(items), now=trial.cut).decayed
    scorers: dict[str, Scorer] = {
        "graph": lambda rows: served.score(history[rows]),
        "near": lambda rows: near.score(history[rows]),
        "popular": lambda rows: np.broadcast_to(decayed, (len(rows), len(items))).copy(),
    }
    if factors:
        fitted = fit_factors(cap_rows(train.binary, train.last, 500), mix, factors=64)
        scorers["als"] = lambda rows: fitted.score(history[rows])
    if likes is not None:
        alike = matrix_of(likes, items)
        scorers["similar"] = lambda rows: np.asarray((history[rows] @ alike).toarray(), np.float32)
    if "item_cf" in ready:
        together = fit_item_cf(cap_rows(train.binary, train.last)).sparse
        scorers["item_cf"] = lambda rows: np.asarray((history[rows] @ together).toarray(), np.float32)
    if "user_cf" in ready:
        others = fit_user_cf(train.binary, train.last)
        lately = met_lately(trial.before, items=items, shoppers=train.shoppers, now=trial.cut)
        scorers["user_cf"] = lambda rows: others.score(rows, lately)
    return scorers


_T = TypeVar("_T")


def _of_space(found: Mapping[str, _T], space: str) -> dict[str, _T]:
    """The sources that are served where `space` is the one of behaviour, by the names that they have there."""
    if space == "graph":
        return {name: one for name, one in found.items() if name not in ("near", "als")}
    return {("graph" if name == "near" else name): one for name, one in found.items() if name != "graph"}


def _standing(
    champion: Champion, served: Borrowed | ServedFactors, trial: Trial, now: Mapping[str, Scorer]
) -> Contender:
    """What serves. Only its space of behaviour is the model's: what sells and what is alike are as they are today."""
    scorers = _of_space(now, champion.space)
    scorers[champion.space] = lambda rows: served.score(trial.history[rows])
    blend = champion.blend or PRIOR
    return Contender(
        scorers=scorers, blend={name: weight for name, weight in blend.items() if name in {*scorers, "fresh"}}
    )


def _some_shoppers(log: Interactions) -> Interactions:
    shoppers = np.unique(log.shopper)
    if len(shoppers) <= MOST_SHOPPERS:
        return log
    kept = np.random.default_rng(0).choice(shoppers, MOST_SHOPPERS, replace=False)
    return log.take(np.isin(log.shopper, kept))
