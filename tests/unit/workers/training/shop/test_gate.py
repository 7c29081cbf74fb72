"""A new model against the one that serves: who gives way, and when nobody can tell."""

import numpy as np
import pytest

from tests.unit.workers.training.shop.test_validate import DAY, taste_shop
from workers.training.behaviour.interactions import Floats
from workers.training.shop.gate import FEWEST, Contender, compare
from workers.training.shop.trial import Scorer, Trial, trial_at

ITEMS = 80
TASTES = 4


def _trial(shoppers: int) -> Trial:
    items = np.arange(ITEMS, dtype=np.int32)
    trial = trial_at(taste_shop(shoppers, ITEMS, 10, tastes=TASTES), items, 25 * DAY)
    assert trial is not None
    return trial


def _knowing(share: float) -> Scorer:
    """Scores the items of the shopper's taste above the others; `share`: of how many of the items it knows that."""
    taste = np.arange(ITEMS) // (ITEMS // TASTES)
    same = (taste[:, None] == taste[None, :]) * (np.arange(ITEMS) % 10 < 10 * share)[None, :]
    noise = np.random.default_rng(3).random(ITEMS) * 1e-3

    def score(history: object) -> Floats:
        return np.asarray(history @ same.astype(np.float32) + noise, np.float32)  # type: ignore[operator]

    return score


def _contender(share: float) -> Contender:
    return Contender(scorers={"graph": _knowing(share)}, blend={"graph": 1.0})


def test_the_significantly_worse_gives_way() -> None:
    """Its interval lies below zero; the other way round it lies above, and nobody is worse."""
    trial = _trial(300)
    found = compare(trial, _contender(0.3), _contender(1.0), model=4)
    assert found.worse
    assert found.low < found.difference < found.high < 0
    assert (found.model, found.shoppers) == (4, trial.asked)
    assert found.difference == pytest.approx(found.recall - found.champion_recall, abs=2e-4)
    better = compare(trial, _contender(1.0), _contender(0.3), model=4)
    assert not better.worse
    assert better.low > 0


def test_equals_are_not_worse() -> None:
    """The same lists differ by nothing."""
    found = compare(_trial(300), _contender(0.7), _contender(0.7), model=1)
    assert (found.difference, found.low, found.high, found.worse) == (0, 0, 0, False)


def test_a_few_shoppers_cannot_tell() -> None:
    """However clear they are among themselves."""
    trial = _trial(20)
    found = compare(trial, _contender(0.0), _contender(1.0), model=1)
    assert found.shoppers < FEWEST
    assert found.high < 0
    assert not found.worse
