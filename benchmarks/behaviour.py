"""The behaviour models against the bare computation on the same matrix: time to fit, Recall@20, peak memory.

    python -m benchmarks.behaviour [--small] [--models graph,als,llr,cosine] [--limit 60]

100,000 shoppers × 50,000 items × 2 million events, drawn: items by a Zipf law within 60 tastes. One fit runs per
process, so that each peak of memory is its own; what takes more than `--limit` seconds of CPU is ended, and counted as
that long. Times are of the CPU, over all cores: the machine may have other work. The latency of what is served is
measured by `benchmarks.learning`, on the model that is trained there. Prints a line as each fit ends, a table, and one
JSON object at the end.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array, csr_matrix, vstack

from benchmarks.report import Line, print_report
from workers.training.behaviour.als import ALPHA, FACTORS, ITERATIONS, REGULARIZATION, Factors, fit_als
from workers.training.behaviour.cooccurrence import fit_cosine, fit_llr
from workers.training.behaviour.graph import ExactGraph, Graph, fit_graph, normalise

_SIZES: Final = {False: (100_000, 50_000, 2_000_000), True: (10_000, 5_000, 200_000)}
_TASTES: Final = 60
_ASKED: Final = 1_000
_ROWS: Final = 500


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
    left = normalised.T.tocsr()
    for at in range(0, left.shape[0], _ROWS):
        _ = left[at : at + _ROWS] @ normalised  # some rows at a time: whole, the product does not fit the memory
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
    """The whole product, some rows at a time, Dunning's ratio of each entry with the same support, then 200 a row."""
    left = train.T.tocsr()
    count = np.asarray(train.sum(axis=0))
    groups = float(train.shape[0])

    def h(x: np.ndarray[Any, Any] | float) -> Any:
        return x * np.log(np.maximum(x, 1e-12))

    kept = []
    for at in range(0, left.shape[0], _ROWS):
        block = csr_array(left[at : at + _ROWS] @ train)
        row = np.repeat(np.arange(at, at + block.shape[0]), np.diff(block.indptr))
        both, one, other = block.data, count[row], count[block.indices]
        ratio = 2 * (
            h(both) + h(one - both) + h(other - both) + h(groups - one - other + both)
            - h(one) - h(other) - h(groups - one) - h(groups - other) + h(groups)
        )  # fmt: skip
        ratio *= (both * groups > one * other) & (row != block.indices) & (both >= 2)
        block.data = ratio.astype(np.float32)
        for start, end in pairwise(block.indptr.tolist()):
            values = block.data[start:end]
            if len(values) > 200:
                values[np.argpartition(values, len(values) - 200)[:-200]] = 0
        block.eliminate_zeros()
        kept.append(block)
    return _Near(csr_array(vstack(kept)))


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


def _one(name: str, bare: bool, small: bool, limit_s: int) -> dict[str, float]:
    warnings.simplefilter("ignore")
    train, test = draw(*_SIZES[small])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, used = time.perf_counter(), time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + limit_s + 1, hard))
    model = _FITS[name][bare](train)
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
    cpu_s, wall_s = time.process_time() - used, time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "s": cpu_s,
        "wall_s": wall_s,
        "mb": peak / 1024,
        "before_mb": before / 1024,
        "recall": _recall(model, train, test),
    }
    if isinstance(model, Graph):
        # SciPy's decomposition may not end within the limit: what is cut can be told by the same vectors.
        normalised, degree = normalise(train)
        whole = ExactGraph(
            normalised=normalised,
            transposed=normalised.T.tocsr(),
            vectors=model.vectors,
            degree=degree,
            alpha=model.alpha,
        )
        found["uncut"] = _recall(whole, train, test)
    return found


def _measured(name: str, side: str, small: bool, limit_s: int) -> dict[str, float] | None:
    """One fit in a process of its own; None where it took longer than the limit."""
    command = [sys.executable, "-m", "benchmarks.behaviour", "--one", name, side, "--limit", str(limit_s)]
    done = subprocess.run([*command, *(["--small"] if small else [])], check=False, capture_output=True, text=True)
    if done.returncode == -signal.SIGXCPU:
        print(f"{name}, {side}: ended after {limit_s} s of CPU", flush=True)
        return None
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}, {side}: {found['s']:.1f} s of CPU, {found['wall_s']:.1f} s", flush=True)
    return found


def _lines(name: str, ours: dict[str, float] | None, bare: dict[str, float] | None, limit_s: int) -> list[Line]:
    if ours is None:
        return [Line(f"{name}: time to fit ÷ bare", f"more than {limit_s} s of CPU", "≤ 1.2", False)]
    memory = Line(f"{name}: peak memory", f"{ours['mb']:.0f} MB", "≤ 1200 MB", ours["mb"] <= 1200)
    if bare is None:
        ratio = ours["s"] / limit_s
        figure = f"below {ratio:.2f} ({ours['s']:.1f} s, bare more than {limit_s} s)"
        lines = [Line(f"{name}: time to fit ÷ bare", figure, "≤ 1.2", ratio <= 1.2 or None), memory]
        if "uncut" in ours:
            share = ours["recall"] / ours["uncut"]
            figure = f"{share:.3f} ({ours['recall']:.4f})"
            lines.append(Line(f"{name}: Recall@20 ÷ uncut, by the same vectors", figure, "≥ 0.99", share >= 0.99))
        return lines
    ratio, recall = ours["s"] / bare["s"], ours["recall"] / bare["recall"]
    figure = f"{ratio:.2f} ({ours['s']:.1f} s, bare {bare['s']:.1f} s)"
    return [
        Line(f"{name}: time to fit ÷ bare", figure, "≤ 1.2", ratio <= 1.2),
        Line(f"{name}: Recall@20 ÷ bare", f"{recall:.3f} ({ours['recall']:.4f})", "≥ 0.99", recall >= 0.99),
        memory,
    ]


def main() -> None:
    """Run each fit in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="10,000 × 5,000 × 200,000")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--models", default="graph,als,llr")
    parser.add_argument("--limit", type=int, default=60, help="seconds of CPU that one fit may take")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(arguments.one[0], arguments.one[1] == "bare", arguments.small, arguments.limit)))
        return
    lines = []
    for name in arguments.models.split(","):
        ours, bare = (_measured(name, side, arguments.small, arguments.limit) for side in ("ours", "bare"))
        lines += _lines(name, ours, bare, arguments.limit)
    print_report("behaviour", lines)


if __name__ == "__main__":
    main()
