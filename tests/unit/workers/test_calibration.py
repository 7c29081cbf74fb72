"""When a shop's own figures are measured."""

from hypothesis import given
from hypothesis import strategies as st

from tenants.vectors.calibration import milestone
from workers.models import default_calibration


@given(st.integers(0, 10**7))
def test_milestones_double_from_a_hundred(items: int) -> None:
    """The largest of 100, 200, 400, … that has been reached."""
    reached = milestone(items)
    if items < 100:
        assert reached == 0
    else:
        assert reached <= items < reached * 2
        assert (reached // 100).bit_count() == 1


def test_unknown_packs_have_the_defaults_of_their_kind() -> None:
    """Before anything is measured."""
    assert default_calibration("somebody-s-pack@1", "image") == (0.45, 0.15)
