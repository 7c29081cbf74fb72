"""Pictures drawn by code, for training."""

import random

import numpy as np
import pytest

from workers.training.image_encoder.drawings import DRAWERS, draw


@pytest.mark.parametrize("kind", sorted(DRAWERS))
def test_everything_can_be_drawn(kind: str) -> None:
    """Each kind gives a picture of the asked size with more than a few colours in it."""
    picture = draw(kind, 48, random.Random(1))
    assert picture.shape == (48, 48, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 4


def test_same_seed_draws_the_same() -> None:
    """A drawing is a function of kind, size and seed."""
    np.testing.assert_array_equal(draw("mug", 48, random.Random(5)), draw("mug", 48, random.Random(5)))


def test_two_of_a_kind_differ() -> None:
    """The same generator goes on to draw another one."""
    rng = random.Random(5)
    assert not np.array_equal(draw("mug", 48, rng), draw("mug", 48, rng))
