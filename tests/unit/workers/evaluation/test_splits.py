"""Splits: what is learnt from, and what is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.evaluation.splits import CannotSplit, split_leave_last, split_random, split_time
from workers.training.behaviour.interactions import Interactions


def _log(rows: list[tuple[int, int, int]]) -> Interactions:
    shopper, item, ts = np.array(rows, np.int64).reshape(-1, 3).T
    return Interactions(shopper=shopper, item=item.astype(np.int32), weight=np.ones(len(rows), np.float32), ts=ts)


_rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 30)), min_size=1, max_size=60)


@given(_rows, st.floats(0.05, 0.95))
def test_no_event_of_the_test_is_before_one_of_training(rows: list[tuple[int, int, int]], share: float) -> None:
    """By time, for all shoppers at once; nothing is lost, events of one second stay together."""
    try:
        split = split_time(_log(rows), share=share)
    except CannotSplit:
        return
    assert split.train.ts.max() < split.cut == split.test.ts.min()
    assert len(split.train) + len(split.test) == len(rows)


@given(_rows)
def test_the_last_new_item_is_asked_for(rows: list[tuple[int, int, int]]) -> None:
    """Once per shopper with two items; nothing that the shopper did later is learnt, and the item is new."""
    try:
        split = split_leave_last(_log(rows))
    except CannotSplit:
        assert all(len({i for s, i, _ in rows if s == shopper}) < 2 for shopper, _, _ in rows)
        return
    assert len(set(split.test.shopper.tolist())) == len(split.test)
    for shopper, item, ts in zip(split.test.shopper, split.test.item, split.test.ts, strict=True):
        mine = split.train.shopper == shopper
        assert item not in split.train.item[mine]
        assert split.train.ts[mine].max() <= ts


@given(_rows, st.integers(0, 3))
def test_a_random_split_halves_no_pair(rows: list[tuple[int, int, int]], seed: int) -> None:
    """All events of a shopper and an item fall on one side; every shopper keeps something to learn from."""
    try:
        split = split_random(_log(rows), seed=seed)
    except CannotSplit:
        return
    train = set(zip(split.train.shopper.tolist(), split.train.item.tolist(), strict=True))
    test = set(zip(split.test.shopper.tolist(), split.test.item.tolist(), strict=True))
    assert not train & test
    assert {shopper for shopper, _ in test} <= {shopper for shopper, _ in train}
    again = split_random(_log(rows), seed=seed)
    assert again.test.item.tolist() == split.test.item.tolist()


def test_one_moment_cannot_be_cut() -> None:
    """Nor one item be asked for."""
    log = _log([(1, 1, 5), (2, 1, 5)])
    for split in (split_time, split_leave_last, split_random):
        with pytest.raises(CannotSplit):
            split(log)
