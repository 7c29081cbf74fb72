"""The behaviour models against the bare computation on the same matrix: time to fit, Recall@20, peak memory.

    python -m benchmarks.behaviour [--small]

100,000 shoppers × 50,000 items × 2 million events, drawn: items by a Zipf law within 60 tastes. One fit runs per
process, so that each peak of memory is its own. Prints a table, and one JSON object at the end.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from benchmarks.report import Line, print_report
from workers.training.behaviour.als import ALPHA, FACTORS, ITERATIONS, REGULARIZATION, Factors, fit_als
from workers.training.behaviour.cooccurrence import fit_cosine, fit_llr
from workers.training.behaviour.graph import ExactGraph, fit_graph, normalise

_SIZES: Final = {False: (100_000, 50_000, 2_000_000), True: (10_000, 5_000, 200_000)}
_TASTES: Final = 60
_ASKED: Final = 1_000


def draw(shoppers: int, items: int, events: int, *, seed: int = 0) -> tuple[csr_array, csr_array]:
    """Train and test [shoppers × items], binary: 60 % of the events are of the own taste, a tenth is test."""
    rng = np.random.default_rng(seed)
    popular = 1 / np.arange(1, items + 1) ** 0.9
    rng.shuffle(popular)
    taste_of_item = rng.integers(_TASTES, size=items)
    taste = rng.integers(_TASTES, size=shoppers)
    sizes = rng.pareto(1.5, size=shoppers) + 0.5
    sizes = np.clip((sizes * events * 1.25 / sizes.sum()).astype(int), 2, 400)
    row = np.repeat(np.arange(shoppers), sizes)
    column = _drawn(rng, popular, len(row))
    own = rng.random(len(row)) < 0.6
    for number in range(_TASTES):
        choice = np.flatnonzero(taste_of_item == number)
        mine = np.flatnonzero(own & (taste[row] == number))
        column[mine] = choice[_drawn(rng, popular[choice], len(mine))]
    pairs = np.unique(row * np.int64(items) + column)
    test = rng.random(len(pairs)) < 0.1

    def matrix(chosen: np.ndarray[Any, Any]) -> csr_array:
        data = np.ones(len(chosen), np.float32)
        return csr_array((data, (chosen // items, chosen % items)), shape=(shoppers, items))

    return matrix(pairs[~test]), matrix(pairs[test])


def _drawn(rng: np.random.Generator, weight: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    steps = np.cumsum(weight)
    return np.searchsorted(steps, rng.random(count) * steps[-1]).clip(0, len(weight) - 1)


def _bare_als(train: csr_array) -> Factors:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=FACTORS, alpha=ALPHA, regularization=REGULARIZATION, iterations=ITERATIONS, random_state=0
        )
        model.fit(csr_matrix(train), show_progress=False)
    return Factors(items=model.item_factors, confidence=ALPHA, regularization=REGULARIZATION)


def _bare_graph(train: csr_array) -> ExactGraph:
    """As the paper's own code: the whole Gram matrix, and 256 singular vectors by SciPy."""
    from scipy.sparse.linalg import svds

    normalised, degree = normalise(train)
    _ = normalised.T.tocsr() @ normalised
    vectors = svds(normalised, 256, random_state=0)[2].T
    return ExactGraph(
        normalised=normalised, transposed=normalised.T.tocsr(), vectors=vectors.copy(), degree=degree, alpha=0.3
    )


class _Near:
    def __init__(self, neighbours: csr_array) -> None:
        self._neighbours = neighbours

    def score(self, history: csr_array) -> np.ndarray[Any, Any]:
        return np.asarray((history @ self._neighbours).toarray())


def _bare_cosine(train: csr_array) -> _Near:
    """`implicit`'s own item neighbourhoods."""
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(K=201)
    model.fit(csr_matrix(train), show_progress=False)
    near = csr_array(model.similarity)
    near.setdiag(0)
    return _Near(near)


def _bare_llr(train: csr_array) -> _Near:
    """The whole product, Dunning's ratio of each entry with the same support, then 200 a row."""
    product = (train.T.tocsr() @ train).tocoo()
    count = np.asarray(train.sum(axis=0))
    both, one, other = product.data, count[product.row], count[product.col]
    groups = float(train.shape[0])

    def h(x: np.ndarray[Any, Any] | float) -> Any:
        return x * np.log(np.maximum(x, 1e-12))

    ratio = 2 * (
        h(both) + h(one - both) + h(other - both) + h(groups - one - other + both)
        - h(one) - h(other) - h(groups - one) - h(groups - other) + h(groups)
    )  # fmt: skip
    ratio *= (both * groups > one * other) & (product.row != product.col) & (both >= 2)
    whole = csr_array((ratio.astype(np.float32), (product.row, product.col)), shape=product.shape)
    for row in range(whole.shape[0]):
        values = whole.data[whole.indptr[row] : whole.indptr[row + 1]]
        if len(values) > 200:
            values[np.argpartition(values, len(values) - 200)[:-200]] = 0
    return _Near(whole)


_FITS: Final[dict[str, tuple[Callable[[csr_array], Any], Callable[[csr_array], Any]]]] = {
    "graph": (fit_graph, _bare_graph),
    "als": (fit_als, _bare_als),
    "cosine": (lambda train: _Near(fit_cosine(train).sparse), _bare_cosine),
    "llr": (lambda train: _Near(fit_llr(train).sparse), _bare_llr),
}


def _recall(model: Any, train: csr_array, test: csr_array) -> float:
    asked = np.flatnonzero(np.diff(test.indptr) > 0)[:_ASKED]
    scores = np.array(model.score(train[asked]))
    scores[train[asked].nonzero()] = -np.inf
    top = np.argpartition(-scores, 20, axis=1)[:, :20]
    wanted = test[asked].toarray() > 0
    return float((np.take_along_axis(wanted, top, axis=1).sum(axis=1) / wanted.sum(axis=1)).mean())


def _one(name: str, bare: bool, small: bool) -> dict[str, float]:
    warnings.simplefilter("ignore")
    train, test = draw(*_SIZES[small])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    model = _FITS[name][bare](train)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"s": seconds, "mb": peak / 1024, "before_mb": before / 1024, "recall": _recall(model, train, test)}


def main() -> None:
    """Run each fit in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="10,000 × 5,000 × 200,000")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--models", default=",".join(_FITS))
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(arguments.one[0], arguments.one[1] == "bare", arguments.small)))
        return
    lines = []
    for name in arguments.models.split(","):
        found = {}
        for side in ("ours", "bare"):
            command = [sys.executable, "-m", "benchmarks.behaviour", "--one", name, side]
            done = subprocess.run(
                [*command, *(["--small"] if arguments.small else [])], check=True, capture_output=True, text=True
            )
            found[side] = json.loads(done.stdout.splitlines()[-1])
        ours, bare = found["ours"], found["bare"]
        ratio, recall = ours["s"] / bare["s"], ours["recall"] / bare["recall"]
        figure = f"{ratio:.2f} ({ours['s']:.1f} s, bare {bare['s']:.1f} s)"
        lines += [
            Line(f"{name}: time to fit ÷ bare", figure, "≤ 1.2", ratio <= 1.2),
            Line(f"{name}: Recall@20 ÷ bare", f"{recall:.3f} ({ours['recall']:.4f})", "≥ 0.99", recall >= 0.99),
            Line(
                f"{name}: peak memory", f"{ours['mb']:.0f} MB (bare {bare['mb']:.0f})", "≤ 1200 MB", ours["mb"] <= 1200
            ),
        ]
    print_report("behaviour", lines)


if __name__ == "__main__":
    main()
