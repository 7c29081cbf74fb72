"""Cuts and expressions that the planner has to recognise."""

from hypothesis import given
from hypothesis import strategies as st

from tenants.retrieval.nearest import rounded
from tenants.vectors.form import half_expression


@given(st.integers(1, 100_000))
def test_a_cut_is_never_made_smaller(cut: int) -> None:
    """It grows by less than 100, to a multiple of 100, so that few statements are prepared."""
    assert cut <= rounded(cut) < cut + 100
    assert rounded(cut) % 100 == 0


def test_the_halves_of_a_row_follow_each_other() -> None:
    """Text begins at 1, the image after it; a prefix does not change the expression that an index knows."""
    assert half_expression("text", 384, 384) == "subvector(vec, 1, 384)::halfvec(384)"
    assert half_expression("image", 384, 256, "v.") == "subvector(v.vec, 385, 256)::halfvec(256)"
