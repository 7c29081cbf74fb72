"""What sells: popularity with time decay, and what sells more than it used to."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tenants.learned.blend import FEW_DAYS, FEW_EVENTS
from workers.training.behaviour.interactions import DAY, Floats, Interactions

HALF_LIFE_DAYS: Final = 14.0
"""Of 7, 14, 30, 60, 120 days and none, 14 is among the best on both behaviour sets, with and without repeats: what
sold last year says little about what sells now."""


class Popularity(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Per item, float32[n]: `decayed` the sum of weights with half-life `half_life_days`; `shoppers` how many
    distinct ones; `trend` how far the last `half_life_days` / 4 lie above what the longer run lets expect, in
    standard deviations of a Poisson count (0 and below: no rise).
    """

    decayed: Floats
    shoppers: Floats
    trend: Floats
    half_life_days: float


def fit_popularity(
    log: Interactions, column: NDArray[np.int64], count: int, *, now: int, half_life_days: float = HALF_LIFE_DAYS
) -> Popularity:
    """Of `count` items; `column` int64[len(log)] is the item's number of each event.

    An item's weights never sum below 0. An event of the future counts as one of now.
    """
    age = np.maximum(now - log.ts, 0) / (half_life_days * DAY)
    decay = np.exp2(-age)
    decayed = np.bincount(column, weights=log.weight * decay, minlength=count)
    pair = np.unique(np.stack([column, log.shopper]), axis=1)[0] if len(log) else column
    recent = (age < 0.25) & (log.weight > 0)
    fresh = np.bincount(column[recent], minlength=count)
    # A steady item has 0.25 of a half-life's events per quarter; the decayed count is 1/ln 2 half-lives of events.
    steady = np.bincount(column[log.weight > 0], weights=decay[log.weight > 0], minlength=count) * np.log(2) * 0.25
    trend = (fresh - steady) / np.sqrt(steady + 1)
    return Popularity(
        decayed=np.maximum(decayed, 0).astype(np.float32),
        shoppers=np.bincount(pair, minlength=count).astype(np.float32),
        trend=trend.astype(np.float32),
        half_life_days=half_life_days,
    )


def met_by_few(log: Interactions, column: NDArray[np.int64], count: int, *, now: int) -> NDArray[np.bool_]:
    """bool[count]: the items of fewer than FEW_EVENTS events lately, which `fresh` is made of."""
    lately = (log.weight != 0) & (log.ts > now - FEW_DAYS * DAY)
    return np.asarray(np.bincount(column[lately], minlength=count) < FEW_EVENTS)
