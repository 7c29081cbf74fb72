"""Which failures are worth another try, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import Conflict, Invalid, NotFound, Overloaded, UpstreamFailed
from workers.runner import MAX_ATTEMPTS, Dead, Retry, plan_retry


@pytest.mark.parametrize("error", [Overloaded("x"), UpstreamFailed("x"), OSError("x"), RuntimeError("x")])
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    """Trouble elsewhere, and what nobody foresaw."""
    assert plan_retry(1, error) == Retry(after_s=2.0)


@pytest.mark.parametrize("error", [Invalid("x"), NotFound("x"), Conflict("x")])
def test_what_the_caller_must_change_is_dead_at_once(error: Exception) -> None:
    """Trying again would say the same."""
    assert plan_retry(1, error) == Dead()


def test_the_last_attempt_is_the_last() -> None:
    """A job that always fails becomes visibly dead."""
    assert plan_retry(MAX_ATTEMPTS, Overloaded("x")) == Dead()


@given(attempt=st.integers(1, MAX_ATTEMPTS - 1), luck=st.floats(0, 1, exclude_max=True))
def test_pauses_grow_and_are_spread(attempt: int, luck: float) -> None:
    """Half to one and a half of a pause that doubles, never above a quarter of an hour."""
    plan = plan_retry(attempt, UpstreamFailed("x"), luck=luck)
    assert isinstance(plan, Retry)
    middle = min(2.0 * 2 ** (attempt - 1), 600)
    assert middle * 0.5 <= plan.after_s <= middle * 1.5 <= 900
