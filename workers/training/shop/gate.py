"""Whether a new model may take the place of the one that serves: by the same shoppers, on events that neither has seen.

The new one gives way only where it is significantly worse: the 95 % interval of the difference of recall@20, over the
same shoppers by resampling them (paired bootstrap), lies wholly below zero.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec import Struct

from tenants.learned.blend import KNOWING
from workers.evaluation.bootstrap import bootstrap_means, difference
from workers.training.behaviour.blend import Listed, fresh_of
from workers.training.shop.plan import Comparison
from workers.training.shop.trial import Scorer, Trial

FEWEST: Final = 30
"""Of fewer shoppers the resamples are too much alike to tell: the interval would be too narrow."""


class Contender(Struct, frozen=True, kw_only=True, eq=False):
    """What a list is made of: each source's scores, and the weights by which they are mixed."""

    scorers: Mapping[str, Scorer]
    blend: Mapping[str, float]


def compare(trial: Trial, new: Contender, champion: Contender, *, model: int) -> Comparison:
    """Hold both against what the trial's shoppers met. `model`: the champion's number."""
    known: dict[int, Listed] = {}

    def listed(scorer: Scorer) -> Listed:
        # What both have in common (what sells, what is alike) is listed once.
        if id(scorer) not in known:
            known[id(scorer)] = trial.lists(scorer)
        return known[id(scorer)]

    def recall(one: Contender) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        lists = {name: listed(one.scorers[name]) for name in one.blend if name != "fresh"}
        if "fresh" in one.blend:
            drawn = [lists[name] for name in lists if name in KNOWING]
            lists["fresh"] = fresh_of(drawn, trial.few, trial.wanted.shape[1])
        return np.asarray(trial.recall(list(lists.values()), np.array([one.blend[name] for name in lists])))

    both = np.stack([recall(new), recall(champion)], axis=1)
    means = bootstrap_means(both)
    ours, theirs = both.mean(axis=0)
    found = difference(ours, theirs, means[:, 0], means[:, 1])
    return Comparison(
        model=model,
        shoppers=trial.asked,
        recall=round(float(ours), 4),
        champion_recall=round(float(theirs), 4),
        difference=round(found.value, 4),
        low=round(found.low, 4),
        high=round(found.high, 4),
        worse=trial.asked >= FEWEST and found.high < 0,
    )
