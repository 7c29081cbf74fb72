"""A shop's events cut at a moment: what was learned before it is asked for what shoppers met after it, new to them.

Global time, full ranking, histories left out: as `for_you` answers.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.training.behaviour.blend import LISTED, Listed, blended, listed, unite
from workers.training.behaviour.interactions import Floats, Interactions, Ints, Longs, ShopperItems, cap_rows
from workers.training.behaviour.interactions import shopper_items as matrix_of_log

K: Final = 20

MOST_ASKED: Final = 1_500

_HISTORY: Final = 30
_ROWS_AT_ONCE: Final = 128

Scorer = Callable[[csr_array], Floats]
"""float32[b, n] of b histories."""


class Trial(Struct, frozen=True, kw_only=True, eq=False):
    """`before` the events to learn from, all before `cut` (seconds since 1970), and `train` the same as a matrix.

    Of the `asked` shoppers, rows `rows` of it: `history` float32[asked, n] the latest items met, `met` all of them,
    `wanted` what they met afterwards.
    """

    before: Interactions
    cut: int
    train: ShopperItems
    rows: Longs
    history: csr_array
    met: csr_array
    wanted: csr_array

    @property
    def asked(self) -> int:
        """How many shoppers."""
        return len(self.rows)

    def lists(self, scorer: Scorer) -> Listed:
        """What a source lists for each shopper, without what the shopper has met."""
        parts = []
        for at in range(0, self.asked, _ROWS_AT_ONCE):
            some = slice(at, at + _ROWS_AT_ONCE)
            scores = scorer(self.history[some])
            known = self.met[some]
            scores[np.repeat(np.arange(known.shape[0]), np.diff(known.indptr)), known.indices] = -np.inf
            count = min(LISTED, scores.shape[1])
            best = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
            order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
            parts.append(listed(scores, np.take_along_axis(best, order, axis=1).astype(np.int32)))
        return Listed(ids=np.vstack([part.ids for part in parts]), scores=np.vstack([part.scores for part in parts]))

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
    train = matrix_of_log(before, items=items)
    later = matrix_of_log(after, items=items, shoppers=train.shoppers)
    history = cap_rows(train.binary, train.last, _HISTORY)
    new = csr_array(later.binary - later.binary.multiply(train.binary))
    new.eliminate_zeros()
    rows = np.flatnonzero((np.diff(new.indptr) > 0) & (np.diff(history.indptr) > 0))
    if not len(rows):
        return None
    if len(rows) > MOST_ASKED:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_ASKED, replace=False))
    return Trial(
        before=before,
        cut=cut,
        train=train,
        rows=rows,
        history=history[rows],
        met=train.binary[rows],
        wanted=new[rows],
    )
