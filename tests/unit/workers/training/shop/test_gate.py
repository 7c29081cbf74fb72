"""A new model against the one that serves: who gives way, and when nobody can tell."""

import numpy as np
import pytest

from tests.unit.workers.training.shop.test_validate import DAY, taste_shop
from workers.training.behaviour.interactions import Floats, Longs
from workers.training.shop.gate import FEWEST, Contender, compare
from workers.training.shop.trial import Scorer, Trial, trial_at

ITEMS = 80
TASTES = 4


def _trial(shoppers: int) -> Trial:
    items = np.arange(ITEMS, dtype=np.int32)
    trial = trial_at(taste_shop(shoppers, ITEMS, 10, tastes=TASTES), items, 25 * DAY)
    assert trial is not None
    return trial


def _knowing(trial: Trial, share: float) -> Scorer:
    """Scores the items of the shopper's taste above the others; `share`: of how many of the items it knows that."""
    taste = np.arange(ITEMS) // (ITEMS // TASTES)
    same = (taste[:, None] == taste[None, :]) * (np.arange(ITEMS) % 10 < 10 * share)[None, :]
    noise = np.random.default_rng(3).random(ITEMS) * 1e-3

    def score(rows: Longs) -> Floats:
        return np.asarray(trial.history[rows] @ same.astype(np.float32) + noise, np.float32)

    return score


def _contender(trial: Trial, share: float) -> Contender:
    return Contender(scorers={"graph": _knowing(trial, share)}, blend={"graph": 1.0})


def test_the_significantly_worse_gives_way() -> None:
    """Its interval lies below zero; the other way round it lies above, and nobody is worse."""
    trial = _trial(300)
    found = compare(trial, _contender(trial, 0.3), _contender(trial, 1.0), model=4)
    assert found.worse
    assert found.low < found.difference < found.high < 0
    assert (found.model, found.shoppers) == (4, trial.asked)
    assert found.difference == pytest.approx(found.recall - found.champion_recall, abs=2e-4)
    better = compare(trial, _contender(trial, 1.0), _contender(trial, 0.3), model=4)
    assert not better.worse
    assert better.low > 0


def test_equals_are_not_worse() -> None:
    """The same lists differ by nothing."""
    trial = _trial(300)
    found = compare(trial, _contender(trial, 0.7), _contender(trial, 0.7), model=1)
    assert (found.difference, found.low, found.high, found.worse) == (0, 0, 0, False)


def test_a_few_shoppers_cannot_tell() -> None:
    """However clear they are among themselves."""
    trial = _trial(20)
    found = compare(trial, _contender(trial, 0.0), _contender(trial, 1.0), model=1)
    assert found.shoppers < FEWEST
    assert found.high < 0
    assert not found.worse


def test_what_few_have_met_is_drawn_from_the_other_lists() -> None:
    """A blend with `fresh` is held against one without it."""
    trial = _trial(300)
    plain = _contender(trial, 0.7)
    fresh = Contender(scorers=plain.scorers, blend={**plain.blend, "fresh": 0.2})
    found = compare(trial, fresh, plain, model=1)
    assert found.champion_recall > 0
    assert found.low <= found.difference <= found.high
