"""The models that can be evaluated, by name: each learns from a setting and scores every item for a shopper."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import numpy as np
from scipy.sparse import csr_array

from workers.evaluation.setting import Setting
from workers.training.behaviour.als import fit_als
from workers.training.behaviour.borrowed import WARM, borrow, lenders, mixing
from workers.training.behaviour.cooccurrence import fit_cosine, fit_llr, pairs_matrix, sessions
from workers.training.behaviour.graph import Graph, fit_exact_graph, fit_graph
from workers.training.behaviour.interactions import DAY, Floats, Longs, ShopperItems, cap_rows
from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.popularity import fit_popularity
from workers.training.behaviour.repurchase import fit_repurchase, score_bought
from workers.training.behaviour.user_cf import fit_user_cf

Scorer = Callable[[Longs, ShopperItems], Floats]
"""Scores float32[b, n] of the shoppers in these rows of the setting, whose histories are given; 0: nothing to say."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the registry. `fit` learns; `needs` what the setting must have: text, image or repeats;
    `source` whether the blend may draw on it; `about` what a reader of the card is told.
    """

    fit: Callable[[Setting], Scorer]
    about: str
    needs: tuple[str, ...] = ()
    source: bool = False


def _popularity(setting: Setting) -> Scorer:
    degree = setting.degree
    return lambda rows, _: np.broadcast_to(degree, (len(rows), len(degree))).copy()


def _recent(setting: Setting) -> Scorer:
    """Popularity with time decay, half-life 14 days."""
    decayed = fit_popularity(setting.log, setting.log.item.astype(np.int64), len(setting.train.items), now=setting.now)
    return lambda rows, _: np.broadcast_to(decayed.decayed, (len(rows), len(decayed.decayed))).copy()


def _random(setting: Setting) -> Scorer:
    def score(rows: Longs, _: ShopperItems) -> Floats:
        drawn = [np.random.default_rng([setting.seed, int(row)]) for row in rows]
        return np.stack([rng.random(len(setting.train.items), np.float32) for rng in drawn])

    return score


def _neighbourhood(neighbours: csr_array) -> Scorer:
    return lambda _, history: np.asarray((history.binary @ neighbours).toarray(), np.float32)


def _item_knn(setting: Setting) -> Scorer:
    return _neighbourhood(fit_cosine(_capped(setting)).sparse)


def _item_cf(setting: Setting) -> Scorer:
    return _neighbourhood(fit_item_cf(_capped(setting)).sparse)


def _capped(setting: Setting) -> csr_array:
    return cap_rows(setting.train.binary, setting.train.last)


def _together(setting: Setting) -> Scorer:
    """Pairs of the narrowest group that the data has: baskets, else sessions, else shoppers."""
    log = setting.log
    group = log.group if log.group is not None else sessions(log) if setting.timed else log.shopper
    matrix = pairs_matrix(log, group, setting.train.items)
    # Where the groups hold one item each there are no pairs in them.
    if (np.diff(matrix.indptr) > 1).mean() < 0.05:
        matrix = _capped(setting)
    significance = fit_llr(matrix).sparse
    # The ratio grows with the number of groups; its root is near the number of deviations from chance.
    return _neighbourhood(csr_array(significance.sqrt()))


def _user_cf(setting: Setting) -> Scorer:
    model = fit_user_cf(setting.train.binary, setting.train.last)
    return lambda rows, _: model.score(rows)


def _graph(setting: Setting) -> Scorer:
    model = fit_exact_graph(setting.train.weights, seed=setting.seed)
    return lambda _, history: model.score(history.binary)


def _graph_served(setting: Setting) -> Scorer:
    model = _cut_graph(setting)
    return lambda _, history: model.score(history.binary)


def _cut_graph(setting: Setting) -> Graph:
    if "graph" not in setting.shared:
        setting.shared["graph"] = fit_graph(setting.train.weights, seed=setting.seed)
    found: Graph = setting.shared["graph"]
    return found


def _als(setting: Setting) -> Scorer:
    model = fit_als(setting.train.binary, seed=setting.seed)
    return lambda _, history: model.score(history.binary)


def _behaviour(setting: Setting) -> Scorer:
    content = setting.content.fused()
    assert content is not None
    graph = _cut_graph(setting)
    lent = lenders(content, setting.degree)
    model = borrow(graph, mixing(setting.degree, lent))
    return lambda _, history: model.score(history.binary)


_SHARPNESS: Final = 8.0


def _by_content(vectors: Floats | None) -> Scorer:
    """How much an item looks like what the shopper met: a soft maximum of the cosines, recent items counting more."""
    assert vectors is not None

    def score(_: Longs, history: ShopperItems) -> Floats:
        recent = 14 * DAY
        rows = np.repeat(np.arange(history.weights.shape[0]), np.diff(history.weights.indptr))
        latest = np.zeros(history.weights.shape[0], np.int64)
        np.maximum.at(latest, rows, history.last)
        age = (latest[rows] - history.last) / recent
        weight = np.exp2(-np.minimum(age, 4)).astype(np.float32)
        profile = history.like(weight) @ vectors
        length = np.linalg.norm(profile, axis=1, keepdims=True)
        return np.asarray((profile / np.maximum(length, 1e-12)) @ vectors.T, np.float32)

    return score


def _repeat(setting: Setting) -> Scorer:
    model = fit_repurchase(setting.log, setting.log.item.astype(np.int64), len(setting.train.items))

    def score(_: Longs, history: ShopperItems) -> Floats:
        due = score_bought(model, history, now=setting.now)
        return np.asarray(history.like(due).toarray(), np.float32)

    return score


MODELS: Final[dict[str, Model]] = {
    "random": Model(fit=_random, about="chance"),
    "popularity": Model(fit=_popularity, about="shoppers per item in training"),
    "recent": Model(fit=_recent, about="popularity with a half-life of 14 days", source=True),
    "item_knn": Model(fit=_item_knn, about="cosine of items over shoppers, 200 neighbours", source=True),
    "item_cf": Model(fit=_item_cf, about="Pearson of items, shrunk by significance, 200 neighbours", source=True),
    "user_cf": Model(fit=_user_cf, about="Pearson of shoppers, shrunk by significance, 50 neighbours", source=True),
    "together": Model(fit=_together, about="log-likelihood ratio within baskets or sessions", source=True),
    "als": Model(fit=_als, about="iALS, 128 factors, shoppers folded in", source=True),
    "graph": Model(fit=_graph, about="graph filter with nothing cut, 256 dimensions, α = 0.3"),
    "graph_served": Model(fit=_graph_served, about="graph filter as served: 200 neighbours per item", source=True),
    "text": Model(fit=lambda s: _by_content(s.content.text), about="text vectors alone", needs=("text",), source=True),
    "image": Model(
        fit=lambda s: _by_content(s.content.image), about="photo vectors alone", needs=("image",), source=True
    ),
    "fused": Model(
        fit=lambda s: _by_content(s.content.fused()), about="text and photo vectors", needs=("text", "image")
    ),
    "behaviour": Model(
        fit=_behaviour, about="graph filter, items with few events borrowing", needs=("content",), source=True
    ),
    "repeat": Model(fit=_repeat, about="items bought before, by when they are due", needs=("repeats",), source=True),
}
BLEND: Final = "blend"
FRESH: Final = "fresh"


def fresh(scores: Mapping[str, Floats], degree: Floats) -> Floats:
    """float32[b, n] of the items with fewer than WARM shoppers alone: borrowed behaviour and content, each divided by
    its best, in equal parts; 0 for all others. `scores` has the behaviour and one of fused, text, image.
    """
    few = degree < WARM
    found = np.zeros_like(scores["behaviour"])
    for name in ("behaviour", next(name for name in ("fused", "text", "image") if name in scores)):
        part = np.where(few & (scores[name] > 0), scores[name], 0)
        found += part / np.maximum(part.max(axis=1, keepdims=True), 1e-30)
    return found


def available(setting: Setting) -> list[str]:
    """The names of the models that the setting has the data for."""
    has = {
        "text": setting.content.text is not None,
        "image": setting.content.image is not None,
        "content": setting.content.fused() is not None,
        "repeats": setting.repeats and setting.timed,
    }
    return [name for name, model in MODELS.items() if all(has[need] for need in model.needs)]
