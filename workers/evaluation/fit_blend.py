"""The blend of an evaluation: weights fitted on a window before the test, as a training job fits a shop's own."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.evaluation.metrics import hits, top_lists
from workers.evaluation.models import FRESH, MODELS, Scorer, fresh
from workers.evaluation.setting import Questions, Setting
from workers.training.behaviour.blend import (
    LISTED,
    SHOPPERS,
    Listed,
    Union,
    Weights,
    blended,
    fit_weights,
    listed,
    unite,
)
from workers.training.behaviour.interactions import Floats, Ints, ShopperItems

PRIOR: Final = {"recent": 1.0, "text": 0.5, "image": 0.5, "behaviour": 1.0, "graph_served": 1.0}
"""A shop with few validation shoppers is kept near what sells, what looks alike, and the graph filter."""

_LEAST: Final = 0.03
"""A source below this share of the weight is left out: its query would cost more than it says."""

_FRESH: Final = tuple(np.round(np.arange(0, 1.01, 0.05), 2))
_CLEARLY: Final = 2.5
_MOST_LOST: Final = 0.06
_BATCH: Final = 256
_K: Final = 20


def scores_of(
    scorers: Mapping[str, Scorer], setting: Setting, questions: Questions, start: int, end: int
) -> dict[str, Floats]:
    """Scores float32[b, n] by model of the questions' rows start…end; -inf where an item may not be recommended."""
    rows = questions.rows[start:end]
    history = setting.train.rows(rows)
    place = np.repeat(np.arange(len(rows)), np.diff(history.weights.indptr))
    found = {}
    for name, scorer in scorers.items():
        scores = scorer(rows, history)
        if not setting.repeats:
            scores[place, history.weights.indices] = -np.inf
        found[name] = scores
    if "behaviour" in found and {"fused", "text", "image"} & found.keys():
        found[FRESH] = fresh(found, setting.degree)
    return found


def source_lists(scores: Mapping[str, Floats], names: Sequence[str], rng: np.random.Generator) -> list[Listed]:
    """The lists of the sources `names`, in this order."""
    return [listed(scores[name], top_lists(scores[name], LISTED, rng=rng)) for name in names]


def learn_weights(setting: Setting, questions: Questions, sources: Sequence[str]) -> Weights:
    """Fit on the questions of a validation window; `sources` are names of the registry."""
    prior = np.array([PRIOR.get(name, 0.0) for name in sources]) + 1e-9
    rng = np.random.default_rng(setting.seed)
    if len(questions.rows) > SHOPPERS:
        chosen = np.sort(rng.choice(len(questions.rows), SHOPPERS, replace=False))
        questions = Questions(rows=questions.rows[chosen], wanted=questions.wanted.rows(chosen))
    if not len(questions.rows):
        return Weights(by_source=_named(sources, prior / prior.sum()), shoppers=0)
    scorers = {name: MODELS[name].fit(setting) for name in sources}
    named = [*sources, FRESH] if "behaviour" in sources and {"text", "image"} & set(sources) else list(sources)
    parts: list[list[Listed]] = []
    for start in range(0, len(questions.rows), _BATCH):
        scores = scores_of(scorers, setting, questions, start, start + _BATCH)
        parts.append(source_lists(scores, named, rng))
    lists = [
        Listed(ids=np.vstack([p[c].ids for p in parts]), scores=np.vstack([p[c].scores for p in parts]))
        for c in range(len(named))
    ]
    union = unite(lists[: len(sources)], len(setting.train.items))
    weights = fit_weights(union, _wanted(union, questions.wanted), prior)
    weights = np.where(weights < _LEAST, 0, weights)
    by_source = _named(sources, weights / weights.sum())
    if FRESH in named:
        text = next(name for name in ("text", "image") if name in sources)
        by_source[FRESH] = _fresh_weight(
            lists, named, by_source, setting, questions, alone=lists[sources.index(text)].ids[:, :_K]
        )
    return Weights(by_source={name: w for name, w in by_source.items() if w > 0}, shoppers=len(questions.rows))


def _named(sources: Sequence[str], weights: NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(weight), 4) for name, weight in zip(sources, weights, strict=True)}


def _wanted(union: Union, wanted: ShopperItems) -> NDArray[np.bool_]:
    width = np.int64(len(wanted.items))
    rows = np.repeat(np.arange(len(wanted.shoppers), dtype=np.int64), np.diff(wanted.weights.indptr))
    return np.isin(union.row * width + union.item, rows * width + wanted.weights.indices)


def _fresh_weight(
    lists: Sequence[Listed],
    named: Sequence[str],
    by_source: Mapping[str, float],
    setting: Setting,
    questions: Questions,
    *,
    alone: Ints,
) -> float:
    """The lowest weight of the fresh items at which those never met before are found clearly better than by content
    alone, as long as Recall of all items stays within _MOST_LOST. The fit itself would leave them out: being new, they
    are little of what is bought.
    """
    wanted = questions.wanted
    new = setting.degree[wanted.weights.indices] == 0
    rows = np.repeat(np.arange(len(wanted.shoppers)), np.diff(wanted.weights.indptr))
    asked = np.bincount(rows[new], minlength=len(wanted.shoppers))
    if not asked.any():
        return 0.0

    def found(ids: Ints) -> float:
        shown = np.where((ids >= 0) & (setting.degree[np.maximum(ids, 0)] == 0), ids, -1)
        right = hits(shown, wanted.weights).sum(axis=1)
        return float((right[asked > 0] / asked[asked > 0]).mean())

    goal = _CLEARLY * found(alone)
    union = unite(lists, len(setting.train.items))
    count = np.diff(wanted.weights.indptr)
    best, best_weight, most = -1.0, 0.0, 0.0
    for weight in _FRESH:
        weights = np.array([by_source.get(name, 0.0) for name in named[:-1]] + [weight])
        ids = blended(union, weights, len(questions.rows), _K)
        whole = float((hits(ids, wanted.weights).sum(axis=1) / count).mean())
        most = max(most, whole)
        share = found(ids)
        if whole < (1 - _MOST_LOST) * most:
            break
        if share > best:
            best, best_weight = share, float(weight)
        if share > goal:
            break
    return best_weight
