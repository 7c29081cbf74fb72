"""Reading a log: what counts, and a fingerprint that knows no order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.copybinary import HEADER, TRAILER, pack_rows
from workers.training.shop.log import ShopLog, read_log

WEIGHTS = [("view", 1.0), ("purchase", 10.0), ("odd", 0.0)]
DAY = 86_400


def _read(folder: Path, rows: list[tuple[int, int, int, int, int, int]], weights: Any = None) -> ShopLog:
    columns = list(zip(*rows, strict=True)) or [()] * 6
    kinds = ("int8", "int4", "int8", "int2", "int8", "int2")
    packed = pack_rows([(kind, np.array(column, np.int64)) for kind, column in zip(kinds, columns, strict=True)])
    path = folder / "events.copy"
    path.write_bytes(HEADER + packed + TRAILER)
    return read_log(path, weights or WEIGHTS)


ROWS = [
    (1, 10, 1 * DAY, 0, 0, 1),
    (1, 11, 1 * DAY + 60, 0, 0, 1),
    (1, 10, 1 * DAY + 120, 1, 7, 1),
    (1, 11, 1 * DAY + 120, 1, 7, 1),
    (1, 10, 5 * DAY, 1, 8, 1),
    (2, 12, 2 * DAY, 0, 0, 0),
    (2, 10, 3 * DAY, 2, 0, 1),
]


def test_what_counts_is_counted(tmp_path: Path) -> None:
    """Not what has no weight, nor what is of no item of the catalogue."""
    shop = _read(tmp_path, ROWS)
    counts = shop.counts
    assert (counts.rows, counts.events, counts.unjoined) == (7, 5, 1)
    assert (counts.shoppers, counts.items, counts.purchases) == (1, 2, 3)
    assert (counts.shoppers_of_two, counts.sessions_of_two, counts.baskets_of_two, counts.repeats) == (1, 1, 1, 1)
    assert counts.types == {"view": 3, "purchase": 3, "odd": 1}
    assert (shop.first, shop.last) == (DAY, 5 * DAY)


def test_the_fingerprint_is_of_the_events(tmp_path: Path) -> None:
    """Whatever their order; another event, another weight give another one."""
    first = _read(tmp_path, ROWS).fingerprint
    assert _read(tmp_path, ROWS[::-1]).fingerprint == first
    assert _read(tmp_path, ROWS[1:]).fingerprint != first
    assert _read(tmp_path, ROWS, [("view", 2.0), *WEIGHTS[1:]]).fingerprint != first


def test_no_events_are_read_as_none(tmp_path: Path) -> None:
    """Every count is 0."""
    shop = _read(tmp_path, [])
    assert (shop.counts.rows, shop.counts.events, shop.counts.days, len(shop.log)) == (0, 0, 0.0, 0)


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    """Rather than read as nonsense."""
    path = tmp_path / "events.copy"
    path.write_bytes(HEADER + pack_rows([("int8", np.arange(29))]) + TRAILER)
    with pytest.raises(ValueError, match=r"events\.copy"):
        read_log(path, WEIGHTS)
