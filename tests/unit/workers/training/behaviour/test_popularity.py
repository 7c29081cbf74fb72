"""What sells, and what sells more than before."""

import numpy as np

from workers.training.behaviour.interactions import DAY, Interactions
from workers.training.behaviour.popularity import fit_popularity


def _log(item: list[int], ts: list[int], weight: list[float] | None = None) -> Interactions:
    return Interactions(
        shopper=np.arange(len(item)),
        item=np.array(item, np.int32),
        weight=np.array(weight or [1.0] * len(item), np.float32),
        ts=np.array(ts, np.int64),
    )


def test_old_sales_count_less() -> None:
    """Half after a half-life."""
    log = _log([0, 1, 1], [14 * DAY, 0, 0])
    found = fit_popularity(log, log.item.astype(np.int64), 3, now=14 * DAY, half_life_days=14)
    np.testing.assert_allclose(found.decayed, [1, 1, 0])
    assert found.shoppers.tolist() == [1, 2, 0]


def test_more_returns_than_sales_is_no_popularity() -> None:
    """Never below 0."""
    log = _log([0, 0], [0, 0], [1.0, -3.0])
    assert fit_popularity(log, log.item.astype(np.int64), 1, now=0).decayed.tolist() == [0]


def test_a_rise_trends_and_a_steady_seller_does_not() -> None:
    """One sale a day for a year against as many in the last days."""
    steady = [day * DAY for day in range(365)]
    rising = [(362 + part / 7) * DAY for part in range(21)]
    log = _log([0] * 365 + [1] * 21, [*steady, *map(int, rising)])
    found = fit_popularity(log, log.item.astype(np.int64), 2, now=365 * DAY)
    assert abs(found.trend[0]) < 1
    assert found.trend[1] > 2
