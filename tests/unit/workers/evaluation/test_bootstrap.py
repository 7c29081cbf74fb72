"""Intervals."""

import numpy as np
import pytest

from workers.evaluation.bootstrap import bootstrap_means, difference, interval


def test_the_interval_is_that_of_the_normal_law() -> None:
    """Of many shoppers: mean ± 1.96 standard errors."""
    values = np.random.default_rng(0).random((2000, 1))
    found = interval(values.mean(), bootstrap_means(values)[:, 0])
    error = 1.96 * values.std() / np.sqrt(2000)
    assert found.value - found.low == pytest.approx(error, rel=0.15)
    assert found.high - found.value == pytest.approx(error, rel=0.15)


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    """What shoppers have in common cancels out."""
    rng = np.random.default_rng(0)
    base = rng.random(500)
    values = np.stack([base + 0.01 + 0.01 * rng.random(500), base], axis=1)
    means = bootstrap_means(values)
    found = difference(*values.mean(axis=0), means[:, 0], means[:, 1])
    assert found.low > 0
    assert interval(values[:, 0].mean(), means[:, 0]).low < values[:, 1].mean()
    assert found.relative[0] == pytest.approx(found.value / base.mean())
