"""Buying again."""

import numpy as np

from workers.training.behaviour.interactions import DAY, Interactions
from workers.training.behaviour.repurchase import fit_repurchase, score_bought


def _log(rows: list[tuple[int, int, int]]) -> Interactions:
    shopper, item, day = np.array(rows, np.int64).reshape(-1, 3).T
    return Interactions(
        shopper=shopper, item=item.astype(np.int32), weight=np.ones(len(rows), np.float32), ts=day * DAY
    )


def _scores(rows: list[tuple[int, int, int]], *, now: int, items: int = 2) -> np.ndarray:  # type: ignore[type-arg]
    log = _log(rows)
    column = log.item.astype(np.int64)
    shoppers = int(log.shopper.max(initial=0)) + 1
    found = score_bought(fit_repurchase(log, column, items), log, column, shoppers, now=now * DAY)
    return np.asarray(found.toarray())


def test_the_interval_is_the_usual_pause() -> None:
    """Item 0 is bought every 7 days, item 1 once: it has the pause of the shop."""
    log = _log([(s, 0, 7 * n) for s in range(20) for n in range(6)] + [(s, 1, 0) for s in range(20)])
    np.testing.assert_allclose(fit_repurchase(log, log.item.astype(np.int64), 2).interval, 7, rtol=0.01)


def test_what_is_due_now_comes_before_what_was_just_bought() -> None:
    """And before what should have been bought long ago."""
    weekly = [(0, 0, 7 * n) for n in range(6)]
    due, early, late = (_scores(weekly, now=35 + days)[0, 0] for days in (7, 1, 200))
    assert due > early > 0
    assert due > late > 0


def test_what_was_bought_more_often_is_likelier() -> None:
    """At the same pause; of one day counts once."""
    scores = _scores([(0, 0, 0), (0, 0, 9), (0, 0, 18), (0, 1, 9), (0, 1, 18), (0, 1, 18)], now=27)
    assert scores[0, 0] > scores[0, 1] > 0


def test_a_shop_without_repeats_has_finite_scores() -> None:
    """Nothing bought twice, or nothing at all."""
    assert not _scores([], now=5).any()
    found = _scores([(0, 1, 0)], now=5)
    assert np.isfinite(found).all()
    assert found[0, 1] > 0
