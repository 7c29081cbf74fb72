"""A shop's events cut at a moment: what was learned before it is asked for what shoppers met after it, new to them.

Global time, full ranking, histories left out: as `for_you` answers.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tenants.learned.blend import LISTED
from workers.training.behaviour.blend import Listed, Window, blended, listed, of_items, stacked, unite
from workers.training.behaviour.history import served_history
from workers.training.behaviour.interactions import Floats, Interactions, Ints, Longs, ShopperItems, shopper_items
from workers.training.behaviour.popularity import met_by_few

K: Final = 20

MOST_ASKED: Final = 1_500

_ROWS_AT_ONCE: Final = 128

Scorer = Callable[[Longs], Floats]
"""float32[b, n] of the shoppers in these rows."""


class Trial(Struct, frozen=True, kw_only=True, eq=False):
    """`before` the events to learn from, all before `cut` (seconds since 1970), `train` the same as a matrix, and
    `history` of the same shape what a list is folded in from. `few` bool[n]: the items that few have met.

    Of the `asked` shoppers, rows `rows` of the matrix: `wanted` what they met afterwards that was new to them.
    """

    before: Interactions
    cut: int
    train: ShopperItems
    history: csr_array
    few: NDArray[np.bool_]
    rows: Longs
    wanted: csr_array

    @property
    def asked(self) -> int:
        """How many shoppers."""
        return len(self.rows)

    def lists(self, scorer: Scorer) -> Listed:
        """What a source lists for each shopper, without what the shopper has met."""
        parts = []
        for at in range(0, self.asked, _ROWS_AT_ONCE):
            some = self.rows[at : at + _ROWS_AT_ONCE]
            scores = scorer(some)
            known = self.train.binary[some]
            scores[np.repeat(np.arange(len(some)), np.diff(known.indptr)), known.indices] = -np.inf
            count = min(LISTED, scores.shape[1])
            best = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
            order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
            parts.append(listed(scores, np.take_along_axis(best, order, axis=1).astype(np.int32)))
        return stacked(parts)

    def window(self, lists: dict[str, Listed]) -> Window:
        """The shoppers with what was listed for them, for the fit of a blend."""
        unmet = np.bincount(self.train.weights.indices, minlength=self.wanted.shape[1]) == 0
        return Window(lists=lists, wanted=self.wanted, new=of_items(self.wanted, unmet), few=self.few)

    def recall(self, lists: Sequence[Listed], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Recall@K of each shopper, float64[asked], by the lists mixed with these weights."""
        shown = blended(unite(lists, self.wanted.shape[1]), weights, self.asked, K)
        rows = np.repeat(np.arange(len(shown), dtype=np.int64), K)
        width = np.int64(self.wanted.shape[1])
        sizes = np.diff(self.wanted.indptr)
        wanted = np.repeat(np.arange(len(shown), dtype=np.int64), sizes) * width + self.wanted.indices
        hit = np.isin(rows * width + shown.ravel(), wanted) & (shown.ravel() >= 0)
        return np.asarray(np.bincount(rows[hit], minlength=len(shown)) / np.minimum(sizes, K))


def trial_at(log: Interactions, items: Ints, cut: int) -> Trial | None:
    """The trial of all shoppers with something before and something new after; None without any. `items`: columns."""
    positive = log.take(log.weight > 0)
    before, after = log.take(log.ts < cut), positive.take(positive.ts >= cut)
    if not len(before) or not len(after):
        return None
    train = shopper_items(before, items=items)
    later = shopper_items(after, items=items, shoppers=train.shoppers)
    history = served_history(before, items=items, shoppers=train.shoppers, now=cut)
    new = csr_array(later.binary - later.binary.multiply(train.binary))
    new.eliminate_zeros()
    rows = np.flatnonzero((np.diff(new.indptr) > 0) & (np.diff(history.indptr) > 0))
    if not len(rows):
        return None
    if len(rows) > MOST_ASKED:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_ASKED, replace=False))
    column = np.searchsorted(items, before.item).astype(np.int64)
    return Trial(
        before=before,
        cut=cut,
        train=train,
        history=history,
        few=met_by_few(before, column, len(items), now=cut),
        rows=rows,
        wanted=new[rows],
    )
