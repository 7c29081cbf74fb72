"""The windows that the blend of an evaluation is fitted on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from infra.settings import Settings
from workers.evaluation import run
from workers.evaluation.fit_blend import Moment, Weights, scores_of
from workers.evaluation.run import Options, evaluate
from workers.evaluation.setting import Content, make_questions, make_setting
from workers.training.behaviour.interactions import Floats, Interactions, Longs, ShopperItems


def test_what_was_not_there_yet_is_not_shown() -> None:
    """Nor is what a shopper had met; everything else keeps its score."""
    log = Interactions(
        shopper=np.array([0, 1], np.int64),
        item=np.array([0, 1], np.int32),
        weight=np.ones(2, np.float32),
        ts=np.array([1, 2], np.int64),
    )
    absent = np.array([False, False, False, True])
    setting = make_setting(log, 2, 4, Content(), now=3, repeats=False, timed=True, seed=0, absent=absent)
    later = Interactions(
        shopper=np.array([0, 1], np.int64),
        item=np.array([2, 2], np.int32),
        weight=np.ones(2, np.float32),
        ts=np.array([4, 4], np.int64),
    )

    def scorer(rows: Longs, _: ShopperItems) -> Floats:
        return np.ones((len(rows), 4), np.float32)

    found = scores_of({"one": scorer}, setting, make_questions(setting, later), 0, 2)["one"]
    assert found.tolist() == [[-np.inf, 1, 1, -np.inf], [1, -np.inf, 1, -np.inf]]


def test_a_window_has_the_items_that_somebody_had_met_by_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of items that appear one after the other, those of later windows and of the test are absent from an earlier one,
    and those that are new in it are not.
    """
    lines = [f"u{shopper}\ti{day}\t1\t{86_400 * day + shopper}" for day in range(50) for shopper in range(4)]
    (tmp_path / "log.tsv").write_text("\n".join(lines))
    seen: list[Moment] = []

    def learn(moments: Sequence[Moment], names: Sequence[str], *, seed: int) -> Weights:
        seen.extend(moments)
        return Weights(by_source={"recent": 1.0}, space="graph", shoppers=0)

    monkeypatch.setattr(run, "learn_weights", learn)
    evaluate(Options(interactions=tmp_path / "log.tsv", models=("blend",), out=tmp_path), Settings())
    for moment, (met, there) in zip(seen, [(32, 40), (25, 32)], strict=True):
        absent = moment.setting.absent
        assert absent is not None
        assert abs(int((moment.setting.degree > 0).sum()) - met) <= 1
        assert abs(int((~absent).sum()) - there) <= 1
        assert not absent[moment.questions.wanted.weights.indices].any()
