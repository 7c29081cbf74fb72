import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.demo.drawing import Canvas, ellipse, mirrored, path, symmetric

units = st.floats(-50, 150, allow_nan=False)


def test_a_path_ends_where_it_says() -> None:
    """Lines and curves pass through their end points."""
    points = path("M1 2 L3 4 Q5 5 6 7 C7 7 8 8 9 1 Z")
    assert points[:2] == [(1.0, 2.0), (3.0, 4.0)]
    assert (6.0, 7.0) in points
    assert points[-1] == (9.0, 1.0)


@pytest.mark.parametrize("text", ["M1", "Q1 2 3 4", "M1 2 L3"])
def test_a_broken_path_is_refused(text: str) -> None:
    """A command without its numbers, or a curve without a start, is an error."""
    with pytest.raises(ValueError, match="path"):
        path(text)


@given(st.lists(st.tuples(units, units), min_size=1), units)
def test_mirroring_twice_is_nothing(points: list[tuple[float, float]], axis: float) -> None:
    """A mirror of a mirror is the original."""
    twice = mirrored(mirrored(points, axis), axis)
    assert twice == [pytest.approx(point, abs=1e-6) for point in points]


def test_a_symmetric_outline_is_its_own_mirror() -> None:
    """Both halves are the same."""
    outline = symmetric("M50 10 L70 20 L60 80")
    assert set(mirrored(outline)) == set(outline)


def test_a_part_changes_only_its_surroundings() -> None:
    """Light and shadow of a part stay near it."""
    canvas = Canvas(random.Random(1))
    before = canvas.image.copy()
    canvas.part(ellipse(50, 50, 10, 10), (200, 30, 30), drop=1)
    box = canvas.pixels([(30, 30), (70, 70)])
    (x0, y0), (x1, y1) = box
    assert canvas.image.getpixel((canvas.image.width // 2, canvas.image.height // 2)) != before.getpixel(
        (before.width // 2, before.height // 2)
    )
    outside = [
        (x, y)
        for x in range(0, before.width, 9)
        for y in range(0, before.height, 9)
        if not (x0 < x < x1 and y0 < y < y1)
    ]
    assert all(canvas.image.getpixel(at) == before.getpixel(at) for at in outside)


def test_a_part_outside_the_picture_is_harmless() -> None:
    """A close-up may leave parts of the product out of sight."""
    canvas = Canvas(random.Random(1), zoom=3)
    canvas.part(ellipse(500, 500, 10, 10), (1, 2, 3), drop=1, folds=[], gleam=[ellipse(500, 500, 2, 2)])
    assert len(canvas.jpeg()) > 1000
