"""The population stability index."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.learned.drift import psi, state_of

COUNTS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 10**6), min_size=1)


def test_it_is_the_sum_over_both_shares() -> None:
    """With half an event added to each count."""
    now, before = (150.5 / 201, 50.5 / 201), (100.5 / 201, 100.5 / 201)
    expected = sum((a - e) * math.log(a / e) for a, e in zip(now, before, strict=True))
    assert psi({"a": 150, "b": 50}, {"a": 100, "b": 100}) == pytest.approx(expected, abs=1e-4)


@given(COUNTS, COUNTS)
def test_it_is_symmetric_and_never_negative(one: dict[str, int], other: dict[str, int]) -> None:
    """0 for a shop that goes on as before; None where there is too little of either."""
    assert psi(one, other) == psi(other, one)
    assert (psi(one, other) is None) == (min(sum(one.values()), sum(other.values())) < 100)
    assert psi(one, other) is None or psi(one, other) >= 0  # type: ignore[operator]
    assert psi(one, one) in {None, 0}


@pytest.mark.parametrize(
    ("scores", "state"),
    [([None, None], "unknown"), ([0.05, None], "steady"), ([0.05, 0.2], "moving"), ([0.3, 0.0], "drifted")],
)
def test_the_highest_decides(scores: list[float | None], state: str) -> None:
    """What is unknown says nothing."""
    assert state_of(scores) == state
