"""Which model of behaviour serves and how the sources are mixed, decided on the shop's own last weeks.

Weights are fitted on the rule by which answers are mixed: Σ_s w_s · z_s / max z_s, and drawn towards a prior as far as
there are few shoppers to fit on. Then the whole is held against what serves.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.blend import Union, fit_weights, unite
from workers.training.behaviour.borrowed import Borrowed, borrow, mixing
from workers.training.behaviour.graph import fit_graph
from workers.training.behaviour.interactions import Interactions, Ints, cap_rows
from workers.training.behaviour.popularity import fit_popularity
from workers.training.shop.factors import ServedFactors, fit_factors
from workers.training.shop.gate import Contender, compare
from workers.training.shop.likes import Likes, lent_to, matrix_of
from workers.training.shop.plan import Champion, Comparison
from workers.training.shop.trial import Scorer, Trial, trial_at

PRIOR: Final[Mapping[str, float]] = {"similar": 1.0, "popular": 0.5, "graph": 0.5, "als": 0.5}
"""What does well where little is known: likes of what the shopper looked at, and what sells."""

HELD_OUT: Final = 0.15
"""The last share of the events is asked for."""

MOST_SHOPPERS: Final = 20_000
"""Of a large shop so many are fitted on: the choice needs no more, and a fit of all takes minutes."""

BORROWED_TO: Final = 20_000
"""Items up to which the choice is made with what items borrow; with more it takes longer than it tells."""

_CLEARLY: Final = 0.002
"""The graph filter is served unless the other is better by this: it needs no fit for a new event to count."""

_LEAST: Final = 0.03
"""A source below this share of the weight is left out: its part of the statement would cost more than it says."""


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
    champion: Champion | None = None,
    served: Borrowed | ServedFactors | None = None,
) -> Validation | None:
    """None where nobody can be asked. `items` are the columns, those of `likes` among them; `served` is the champion's
    model over them.
    """
    chosen = _some_shoppers(log)
    positive = chosen.ts[chosen.weight > 0]
    if len(positive) < 2:
        return None
    trial = trial_at(chosen, items, int(np.quantile(positive, 1 - HELD_OUT)))
    if trial is None:
        return None
    scorers = _fit(trial, items, likes, ("graph", "als"))
    lists = {name: trial.lists(scorer) for name, scorer in scorers.items()}
    recall = {name: float(trial.recall([one], np.ones(1)).mean()) for name, one in lists.items()}
    space = "als" if recall["als"] > recall["graph"] + _CLEARLY else "graph"
    names = [name for name in lists if name not in {"graph", "als"} - {space}]
    union = unite([lists[name] for name in names], len(items))
    prior = np.array([PRIOR[name] for name in names])
    weights = fit_weights(union, _wanted(union, trial.wanted), prior)
    recall["blend"] = float(trial.recall([lists[name] for name in names], weights).mean())
    blend = {name: round(float(weight), 3) for name, weight in zip(names, weights, strict=True) if weight >= _LEAST}
    comparison = None
    if champion is not None and served is not None:
        if champion.until >= trial.cut:
            # The champion has seen a part of what was held out: both are asked for what came after, and what stands
            # for the new model here may learn from all that the champion has.
            later = trial_at(chosen, items, champion.until + 1)
            scorers = {} if later is None else _fit(later, items, likes, (space,))
        else:
            later = trial
        if later is not None:
            comparison = compare(
                later,
                Contender(scorers=scorers, blend=blend),
                _standing(champion, served, scorers),
                model=champion.model,
            )
    return Validation(
        space=space,
        asked=trial.asked,
        recall={name: round(value, 4) for name, value in recall.items()},
        blend=blend,
        comparison=comparison,
    )


def _fit(trial: Trial, items: Ints, likes: Likes | None, spaces: tuple[str, ...]) -> dict[str, Scorer]:
    """The sources as they are before the trial's moment. The choice needs less than what serves: fewer dimensions,
    and of a large shop nothing borrowed.
    """
    train = trial.train
    scorers: dict[str, Scorer] = {}
    mix: csr_array | None = None
    if likes is not None and len(items) <= BORROWED_TO:
        degree = np.bincount(train.binary.indices, minlength=len(items)).astype(np.float32)
        mix = mixing(degree, lent_to(likes, items, degree))
    if "graph" in spaces:
        graph = fit_graph(cap_rows(train.weights, train.last, 500), dims=128)
        scorers["graph"] = (graph if mix is None else borrow(graph, mix)).score
    if "als" in spaces:
        scorers["als"] = fit_factors(cap_rows(train.binary, train.last, 500), mix, factors=64).score
    column = np.searchsorted(items, trial.before.item).astype(np.int64)
    decayed = fit_popularity(trial.before, column, len(items), now=trial.cut).decayed
    scorers["popular"] = lambda h: np.broadcast_to(decayed, (h.shape[0], len(items))).copy()
    if likes is not None:
        alike = matrix_of(likes, items)
        scorers["similar"] = lambda h: np.asarray((h @ alike).toarray(), np.float32)
    return scorers


def _standing(champion: Champion, served: Borrowed | ServedFactors, now: Mapping[str, Scorer]) -> Contender:
    """What serves. Only its behaviour is the model's: what sells and what is alike are as they are today."""
    scorers = {name: scorer for name, scorer in now.items() if name not in ("graph", "als")}
    scorers[champion.space] = served.score
    blend = champion.blend or PRIOR
    return Contender(scorers=scorers, blend={name: blend[name] for name in scorers if blend.get(name)})


def _wanted(union: Union, asked: csr_array) -> NDArray[np.bool_]:
    width = np.int64(asked.shape[1])
    rows = np.repeat(np.arange(asked.shape[0], dtype=np.int64), np.diff(asked.indptr))
    return np.isin(union.row * width + union.item, rows * width + asked.indices)


def _some_shoppers(log: Interactions) -> Interactions:
    shoppers = np.unique(log.shopper)
    if len(shoppers) <= MOST_SHOPPERS:
        return log
    kept = np.random.default_rng(0).choice(shoppers, MOST_SHOPPERS, replace=False)
    return log.take(np.isin(log.shopper, kept))
