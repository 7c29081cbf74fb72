"""Figures of parts: items by how many shoppers they had, shoppers by how many items, categories, sellers."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workers.evaluation.metrics import hits
from workers.training.behaviour.interactions import Floats, Ints

BUCKETS: Final = (("0", 0, 0), ("1–4", 1, 4), ("5–19", 5, 19), ("20+", 20, 1 << 40))
LARGEST: Final = 8
"""Categories and sellers that get a line of their own: those with the most items asked for."""


class Slice(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`items` bool[n] chooses which of the items that were asked for count, `shoppers` bool[b] who; None: all."""

    kind: str
    name: str
    items: NDArray[np.bool_] | None = None
    shoppers: NDArray[np.bool_] | None = None

    def recall(self, lists: Ints, wanted: csr_array) -> NDArray[np.float64]:
        """Recall of the items of the slice in full lists [b, k], per shopper of the slice who wanted one of them."""
        if self.shoppers is not None:
            chosen = np.flatnonzero(self.shoppers)
            lists, wanted = lists[chosen], wanted[chosen]
        if self.items is None:
            count, shown = np.diff(wanted.indptr), lists
        else:
            rows = np.repeat(np.arange(wanted.shape[0]), np.diff(wanted.indptr))
            count = np.bincount(rows[self.items[wanted.indices]], minlength=wanted.shape[0])
            shown = np.where((lists >= 0) & self.items[np.maximum(lists, 0)], lists, -1)
        asked = count > 0
        return np.asarray(hits(shown, wanted).sum(axis=1)[asked] / count[asked])


def make_slices(
    degree: Floats,
    history: NDArray[np.integer],
    wanted: csr_array,
    categories: Sequence[str | None],
    sellers: Sequence[str | None],
) -> list[Slice]:
    """The slices of an evaluation. `degree` float32[n] shoppers per item, `history` int[b] items per shopper who is
    asked; `categories` and `sellers` name those of each item.
    """
    found = [
        Slice(kind="item history", name=name, items=(degree >= low) & (degree <= high)) for name, low, high in BUCKETS
    ]
    found += [
        Slice(kind="shopper history", name=name, shoppers=(history >= low) & (history <= high))
        for name, low, high in BUCKETS[1:]
    ]
    for kind, names in (("category", categories), ("seller", sellers)):
        asked = Counter(name for item in wanted.indices if (name := names[item]) is not None)
        array = np.array([name or "" for name in names], dtype=object)
        found += [Slice(kind=kind, name=name, items=array == name) for name, _ in asked.most_common(LARGEST)]
    return found
