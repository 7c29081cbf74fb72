"""Several photos of an item become one vector."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.jobs.photos import pool


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_each_item_s_vector_is_the_direction_of_its_own_photos_mean(counts: list[int], seed: int) -> None:
    """Rows are taken in the order of the items; the result has length 1."""
    rows = np.random.default_rng(seed).normal(size=(sum(counts), 8)).astype(np.float32)
    photo = np.zeros((1, 1, 3), np.uint8)
    pooled = pool(rows, [[photo] * count for count in counts])
    start = 0
    for count, vector in zip(counts, pooled, strict=True):
        mean = rows[start : start + count].mean(axis=0)
        start += count
        np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-5)
        np.testing.assert_allclose(vector * np.linalg.norm(mean), mean, atol=1e-5)


def test_photos_that_cancel_each_other_out_give_no_nan() -> None:
    """A mean of zero has no direction; it stays zero."""
    photo = np.zeros((1, 1, 3), np.uint8)
    (vector,) = pool(np.array([[1, 0], [-1, 0]], np.float32), [[photo, photo]])
    assert vector.tolist() == [0, 0]
