"""The blend of several sources."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.learned.blend import CONTENT_BLEND, DEFAULT_BLEND, blend
from tenants.sources.statement import SOURCES

_COLUMN = st.lists(st.one_of(st.just(float("nan")), st.floats(-2, 1e6)), min_size=4, max_size=4)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), _COLUMN, min_size=1), st.floats(0.01, 100))
def test_a_blend_lies_between_0_and_1(columns: dict[str, list[float]], weight: float) -> None:
    """Whatever the scales, and however many do not name an item; all weights times a number change nothing."""
    scores = {name: np.array(column) for name, column in columns.items()}
    weights = {name: at + 1.0 for at, name in enumerate(sorted(scores))}
    blended = blend(scores, weights)
    assert ((blended >= 0) & (blended <= 1 + 1e-9)).all()
    scaled = blend(scores, {name: value * weight for name, value in weights.items()})
    assert blended == pytest.approx(scaled)


def test_the_best_of_every_source_has_1() -> None:
    """And an item that one source of two names has that source's share."""
    scores = {"a": np.array([3.0, 1.5, np.nan]), "b": np.array([10.0, np.nan, 10.0])}
    assert blend(scores, {"a": 3.0, "b": 1.0}) == pytest.approx([1.0, 0.375, 0.25])


def test_weights_must_say_something() -> None:
    """All 0 is an error."""
    with pytest.raises(ValueError, match="above 0"):
        blend({"a": np.ones(2)}, {"a": 0.0})


def test_the_defaults_name_sources() -> None:
    """Each is one that can be recalled from."""
    assert {*DEFAULT_BLEND, *CONTENT_BLEND} <= SOURCES.keys()
