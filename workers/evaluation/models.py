"""The models that can be evaluated, by name: each learns from a setting and scores every item for a shopper."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from scipy.sparse import csr_array

from workers.evaluation.setting import Setting
from workers.training.behaviour.als import FACTORS, fit_als
from workers.training.behaviour.borrowed import Borrowed, borrow, lenders, mixing
from workers.training.behaviour.cooccurrence import fit_cosine, fit_llr, pairs_matrix, sessions
from workers.training.behaviour.graph import Graph, fit_exact_graph, fit_graph
from workers.training.behaviour.interactions import DAY, Floats, Longs, ShopperItems, cap_rows
from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.popularity import fit_popularity
from workers.training.behaviour.repurchase import fit_repurchase, score_bought
from workers.training.behaviour.user_cf import fit_user_cf, met_lately
from workers.training.shop.factors import fit_factors

Space = Literal["graph", "als"]
Scorer = Callable[[Longs, ShopperItems], Floats]
"""Scores float32[b, n] of the shoppers in these rows of the setting, whose histories are given; 0: nothing to say."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the registry. `fit` learns; `needs` what the setting must have: text, image or repeats; `serves`
    the name of the source (tenants/sources) that it is the same as, where the blend may draw on it; `space` the
    behaviour space that it takes, where a shop that holds the other one has no such source; `about` what a reader of
    the card is told.
    """

    fit: Callable[[Setting], Scorer]
    about: str
    needs: tuple[str, ...] = ()
    serves: str | None = None
    space: Space | None = None


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


def _summed(setting: Setting, neighbours: csr_array) -> Scorer:
    return lambda rows, _: np.asarray((setting.served[rows] @ neighbours).toarray(), np.float32)


def _item_knn(setting: Setting) -> Scorer:
    neighbours = fit_cosine(_capped(setting)).sparse
    return lambda _, history: np.asarray((history.binary @ neighbours).toarray(), np.float32)


def _item_cf(setting: Setting) -> Scorer:
    return _summed(setting, fit_item_cf(_capped(setting)).sparse)


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
    return _summed(setting, csr_array(significance.sqrt()))


def _user_cf(setting: Setting) -> Scorer:
    train = setting.train
    model = fit_user_cf(train.binary, train.last)
    lately = train.binary
    if setting.timed:
        lately = met_lately(setting.log, items=train.items, shoppers=train.shoppers, now=setting.now)
    return lambda rows, _: model.score(rows, lately)


def _graph(setting: Setting) -> Scorer:
    model = fit_exact_graph(setting.train.weights, seed=setting.seed)
    return lambda _, history: model.score(history.binary)


def _graph_served(setting: Setting) -> Scorer:
    model = _cut_graph(setting)
    return lambda rows, _: model.score(setting.served[rows])


def _cut_graph(setting: Setting) -> Graph:
    if "graph" not in setting.shared:
        setting.shared["graph"] = fit_graph(setting.train.weights, seed=setting.seed)
    found: Graph = setting.shared["graph"]
    return found


def _als(setting: Setting) -> Scorer:
    model = fit_als(setting.train.binary, seed=setting.seed)
    return lambda _, history: model.score(history.binary)


def _als_served(setting: Setting) -> Scorer:
    model = fit_factors(setting.train.binary, _mix(setting), factors=FACTORS)
    return lambda rows, _: model.score(setting.served[rows])


def _behaviour(setting: Setting) -> Scorer:
    model = _borrowed(setting)
    return lambda rows, _: model.score(setting.served[rows])


def _near(setting: Setting) -> Scorer:
    """What is left of the graph filter where factors have the place of its vectors."""
    model = msgspec.structs.replace(_borrowed(setting), alpha=0.0)
    return lambda rows, _: model.score(setting.served[rows])


def _borrowed(setting: Setting) -> Graph | Borrowed:
    if "borrowed" not in setting.shared:
        mix, graph = _mix(setting), _cut_graph(setting)
        setting.shared["borrowed"] = graph if mix is None else borrow(graph, mix)
    found: Graph | Borrowed = setting.shared["borrowed"]
    return found


def _mix(setting: Setting) -> csr_array | None:
    """What the behaviour of each item is made of; None without content."""
    content = setting.content.fused()
    if content is None:
        return None
    if "mix" not in setting.shared:
        setting.shared["mix"] = mixing(setting.degree, lenders(content, setting.degree))
    found: csr_array = setting.shared["mix"]
    return found


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


ANCHORS: Final = 10
_PAIRS: Final = 4_000


def _similar(setting: Setting) -> Scorer:
    """The mean cosine to the strongest items of the history, above that of random pairs."""
    content = setting.content.fused()
    assert content is not None
    rng = np.random.default_rng(setting.seed)
    left, right = rng.integers(len(content), size=(2, _PAIRS))
    usual = float((content[left] * content[right]).sum(axis=1).mean())

    def score(rows: Longs, _: ShopperItems) -> Floats:
        history = setting.served[rows]
        anchors = cap_rows(history, history.data, ANCHORS)
        total = np.maximum(np.asarray(anchors.sum(axis=1)).ravel(), 1e-12)[:, None]
        return np.asarray(((anchors @ content) / total) @ content.T - usual, np.float32)

    return score


def _repeat(setting: Setting) -> Scorer:
    log, items = setting.log, setting.log.item.astype(np.int64)
    model = fit_repurchase(log, items, len(setting.train.items))
    due = score_bought(model, log, items, len(setting.train.shoppers), now=setting.now)
    return lambda rows, _: np.asarray(due[rows].toarray(), np.float32)


MODELS: Final[dict[str, Model]] = {
    "random": Model(fit=_random, about="chance"),
    "popularity": Model(fit=_popularity, about="shoppers per item in training"),
    "recent": Model(fit=_recent, about="popularity with a half-life of 14 days", serves="popular"),
    "item_knn": Model(fit=_item_knn, about="cosine of items over shoppers, 200 neighbours"),
    "item_cf": Model(fit=_item_cf, about="Pearson of items, shrunk by significance, 200 neighbours", serves="item_cf"),
    "user_cf": Model(fit=_user_cf, about="what the 30 shoppers of likest taste met lately", serves="user_cf"),
    "together": Model(fit=_together, about="log-likelihood ratio within baskets or sessions"),
    "als": Model(fit=_als, about="iALS, 128 factors, shoppers folded in"),
    "als_served": Model(
        fit=_als_served, about="iALS as served: items with few events borrowing", serves="als", space="als"
    ),
    "graph": Model(fit=_graph, about="graph filter with nothing cut, 256 dimensions, α = 0.3"),
    "graph_served": Model(
        fit=_graph_served, about="graph filter as served: 200 neighbours per item", serves="graph", space="graph"
    ),
    "text": Model(fit=lambda s: _by_content(s.content.text), about="text vectors alone", needs=("text",)),
    "image": Model(fit=lambda s: _by_content(s.content.image), about="photo vectors alone", needs=("image",)),
    "fused": Model(
        fit=lambda s: _by_content(s.content.fused()), about="text and photo vectors", needs=("text", "image")
    ),
    "similar": Model(
        fit=_similar,
        about="content as served: like the 10 strongest of the history",
        needs=("content",),
        serves="similar",
    ),
    "behaviour": Model(
        fit=_behaviour,
        about="graph filter as served: items with few events borrowing",
        needs=("content",),
        serves="graph",
        space="graph",
    ),
    "near": Model(fit=_near, about="the neighbours of the graph filter alone, borrowing", serves="graph", space="als"),
    "repeat": Model(
        fit=_repeat, about="items bought before, by when they are due", needs=("repeats",), serves="buy_again"
    ),
}
BLEND: Final = "blend"
FRESH: Final = "fresh"


def sources(names: Sequence[str], space: Space) -> list[str]:
    """Those of the models `names` that the blend of a shop with this behaviour space draws on."""
    found = [name for name in names if MODELS[name].serves is not None and MODELS[name].space in {None, space}]
    return [name for name in found if name != "graph_served" or "behaviour" not in names]


def available(setting: Setting) -> list[str]:
    """The names of the models that the setting has the data for."""
    has = {
        "text": setting.content.text is not None,
        "image": setting.content.image is not None,
        "content": setting.content.fused() is not None,
        "repeats": setting.repeats and setting.timed,
    }
    return [name for name, model in MODELS.items() if all(has[need] for need in model.needs)]
