"""How much each source counts in a personal list: weights fitted on what shoppers did next.

Every source gives a shopper a list of at most LISTED items with scores. A score is divided by the best of its list, so
that sources of any scale compare and serving needs nothing but the list; the blend adds them up by weight.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from workers.training.behaviour.interactions import Floats, Ints, Longs

LISTED: Final = 200
SHOPPERS: Final = 2_000
"""Validation shoppers that the weights are fitted on at most: more change the third digit."""

PRIOR_SHOPPERS: Final = 50
"""The prior counts as this many shoppers: below it a shop stays near content and popularity."""

_TEMPERATURE: Final = 10.0


class Listed(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One source's lists: `ids` int32[b, LISTED] items, best first, -1 where there are fewer; `scores` float32 of the
    same shape, each divided by the first of its row, 0 to 1.
    """

    ids: Ints
    scores: Floats


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The weight of each source by name, adding up to 1 (that of `fresh` stands beside the sum), and the number of
    shoppers that they were fitted on.
    """

    by_source: dict[str, float]
    shoppers: int


def listed(scores: Floats, ids: Ints) -> Listed:
    """The list of the columns `ids` int32[b, k] (best first, -1 for none) of `scores` float32[b, n].

    Only scores above 0 count: a source that has nothing to say about an item says 0.
    """
    values = np.take_along_axis(scores, np.maximum(ids, 0), axis=1)
    good = (ids >= 0) & np.isfinite(values) & (values > 0)
    values = np.where(good, values, 0).astype(np.float32)
    best = values.max(axis=1, keepdims=True, initial=0)
    return Listed(ids=np.where(good, ids, -1).astype(np.int32), scores=values / np.maximum(best, 1e-30))


class Union(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All that the sources listed: pair p is of the shopper `row[p]` and the item `item[p]`, ascending; `features`
    float32[pairs, sources] the scores, 0 where a source did not list the item.
    """

    row: Longs
    item: Longs
    features: Floats


def unite(lists: Sequence[Listed], items: int) -> Union:
    """Join the lists of several sources for the same shoppers; `items` is the number of columns."""
    width = np.int64(max(items, 1))
    keyed = []
    for one in lists:
        there = one.ids >= 0
        rows = np.broadcast_to(np.arange(len(one.ids), dtype=np.int64)[:, None], one.ids.shape)
        keyed.append((rows[there] * width + one.ids[there], one.scores[there]))
    pairs = np.unique(np.concatenate([key for key, _ in keyed])) if keyed else np.zeros(0, np.int64)
    features = np.zeros((len(pairs), len(keyed)), np.float32)
    for column, (key, score) in enumerate(keyed):
        features[np.searchsorted(pairs, key), column] = score
    return Union(row=pairs // width, item=pairs % width, features=features)


def fit_weights(
    union: Union, wanted: NDArray[np.bool_], prior: NDArray[np.float64], *, prior_shoppers: float = PRIOR_SHOPPERS
) -> NDArray[np.float64]:
    """Weights ≥ 0 with sum 1, float64[sources], that put what was `wanted` (bool[pairs]) first.

    Listwise softmax (ListNet's top-one loss, Cao et al., ICML 2007): the mean over shoppers of the mean over what they
    wanted of -ln softmax(10 · features · weights). The fit of n shoppers who wanted something listed is drawn to
    `prior` as if that were a fit of `prior_shoppers`.
    """
    prior = prior / prior.sum()
    row = union.row
    shoppers = int(row[-1]) + 1 if len(row) else 0
    positive = np.flatnonzero(wanted)
    found = np.bincount(row[positive], minlength=shoppers)
    asked = found > 0
    count = int(asked.sum())
    if count == 0:
        return prior
    kept = asked[row]
    features, row = union.features[kept].astype(np.float64), row[kept]
    positive = np.flatnonzero(wanted[kept])
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    place = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(row)]))
    share = 1.0 / found[asked][place[positive]]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        score = _TEMPERATURE * (features @ weights)
        score -= np.maximum.reduceat(score, starts)[place]
        chance = np.exp(score)
        total = np.add.reduceat(chance, starts)
        slope = chance / total[place]
        slope[positive] -= share
        value = float((share * (np.log(total)[place[positive]] - score[positive])).sum()) / count
        return value, _TEMPERATURE * (slope @ features) / count

    start = np.full(len(prior), 1 / len(prior))
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(prior)).x
    fitted = fitted / fitted.sum() if fitted.sum() > 0 else prior
    return np.asarray((count * fitted + prior_shoppers * prior) / (count + prior_shoppers))


def blended(union: Union, weights: NDArray[np.float64], shoppers: int, k: int, *, seed: int = 0) -> Ints:
    """The k best items of each of `shoppers` rows by weighted sum, int32[shoppers, k], -1 where there are fewer."""
    score = union.features @ weights
    lot = np.random.default_rng(seed).random(len(score))
    order = np.lexsort((lot, -score, union.row))
    order = order[score[order] > 0]
    row = union.row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    top = rank < k
    lists = np.full((shoppers, k), -1, np.int32)
    lists[row[top], rank[top]] = union.item[order[top]]
    return lists
