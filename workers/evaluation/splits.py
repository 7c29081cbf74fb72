"""What is learnt from and what is asked for."""

from typing import Literal

import msgspec
import numpy as np

from infra.errors import Invalid
from workers.training.behaviour.interactions import Interactions

Kind = Literal["time", "leave_last", "random", "given"]


class CannotSplit(Invalid):
    """The interactions cannot be split in the way asked for."""

    code = "cannot_split"
    title = "The interactions cannot be split"


class Split(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`train` and `test` rows of one log; `cut` seconds, the first moment of the test, for the split by time."""

    kind: Kind
    train: Interactions
    test: Interactions
    cut: int | None = None


def split_time(log: Interactions, *, share: float = 0.2) -> Split:
    """Cut all shoppers at one moment, so that nothing of the future is learnt: the last `share` of the events.

    Events of the same second stay together. Raises CannotSplit where either side would be empty.
    """
    order = np.sort(log.ts)
    cut = int(order[min(len(order) - 1, int(len(order) * (1 - share)))]) if len(order) else 0
    train = log.ts < cut
    if not train.any() or train.all():
        raise CannotSplit("All events are of one moment, so they cannot be split by time.")
    return Split(kind="time", train=log.take(train), test=log.take(~train), cut=cut)


def split_leave_last(log: Interactions) -> Split:
    """Ask each shopper with two or more items for the last new one.

    The last event of each shopper whose item the shopper had not met before is the test; what came after it is left
    out. Nothing keeps a model from the future of other shoppers, so figures flatter.
    """
    order = np.lexsort((np.arange(len(log)), log.ts, log.shopper))
    shopper, item = log.shopper[order], log.item[order]
    pair = shopper * (int(log.item.max()) + 1 if len(log) else 1) + item
    _, first = np.unique(pair, return_index=True)
    last = {int(s): p for s, p in zip(shopper[np.sort(first)], np.sort(first), strict=True)}
    starts = {int(s): p for s, p in zip(*np.unique(shopper, return_index=True), strict=True)}
    test = np.array([p for s, p in last.items() if p > starts[s]], np.int64)
    train = np.ones(len(log), bool)
    for s, p in last.items():
        if p > starts[s]:
            train[p : np.searchsorted(shopper, s, side="right")] = False
    if not len(test):
        raise CannotSplit("No shopper has two different items.")
    return Split(kind="leave_last", train=log.take(order[train]), test=log.take(order[test]))


def split_random(log: Interactions, *, share: float = 0.2, seed: int = 0) -> Split:
    """Ask each shopper for a random `share` of their items (rounded down, at least 1 of 2 and more).

    All events of a pair fall on one side. Learns from the future; for comparison with published tables only.
    """
    width = int(log.item.max()) + 1 if len(log) else 1
    pairs, inverse = np.unique(log.shopper * width + log.item, return_inverse=True)
    owner = pairs // width
    order = np.lexsort((np.random.default_rng(seed).random(len(pairs)), owner))
    starts = np.flatnonzero(np.r_[True, owner[order][1:] != owner[order][:-1]]) if len(pairs) else np.zeros(0, int)
    sizes = np.diff(np.r_[starts, len(pairs)])
    rank = np.arange(len(pairs)) - np.repeat(starts, sizes)
    asked = np.where(sizes >= 2, np.maximum(1, (sizes * share).astype(int)), 0)
    held = np.zeros(len(pairs), bool)
    held[order] = rank < np.repeat(asked, sizes)
    if not held.any():
        raise CannotSplit("No shopper has two different items.")
    chosen = held[inverse]
    return Split(kind="random", train=log.take(~chosen), test=log.take(chosen))
