"""Which partitions must be there, whatever the day."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.partitions import PARTITIONED, Step, around, floor_to, next_of, previous_of

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))


@given(MOMENTS, st.sampled_from(get_args(Step)))
def test_partitions_leave_no_gap(moment: datetime, step: Step) -> None:
    """Every moment lies in exactly one, and the next begins where it ends."""
    first = floor_to(step, moment)
    assert first <= moment < next_of(step, first)
    assert floor_to(step, next_of(step, first)) == next_of(step, first)
    assert next_of(step, previous_of(step, first)) == first


@given(MOMENTS)
def test_a_live_event_has_its_partition(now: datetime) -> None:
    """From seven days ago to five minutes ahead."""
    plan = next(plan for plan in PARTITIONED if plan.table == "events")
    firsts = list(around(plan, now))
    assert firsts == sorted(set(firsts))
    for ts in (now - timedelta(days=7), now, now + timedelta(minutes=5)):
        assert floor_to(plan.step, ts) in firsts


@pytest.mark.parametrize(("step", "first"), [("day", 15), ("week", 12), ("month", 1)])
def test_the_beginning_of_each_step(step: Step, first: int) -> None:
    """15 January 2026 is a Thursday."""
    assert floor_to(step, datetime(2026, 1, 15, 12, tzinfo=UTC)) == datetime(2026, 1, first, tzinfo=UTC)
