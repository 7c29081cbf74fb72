"""All models of one shop, one after the other, each written out and let go of before the next."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np
from scipy.sparse import csr_array

from infra.copybinary import HEADER, TRAILER, pack_rows
from workers.training.behaviour.borrowed import Borrowed, borrow, mixing
from workers.training.behaviour.cooccurrence import fit_llr, pairs_matrix
from workers.training.behaviour.graph import DIMS, fit_graph
from workers.training.behaviour.interactions import DAY, Floats, Ints, ShopperItems, cap_rows, shopper_items
from workers.training.behaviour.item_cf import fit_item_cf
from workers.training.behaviour.neighbours import Neighbours
from workers.training.behaviour.repurchase import fit_repurchase
from workers.training.behaviour.user_cf import fit_user_cf
from workers.training.shop.factors import fit_factors
from workers.training.shop.likes import Likes, lent_to, read_likes
from workers.training.shop.log import ShopLog, read_log
from workers.training.shop.plan import (
    EVENTS,
    LIKES,
    LISTS,
    PLAN,
    RESULT,
    SCORES,
    SERVED_LISTS,
    SERVED_VECTORS,
    SHOPPERS,
    VECTORS,
    Comparison,
    FitPlan,
    FitResult,
)
from workers.training.shop.readiness import judge, trusted
from workers.training.shop.served import read_served
from workers.training.shop.validate import Validation, validate

KIND_GRAPH: Final = 3
KIND_BOUGHT_TOGETHER: Final = 4
KIND_ALSO_VIEWED: Final = 5
KIND_ITEM_CF: Final = 6

CAP: Final = 500
"""Items of one shopper that count for the graph filter, the latest."""

RECENT_DAYS: Final = 365
"""Shoppers who did nothing for longer are not looked for likes of."""

FEWEST_ITEMS: Final = 3
FACTORS: Final = 128

Report = Callable[[int, int], None]


def run(folder: Path, report: Report) -> None:
    """Read `PLAN`, the events and the likes; write the rows of four tables and `RESULT`."""
    plan = msgspec.json.decode((folder / PLAN).read_bytes(), type=FitPlan)
    shop = read_log(folder / EVENTS, plan.weights)
    lines = judge(shop.counts, datetime.fromtimestamp(plan.now, UTC))
    fit = _Fit(folder, plan, shop, {line.model for line in lines if line.ready} if trusted(shop.counts) else set())
    with fit:
        steps = [
            fit.validate,
            fit.behaviour,
            fit.also_viewed,
            fit.bought_together,
            fit.item_cf,
            fit.user_cf,
            fit.buy_again,
        ]
        for at, step in enumerate(steps):
            report(at, len(steps))
            began = time.perf_counter()
            step()
            fit.seconds[step.__name__] = round(time.perf_counter() - began, 2)
        report(len(steps), len(steps))
    result = FitResult(
        counts=shop.counts,
        trusted=trusted(shop.counts),
        readiness=lines,
        trained=fit.trained,
        window_from=datetime.fromtimestamp(shop.first, UTC) if shop.counts.rows else None,
        window_to=datetime.fromtimestamp(shop.last, UTC) if shop.counts.rows else None,
        content_hash=shop.fingerprint.hex(),
        sha256=_digest([folder / name for name in (LISTS, VECTORS, SCORES, SHOPPERS)]),
        settings=fit.settings,
        metrics={**fit.metrics, "seconds": fit.seconds},
        blend=fit.blend,
        comparison=fit.comparison,
    )
    (folder / RESULT).write_bytes(msgspec.json.encode(result))


class _Fit:
    """The models that the shop is ready for, written to the folder as they come."""

    def __init__(self, folder: Path, plan: FitPlan, shop: ShopLog, ready: set[str]) -> None:
        self._folder = folder
        self._plan = plan
        self._shop = shop
        self._ready = ready
        self._likes: Likes | None = None
        if plan.likes:
            likes = read_likes(folder / LIKES)
            self._likes = likes if len(likes.item) else None
        known = [np.unique(shop.log.item)]
        if self._likes is not None:
            known.append(np.unique(self._likes.item))
        # Items without an event are among them: they borrow.
        self._items: Ints = np.unique(np.concatenate(known)).astype(np.int32)
        self._matrix: ShopperItems | None = None
        self._validation: Validation | None = None
        self._files = {name: (folder / name).open("wb") for name in (LISTS, VECTORS, SCORES, SHOPPERS)}
        self.trained: list[str] = []
        self.settings: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.blend: dict[str, float] = {}
        self.comparison: Comparison | None = None
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> None:
        for file in self._files.values():
            file.write(HEADER)

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.write(TRAILER)
            file.close()

    def validate(self) -> None:
        """Choose between graph and als, and fit the blend."""
        if "graph" not in self._ready:
            return
        champion, served = self._plan.champion, None
        if champion is not None:
            served = read_served(self._folder / SERVED_LISTS, self._folder / SERVED_VECTORS, self._items, champion)
        self._validation = validate(self._shop.log, self._items, self._likes, self._ready, champion, served)
        if self._validation is None:
            return
        self.metrics = {
            "validation": {
                "split": "global time, the last 15 % of the events held out",
                "repeats": "excluded",
                "shoppers": self._validation.asked,
                "recall@20": self._validation.recall,
            }
        }
        self.comparison = self._validation.comparison
        if self.comparison is not None:
            self.metrics["comparison"] = {
                "split": "global time, after the last event that the model before was trained on",
                **msgspec.structs.asdict(self.comparison),
            }
        if "blend" in self._ready:
            self.blend = self._validation.blend
            self.trained.append("blend")

    def behaviour(self) -> None:
        """Neighbours and vectors of the behaviour space."""
        if "graph" not in self._ready:
            return
        matrix = self._by_shopper()
        capped = cap_rows(matrix.weights, matrix.last, CAP)
        space = "graph" if self._validation is None else self._validation.space
        # Factors take the place of the spectral vectors, whose decomposition is the longest part of a fit.
        graph = fit_graph(capped, dims=DIMS if space == "graph" else 0)
        degree = graph.degree
        neighbours, own, alpha = graph.neighbours, graph.own, graph.alpha
        sources, targets = graph.sources(), graph.targets()
        mix = None if self._likes is None else mixing(degree, lent_to(self._likes, self._items, degree))
        if mix is not None:
            lent: Borrowed = borrow(graph, mix)
            neighbours, own, sources, targets = lent.neighbours, lent.own, lent.sources, lent.targets
            del lent
        del graph
        # A stored score is at most 1; the factor is made good by alpha, so that sums keep their proportions.
        scale = max(float(neighbours.scores.max(initial=0)), float(own.max(initial=0)), 1e-9)
        self._write_lists(KIND_GRAPH, neighbours, scale)
        if space == "als":
            factors = fit_factors(cap_rows(matrix.binary, matrix.last, CAP), mix, factors=FACTORS)
            sources, targets = factors.sources, factors.targets
            alpha = 0.0
        self._write_vectors(own / scale, sources, targets, degree > 0 if mix is None else None)
        self.settings = {"space": space, "alpha": alpha / scale, "dims": sources.shape[1]}
        self.trained += ["graph"] if space == "graph" else ["graph", "als"]

    def also_viewed(self) -> None:
        """Met in one visit."""
        if "also_viewed" in self._ready:
            pairs = pairs_matrix(self._shop.log, self._shop.sessions, self._items)
            self._write_significant(KIND_ALSO_VIEWED, pairs, "also_viewed")

    def bought_together(self) -> None:
        """Bought in one basket."""
        if "bought_together" in self._ready and self._shop.bought.group is not None:
            pairs = pairs_matrix(self._shop.bought, self._shop.bought.group, self._items)
            self._write_significant(KIND_BOUGHT_TOGETHER, pairs, "bought_together")

    def item_cf(self) -> None:
        """Liked alike."""
        if "item_cf" in self._ready:
            matrix = self._by_shopper()
            neighbours = fit_item_cf(cap_rows(matrix.binary, matrix.last))
            self._write_lists(KIND_ITEM_CF, neighbours, 1.0)
            self.trained.append("item_cf")

    def user_cf(self) -> None:
        """Shoppers of like taste, of those who lately did something."""
        if "user_cf" not in self._ready:
            return
        matrix = self._by_shopper()
        rows = np.repeat(np.arange(len(matrix.shoppers)), np.diff(matrix.weights.indptr))
        latest = np.zeros(len(matrix.shoppers), np.int64)
        np.maximum.at(latest, rows, matrix.last)
        enough = np.diff(matrix.weights.indptr) >= FEWEST_ITEMS
        chosen = np.flatnonzero(enough & (latest > self._plan.now - RECENT_DAYS * DAY))
        if not len(chosen):
            return
        last = matrix.last[np.isin(rows, chosen)]
        model = fit_user_cf(matrix.binary[chosen], last)
        shoppers = matrix.shoppers[chosen]
        ids, scores = model.neighbours.ids, model.neighbours.scores
        columns = [
            ("int8", shoppers),
            ("int8[]", shoppers[np.maximum(ids, 0)]),
            ("int2[]", _stored(scores, max(float(scores.max(initial=0)), 1e-9))),
        ]
        self._files[SHOPPERS].write(pack_rows(columns, (ids >= 0).sum(axis=1)))
        self.trained.append("user_cf")

    def buy_again(self) -> None:
        """The usual time between two purchases of an item."""
        if "buy_again" not in self._ready:
            return
        bought = self._shop.bought
        items, column = np.unique(bought.item, return_inverse=True)
        model = fit_repurchase(bought, column.astype(np.int64), len(items))
        self._files[SCORES].write(pack_rows([("int4", items), ("float4", model.interval)]))
        self.trained.append("buy_again")

    def _by_shopper(self) -> ShopperItems:
        if self._matrix is None:
            self._matrix = shopper_items(self._shop.log, items=self._items)
        return self._matrix

    def _write_significant(self, kind: int, pairs: csr_array, name: str) -> None:
        """Log-likelihood ratios, as their roots: near the number of deviations from chance."""
        found = fit_llr(pairs)
        root = Neighbours(ids=found.ids, scores=np.sqrt(found.scores))
        self._write_lists(kind, root, max(float(root.scores.max(initial=0)), 1e-9))
        self.trained.append(name)

    def _write_lists(self, kind: int, neighbours: Neighbours, scale: float) -> None:
        file = self._files[LISTS]
        for at in range(0, len(self._items), _ROWS_AT_ONCE):
            part = slice(at, at + _ROWS_AT_ONCE)
            scores = _stored(neighbours.scores[part], scale)
            # What is rounded to nothing stands at the end of its row.
            there = (neighbours.ids[part] >= 0) & (scores > 0)
            columns = [
                ("int2", np.full(len(there), kind)),
                ("int4", self._items[part]),
                ("int4[]", self._items[np.maximum(neighbours.ids[part], 0)]),
                ("int2[]", scores),
            ]
            file.write(pack_rows(columns, there.sum(axis=1)))

    def _write_vectors(self, own: Floats, sources: Floats, targets: Floats, which: Any) -> None:
        """source ‖ target of each item that has a place; balanced, so that neither is below what float16 can tell."""
        there = (np.abs(sources).sum(axis=1) > 0) & (np.abs(targets).sum(axis=1) > 0)
        if which is not None:
            there &= which
        level = [
            max(float(np.sqrt(np.mean(side[there] ** 2))) if there.any() else 1.0, 1e-12) for side in (sources, targets)
        ]
        factor = np.sqrt(level[1] / level[0])
        chosen = np.flatnonzero(there)
        for at in range(0, len(chosen), _ROWS_AT_ONCE):
            rows = chosen[at : at + _ROWS_AT_ONCE]
            vectors = np.hstack([sources[rows] * factor, targets[rows] / factor])
            vectors[np.abs(vectors) < _NOISE] = 0
            columns = [("int4", self._items[rows]), ("float4", own[rows]), ("halfvec", vectors)]
            self._files[VECTORS].write(pack_rows(columns))


_ROWS_AT_ONCE: Final = 4096

_NOISE: Final = 6e-5
"""Below this a half-precision number has lost its digits."""


def _stored(scores: Floats, scale: float) -> Any:
    return np.round(np.clip(scores / scale, 0, 1) * 32767).astype(np.int16)


def _digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(_sum(file))
    return total.hexdigest()


def _sum(file: IO[bytes]) -> bytes:
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
