"""The model that serves, as its rows are: to hold a new one against."""

from pathlib import Path
from typing import Final

import numpy as np

from infra.copybinary import read_records
from workers.training.behaviour.borrowed import Borrowed
from workers.training.behaviour.interactions import Ints
from workers.training.behaviour.neighbours import cut_rows
from workers.training.shop.factors import ServedFactors
from workers.training.shop.likes import matrix_of, read_likes
from workers.training.shop.plan import SERVED, Champion

_COLUMNS: Final = {"item": "int4", "own": "float4"}


def read_served(lists: Path, vectors: Path, items: Ints, champion: Champion) -> Borrowed | ServedFactors:
    """The graph filter or the factors of a model over the columns `items` (ascending); others of its items are left
    out. The files are what `tenants.learned.models.copy_served` writes.
    """
    own = np.zeros(len(items), np.float32)
    sides = np.zeros((2, len(items), champion.dims), np.float32)
    records = read_records(vectors, {**_COLUMNS, "vec": f"halfvec({2 * champion.dims})"})
    place = np.minimum(np.searchsorted(items, records["item"]), len(items) - 1)
    known = np.flatnonzero(items[place] == records["item"])
    own[place[known]] = records["own"][known]
    for at in range(0, len(known), _ROWS_AT_ONCE):
        rows = known[at : at + _ROWS_AT_ONCE]
        vec = records["vec"][rows].astype(np.float32)
        sides[0, place[rows]], sides[1, place[rows]] = vec[:, : champion.dims], vec[:, champion.dims :]
    sources, targets = sides
    if champion.space == "als":
        return ServedFactors(sources=sources, targets=targets)
    near = cut_rows(matrix_of(read_likes(lists), items), SERVED)
    return Borrowed(neighbours=near, own=own, sources=sources, targets=targets, alpha=champion.alpha)


_ROWS_AT_ONCE: Final = 4096
