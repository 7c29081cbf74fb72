"""The log as a matrix."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from workers.training.behaviour.interactions import DAY, Interactions, cap_rows, shopper_items


def _log(rows: list[tuple[int, int, float, int]]) -> Interactions:
    shopper, item, weight, ts = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Interactions(
        shopper=np.array(shopper, np.int64),
        item=np.array(item, np.int32),
        weight=np.array(weight, np.float32),
        ts=np.array(ts, np.int64),
    )


_rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(10, 15), st.sampled_from([-1.0, 0.0, 1.0, 2.0]), st.integers(0, 100)),
    max_size=40,
)


@given(_rows)
def test_weights_counts_and_times_are_those_of_the_log(rows: list[tuple[int, int, float, int]]) -> None:
    """Each stored pair has the sum, the number and the latest time of its events; sums of 0 and less are not stored."""
    made = shopper_items(_log(rows))
    wanted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for shopper, item, weight, ts in rows:
        wanted.setdefault((shopper, item), []).append((weight, ts))
    kept = {pair: events for pair, events in wanted.items() if sum(weight for weight, _ in events) > 0}
    entry = 0
    for row, shopper in enumerate(made.shoppers):
        for place in range(made.weights.indptr[row], made.weights.indptr[row + 1]):
            events = kept.pop((int(shopper), int(made.items[made.weights.indices[place]])))
            assert made.weights.data[place] == sum(weight for weight, _ in events)
            assert made.counts[place] == len(events)
            assert made.last[place] == max(ts for _, ts in events)
            entry += 1
    assert not kept
    assert entry == made.weights.nnz


def test_an_event_of_one_half_life_ago_counts_half() -> None:
    """Weights decay to the moment `now`."""
    made = shopper_items(_log([(1, 1, 1.0, 0), (1, 2, 1.0, 10 * DAY)]), now=10 * DAY, half_life_days=10)
    assert made.weights.toarray().tolist() == [[0.5, 1.0]]


def test_given_columns_hold_items_without_events_and_leave_others_out() -> None:
    """The caller's numbering decides, so that cold items have a column."""
    made = shopper_items(_log([(1, 7, 1.0, 0), (1, 9, 1.0, 0)]), items=np.array([5, 7], np.int32))
    assert made.weights.toarray().tolist() == [[0.0, 1.0]]


def test_chosen_rows_keep_their_counts_and_times() -> None:
    """A part of the shoppers, in any order."""
    made = shopper_items(_log([(1, 1, 1.0, 5), (2, 2, 1.0, 6), (2, 2, 1.0, 9), (3, 1, 1.0, 7)]))
    part = made.rows(np.array([1, 0]))
    assert part.weights.toarray().tolist() == [[0.0, 2.0], [1.0, 0.0]]
    assert part.counts.tolist() == [2.0, 1.0]
    assert part.last.tolist() == [9, 5]


def test_a_heavy_row_keeps_its_latest_entries() -> None:
    """Only rows above the cap lose entries."""
    matrix = csr_array(np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]], np.float32))
    assert cap_rows(matrix, np.array([3, 1, 2, 0]), cap=2).toarray().tolist() == [[1.0, 0.0, 3.0], [4.0, 0.0, 0.0]]
