"""The nearest of every item by text and photos, exactly, in blocks: the same score as the live list has.

The score is that of `tenants/retrieval/likeness.py` for one seed: z = Σ w_h (cos_h − mean_h) / dev_h over the halves h
that both sides have, divided by the norm of their weights; z of an item with itself scales it to 0..1.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

KEPT: Final = 200
"""Neighbours kept of each item: a filter that passes a tenth still leaves a list of 20."""

_BLOCK_BYTES: Final = 24 * 1024 * 1024
"""One block of scores; half a dozen such blocks exist at once."""

_MOST_SEEDS: Final = 2048
_BUCKET: Final = 16

_SAME: Final = np.float32(1e-5)
"""Scores that differ by less are equal: a matrix product rounds by where in the matrix a column stands."""


class Half(Struct, frozen=True, kw_only=True):
    """One half of the dial: `weight` ≥ 0, and mean and deviation of random pairs by space."""

    weight: float
    spread: dict[int, tuple[float, float]]


class Catalogue(Struct, frozen=True, kw_only=True, eq=False):
    """Items in any order, columns of equal length.

    `vectors` float32[n, text_dim + image_dim], halves of unit length or zero; `text_space` and `image_space` the
    spaces they are of, 0 for none; `group` a code per group of variants, different for every item without one;
    `shown` whether the item can be recommended now: among variants only such ones are listed, where there is one.
    """

    item_no: Ints
    vectors: Floats
    text_dim: int
    text_space: NDArray[np.int16]
    image_space: NDArray[np.int16]
    group: Ints
    shown: NDArray[np.bool_]


class Lists(Struct, frozen=True, kw_only=True, eq=False):
    """Of each seed in `item_no`, `others` int32[b, k] item numbers, best first, and `scores` int16[b, k] in 1/32767;
    `sizes` says how many of a row count.
    """

    item_no: Ints
    others: Ints
    scores: NDArray[np.int16]
    sizes: Ints


Progress = Callable[[int], None]
"""Told how many items are done."""


def nearest_lists(
    catalogue: Catalogue, text: Half, image: Half, *, keep: int = KEPT, progress: Progress = lambda _: None
) -> Iterator[Lists]:
    """The lists of all items that have any, block by block; of each other group its best variant, ties by number.

    Beside the vectors it holds a few blocks of `_BLOCK_BYTES`, whatever the number of items.
    """
    # Variants stand together, so that the best of a group is a maximum over a slice; the first group has the smallest
    # number, so that equal scores come in the order of numbers.
    shown = _listed(catalogue)
    first = np.full(int(catalogue.group.max(initial=-1)) + 1, np.iinfo(np.int32).max, np.int32)
    np.minimum.at(first, catalogue.group, catalogue.item_no)
    order = np.lexsort((catalogue.item_no, first[catalogue.group]))
    columns = order[shown[order]]
    groups = catalogue.group[columns]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(columns) else np.zeros(0, np.int64)
    column_of_group = np.full(len(first), -1, np.int64)
    column_of_group[groups[starts]] = np.arange(len(starts))
    table = _Table(catalogue, columns, starts, text, image)
    rows = max(1, min(_MOST_SEEDS, _BLOCK_BYTES // (4 * max(1, len(columns)))))
    done = 0
    photographed = catalogue.image_space > 0
    for text_space, has_image in sorted(set(zip(catalogue.text_space.tolist(), photographed.tolist(), strict=True))):
        alike = order[(catalogue.text_space[order] == text_space) & (photographed[order] == has_image)]
        for at in range(0, len(alike), rows):
            seeds = alike[at : at + rows]
            scores = table.scores(seeds, text_space, has_image)
            if scores is not None:
                yield table.lists(seeds, scores, column_of_group[catalogue.group[seeds]], keep)
            done += len(seeds)
            progress(done)


def _listed(catalogue: Catalogue) -> NDArray[np.bool_]:
    """Which items may be listed: of a group the variants that can be recommended, all where none can."""
    some = np.zeros(int(catalogue.group.max(initial=-1)) + 1, bool)
    some[catalogue.group[catalogue.shown]] = True
    return catalogue.shown | ~some[catalogue.group]


class _Table:
    """The items as columns of the score matrix, group by group; `starts` is where each group begins."""

    def __init__(
        self, catalogue: Catalogue, columns: NDArray[np.int64], starts: NDArray[np.int64], text: Half, image: Half
    ) -> None:
        self._catalogue = catalogue
        self._columns = columns
        self._starts = starts
        self._text = text
        self._image = image
        self._numbers = catalogue.item_no[columns]
        self._text_space = catalogue.text_space[columns]
        self._has_image = catalogue.image_space[columns] > 0
        self._sizes = np.diff(np.r_[starts, len(columns)])
        self._singles = len(starts) == len(columns)

    def scores(self, seeds: NDArray[np.int64], text_space: int, has_image: bool) -> Floats | None:
        """float32[b, columns] of seeds that have the same halves, in 0..1 before it is cut off; None where no half
        counts.
        """
        catalogue, dim = self._catalogue, self._catalogue.text_dim
        text_weight = self._text.weight if text_space else 0.0
        image_weight = self._image.weight if has_image else 0.0
        if not text_weight and not image_weight:
            return None
        text_mean, text_dev = _spread(self._text, text_space)
        image_mean, image_dev = _spread(self._image, int(catalogue.image_space[seeds[0]]))
        query = catalogue.vectors[seeds] * np.r_[
            np.full(dim, text_weight / text_dev, np.float32),
            np.full(catalogue.vectors.shape[1] - dim, image_weight / image_dev, np.float32),
        ].astype(np.float32)
        same_text = (self._text_space == text_space) & (text_weight > 0)
        same_image = self._has_image & (image_weight > 0)
        shared = np.sqrt(same_text * text_weight**2 + same_image * image_weight**2)
        bias = same_text * (text_weight * text_mean / text_dev) + same_image * (image_weight * image_mean / image_dev)
        best = (text_weight * (1 - text_mean) / text_dev + image_weight * (1 - image_mean) / image_dev) / np.hypot(
            text_weight, image_weight
        )
        out = self._product(query, foreign=bool(((self._text_space > 0) & ~same_text).any()), same_text=same_text)
        out -= bias.astype(np.float32)
        with np.errstate(divide="ignore"):
            out *= np.where(shared > 0, 1 / (best * shared), 0).astype(np.float32)
        if not (shared > 0).all():
            out[:, shared == 0] = -np.inf
        return out

    def _product(self, query: Floats, *, foreign: bool, same_text: NDArray[np.bool_]) -> Floats:
        dim, vectors = self._catalogue.text_dim, self._catalogue.vectors
        if not query[:, :dim].any():
            # By photos alone: most of the product would be with zeros.
            dim, vectors, query, foreign = 0, vectors[:, dim:], query[:, dim:], False
        out = np.empty((len(query), len(self._columns)), np.float32)
        width = max(1, _BLOCK_BYTES // (4 * vectors.shape[1]))
        for at in range(0, len(self._columns), width):
            part = slice(at, at + width)
            block = vectors[self._columns[part]]
            if foreign:
                # A text of another space has no cosine with the seed's.
                block[~same_text[part], :dim] = 0
            np.matmul(query, block.T, out=out[:, part])
        return out

    def lists(self, seeds: NDArray[np.int64], scores: Floats, own_group: NDArray[np.int64], keep: int) -> Lists:
        """Cut the scores of a block of seeds."""
        by_group = scores if self._singles else np.maximum.reduceat(scores, self._starts, axis=1)
        by_group[np.flatnonzero(own_group >= 0), own_group[own_group >= 0]] = -np.inf
        row, group = np.nonzero(by_group >= _thresholds(by_group, keep)[:, None] - _SAME)
        value = by_group[row, group]
        there = value > -np.inf
        row, group, value = row[there], group[there], value[there]
        number = self._numbers[self._best_variant(scores, row, group, value)]
        ranked = np.lexsort((number, -np.round(value / _SAME), row))
        row, number, value = row[ranked], number[ranked], value[ranked]
        begins = np.searchsorted(row, np.arange(len(seeds) + 1))
        place = np.arange(len(row)) - begins[row]
        kept = place < keep
        row, place, number, value = row[kept], place[kept], number[kept], value[kept]
        others = np.zeros((len(seeds), keep), np.int32)
        stored = np.zeros((len(seeds), keep), np.int16)
        others[row, place] = number
        stored[row, place] = np.round(np.clip(value, 0, 1) * 32767).astype(np.int16)
        return Lists(
            item_no=self._catalogue.item_no[seeds],
            others=others,
            scores=stored,
            sizes=np.minimum(np.diff(begins), keep).astype(np.int32),
        )

    def _best_variant(
        self, scores: Floats, row: NDArray[np.int64], group: NDArray[np.int64], value: Floats
    ) -> NDArray[np.int64]:
        """The column of each chosen group's best variant, the first of equals."""
        if self._singles:
            return group
        column = self._starts[group]
        several = np.flatnonzero(self._sizes[group] > 1)
        if len(several):
            size = self._sizes[group[several]]
            pair = np.repeat(np.arange(len(several)), size)
            offset = np.arange(len(pair)) - np.repeat(np.cumsum(size) - size, size)
            candidate = column[several][pair] + offset
            hit = np.flatnonzero(scores[row[several][pair], candidate] >= value[several][pair] - _SAME)
            # Backwards, so that the first of a pair's hits is written last.
            column[several[pair[hit[::-1]]]] = candidate[hit[::-1]]
        return column


def _spread(half: Half, space: int) -> tuple[float, float]:
    mean, dev = half.spread.get(space, (0.0, 1.0))
    return mean, max(dev, 1e-3)


def _thresholds(scores: Floats, keep: int) -> Floats:
    """Of each row a value that at least `keep` entries reach, and few more; the lowest where the row is short.

    Taken from the maxima of buckets: as many entries reach the k-th highest of them. A fraction of the cost of
    partitioning the rows themselves.
    """
    rows, columns = scores.shape
    if columns <= keep:
        return np.full(rows, -np.inf, np.float32)
    whole = columns // _BUCKET
    if whole < 2 * keep:
        edge: Floats = np.partition(scores, columns - keep, axis=1)[:, columns - keep]
        return edge
    maxima = scores[:, : whole * _BUCKET].reshape(rows, whole, _BUCKET).max(axis=2)
    edge = np.partition(maxima, whole - keep, axis=1)[:, whole - keep]
    return edge
