"""Buying again: which of the items that a shopper has bought are due."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from workers.training.behaviour.interactions import DAY, Floats, Interactions, ShopperItems

SHRINK: Final = 5.0
_FLOOR: Final = 0.25


class Repurchase(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Per item, float32[n]: `rate` the chance that who bought it once buys it again, `interval` the usual time until
    then in days (median of ln, so the geometric one), `spread` the deviation of its logarithm. Items with few repeats
    are shrunk towards the whole shop.
    """

    rate: Floats
    interval: Floats
    spread: Floats

    def score(self, item: NDArray[np.integer], bought: Floats, days: Floats) -> Floats:
        """How due each pair is, above 0: `item` columns, `bought` times, `days` since the last time.

        The chance of a further purchase after that many, times how near the pause is to the usual one: 1 in the time
        around it, down to a quarter long before and after.
        """
        chance = (self.rate[item] * SHRINK + bought - 1) / (SHRINK + bought)
        chance = np.maximum(chance, self.rate[item] * SHRINK / (SHRINK + bought))
        distance = (np.log(np.maximum(days, 0.5)) - np.log(self.interval[item])) / self.spread[item]
        # A pause shorter than usual speaks less against a purchase than one that is much longer speaks for its end.
        timing = np.exp(-0.5 * np.where(distance > 0, distance / 2, distance) ** 2)
        return np.asarray(chance * (_FLOOR + (1 - _FLOOR) * timing) * np.sqrt(bought), np.float32)


def fit_repurchase(log: Interactions, column: NDArray[np.int64], count: int) -> Repurchase:
    """Of `count` items; `column` int64[len(log)] is the item's number of each event. Events of one day are one
    purchase; events of weight 0 and less do not count.
    """
    counted = log.weight > 0
    column, shopper, day = column[counted], log.shopper[counted], log.ts[counted] // DAY
    order = np.lexsort((day, column, shopper))
    column, shopper, day = column[order], shopper[order], day[order]
    same = (column[1:] == column[:-1]) & (shopper[1:] == shopper[:-1])
    pause = np.where(same, day[1:] - day[:-1], 0)
    again = pause > 0
    repeats = np.bincount(column[1:][again], minlength=count).astype(np.float64)
    buyers = np.bincount(column[np.r_[True, ~same]] if len(column) else column, minlength=count).astype(np.float64)
    logs = np.log(pause[again])
    total = np.bincount(column[1:][again], weights=logs, minlength=count)
    square = np.bincount(column[1:][again], weights=logs**2, minlength=count)
    base_rate = repeats.sum() / max(buyers.sum() + repeats.sum(), 1)
    base_mean = float(logs.mean()) if len(logs) else np.log(30.0)
    base_var = float(logs.var()) if len(logs) > 1 else 1.0
    mean = (total + SHRINK * base_mean) / (repeats + SHRINK)
    variance = (square - 2 * mean * total + repeats * mean**2 + SHRINK * base_var) / (repeats + SHRINK)
    return Repurchase(
        rate=((repeats + SHRINK * base_rate) / (buyers + repeats + SHRINK)).astype(np.float32),
        interval=np.exp(mean).astype(np.float32),
        spread=np.sqrt(np.maximum(variance, 0.09)).astype(np.float32),
    )


def score_bought(model: Repurchase, bought: ShopperItems, *, now: int) -> Floats:
    """`Repurchase.score` of every stored entry of `bought`, in its order, float32[nnz]."""
    days = np.maximum(now - bought.last, 0) / DAY
    return model.score(bought.weights.indices, bought.counts, days.astype(np.float32))
