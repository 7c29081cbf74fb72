"""The nearest of every item by text and photos, exactly, in tiles: the same score as the live list has.

The score is that of `tenants/retrieval/likeness.py` for one seed: z = Σ w_h (cos_h − mean_h) / dev_h over the halves h
that both sides have, divided by the norm of their weights; z of an item with itself scales it to 0..1.

A tile, some seeds by some columns, is made and looked through while it is in the processor's cache. Its two products
serve the lists of every dial, and each thread has tiles of its own.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from workers.training.content.strongest import SAME, Floats, Longs, Strongest

Ints = NDArray[np.int32]

KEPT: Final = 200
"""Neighbours kept of each item: a filter that passes a tenth still leaves a list of 20."""

_SEEDS: Final = 512
_TILE_BYTES: Final = 1024 * 1024
"""One tile of scores: what the cache of a core holds. A thread has four, and what it has found."""

_MOST_THREADS: Final = 4


class Half(Struct, frozen=True, kw_only=True):
    """One half of the dial: `weight` ≥ 0, and mean and deviation of random pairs by space."""

    weight: float
    spread: dict[int, tuple[float, float]]


class Dial(Struct, frozen=True, kw_only=True):
    """One kind of list (number of `item_neighbours.kind`) and the weights it is made with."""

    kind: int
    text: Half
    image: Half


class Catalogue(Struct, frozen=True, kw_only=True, eq=False):
    """Items in any order, columns of equal length.

    `vectors` float32[n, text_dim + image_dim], halves of unit length or zero; `text_space` and `image_space` the
    spaces they are of, 0 for none; `group` a code ≥ 0 per group of variants, different for every item without one;
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
    `sizes` says how many of a row count. `kind` is that of the dial.
    """

    kind: int
    item_no: Ints
    others: Ints
    scores: NDArray[np.int16]
    sizes: Ints


Progress = Callable[[int], None]
"""Told how many items are done."""


def nearest_lists(
    catalogue: Catalogue,
    dials: Sequence[Dial],
    *,
    keep: int = KEPT,
    threads: int | None = None,
    progress: Progress = lambda _: None,
) -> Iterator[Lists]:
    """The lists of all items that have any, block by block; of each other group its best variant, ties by number.

    `threads`: None takes one per core, at most four. Beside the vectors each holds a few megabytes, whatever the
    number of items.
    """
    table = _Table(catalogue)
    threads = min(_MOST_THREADS, os.cpu_count() or 1) if threads is None else threads
    under_way: deque[tuple[int, Future[list[Lists]]]] = deque()
    done = 0
    # Threads of BLAS under those here would be cores squared, and would leave all but the products to one core.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        for seeds in table.blocks():
            under_way.append((len(seeds), pool.submit(table.lists, seeds, dials, keep)))
            if len(under_way) <= threads:
                continue
            count, block = under_way.popleft()
            yield from block.result()
            done += count
            progress(done)
        for count, block in under_way:
            yield from block.result()
            done += count
            progress(done)


def _listed(catalogue: Catalogue) -> NDArray[np.bool_]:
    """Which items may be listed: of a group the variants that can be recommended, all where none can."""
    some = np.zeros(int(catalogue.group.max(initial=-1)) + 1, bool)
    some[catalogue.group[catalogue.shown]] = True
    return catalogue.shown | ~some[catalogue.group]


class _Tile(Struct, frozen=True, kw_only=True, eq=False):
    """Columns `first` to `last`, whole groups; `starts` is where each of its groups begins, from `first`."""

    first: int
    last: int
    first_group: int
    starts: Longs
    singles: bool


class _Table:
    """The items as columns of the score matrix, group by group in the order of the groups' smallest numbers.

    Variants stand together, so that the best of a group is a maximum over a slice, and equal scores come in the order
    of numbers.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        first = np.full(int(catalogue.group.max(initial=-1)) + 1, np.iinfo(np.int32).max, np.int32)
        np.minimum.at(first, catalogue.group, catalogue.item_no)
        self._order = np.lexsort((catalogue.item_no, first[catalogue.group]))
        self._columns = self._order[_listed(catalogue)[self._order]]
        groups = catalogue.group[self._columns]
        count = len(self._columns)
        self._starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if count else np.zeros(0, np.int64)
        self._sizes = np.diff(np.r_[self._starts, count])
        self._group_of_code = np.full(len(first), -1, np.int64)
        self._group_of_code[groups[self._starts]] = np.arange(len(self._starts))
        self._text_space = catalogue.text_space[self._columns]
        self._has_image = catalogue.image_space[self._columns] > 0
        self._tiles = self._cut_tiles(max(1, _TILE_BYTES // (4 * _SEEDS)))
        # A group of variants is never cut in two: where one is wide, fewer seeds are looked at at once.
        self._widest = max((tile.last - tile.first for tile in self._tiles), default=1)
        self._seeds = max(1, min(_SEEDS, 2 * _TILE_BYTES // (4 * self._widest)))

    def _cut_tiles(self, width: int) -> list[_Tile]:
        count = len(self._columns)
        near = np.searchsorted(self._starts, np.arange(0, count, width), side="right") - 1
        edges = np.unique(near).tolist()
        return [
            _Tile(
                first=int(self._starts[group]),
                last=int(self._starts[after]) if after < len(self._starts) else count,
                first_group=group,
                starts=self._starts[group:after] - self._starts[group],
                singles=bool((self._sizes[group:after] == 1).all()),
            )
            for group, after in zip(edges, [*edges[1:], len(self._starts)], strict=True)
        ]

    def blocks(self) -> Iterator[Longs]:
        """Seeds that have the same halves, some at a time."""
        catalogue = self._catalogue
        spaces = np.stack([catalogue.text_space, catalogue.image_space], axis=1)[self._order]
        for halves in np.unique(spaces, axis=0):
            alike = self._order[(spaces == halves).all(axis=1)]
            for at in range(0, len(alike), self._seeds):
                yield alike[at : at + self._seeds]

    def lists(self, seeds: Longs, dials: Sequence[Dial], keep: int) -> list[Lists]:
        """The lists of seeds that have the same halves, by every dial that has a half they have."""
        catalogue, dim = self._catalogue, self._catalogue.text_dim
        scales = [scale for dial in dials if (scale := self._scale(seeds[0], dial, keep, len(seeds))) is not None]
        query = catalogue.vectors[seeds]
        by_text = any(scale.text.any() for scale in scales)
        by_image = any(scale.image.any() for scale in scales)
        own = self._group_of_code[catalogue.group[seeds]]
        room = np.zeros((4, len(seeds) * self._widest), np.float32)
        for tile in self._tiles if scales else []:
            width = tile.last - tile.first
            text, image, scores, part = room[:, : len(seeds) * width].reshape(4, len(seeds), width)
            vectors = catalogue.vectors[self._columns[tile.first : tile.last]]
            if by_text:
                np.matmul(query[:, :dim], vectors[:, :dim].T, out=text)
            if by_image:
                np.matmul(query[:, dim:], vectors[:, dim:].T, out=image)
            inside = np.flatnonzero((own >= tile.first_group) & (own < tile.first_group + len(tile.starts)))
            for scale in scales:
                scale.score(text, image, tile, scores, part)
                self._find(scores, tile, inside, own[inside] - tile.first_group, scale.strongest)
        return [self._as_lists(seeds, scale, keep) for scale in scales]

    def _scale(self, seed: int, dial: Dial, keep: int, seeds: int) -> "_Scale | None":
        """None where no half counts that the seed has."""
        text_space, image_space = int(self._catalogue.text_space[seed]), int(self._catalogue.image_space[seed])
        text_weight = dial.text.weight if text_space else 0.0
        image_weight = dial.image.weight if image_space else 0.0
        if not text_weight and not image_weight:
            return None
        text_mean, text_dev = _spread(dial.text, text_space)
        image_mean, image_dev = _spread(dial.image, image_space)
        # A text of another space has no cosine with the seed's.
        same_text = (self._text_space == text_space) & (text_weight > 0)
        same_image = self._has_image & (image_weight > 0)
        shared = np.sqrt(same_text * text_weight**2 + same_image * image_weight**2)
        best = (text_weight * (1 - text_mean) / text_dev + image_weight * (1 - image_mean) / image_dev) / np.hypot(
            text_weight, image_weight
        )
        with np.errstate(divide="ignore"):
            norm = np.where(shared > 0, 1 / (best * shared), 0)
        text, image = same_text * norm * text_weight / text_dev, same_image * norm * image_weight / image_dev
        bias = np.where(shared > 0, text * text_mean + image * image_mean, np.inf)
        return _Scale(
            kind=dial.kind,
            text=text.astype(np.float32),
            image=image.astype(np.float32),
            bias=bias.astype(np.float32),
            strongest=Strongest(seeds, keep),
        )

    def _find(self, scores: Floats, tile: _Tile, inside: Longs, own: Longs, strongest: Strongest) -> None:
        """Take what is above the floor; seeds `inside` have their own group among the tile's, at `own`."""
        by_group = scores if tile.singles else np.maximum.reduceat(scores, tile.starts, axis=1)
        by_group[inside, own] = -np.inf
        place = np.flatnonzero(by_group > strongest.floor[:, None])
        row, group = np.divmod(place, by_group.shape[1])
        value = by_group.ravel()[place]
        column = group if tile.singles else self._best_variant(scores, tile, row, group, value)
        strongest.add(row, column + tile.first, value)

    def _best_variant(self, scores: Floats, tile: _Tile, row: Longs, group: Longs, value: Floats) -> Longs:
        """The column, from the tile's first, of each chosen group's best variant, the first of equals."""
        column = tile.starts[group]
        sizes = self._sizes[tile.first_group :][group]
        several = np.flatnonzero(sizes > 1)
        size = sizes[several]
        pair = np.repeat(np.arange(len(several)), size)
        offset = np.arange(len(pair)) - np.repeat(np.cumsum(size) - size, size)
        candidate = column[several][pair] + offset
        hit = np.flatnonzero(scores[row[several][pair], candidate] >= value[several][pair] - SAME)
        # Backwards, so that the first of a pair's hits is written last.
        column[several[pair[hit[::-1]]]] = candidate[hit[::-1]]
        return column

    def _as_lists(self, seeds: Longs, scale: "_Scale", keep: int) -> Lists:
        sizes, column, score = scale.strongest.take()
        row = np.repeat(np.arange(len(seeds)), sizes)
        place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        others = np.zeros((len(seeds), keep), np.int32)
        stored = np.zeros((len(seeds), keep), np.int16)
        others[row, place] = self._catalogue.item_no[self._columns[column]]
        stored[row, place] = np.round(np.clip(score, 0, 1) * 32767).astype(np.int16)
        return Lists(kind=scale.kind, item_no=self._catalogue.item_no[seeds], others=others, scores=stored, sizes=sizes)


class _Scale(Struct, frozen=True, kw_only=True, eq=False):
    """How a dial makes a score of two cosines, column by column: text · t + image · i − bias; and what it has found.

    A bias of infinity: the column shares no half with the seeds.
    """

    kind: int
    text: Floats
    image: Floats
    bias: Floats
    strongest: Strongest

    def score(self, text: Floats, image: Floats, tile: _Tile, out: Floats, part: Floats) -> None:
        """Write the tile's scores to `out`; `part` is room of the same size."""
        columns = slice(tile.first, tile.last)
        by_text, by_image = self.text[columns], self.image[columns]
        if by_text.any():
            np.multiply(text, by_text, out=out)
            if by_image.any():
                np.multiply(image, by_image, out=part)
                out += part
        else:
            np.multiply(image, by_image, out=out)
        out -= self.bias[columns]


def _spread(half: Half, space: int) -> tuple[float, float]:
    mean, dev = half.spread.get(space, (0.0, 1.0))
    return mean, max(dev, 1e-3)
