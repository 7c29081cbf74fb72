"""The closed-form graph filter GF-CF (Shen et al., "How powerful is graph convolution for recommendation", CIKM 2021).

With R the binary shopper × item matrix and R̃ = D_u^-½ R D_i^-½, a shopper with the history x (binary, over items)
scores the items by x · (R̃ᵀR̃ + α · D_i^-½ V Vᵀ D_i^½), V the leading right singular vectors of R̃. No training: two
sparse products, one decomposition. Any new event changes the shopper's next answer, with no fit at all.
"""

from typing import Final

import msgspec
import numpy as np
from scipy.sparse import csr_array, diags_array

from workers.training.behaviour.interactions import Floats
from workers.training.behaviour.neighbours import NEIGHBOURS, Neighbours, neighbours_of_product
from workers.training.behaviour.spectrum import leading_vectors

DIMS: Final = 256
ALPHA: Final = 0.3


class Graph(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What PostgreSQL holds of a graph filter over n items.

    `neighbours`: R̃ᵀR̃ without its diagonal, cut to the highest entries of each row; `own` float32[n] the diagonal (of
    use only where items may be recommended again); `vectors` float32[n, d] = V, whose lengths are at most 1, so
    float16 serves; `degree` float32[n] shoppers per item; `alpha` the weight of the spectral part.
    """

    neighbours: Neighbours
    own: Floats
    vectors: Floats
    degree: Floats
    alpha: float

    def sources(self) -> Floats:
        """float32[n, d]: what an item of the history adds to the shopper's vector, V / √degree."""
        return np.asarray(self.vectors / np.sqrt(np.maximum(self.degree, 1))[:, None], np.float32)

    def targets(self) -> Floats:
        """float32[n, d]: what the shopper's vector is multiplied by, V · √degree."""
        return np.asarray(self.vectors * np.sqrt(self.degree)[:, None], np.float32)

    def score(self, history: csr_array) -> Floats:
        """float32[b, n] of b shoppers; `history` float32[b, n], 1 (or a weight) where an item was met."""
        near = history @ self.neighbours.sparse + history.multiply(self.own[None, :])
        spectral = (history @ self.sources()) @ self.targets().T
        return np.asarray(near.toarray() + self.alpha * spectral, np.float32)


class ExactGraph(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The filter with nothing cut, which keeps R̃ itself: the yardstick of `Graph`, and of published figures.

    `transposed` float32[n, m] and `normalised` float32[m, n] are R̃ in both orders.
    """

    normalised: csr_array
    transposed: csr_array
    vectors: Floats
    degree: Floats
    alpha: float

    def score(self, history: csr_array) -> Floats:
        """float32[b, n] of b shoppers, as `Graph.score`."""
        near = ((history @ self.transposed) @ self.normalised).toarray()
        root = np.sqrt(self.degree)[:, None]
        spectral = (history @ (self.vectors / np.maximum(root, 1))) @ (self.vectors * root).T
        return np.asarray(near + self.alpha * spectral, np.float32)


def normalise(matrix: csr_array) -> tuple[csr_array, Floats]:
    """R̃ of the binary `matrix`, and shoppers per item, float32[n]."""
    shoppers = np.diff(matrix.indptr).astype(np.float64)
    degree = np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float64)
    row = diags_array(1 / np.sqrt(np.maximum(shoppers, 1)))
    column = diags_array(1 / np.sqrt(np.maximum(degree, 1)))
    binary = csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    return csr_array(row @ binary @ column).astype(np.float32), degree.astype(np.float32)


def fit_graph(
    matrix: csr_array, *, keep: int = NEIGHBOURS, dims: int = DIMS, alpha: float = ALPHA, seed: int = 0
) -> Graph:
    """The filter of `matrix` [shoppers × items] (every stored entry counts as 1), cut to `keep` neighbours an item.

    Memory beside the matrix: the answer, a block of the Gram matrix, and (m + 2n) × (dims + 32) floats.
    """
    normalised, degree = normalise(matrix)
    neighbours, own = neighbours_of_product(normalised.T.tocsr(), normalised, keep=keep)
    vectors, _ = leading_vectors(normalised, dims, seed=seed)
    return Graph(neighbours=neighbours, own=own, vectors=vectors, degree=degree, alpha=alpha)


def fit_exact_graph(matrix: csr_array, *, dims: int = DIMS, alpha: float = ALPHA, seed: int = 0) -> ExactGraph:
    """The filter with nothing cut; scoring costs a pass over the histories of the shoppers who share an item."""
    normalised, degree = normalise(matrix)
    vectors, _ = leading_vectors(normalised, dims, seed=seed, width=4)
    return ExactGraph(
        normalised=normalised, transposed=normalised.T.tocsr(), vectors=vectors, degree=degree, alpha=alpha
    )
