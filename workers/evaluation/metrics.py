"""Ranking metrics over full rankings: what a list of K says about a shopper, and about the catalogue."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.interactions import Floats, Ints

Doubles = NDArray[np.float64]


def top_lists(scores: Floats, k: int, *, rng: np.random.Generator) -> Ints:
    """The k best columns of each row, best first, int32[b, k]; -1 where fewer have a finite score.

    Among equal scores chance decides, not the order of the catalogue: data sets are often sorted by popularity, and a
    model that says nothing would look good.
    """
    columns = scores.shape[1]
    k = min(k, columns)
    best = np.argpartition(scores, columns - k, axis=1)[:, columns - k :]
    values = np.take_along_axis(scores, best, axis=1)
    edge = values.min(axis=1)
    # Rows where a score outside of the k equals the lowest inside.
    tied = np.flatnonzero((scores >= edge[:, None]).sum(axis=1) > k)
    lot = rng.permutation(columns)
    for row in tied:
        above = np.flatnonzero(scores[row] > edge[row])
        level = np.flatnonzero(scores[row] == edge[row])
        drawn = rng.choice(level, k - len(above), replace=False)
        best[row] = np.r_[above, drawn]
        values[row] = scores[row, best[row]]
    order = np.lexsort((lot[best], -values), axis=1)
    best = np.take_along_axis(best, order, axis=1)
    best[~np.isfinite(np.take_along_axis(values, order, axis=1))] = -1
    return best.astype(np.int32)


def hits(lists: Ints, relevant: csr_array) -> NDArray[np.bool_]:
    """Which places of the lists hold a relevant item, bool[b, k]; `relevant` [b, n] has an entry for each."""
    rows = len(lists)
    width = relevant.shape[1]
    wanted = np.repeat(np.arange(rows, dtype=np.int64), np.diff(relevant.indptr)) * width + relevant.indices
    wanted.sort()
    asked = np.where(lists >= 0, np.arange(rows, dtype=np.int64)[:, None] * width + lists, -1)
    if not len(wanted):
        return np.zeros(lists.shape, bool)
    place = np.minimum(np.searchsorted(wanted, asked), len(wanted) - 1)
    return np.asarray(wanted[place] == asked)


def ranking_metrics(hit: NDArray[np.bool_], relevant: NDArray[np.integer], ks: Sequence[int]) -> dict[str, Doubles]:
    """Per shopper, float64[b]; `relevant` int[b] ≥ 1 counts the items asked for, `hit` bool[b, ≥ max(ks)].

    recall@K = hits / relevant, precision@K = hits / K, hit@K = any, mrr@K = 1 / rank of the first hit,
    ndcg@K = Σ 1/log2(rank + 1) over the hits ÷ the same of min(relevant, K) hits at the top. As in the published
    tables of LightGCN and its successors.
    """
    gains = 1 / np.log2(np.arange(2, hit.shape[1] + 2))
    ideal = np.r_[0.0, np.cumsum(gains)]
    found: dict[str, Doubles] = {}
    for k in ks:
        top = hit[:, :k]
        count = top.sum(axis=1)
        found[f"recall@{k}"] = count / relevant
        found[f"precision@{k}"] = count / k
        found[f"ndcg@{k}"] = (top @ gains[: top.shape[1]]) / ideal[np.minimum(relevant, min(k, hit.shape[1]))]
        found[f"hit@{k}"] = (count > 0).astype(np.float64)
        found[f"mrr@{k}"] = np.where(count > 0, 1 / (top.argmax(axis=1) + 1.0), 0.0)
    return found


def catalogue_metrics(lists: Ints, popularity: Floats, candidates: int) -> dict[str, float]:
    """How lists [b, K] spread over the catalogue; `popularity` float32[n] is each item's shoppers in training.

    coverage: share of the candidates in any list. novelty: mean of -log2 of the share of all training events that an
    item has (add-one smoothed; bits). gini: inequality of the number of times that each candidate is shown, 0 all
    alike, 1 one item only. popularity_share: slots that go to the best-selling tenth of the candidates.
    """
    shown = lists[lists >= 0]
    if not len(shown):
        return {"coverage": 0.0, "novelty": 0.0, "gini": 0.0, "popularity_share": 0.0}
    counts = np.bincount(shown, minlength=len(popularity))
    share = (popularity.astype(np.float64) + 1) / (popularity.sum(dtype=np.float64) + len(popularity))
    ordered = np.sort(counts)[len(counts) - candidates :].astype(np.float64) if candidates < len(counts) else None
    ordered = np.sort(counts).astype(np.float64) if ordered is None else ordered
    n = len(ordered)
    gini = float(((2 * np.arange(1, n + 1) - n - 1) @ ordered) / (n * ordered.sum()))
    head = np.argsort(-popularity, kind="stable")[: max(1, candidates // 10)]
    return {
        "coverage": float((counts > 0).sum() / candidates),
        "novelty": float(-np.log2(share[shown]).mean()),
        "gini": gini,
        "popularity_share": float(counts[head].sum() / len(shown)),
    }
