"""When a message is sent again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.webhooks.schedule import JITTER, RETRIES, judge


def test_ten_attempts_in_a_little_more_than_three_days() -> None:
    """As the specification suggests, and not for ever."""
    assert [judge(tries, 500, luck=0.0).after for tries in range(1, 11)] == [*RETRIES, None]
    assert judge(10, 500, luck=0.0).status == "failed"
    assert timedelta(days=3) < sum(RETRIES, timedelta()) < timedelta(days=3.5)


@given(st.integers(1, len(RETRIES)), st.floats(0, 1, exclude_max=True))
def test_the_jitter_only_lengthens(tries: int, luck: float) -> None:
    """By a fifth at most, so the order of the pauses stays."""
    after = judge(tries, None, luck=luck).after
    assert after is not None
    assert RETRIES[tries - 1] <= after <= RETRIES[tries - 1] * (1 + JITTER)


@given(st.integers(1, 20), st.integers(100, 599))
def test_only_success_is_success(tries: int, status_code: int) -> None:
    """2xx; a redirect is a failure, and 410 ends it at once."""
    verdict = judge(tries, status_code, luck=0.5)
    assert (verdict.status == "delivered") == (200 <= status_code < 300)
    assert verdict.gone == (status_code == 410)
    assert (verdict.after is not None) == (verdict.status == "pending")


@pytest.mark.parametrize("tries", [1, 5, 10])
def test_no_answer_is_a_failure(tries: int) -> None:
    """However it came to nothing."""
    assert judge(tries, None, luck=0.0).status == ("failed" if tries == 10 else "pending")
