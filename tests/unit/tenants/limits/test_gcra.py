"""One limit in one process."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.db import TenantId
from tenants.limits.gcra import FRESH_S, Bucket, Rate

KEY = (TenantId(UUID(int=7)), "sustained")

rates = st.builds(
    Rate,
    name=st.just("sustained"),
    quota=st.integers(1, 10_000),
    window_s=st.sampled_from((1, 10, 60, 3600)),
    burst=st.integers(1, 500),
)
uses = st.lists(st.tuples(st.floats(0, 2, allow_nan=False), st.integers(1, 30)), max_size=60)


@given(rate=rates, asked=uses, start=st.floats(0, 1e9))
def test_no_window_passes_more_than_burst_and_rate(rate: Rate, asked: list[tuple[float, int]], start: float) -> None:
    """Whatever is asked when: a call that costs more than the burst counts as the burst, once."""
    bucket = Bucket(KEY, rate)
    now, passed = start, []
    for pause, cost in asked:
        now += pause
        if not bucket.late(now, cost):
            bucket.spend(now, cost)
            passed.append((now, cost))
    most = max([rate.burst, *(cost for _, cost in passed)])
    for first in range(len(passed)):
        used = 0
        for at, cost in passed[first:]:
            used += cost
            assert used <= most + (at - passed[first][0]) / rate.interval_s + 0.01


@given(rate=rates, asked=uses)
def test_who_waits_as_long_as_told_passes(rate: Rate, asked: list[tuple[float, int]]) -> None:
    """And not a tenth of an interval sooner."""
    bucket = Bucket(KEY, rate)
    now = 0.0
    for pause, cost in asked:
        now += pause
        late = bucket.late(now, cost)
        if late > 0.2 * rate.interval_s:
            assert bucket.late(now + late - 0.1 * rate.interval_s, cost)
        assert not bucket.late(now + late + 1e-5, cost)
        now += late + 1e-5
        bucket.spend(now, cost)


@given(rate=rates, asked=uses)
def test_as_many_pass_as_are_said_to_be_free(rate: Rate, asked: list[tuple[float, int]]) -> None:
    """`left` is what the RateLimit header says."""
    bucket = Bucket(KEY, rate)
    now = 0.0
    for pause, cost in asked:
        now += pause
        free = bucket.left(now)[0]
        assert 0 <= free <= rate.burst
        if free:
            assert not bucket.late(now, free)
        if free < rate.burst:
            assert bucket.late(now, free + 1)
        if not bucket.late(now, cost):
            bucket.spend(now, cost)


def test_a_call_of_twenty_passes_a_limit_of_one() -> None:
    """When nothing is used; twenty intervals later it is paid off."""
    bucket = Bucket(KEY, Rate(name="key", quota=60, window_s=60, burst=1))
    assert not bucket.late(100.0, 20)
    bucket.spend(100.0, 20)
    assert bucket.late(100.0, 1) == pytest.approx(20.0)
    assert bucket.late(119.5, 20) == pytest.approx(0.5)
    assert not bucket.late(120.0, 20)


def test_another_rate_keeps_what_was_used() -> None:
    """A change of the plan gives nothing away."""
    bucket = Bucket(KEY, Rate(name="sustained", quota=60, window_s=60, burst=10))
    bucket.spend(0.0, 10)
    assert bucket.left(0.0)[0] == 0
    bucket.govern(Rate(name="sustained", quota=600, window_s=60, burst=200))
    assert bucket.left(0.0)[0] == 100


def test_a_lease_is_a_quarter_of_a_second() -> None:
    """Of one use at least, and of one alone where the rate is low; more of it when the others were heard just now."""
    low = Bucket(KEY, Rate(name="key", quota=600, window_s=60, burst=20))
    high = Bucket(KEY, Rate(name="key", quota=6_000, window_s=60, burst=200))
    for bucket, lease in ((low, 1), (high, 25)):
        now = 100.0
        for _ in range(lease):
            assert not bucket.unheard(now, 1)
            bucket.spend(now, 1)
        assert bucket.unheard(now, 1)
        bucket.charge()
        assert bucket.unheard(now, 1)  # until it is heard that they are told
        bucket.settled(bucket.full_at, now)
        for _ in range(bucket.left(now)[0] // 4):
            assert not bucket.unheard(now, 1)
            bucket.spend(now, 1)
        assert bucket.unheard(now + 2 * FRESH_S, 1)


def test_a_call_that_says_late_how_much_it_is_passes_as_if_it_had_said_so_at_once() -> None:
    """Its first use does not stand in the way of the others; another's does, for as long as it takes to be paid off."""
    bucket = Bucket(KEY, Rate(name="key", quota=60, window_s=60, burst=2))
    bucket.spend(100.0, 1)
    assert bucket.late(100.0, 19) == pytest.approx(1.0)
    assert not bucket.late(100.0, 19, spent=1)
    bucket.spend(100.0, 19)
    bucket.spend(119.0, 1)
    late = bucket.late(119.0, 19, spent=1)
    assert late == pytest.approx(2.0)
    bucket.spend(119.0 + late, 1)
    assert not bucket.late(119.0 + late, 19, spent=1)
