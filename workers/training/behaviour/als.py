"""Matrix factors of implicit feedback: iALS (Hu, Koren, Volinsky, ICDM 2008) by the library `implicit`."""

import warnings
from typing import Any, Final

import msgspec
import numpy as np
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from workers.training.behaviour.interactions import Floats

FACTORS: Final = 128
ALPHA: Final = 40.0
REGULARIZATION: Final = 0.05
ITERATIONS: Final = 10


class Factors(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`items` float32[n, d]. Shoppers are not kept: they are folded in, so that a new event counts at once and a
    model holds nobody. `confidence` is that of one event of weight 1 against the 1 of an event that did not happen.
    """

    items: Floats
    confidence: float
    regularization: float

    def fold_in(self, history: csr_array) -> Floats:
        """float32[b, d]: the shoppers' factors that fit their histories [b, n] best, as the last half-step of a fit."""
        dims = self.items.shape[1]
        shoppers = np.zeros((history.shape[0], dims), np.float32)
        base = self.items.T.astype(np.float64) @ self.items + self.regularization * np.eye(dims)
        for row in range(history.shape[0]):
            lo, hi = history.indptr[row], history.indptr[row + 1]
            if lo == hi:
                continue
            factors = self.items[history.indices[lo:hi]].astype(np.float64)
            weight = self.confidence * history.data[lo:hi].astype(np.float64)
            left = base + (factors * (weight - 1)[:, None]).T @ factors
            shoppers[row] = np.linalg.solve(left, weight @ factors)
        return shoppers

    def score(self, history: csr_array) -> Floats:
        """float32[b, n] of b shoppers with the histories [b, n]."""
        return np.asarray(self.fold_in(history) @ self.items.T, np.float32)


def fit_als(
    matrix: csr_array,
    *,
    factors: int = FACTORS,
    confidence: float = ALPHA,
    regularization: float = REGULARIZATION,
    iterations: int = ITERATIONS,
    seed: int = 0,
    threads: int = 0,
) -> Factors:
    """Fit [shoppers × items]; an entry's value is its weight. `threads` 0: one per core.

    A seeded fit is the same on every run with the same number of threads.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    # BLAS threads under implicit's own would be cores squared.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = AlternatingLeastSquares(
            factors=factors,
            alpha=confidence,
            regularization=regularization,
            iterations=iterations,
            random_state=seed,
            num_threads=threads,
        )
        model.fit(csr_matrix(matrix.astype(np.float32)), show_progress=False)
    return Factors(
        items=np.asarray(model.item_factors, np.float32), confidence=confidence, regularization=regularization
    )
