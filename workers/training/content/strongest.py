"""The strongest of many scores per row, kept while the scores come by, tile by tile."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]

SAME: Final = 1e-5
"""Scores that differ by less are equal: a matrix product rounds by where in the matrix a column stands."""

_LOWEST: Final = -100.0
"""Scores below this are equal; a score is at most about 1."""

# One whole number says all: row, then how far below the highest score, then column. Sorting those is ten times as fast
# as sorting rows of three.
_COLUMN_BITS: Final = 27
_SCORE_BITS: Final = 24
_TOP: Final = 1_000_000
_ROW_SHIFT: Final = _COLUMN_BITS + _SCORE_BITS


class Strongest:
    """The `keep` highest scores of each of `rows` ≤ 2,048 rows, ties to the lower column, columns below 2^27.

    `floor` float32[rows] is what a score must be above to be kept: a column that comes later loses a tie.
    """

    def __init__(self, rows: int, keep: int) -> None:
        self.floor: Floats = np.full(rows, -np.inf, np.float32)
        self._rows = rows
        self._keep = keep
        self._kept = np.zeros(0, np.int64)
        self._arrived: list[Longs] = []
        self._waiting = 0

    def add(self, row: Longs, column: Longs, score: Floats) -> None:
        """Scores above the floor; every column after those of the calls before."""
        below = _TOP - np.rint(np.maximum(score, _LOWEST) / SAME).astype(np.int64)
        self._arrived.append((row << _ROW_SHIFT) | (below << _COLUMN_BITS) | column)
        self._waiting += len(row)
        if self._waiting > self._rows * self._keep:
            self._cut()

    def _cut(self) -> None:
        keys = np.concatenate([self._kept, *self._arrived])
        self._arrived.clear()
        self._waiting = 0
        keys.sort()
        begins = np.searchsorted(keys, np.arange(self._rows + 1) << _ROW_SHIFT)
        sizes = np.diff(begins)
        self._kept = keys[np.arange(len(keys)) - np.repeat(begins[:-1], sizes) < self._keep]
        full = np.flatnonzero(sizes >= self._keep)
        # Half a step above the last that is kept: what rounds to the same is a tie.
        self.floor[full] = (_score(keys[begins[full] + self._keep - 1]) + SAME / 2).astype(np.float32)

    def take(self) -> tuple[NDArray[np.int32], Longs, Floats]:
        """`sizes` int32[rows], and of each row, one after the other, the columns and scores, best first."""
        self._cut()
        row = self._kept >> _ROW_SHIFT
        sizes = np.bincount(row, minlength=self._rows).astype(np.int32)
        column = self._kept & ((1 << _COLUMN_BITS) - 1)
        return sizes, column, _score(self._kept).astype(np.float32)


def _score(keys: Longs) -> NDArray[np.float64]:
    below: NDArray[np.float64] = ((keys >> _COLUMN_BITS) & ((1 << _SCORE_BITS) - 1)).astype(np.float64)
    return (_TOP - below) * SAME
