"""The precomputed neighbours in content, as the models of behaviour use them: to lend, and to compare with."""

from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array

from infra.copybinary import read_records
from workers.training.behaviour.borrowed import LENDERS, WARM
from workers.training.behaviour.interactions import Floats, Ints
from workers.training.behaviour.neighbours import Neighbours

COLUMNS: Final = {"item": "int4", "other": "int4", "score": "int2"}

_SHARPNESS: Final = 7.5
"""10 · cos, as a score runs from the cosine of random pairs, about 0.25, to 1."""


class Likes(Struct, frozen=True, kw_only=True, eq=False):
    """Pairs of items alike by content: numbers `item` and `other`, `score` in 0..1, the likest of an item first."""

    item: Ints
    other: Ints
    score: Floats


def read_likes(path: Path) -> Likes:
    """A binary COPY of `COLUMNS`."""
    records = read_records(path, COLUMNS)
    item, score = records["item"].astype(np.int32), np.asarray(records["score"] / 32767, np.float32)
    order = np.lexsort((-score, item))
    return Likes(item=item[order], other=records["other"].astype(np.int32)[order], score=score[order])


def matrix_of(likes: Likes, items: Ints) -> csr_array:
    """float32[n, n] over the columns `items` (ascending)."""
    known = np.isin(likes.item, items) & np.isin(likes.other, items) & (likes.score > 0)
    row, column = np.searchsorted(items, likes.item[known]), np.searchsorted(items, likes.other[known])
    return csr_array((likes.score[known], (row, column)), shape=(len(items), len(items)), dtype=np.float32)


def lent_to(likes: Likes, items: Ints, degree: Floats) -> Neighbours:
    """Whose behaviour each of `items` borrows: its likest items with at least WARM shoppers, weights that sum to 1."""
    warm = items[degree >= WARM]
    usable = np.isin(likes.item, items) & np.isin(likes.other, warm)
    row = np.searchsorted(items, likes.item[usable])
    column = np.searchsorted(items, likes.other[usable])
    score = likes.score[usable]
    begins = np.searchsorted(row, np.arange(len(items) + 1))
    place = np.arange(len(row)) - begins[row]
    kept = place < LENDERS
    ids = np.full((len(items), LENDERS), -1, np.int32)
    weights: NDArray[np.float32] = np.zeros((len(items), LENDERS), np.float32)
    ids[row[kept], place[kept]] = column[kept]
    weights[row[kept], place[kept]] = np.exp(_SHARPNESS * (score[kept] - 1))
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return Neighbours(ids=ids, scores=weights)
