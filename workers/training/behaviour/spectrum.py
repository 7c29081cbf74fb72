"""The leading right singular vectors of a large sparse matrix, by block Lanczos."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, solve_triangular
from scipy.sparse import csr_array

from workers.training.behaviour.interactions import Floats

EXACT_TO: Final = 1_200
"""Up to this many columns the Gram matrix is decomposed as a whole (under a second), to machine precision."""

BLOCK: Final = 32
WIDTH: Final = 3
"""Columns of the Krylov basis for each vector wanted."""


def leading_vectors(matrix: csr_array, dims: int, *, seed: int = 0, width: float = WIDTH) -> tuple[Floats, Floats]:
    """Right singular vectors float32[n, d] and singular values float32[d], largest first, d = min(dims, m, n).

    Block Lanczos on AᵀA with full orthogonalisation and no restart (Golub and Underwood 1977): the exact answer
    within span(X, AᵀA X, (AᵀA)² X, …) of `width` · dims columns. Against subspace iteration it captures more with a
    third of the products, as nothing that was computed is thrown away. Columns of the value 0 are left out.
    """
    n = matrix.shape[1]
    dims = min(dims, *matrix.shape)
    if dims == 0 or matrix.nnz == 0:
        return np.zeros((n, 0), np.float32), np.zeros(0, np.float32)
    if n <= EXACT_TO:
        values, vectors = eigh((matrix.T @ matrix).toarray().astype(np.float64), subset_by_index=[n - dims, n - 1])
        return _largest(vectors, values)
    steps = max(2, int(np.ceil(min(dims * width, n // 2) / BLOCK)))
    transposed = matrix.T.tocsr()
    basis = np.empty((n, steps * BLOCK), np.float32, order="F")
    inner = np.zeros((steps * BLOCK, steps * BLOCK))
    block = _orthonormal(np.random.default_rng(seed).standard_normal((n, BLOCK), np.float32))
    for step in range(steps):
        lo, hi = step * BLOCK, (step + 1) * BLOCK
        basis[:, lo:hi] = block
        block = transposed @ (matrix @ block)
        inner[:hi, lo:hi] = basis[:, :hi].T @ block
        # Twice: once loses orthogonality in single precision, and copies of found vectors come back.
        for _ in range(2):
            block -= basis[:, :hi] @ (basis[:, :hi].T @ block)
        block = _orthonormal(block)
    inner = np.triu(inner) + np.triu(inner, 1).T
    values, rotation = eigh(inner, subset_by_index=[len(inner) - dims, len(inner) - 1])
    return _largest(basis @ rotation.astype(np.float32), values)


def _largest(vectors: NDArray[np.floating], values: NDArray[np.float64]) -> tuple[Floats, Floats]:
    order = np.argsort(values)[::-1]
    singular = np.sqrt(np.maximum(values[order], 0))
    real = singular > 1e-5 * max(float(singular[0]), 1e-30)
    vectors = vectors[:, order[real]]
    # The sign of a singular vector means nothing; fixing it makes a repeated fit comparable.
    sign = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return (vectors * sign).astype(np.float32), singular[real].astype(np.float32)


def _orthonormal(columns: Floats) -> Floats:
    """The same span with orthonormal columns, float32.

    By Cholesky of the Gram matrix in doubles, twice: many times faster than Householder on tall matrices.
    """
    for _ in range(2):
        wide = columns.astype(np.float64)
        gram = wide.T @ wide
        scale = np.sqrt(np.maximum(np.diagonal(gram), 1e-60))
        gram /= scale * scale[:, None]
        gram[np.diag_indices(len(gram))] += 1e-9
        inverse = solve_triangular(np.linalg.cholesky(gram), np.eye(len(gram)), lower=True).T / scale[:, None]
        columns = (wide @ inverse).astype(np.float32)
    return columns
