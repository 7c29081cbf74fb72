"""What a model of an evaluation learns from and is asked about: everything numbered from 0."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tenants.learned.blend import FEW_EVENTS
from workers.evaluation.splits import Split
from workers.training.behaviour.history import served_history
from workers.training.behaviour.interactions import Floats, Interactions, Longs, ShopperItems, shopper_items
from workers.training.behaviour.popularity import met_by_few


class Content(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Vectors of the items, float32[n, d], rows of length 1, or 0 where an item has none; None: no such vectors.
    `text_weight` 0..1 is that of text against photos.
    """

    text: Floats | None = None
    image: Floats | None = None
    text_weight: float = 0.6

    def fused(self) -> Floats | None:
        """Both beside each other, weighted so that a cosine is their weighted mean; one where there is one."""
        if self.text is None or self.image is None:
            return self.text if self.image is None else self.image
        joined = np.hstack([np.sqrt(self.text_weight) * self.text, np.sqrt(1 - self.text_weight) * self.image])
        length = np.linalg.norm(joined, axis=1, keepdims=True)
        return np.asarray(joined / np.maximum(length, 1e-12), np.float32)


class Setting(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A moment to learn at. `log` has shoppers 0…m-1 and items 0…n-1; `train` is its matrix [m × n]; `now` seconds;
    `repeats` whether items that a shopper has met may be recommended; `timed` whether `ts` are times; `absent` bool[n]
    the items that were not on sale yet, None where all were; `shared` what several models learn in common, kept so that
    it is learnt once.
    """

    log: Interactions
    train: ShopperItems
    content: Content
    now: int
    repeats: bool
    timed: bool
    seed: int
    absent: NDArray[np.bool_] | None = None
    shared: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def served(self) -> csr_array:
        """float32[m, n]: the histories as the service folds them in; all that was met where there are no times."""
        if "served" not in self.shared:
            self.shared["served"] = (
                served_history(self.log, items=self.train.items, shoppers=self.train.shoppers, now=self.now)
                if self.timed
                else self.train.binary
            )
        found: csr_array = self.shared["served"]
        return found

    @property
    def few(self) -> NDArray[np.bool_]:
        """bool[n]: the items that few have met, as `fresh` takes it."""
        if not self.timed:
            return np.asarray(self.degree < FEW_EVENTS)
        column = self.log.item.astype(np.int64)
        return met_by_few(self.log, column, len(self.train.items), now=self.now)

    @property
    def degree(self) -> Floats:
        """Shoppers per item, float32[n]."""
        return np.bincount(self.train.weights.indices, minlength=len(self.train.items)).astype(np.float32)


class Questions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Who is asked for what: `rows` int64[b] of the setting's matrix, and per row what was met later (`wanted`, a
    matrix [b × n] of 1).
    """

    rows: Longs
    wanted: ShopperItems


def make_setting(
    log: Interactions,
    shoppers: int,
    items: int,
    content: Content,
    *,
    now: int,
    repeats: bool,
    timed: bool,
    seed: int,
    absent: NDArray[np.bool_] | None = None,
) -> Setting:
    """The setting of a log that is numbered from 0."""
    train = shopper_items(log, items=np.arange(items, dtype=np.int32), shoppers=np.arange(shoppers, dtype=np.int64))
    return Setting(
        log=log, train=train, content=content, now=now, repeats=repeats, timed=timed, seed=seed, absent=absent
    )


def make_questions(setting: Setting, test: Interactions) -> Questions:
    """Shoppers with a history in the setting and something to find in the test.

    Where items that were met are not recommended, they are not asked for either.
    """
    asked = shopper_items(test, items=setting.train.items, shoppers=setting.train.shoppers)
    if not setting.repeats:
        width = np.int64(len(setting.train.items))
        met, later = (_pairs(matrix, width) for matrix in (setting.train, asked))
        new = ~np.isin(later, met, assume_unique=True)
        kept = later[new]
        asked = shopper_items(
            Interactions(
                shopper=kept // width,
                item=(kept % width).astype(np.int32),
                weight=np.ones(len(kept), np.float32),
                ts=asked.last[new],
            ),
            items=setting.train.items,
            shoppers=setting.train.shoppers,
        )
    history = np.diff(setting.train.weights.indptr)
    rows = np.flatnonzero((np.diff(asked.weights.indptr) > 0) & (history > 0)).astype(np.int64)
    return Questions(rows=rows, wanted=asked.rows(rows))


def _pairs(matrix: ShopperItems, width: np.int64) -> Longs:
    rows = np.repeat(np.arange(len(matrix.shoppers), dtype=np.int64), np.diff(matrix.weights.indptr))
    return np.asarray(rows * width + matrix.weights.indices, np.int64)


def now_of(split: Split) -> int:
    """The moment at which recommendations are made: just before the first event that is asked for."""
    return split.cut if split.cut is not None else int(split.train.ts.max()) + 1
