"""The leading right singular vectors of a large sparse matrix, by block Lanczos."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, solve_triangular
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from workers.training.behaviour.interactions import Floats

EXACT_TO: Final = 1_200
"""Up to this many rows or columns their Gram matrix is decomposed as a whole (under a second), to machine precision."""

BLOCK: Final = 32
WIDTH: Final = 3
"""Columns of the Krylov basis for each vector wanted."""


def leading_vectors(matrix: csr_array, dims: int, *, seed: int = 0, width: float = WIDTH) -> tuple[Floats, Floats]:
    """Right singular vectors float32[n, d] and singular values float32[d], largest first, d = min(dims, m, n).

    Block Lanczos on AᵀA with full orthogonalisation and no restart (Golub and Underwood 1977): the exact answer
    within span(X, AᵀA X, (AᵀA)² X, …) of `width` · dims columns. Against subspace iteration it captures more with a
    third of the products, as nothing that was computed is thrown away. Columns of the value 0 are left out.
    """
    # BLAS threads spin while they wait for each other: beside other work on the same cores two are slower than one.
    with threadpool_limits(1, "blas"):
        return _leading(matrix, dims, seed, width)


def _leading(matrix: csr_array, dims: int, seed: int, width: float) -> tuple[Floats, Floats]:
    n = matrix.shape[1]
    dims = min(dims, *matrix.shape)
    if dims == 0 or matrix.nnz == 0:
        return np.zeros((n, 0), np.float32), np.zeros(0, np.float32)
    if n <= EXACT_TO:
        values, vectors = eigh((matrix.T @ matrix).toarray().astype(np.float64), subset_by_index=[n - dims, n - 1])
        return _largest(vectors, values)
    if (m := matrix.shape[0]) <= EXACT_TO:
        values, left = eigh((matrix @ matrix.T).toarray().astype(np.float64), subset_by_index=[m - dims, m - 1])
        return _largest((matrix.T @ left) / np.sqrt(np.maximum(values, 1e-30)), values)
    steps = min(int(np.ceil(dims * width / BLOCK)) + 4, min(matrix.shape) // BLOCK)
    transposed = matrix.T.tocsr()
    basis = np.empty((n, steps * BLOCK), np.float32, order="F")
    inner = np.zeros((steps * BLOCK, steps * BLOCK))
    block = _orthonormal(np.random.default_rng(seed).standard_normal((n, BLOCK), np.float32))
    for step in range(steps):
        lo, hi = step * BLOCK, (step + 1) * BLOCK
        basis[:, lo:hi] = block
        block = transposed @ (matrix @ block)
        inner[:hi, lo:hi] = basis[:, :hi].T @ block
        # Normalised in between: what is left of a block when all of the spectrum is found is rounding, and only as
        # columns of length 1 is it made orthogonal to the basis; else copies of found vectors come back.
        for _ in range(2):
            block = _orthonormal(np.asarray(block - basis[:, :hi] @ (basis[:, :hi].T @ block), np.float32))
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
    """Orthonormal columns, float32, that span at least what these do.

    By Cholesky of the Gram matrix in doubles, many times faster than Householder on tall matrices; where the columns
    are nearly dependent that loses too much, and Householder fills up with other directions.
    """
    wide = columns.astype(np.float64)
    wide /= np.maximum(np.sqrt(np.einsum("ij,ij->j", wide, wide)), 1e-300)
    try:
        factor = np.linalg.cholesky(wide.T @ wide)
    except np.linalg.LinAlgError:
        factor = np.zeros((1, 1))
    if np.diagonal(factor).min() < 1e-4:
        return np.linalg.qr(wide)[0].astype(np.float32)
    return (wide @ solve_triangular(factor, np.eye(len(factor)), lower=True).T).astype(np.float32)
