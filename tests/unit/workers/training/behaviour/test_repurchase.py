"""Buying again."""

import numpy as np

from workers.training.behaviour.interactions import DAY, Interactions
from workers.training.behaviour.repurchase import fit_repurchase


def _log(rows: list[tuple[int, int, int]]) -> Interactions:
    shopper, item, day = np.array(rows, np.int64).reshape(-1, 3).T
    return Interactions(
        shopper=shopper, item=item.astype(np.int32), weight=np.ones(len(rows), np.float32), ts=day * DAY
    )


def test_the_interval_is_the_usual_pause() -> None:
    """Item 0 is bought every 7 days, item 1 once."""
    log = _log([(s, 0, 7 * n) for s in range(20) for n in range(6)] + [(s, 1, 0) for s in range(20)])
    model = fit_repurchase(log, log.item.astype(np.int64), 2)
    np.testing.assert_allclose(model.interval[0], 7, rtol=0.01)
    assert model.rate[0] > 4 * model.rate[1]
    due, early, late = model.score(
        np.array([0, 0, 0]), np.array([3, 3, 3], np.float32), np.array([7, 1, 200], np.float32)
    )
    assert due > early
    assert due > late


def test_what_was_bought_more_often_is_likelier() -> None:
    """At the same pause."""
    log = _log([(1, 0, 0), (1, 0, 9), (2, 0, 0)])
    model = fit_repurchase(log, log.item.astype(np.int64), 1)
    scores = model.score(np.array([0, 0]), np.array([1, 5], np.float32), np.array([9, 9], np.float32))
    assert scores[1] > scores[0] > 0


def test_a_shop_without_repeats_has_finite_scores() -> None:
    """Nothing bought twice, or nothing at all."""
    for rows in ([], [(1, 0, 0)]):
        log = _log(rows)
        model = fit_repurchase(log, log.item.astype(np.int64), 2)
        scores = model.score(np.array([0, 1]), np.array([1, 1], np.float32), np.array([0, 5], np.float32))
        assert np.isfinite(scores).all()
