"""How sure a mean over shoppers is: 95 % intervals by resampling shoppers (Efron 1979)."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 1_000
_AT_ONCE: Final = 8_000_000


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean with the 2.5 and 97.5 percentiles of its bootstrap distribution."""

    value: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """a - b over the same shoppers, paired; `relative` are value, low and high divided by b's mean (or 0)."""

    value: float
    low: float
    high: float
    relative: tuple[float, float, float]


def bootstrap_means(values: NDArray[np.float64], *, seed: int = 0, draws: int = DRAWS) -> NDArray[np.float64]:
    """Means of resampled rows, float64[draws, columns] of `values` float64[shoppers, columns].

    Columns share the resamples, so the difference of two columns is a paired bootstrap of it.
    """
    count, columns = values.shape
    rng = np.random.default_rng(seed)
    means = np.empty((draws, columns))
    step = max(1, min(draws, _AT_ONCE // max(count, 1)))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        weights = np.empty((size, count), np.float32)
        for draw in range(size):
            weights[draw] = np.bincount(rng.integers(count, size=count), minlength=count)
        means[start : start + size] = weights @ values / count
    return means


def interval(value: float, means: NDArray[np.float64]) -> Interval:
    """The interval of a mean from its resamples."""
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(value=float(value), low=float(low), high=float(high))


def difference(a: float, b: float, means_a: NDArray[np.float64], means_b: NDArray[np.float64]) -> Difference:
    """The interval of a - b from the same resamples of both."""
    low, high = np.percentile(means_a - means_b, [2.5, 97.5])
    value = float(a - b)
    relative = (value / float(b), float(low / b), float(high / b)) if b > 0 else (0.0, 0.0, 0.0)
    return Difference(value=value, low=float(low), high=float(high), relative=relative)
