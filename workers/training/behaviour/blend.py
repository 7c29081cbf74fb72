"""How much each source counts in a personal list: weights fitted on what shoppers did next.

Every source gives a shopper a list of at most LISTED items with scores, which are mixed as tenants/learned/blend.py
says. The weights are fitted by gradient, then held against the best single source on the same shoppers: what is not
clearly better than that source gives way to it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, vstack

from tenants.learned.blend import KNOWING, LISTED
from workers.training.behaviour.interactions import Floats, Ints, Longs

SHOPPERS: Final = 2_000
"""Validation shoppers that the weights are fitted on at most: more change the third digit."""

PRIOR_SHOPPERS: Final = 50
"""The prior counts as this many shoppers: below it a shop stays near content and popularity."""

K: Final = 20
"""Length of the lists that weights are compared by."""

LEAST: Final = 0.03
"""A source below this share of the weight is left out: its part of the statement would cost more than it says."""

_TEMPERATURE: Final = 10.0
_STEPS: Final = (0.25, 0.5, 0.75, 1.0)
_SURE: Final = 2.0
"""Standard errors by which a mixture must be better than the best source alone: the steps of a fit are several tries,
and what one standard error shows of a window is often gone in the next."""

_SHARES: Final = np.round(np.arange(0.05, 1.01, 0.05), 2)
_CLEARLY: Final = 2.0
"""So many times what content alone finds of the unmet: from one window to the next the two differ by half."""

_SPENT: Final = 0.5
"""The part of what the mixture gains over the best source that new items may cost."""

_TRACE: Final = 0.001


class Listed(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One source's lists: `ids` int32[b, LISTED] items, best first, -1 where there are fewer; `scores` float32 of the
    same shape, each divided by the first of its row, 0 to 1.
    """

    ids: Ints
    scores: Floats


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


def fit_weights(union: Union, wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights ≥ 0 with sum 1, float64[sources], that put what was `wanted` (bool[pairs], not all False) first.

    Listwise softmax (ListNet's top-one loss, Cao et al., ICML 2007): the mean over shoppers of the mean over what they
    wanted of -ln softmax(10 · features · weights).
    """
    row = union.row
    shoppers = int(row[-1]) + 1 if len(row) else 0
    positive = np.flatnonzero(wanted)
    found = np.bincount(row[positive], minlength=shoppers)
    asked = found > 0
    count = int(asked.sum())
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

    sources = features.shape[1]
    start = np.full(sources, 1 / sources)
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * sources).x
    return np.asarray(fitted / fitted.sum() if fitted.sum() > 0 else start)


def _ranked(union: Union, score: NDArray[np.floating], *, seed: int = 0) -> Longs:
    """The pairs with a score above 0, by row and the best of a row first; among equals chance decides."""
    there = np.flatnonzero(score > 0)
    if not len(there):
        return there
    # One key instead of three: a sort of doubles takes a quarter of the time, and weights are compared many times.
    lot = np.random.default_rng(seed).random(len(there))
    key = union.row[there] + 0.5 * (1 - score[there] / score.max()) + 1e-9 * lot
    return there[np.argsort(key)]


def blended(union: Union, weights: NDArray[np.float64], shoppers: int, k: int, *, seed: int = 0) -> Ints:
    """The k best items of each of `shoppers` rows by weighted sum, int32[shoppers, k], -1 where there are fewer."""
    order = _ranked(union, union.features @ weights, seed=seed)
    row = union.row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    top = rank < k
    lists = np.full((shoppers, k), -1, np.int32)
    lists[row[top], rank[top]] = union.item[order[top]]
    return lists


class Exam(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What shoppers 0…b-1 were offered by each source, and which pairs of it they wanted; `asked` int[b] how many
    items each of them wanted, listed or not.
    """

    union: Union
    wanted: NDArray[np.bool_]
    asked: NDArray[np.integer]

    def recall(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Recall@K of the K best by these weights, of those who wanted something."""
        row, _ = self._hits(weights)
        found = np.bincount(row, minlength=len(self.asked))
        return np.asarray(found[self.asked > 0] / self.asked[self.asked > 0])

    def gains(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of Recall@K and NDCG@K, of those who wanted something."""
        row, rank = self._hits(weights)
        discount = 1 / np.log2(np.arange(2, K + 2))
        gain = np.bincount(row, weights=discount[rank], minlength=len(self.asked))[self.asked > 0]
        ideal = np.r_[0.0, np.cumsum(discount)][np.minimum(self.asked[self.asked > 0], K)]
        return np.asarray((self.recall(weights) + gain / ideal) / 2)

    def _hits(self, weights: NDArray[np.float64]) -> tuple[Longs, Longs]:
        """Row and rank (from 0) of every wanted item among the K best."""
        order = _ranked(self.union, self.union.features @ weights)
        row = self.union.row[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        hit = (rank < K) & self.wanted[order]
        return row[hit], rank[hit]


def choose_weights(
    exam: Exam, prior: NDArray[np.float64], *, prior_shoppers: float = PRIOR_SHOPPERS
) -> NDArray[np.float64]:
    """Weights ≥ 0 with sum 1: of the best source alone, the fitted ones and what lies between, those that gain most;
    the best source alone, unless another gains more by two standard errors. What n shoppers show is drawn to `prior` as
    if that had been shown by `prior_shoppers`.
    """
    count = len(np.unique(exam.union.row[exam.wanted]))
    prior = prior / prior.sum()
    if count == 0:
        return prior
    fitted = fit_weights(exam.union, exam.wanted)
    single = np.eye(len(prior))
    alone = [exam.gains(one) for one in single]
    best = int(np.argmax([gain.mean() for gain in alone]))
    chosen, most = single[best], float(alone[best].mean())
    for step in _STEPS:
        mixed = (1 - step) * single[best] + step * fitted
        gain = exam.gains(mixed)
        better = gain - alone[best]
        if gain.mean() > most and better.mean() > _SURE * better.std() / np.sqrt(len(better)):
            chosen, most = mixed, float(gain.mean())
    weights = (count * chosen + prior_shoppers * prior) / (count + prior_shoppers)
    weights = np.where(weights < LEAST, 0, weights)
    return np.asarray(weights / weights.sum())


class Window(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Shoppers at one moment: what each source listed for them by name, what they met later (`wanted` [b × n]), the
    part of it that nobody had met before (`new`), and the items that few had met (`few` bool[n]).
    """

    lists: dict[str, Listed]
    wanted: csr_array
    new: csr_array
    few: NDArray[np.bool_]


class Blend(msgspec.Struct, frozen=True, kw_only=True):
    """`weights` by source, adding up to 1 but for that of `fresh`, which stands beside the sum; the mean `gain` of
    `Exam.gains` without `fresh`, over `shoppers`; Recall@K of each source alone and of the `blend`.
    """

    weights: dict[str, float]
    gain: float
    shoppers: int
    recall: dict[str, float]


def fit_blend(windows: Sequence[Window], prior: Mapping[str, float]) -> Blend:
    """Fit the sources that `prior` names, all of which are in the lists of every window, on all windows at once.

    Content is `similar`; `fresh` is drawn from those of `KNOWING`.
    """
    names = list(prior)
    before = np.array([prior[name] for name in names])
    shoppers = sum(window.wanted.shape[0] for window in windows)
    if shoppers == 0:
        return Blend(weights=_named(names, before / before.sum()), gain=0.0, shoppers=0, recall={})
    lists = [stacked([window.lists[name] for window in windows]) for name in names]
    wanted, new = (csr_array(vstack(parts)) for parts in zip(*((w.wanted, w.new) for w in windows), strict=True))
    exam = _exam(lists, wanted)
    weights = choose_weights(exam, before)
    found = _named(names, weights)
    gain = float(exam.gains(weights).mean())
    recall = dict(zip(names, (float(exam.recall(one).mean()) for one in np.eye(len(names))), strict=True))
    known = [name for name in names if name in KNOWING]
    if "similar" in names and new.nnz:
        drawn = [fresh_of([w.lists[name] for name in known], w.few, wanted.shape[1]) for w in windows]
        lists.append(stacked(drawn))
        exam = _exam(lists, wanted)
        share = _fresh_weight(exam, _asked_for(exam.union, new), weights, names.index("similar"))
        weights = np.r_[weights, share]
        if share > 0:
            # What `fresh` is drawn from must be asked, however little it counts by itself.
            found |= {name: max(found.get(name, 0.0), _TRACE) for name in known} | {"fresh": share}
    recall["blend"] = float(exam.recall(weights).mean())
    return Blend(weights=found, gain=gain, shoppers=shoppers, recall=recall)


def _fresh_weight(exam: Exam, new: Exam, weights: NDArray[np.float64], content: int) -> float:
    """The weight of the last source, `fresh`, at which most of all is found; raised from there until what nobody had
    met is found clearly better than by content alone, as far as no more than `_SPENT` is lost by it.

    The fit itself would leave it out, as what is new is little of what is bought. Paid for with a part of what the
    mixture gains, it never makes a list worse than the best source alone; where nothing is gained nothing is spent.
    """
    alone = np.eye(len(weights) + 1)
    base = float(exam.recall(np.r_[weights, 0.0]).mean())
    best = max(float(exam.recall(one).mean()) for one in alone[:-1])
    floor = base - _SPENT * max(base - best, 0.0)
    goal = _CLEARLY * float(new.recall(alone[content]).mean())
    recall, found = [base], [float(new.recall(np.r_[weights, 0.0]).mean())]
    for share in _SHARES:
        mixed = np.r_[weights, share]
        value = float(exam.recall(mixed).mean())
        if value < floor:
            break
        recall.append(value)
        found.append(float(new.recall(mixed).mean()))
    at = int(np.argmax(recall))
    enough = np.flatnonzero(np.array(found[at:]) >= goal)
    at += int(enough[0]) if len(enough) else int(np.argmax(found[at:]))
    return float(np.r_[0.0, _SHARES][at])


def _named(names: Sequence[str], weights: NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(weight), 4) for name, weight in zip(names, weights, strict=True) if weight > 0}


def stacked(parts: Sequence[Listed]) -> Listed:
    """The lists of one source, for the shoppers of all parts one after the other."""
    return Listed(ids=np.vstack([part.ids for part in parts]), scores=np.vstack([part.scores for part in parts]))


def _exam(lists: Sequence[Listed], wanted: csr_array) -> Exam:
    return _asked_for(unite(lists, wanted.shape[1]), wanted)


def _asked_for(union: Union, wanted: csr_array) -> Exam:
    items = np.int64(wanted.shape[1])
    asked = np.diff(wanted.indptr)
    pairs = np.repeat(np.arange(wanted.shape[0], dtype=np.int64), asked) * items + wanted.indices
    return Exam(union=union, wanted=np.isin(union.row * items + union.item, pairs), asked=asked)


def of_items(wanted: csr_array, chosen: NDArray[np.bool_]) -> csr_array:
    """The entries in the columns that `chosen` bool[n] names, and no others."""
    kept = np.where(chosen[wanted.indices], wanted.data, 0)
    found = csr_array((kept, wanted.indices.copy(), wanted.indptr.copy()), shape=wanted.shape)
    found.eliminate_zeros()
    return found


def fresh_of(known: Sequence[Listed], few: NDArray[np.bool_], items: int) -> Listed:
    """The lists of `fresh`, of the lists of the KNOWING; `few` bool[items] are the items that few have met."""
    parts = []
    for one in known:
        there = (one.ids >= 0) & few[np.maximum(one.ids, 0)]
        values = np.where(there, one.scores, 0)
        best = values.max(axis=1, keepdims=True, initial=0)
        parts.append(
            Listed(ids=np.where(there, one.ids, -1), scores=np.asarray(values / np.maximum(best, 1e-30), np.float32))
        )
    shoppers = len(known[0].ids)
    union = unite(parts, items)
    score = union.features.sum(axis=1)
    order = _ranked(union, score)
    row = union.row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    ids = np.full((shoppers, LISTED * len(known)), -1, np.int32)
    scores = np.zeros(ids.shape, np.float32)
    ids[row, rank], scores[row, rank] = union.item[order], score[order]
    return Listed(ids=ids, scores=np.asarray(scores / np.maximum(scores[:, :1], 1e-30), np.float32))
