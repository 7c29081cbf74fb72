"""Matrix factors as they are served: a shopper is the sum over the history, as with the graph filter.

The exact fold-in of iALS solves a system per shopper, (YᵀY + λ + Σ (c − 1) y yᵀ) x = Σ c y. Without the sum on the
left, which is small beside YᵀY, x = (YᵀY + λ)⁻¹ Σ y but for a factor: one source and one target per item, and a query
does the rest.
"""

import numpy as np
from msgspec import Struct
from scipy.sparse import csr_array

from workers.training.behaviour.als import fit_als
from workers.training.behaviour.interactions import Floats


class ServedFactors(Struct, frozen=True, kw_only=True, eq=False):
    """`sources`, `targets` float32[n, d]: what an item of the history adds, what the shopper is multiplied by."""

    sources: Floats
    targets: Floats

    def score(self, history: csr_array) -> Floats:
        """float32[b, n] of b shoppers with the histories [b, n]."""
        return np.asarray((history @ self.sources) @ self.targets.T, np.float32)


def fit_factors(binary: csr_array, mix: csr_array | None, *, factors: int) -> ServedFactors:
    """Fit iALS on shoppers × items of 1; `mix` float32[n, n] is what each item's factors are made of."""
    model = fit_als(binary, factors=factors)
    items = model.items if mix is None else np.asarray(mix @ model.items, np.float32)
    gram = model.items.T.astype(np.float64) @ model.items + model.regularization * np.eye(model.items.shape[1])
    return ServedFactors(
        sources=np.asarray(np.linalg.solve(gram, items.T.astype(np.float64)).T, np.float32), targets=items
    )
