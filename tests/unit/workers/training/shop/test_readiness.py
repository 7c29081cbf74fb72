"""What a shop has, needs and will have."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.training.shop.plan import Counts
from workers.training.shop.readiness import NEEDS, judge, trusted

NOW = datetime(2026, 1, 15, tzinfo=UTC)


def test_a_shop_with_plenty_lacks_nothing() -> None:
    """Every model is ready, and no line speaks of later."""
    plenty = dict.fromkeys(
        ("events", "items", "shoppers_of_two", "sessions_of_two", "baskets_of_two", "repeats"), 10**6
    )
    assert all(line.ready and line.eta is None and line.meanwhile is None for line in judge(Counts(**plenty), NOW))  # type: ignore[arg-type]


def test_the_date_goes_by_the_pace_so_far() -> None:
    """A hundred events in ten days make five hundred in forty more; the slowest need decides."""
    counts = Counts(events=100, items=20, shoppers_of_two=25, days=10.0)
    (line,) = [line for line in judge(counts, NOW) if line.model == "graph"]
    assert not line.ready
    assert line.eta == NOW + timedelta(days=40)


@given(events=st.integers(0, 3000), days=st.floats(0, 800), shoppers=st.integers(0, 300))
def test_a_line_is_ready_exactly_when_every_need_is_met(events: int, days: float, shoppers: int) -> None:
    """And only a line that is not says what serves meanwhile; a date lies within a year."""
    for line, need in zip(judge(Counts(events=events, shoppers_of_two=shoppers, days=days), NOW), NEEDS, strict=True):
        assert line.ready == all(line.has[name] >= least for name, least in need.needs.items())
        assert (line.meanwhile is None) == line.ready
        assert line.eta is None or NOW <= line.eta <= NOW + timedelta(days=366)


@pytest.mark.parametrize(("unjoined", "trust"), [(0, True), (50, True), (51, False), (100, False)])
def test_a_log_of_another_catalogue_is_not_trusted(unjoined: int, trust: bool) -> None:
    """More than half of the events name unknown items."""
    assert trusted(Counts(rows=100, unjoined=unjoined)) == trust


def test_no_events_are_no_wrong_events() -> None:
    """An empty shop is merely not ready."""
    assert trusted(Counts())
