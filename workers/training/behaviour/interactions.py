"""The columnar log of what shoppers did, and the shopper × item matrix made of it."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

DAY: Final = 86_400

CAP: Final = 200
"""Items of one shopper that count for what goes together. Pairs grow with the square: without a limit a few heavy
shoppers (resellers, bots) would be most of the work, of the memory and of the outcome."""


class Interactions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Events as columns of equal length, in any order.

    `shopper` and `item` are numbers as PostgreSQL gives them (any, not dense); `weight` what the event says about the
    shopper's liking (0 and negatives included); `ts` seconds since 1970; `group` the basket or session, None where
    the source has none.
    """

    shopper: Longs
    item: Ints
    weight: Floats
    ts: Longs
    group: Longs | None = None

    def __len__(self) -> int:
        return len(self.item)

    def take(self, chosen: NDArray[np.bool_] | Longs) -> "Interactions":
        """The rows that a mask or an index chooses."""
        return Interactions(
            shopper=self.shopper[chosen],
            item=self.item[chosen],
            weight=self.weight[chosen],
            ts=self.ts[chosen],
            group=None if self.group is None else self.group[chosen],
        )


class ShopperItems(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Shoppers × items. Row r is the shopper `shoppers[r]`, column c the item `items[c]`, both ascending.

    `weights` float32[m, n] holds the decayed sum of weights where it is above 0; `counts` (the number of events) and
    `last` (seconds, the latest) have one entry for each stored entry of it, in its order.
    """

    weights: csr_array
    counts: Floats
    last: Longs
    shoppers: Longs
    items: Ints

    @property
    def binary(self) -> csr_array:
        """1 where a shopper met an item; shares its indices with `weights`."""
        return self.like(np.ones(self.weights.nnz, np.float32))

    def rows(self, chosen: Longs) -> "ShopperItems":
        """These rows, in this order."""
        sizes = np.diff(self.weights.indptr)[chosen]
        indptr = np.r_[0, np.cumsum(sizes)].astype(np.int32)
        entry = np.repeat(self.weights.indptr[chosen] - indptr[:-1], sizes) + np.arange(indptr[-1])
        weights = csr_array(
            (self.weights.data[entry], self.weights.indices[entry], indptr), shape=(len(chosen), len(self.items))
        )
        return ShopperItems(
            weights=weights,
            counts=self.counts[entry],
            last=self.last[entry],
            shoppers=self.shoppers[chosen],
            items=self.items,
        )

    def like(self, data: Floats) -> csr_array:
        """The matrix of these places with other values."""
        return csr_array((data, self.weights.indices, self.weights.indptr), shape=self.weights.shape)


def shopper_items(
    log: Interactions,
    *,
    items: Ints | None = None,
    shoppers: Longs | None = None,
    now: int | None = None,
    half_life_days: float | None = None,
) -> ShopperItems:
    """Sum the log into a matrix.

    `items` and `shoppers` (ascending, without repeats) fix the columns and rows; rows of the log outside of them are
    left out; None takes those of the log. With `half_life_days` an event of age a (at `now`, default the latest event)
    weighs 2^(-a / half life). Pairs whose weights sum to 0 or less are left out.
    """
    items = np.unique(log.item) if items is None else items
    shoppers = np.unique(log.shopper) if shoppers is None else shoppers
    row, known_row = _places(shoppers, log.shopper)
    column, known_column = _places(items, log.item)
    known = known_row & known_column
    if not known.all():
        row, column, log = row[known], column[known], log.take(known)
    weight = log.weight.astype(np.float64)
    if half_life_days is not None and len(log):
        age = (int(log.ts.max()) if now is None else now) - log.ts
        weight *= np.exp2(-np.maximum(age, 0) / (half_life_days * DAY))
    width = max(len(items), 1)
    pair = row * width + column
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    starts = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]]) if len(pair) else np.zeros(0, np.int64)
    total = np.add.reduceat(weight[order], starts) if len(pair) else weight
    counts = np.diff(np.r_[starts, len(pair)])
    last = np.maximum.reduceat(log.ts[order], starts) if len(pair) else log.ts
    kept = total > 0
    pair = pair[starts][kept]
    indptr = np.searchsorted(pair, np.arange(len(shoppers) + 1, dtype=np.int64) * width).astype(np.int32)
    weights = csr_array(
        (total[kept].astype(np.float32), (pair % width).astype(np.int32), indptr), shape=(len(shoppers), len(items))
    )
    return ShopperItems(
        weights=weights, counts=counts[kept].astype(np.float32), last=last[kept], shoppers=shoppers, items=items
    )


def cap_rows(matrix: csr_array, order: NDArray[np.generic], cap: int = CAP) -> csr_array:
    """Keep the `cap` entries of each row with the highest `order` (one value per stored entry), where it has more."""
    sizes = np.diff(matrix.indptr)
    if matrix.nnz == 0 or sizes.max() <= cap:
        return matrix
    kept = np.ones(matrix.nnz, bool)
    for row in np.flatnonzero(sizes > cap):
        lo, hi = matrix.indptr[row], matrix.indptr[row + 1]
        kept[lo + np.argsort(order[lo:hi], kind="stable")[: hi - lo - cap]] = False
    indptr = np.r_[0, np.cumsum(np.minimum(sizes, cap))].astype(np.int32)
    return csr_array((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def _places(known: NDArray[np.generic], values: NDArray[np.generic]) -> tuple[Longs, NDArray[np.bool_]]:
    """Where each value stands in the ascending `known`, and whether it is there at all."""
    if not len(known):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1).astype(np.int64)
    return place, known[place] == values
