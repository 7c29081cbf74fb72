"""The events of a shop as the training reads them: which count, what is odd about them, and their fingerprint."""

import hashlib
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct

from infra.copybinary import read_records
from workers.training.behaviour.cooccurrence import sessions
from workers.training.behaviour.interactions import DAY, Interactions, Longs
from workers.training.shop.plan import Counts

COLUMNS: Final = {
    "shopper": "int8",
    "item": "int4",
    "ts": "int8",
    "type": "int2",
    "basket": "int8",
    "joined": "int2",
}
"""Of an event: its shopper, its item, seconds since 1970, the place of its type in the plan, a number of its order (or
of the shopper's day), whether the item is in the catalogue."""

PURCHASE: Final = "purchase"


class ShopLog(Struct, frozen=True, kw_only=True, eq=False):
    """`log` holds the events that count, `bought` the purchases among them with the basket as their group.

    `fingerprint` is the same for the same events and weights, in whatever order they were read.
    """

    log: Interactions
    bought: Interactions
    sessions: Longs
    counts: Counts
    first: int
    last: int
    fingerprint: bytes


def read_log(path: Path, weights: list[tuple[str, float]]) -> ShopLog:
    """Read a binary COPY of `COLUMNS`; `weights` are the types in the order of their numbers."""
    records = read_records(path, COLUMNS)
    kind = records["type"].astype(np.int16)
    joined = records["joined"] != 0
    weight = np.array([value for _, value in weights] or [0.0], np.float32)[kind]
    counted = joined & (weight != 0)
    everything = Interactions(
        shopper=records["shopper"][counted].astype(np.int64),
        item=records["item"][counted].astype(np.int32),
        weight=weight[counted],
        ts=records["ts"][counted].astype(np.int64),
    )
    names = [name for name, _ in weights]
    is_purchase = kind[counted] == (names.index(PURCHASE) if PURCHASE in names else -1)
    bought = Interactions(
        shopper=everything.shopper[is_purchase],
        item=everything.item[is_purchase],
        weight=everything.weight[is_purchase],
        ts=everything.ts[is_purchase],
        group=records["basket"][counted][is_purchase].astype(np.int64),
    )
    visit = sessions(everything)
    ts = records["ts"]
    return ShopLog(
        log=everything,
        bought=bought,
        sessions=visit,
        counts=_count(everything, bought, visit, kind, joined, names),
        first=int(ts.min()) if len(ts) else 0,
        last=int(ts.max()) if len(ts) else 0,
        fingerprint=_fingerprint(everything, weights),
    )


def _count(
    log: Interactions,
    bought: Interactions,
    visit: Longs,
    kind: np.ndarray[tuple[int], np.dtype[np.int16]],
    joined: np.ndarray[tuple[int], np.dtype[np.bool_]],
    names: list[str],
) -> Counts:
    items = np.unique(log.item)
    return Counts(
        rows=len(kind),
        events=len(log),
        shoppers=len(np.unique(log.shopper)),
        items=len(items),
        unjoined=int((~joined).sum()),
        purchases=len(bought),
        shoppers_of_two=_of_two(log, log.shopper),
        sessions_of_two=_of_two(log, visit),
        baskets_of_two=_of_two(bought, bought.group),
        repeats=_repeats(bought),
        days=round(float(log.ts.max() - log.ts.min()) / DAY, 2) if len(log) else 0.0,
        types={name: int(count) for name, count in zip(names, np.bincount(kind, minlength=len(names)), strict=False)},
    )


def _of_two(log: Interactions, group: Longs | None) -> int:
    """Groups with two different items."""
    if group is None or not len(log):
        return 0
    order = np.argsort(group, kind="stable")
    group, item = group[order], log.item[order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    return int((np.minimum.reduceat(item, starts) != np.maximum.reduceat(item, starts)).sum())


def _repeats(bought: Interactions) -> int:
    """Purchases of an item by somebody who had bought it on an earlier day."""
    if not len(bought):
        return 0
    day = bought.ts // DAY
    order = np.lexsort((day, bought.item, bought.shopper))
    shopper, item, day = bought.shopper[order], bought.item[order], day[order]
    return int(((shopper[1:] == shopper[:-1]) & (item[1:] == item[:-1]) & (day[1:] > day[:-1])).sum())


def _fingerprint(log: Interactions, weights: list[tuple[str, float]]) -> bytes:
    mixed = log.shopper.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for column in (log.item, log.ts, np.round(log.weight * 1000)):
        mixed ^= mixed >> np.uint64(29)
        mixed += column.astype(np.int64).astype(np.uint64)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    total = (int(mixed.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(mixed)) if len(mixed) else 0, len(mixed))
    return hashlib.sha256(msgspec.json.encode((total, weights))).digest()
