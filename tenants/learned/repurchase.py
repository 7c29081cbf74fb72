"""How due an item is that a shopper bought: the same arithmetic online, in SQL, and offline, over arrays.

    z = (n - 1/2) / (n + 5) · √n · (1/4 + 3/4 · exp(-d² / 2)),   d = ln(since / usual) / 0.9, halved where above 0

of n days on which it was bought, the last of them `since` days ago, with `usual` days between two. The first part is
the chance that somebody buys again who has done so n times; the second is 1 around the usual time and a quarter far
from it. A pause shorter than usual speaks more against a purchase than a longer one.
"""

import numpy as np
from numpy.typing import NDArray

DEFAULT_DAYS = 30.0
"""Between two purchases of an item of which nothing better is known."""


def due(days: NDArray[np.integer], since: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n] above 0, of `days` ≥ 1 purchases; `since` and `usual` in days, at least half a day each."""
    distance = np.log(np.maximum(since, 0.5) / np.maximum(usual, 0.5)) / 0.9
    timing = np.exp(-0.5 * np.where(distance > 0, distance / 2, distance) ** 2)
    return np.asarray((days - 0.5) / (days + 5) * np.sqrt(days) * (0.25 + 0.75 * timing))


def due_sql(days: str, since: str, usual: str) -> str:
    """SQL of the same, of SQL expressions."""
    distance = f"ln(greatest({since}, 0.5) / greatest({usual}, 0.5)) / 0.9"
    timing = f"exp(-0.5 * power({distance} * case when {since} > {usual} then 0.5 else 1 end, 2))"
    return f"({days} - 0.5) / ({days} + 5) * sqrt({days}) * (0.25 + 0.75 * {timing})"
