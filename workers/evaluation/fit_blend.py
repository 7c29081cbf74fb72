"""The blend of an evaluation: weights fitted on windows before the test, as a training job fits a shop's own."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from tenants.learned.blend import KNOWING, LISTED
from workers.evaluation.metrics import top_lists
from workers.evaluation.models import FRESH, MODELS, Scorer, Space, sources
from workers.evaluation.setting import Questions, Setting
from workers.training.behaviour.blend import (
    SHOPPERS,
    Blend,
    Listed,
    Window,
    fit_blend,
    fresh_of,
    listed,
    of_items,
    stacked,
)
from workers.training.behaviour.interactions import Floats
from workers.training.shop.validate import CLEARLY, PRIOR

_BATCH: Final = 256


class Moment(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A moment before the test to learn at, and what shoppers met after it."""

    setting: Setting
    questions: Questions


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The weight of each model by name, and of `fresh`; the behaviour space; how many shoppers they were fitted on."""

    by_source: dict[str, float]
    space: Space
    shoppers: int


def scores_of(
    scorers: Mapping[str, Scorer], setting: Setting, questions: Questions, start: int, end: int
) -> dict[str, Floats]:
    """Scores float32[b, n] by model of the questions' rows start…end; -inf where an item may not be recommended, or was
    not there yet.
    """
    rows = questions.rows[start:end]
    history = setting.train.rows(rows)
    place = np.repeat(np.arange(len(rows)), np.diff(history.weights.indptr))
    found = {}
    for name, scorer in scorers.items():
        scores = scorer(rows, history)
        if not setting.repeats:
            scores[place, history.weights.indices] = -np.inf
        if setting.absent is not None:
            scores[:, setting.absent] = -np.inf
        found[name] = scores
    return found


def source_lists(
    scores: Mapping[str, Floats], names: Sequence[str], setting: Setting, rng: np.random.Generator
) -> list[Listed]:
    """The lists of the models `names`, in this order; `fresh` among them is drawn from the others."""
    found = {name: listed(scores[name], top_lists(scores[name], LISTED, rng=rng)) for name in names if name != FRESH}
    if FRESH in names:
        known = [one for name, one in found.items() if MODELS[name].serves in KNOWING]
        found[FRESH] = fresh_of(known, setting.few, len(setting.train.items))
    return [found[name] for name in names]


def learn_weights(moments: Sequence[Moment], names: Sequence[str], *, seed: int) -> Weights:
    """Fit on the shoppers of all moments at once, for each behaviour space; the space that gains more has it."""
    rng = np.random.default_rng(seed)
    drawn: dict[Space, list[str]] = {"graph": sources(names, "graph"), "als": sources(names, "als")}
    every = list(dict.fromkeys([*drawn["graph"], *drawn["als"]]))
    windows: list[tuple[Window, dict[str, Listed]]] = []
    for moment in moments:
        setting, questions = moment.setting, _some(moment.questions, SHOPPERS // len(moments), rng)
        if not len(questions.rows):
            continue
        scorers = {name: MODELS[name].fit(setting) for name in every}
        parts: list[list[Listed]] = []
        for start in range(0, len(questions.rows), _BATCH):
            scores = scores_of(scorers, setting, questions, start, start + _BATCH)
            parts.append(source_lists(scores, every, setting, rng))
        lists = {name: stacked([part[at] for part in parts]) for at, name in enumerate(every)}
        wanted = questions.wanted.weights
        window = Window(lists={}, wanted=wanted, new=of_items(wanted, setting.degree == 0), few=setting.few)
        windows.append((window, lists))
    found: dict[Space, tuple[Blend, dict[str, str]]] = {}
    for one, mixed in drawn.items():
        model = {str(MODELS[name].serves): name for name in mixed}
        served = [
            msgspec.structs.replace(window, lists={source: lists[name] for source, name in model.items()})
            for window, lists in windows
        ]
        found[one] = (fit_blend(served, {source: PRIOR.get(source, 1e-9) for source in model}), model)
    graph, als = found["graph"][0].gain, found["als"][0].gain
    space: Space = "als" if als > graph + CLEARLY else "graph"
    blend, model = found[space]
    return Weights(
        by_source={model.get(source, source): weight for source, weight in blend.weights.items()},
        space=space,
        shoppers=blend.shoppers,
    )


def _some(questions: Questions, most: int, rng: np.random.Generator) -> Questions:
    if len(questions.rows) <= most:
        return questions
    chosen = np.sort(rng.choice(len(questions.rows), most, replace=False))
    return Questions(rows=questions.rows[chosen], wanted=questions.wanted.rows(chosen))
