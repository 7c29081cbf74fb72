"""How long the supervisor waits before it starts a role again."""

from hypothesis import given
from hypothesis import strategies as st

from infra.supervisor import Backoff


def test_backoff_doubles_up_to_its_most() -> None:
    """Half a second, then twice as long after each short life, never above 30 s."""
    backoff = Backoff()
    assert [backoff.after(0.1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_backoff_forgets_after_a_long_life() -> None:
    """A minute of life makes the next end count as the first."""
    backoff = Backoff()
    for _ in range(5):
        backoff.after(1)
    assert backoff.after(60) == 0.5
    assert backoff.after(1) == 1


@given(st.lists(st.floats(0, 120), max_size=2000))
def test_backoff_stays_within_its_bounds(lives: list[float]) -> None:
    """However many lives, the wait is between 0.5 and 30 seconds."""
    backoff = Backoff()
    assert all(0.5 <= backoff.after(lived_s) <= 30 for lived_s in lives)
