"""Buying again: which of the items that a shopper has bought are due."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tenants.learned.repurchase import due
from workers.training.behaviour.interactions import DAY, Floats, Interactions, Longs

SHRINK: Final = 5.0


class Repurchase(msgspec.Struct, frozen=True, kw_only=True):
    """`interval` float32[n]: the usual days until an item is bought again (median of ln, so the geometric mean), those
    with few repeats shrunk towards the whole shop.
    """

    interval: Floats


class _Pairs(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Each shopper and item that met: on how many `days`, the `first` and the `last` time (seconds), and the pauses
    in days between two of them (`pause`, of the pairs at the places `paused`).
    """

    shopper: Longs
    column: Longs
    days: Longs
    first: Longs
    last: Longs
    pause: Longs
    paused: Longs


def _pairs(log: Interactions, column: NDArray[np.int64]) -> _Pairs:
    counted = log.weight > 0
    column, shopper, ts = column[counted], log.shopper[counted], log.ts[counted]
    order = np.lexsort((ts, column, shopper))
    column, shopper, ts = column[order], shopper[order], ts[order]
    begins = np.r_[True, (column[1:] != column[:-1]) | (shopper[1:] != shopper[:-1])] if len(ts) else np.zeros(0, bool)
    pause = np.diff(ts // DAY, prepend=ts[:1] // DAY)
    again = ~begins & (pause > 0)
    place = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    return _Pairs(
        shopper=shopper[starts],
        column=column[starts],
        days=1 + np.bincount(place[again], minlength=len(starts)),
        first=ts[starts],
        last=ts[np.r_[starts[1:], len(ts)] - 1] if len(ts) else ts,
        pause=pause[again],
        paused=place[again],
    )


def fit_repurchase(log: Interactions, column: NDArray[np.int64], count: int) -> Repurchase:
    """Of `count` items; `column` int64[len(log)] is the item's number of each event. Events of one day are one
    purchase; events of weight 0 and less do not count.
    """
    pairs = _pairs(log, column)
    logs = np.log(pairs.pause)
    items = pairs.column[pairs.paused]
    base = float(logs.mean()) if len(logs) else np.log(30.0)
    total = np.bincount(items, weights=logs, minlength=count)
    mean = (total + SHRINK * base) / (np.bincount(items, minlength=count) + SHRINK)
    return Repurchase(interval=np.exp(mean).astype(np.float32))


def score_bought(
    model: Repurchase, log: Interactions, column: NDArray[np.int64], shoppers: int, *, now: int
) -> csr_array:
    """float32[shoppers, n]: how due each item is that a shopper bought; shoppers are numbered from 0."""
    pairs = _pairs(log, column)
    own = (pairs.last - pairs.first) / DAY / np.maximum(pairs.days - 1, 1)
    usual = np.where(pairs.days > 1, own, model.interval[pairs.column])
    score = due(pairs.days, np.maximum(now - pairs.last, 0) / DAY, usual)
    return csr_array((score.astype(np.float32), (pairs.shopper, pairs.column)), shape=(shoppers, len(model.interval)))
