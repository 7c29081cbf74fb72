"""`python -m benchmarks.image_encoder`: the offline image encoder on its two bars, beside simple descriptors.

Two measures by cosine, each with a 95 % interval by bootstrap (over query photos, and over products):

- category: of the 10 training photos nearest to a validation photo of clothing_photos, the share of its category;
- product: another photo of the same product is among the 5 nearest of a luma_catalogue photo. Photos and products
  are those of items.jsonl; a photo counts as query when another one shares a product with it, and the gallery is all
  of them. `product, all files` is a stricter form: the gallery is every photo of the set, variants in other colours
  included, and the right answer is another view of the same colour (the file name up to its last underscore).

The pack was trained on the train split of clothing_photos and on no photo of luma_catalogue. The settings of its
colour part and the weights of its parts were chosen with these figures in view, so they flatter it a little; no weight
was fitted to them. Halves A and B (by the product code's SHA-256) show how much the choice of products matters.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.catalogues import DATA
from benchmarks.report import Line, print_report
from workers.encoders.compact import PACK, CompactImageEncoder, square

Rows = NDArray[np.float32]
Photos = list[NDArray[np.uint8]]

BASELINE_SIDE = 128
RESAMPLES = 1000


def main() -> int:
    """Measure, print the table, write the JSON (benchmarks/results)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pack", type=Path, default=PACK)
    parser.add_argument("--no-baselines", action="store_true")
    given = parser.parse_args()
    clothes = _jsonl(given.data / "clothing_photos" / "items.jsonl")
    luma = _luma(given.data / "luma_catalogue")
    photos = [_load(given.data / "clothing_photos" / row["image"]) for row in clothes]
    views = [_load(given.data / "luma_catalogue" / name) for name, _ in luma]
    encoder = CompactImageEncoder(given.pack, threads=1)
    begun = time.process_time()
    encoded = encoder.encode(photos), encoder.encode(views)
    seconds = time.process_time() - begun
    table = {encoder.space.name: measure(*encoded, clothes, luma)}
    if not given.no_baselines:
        baselines: dict[str, Callable[[NDArray[np.uint8]], Rows]] = {
            "colour histogram 8³, Hellinger": _histogram,
            "HOG 16 px": _hog,
        }
        for name, describe in baselines.items():
            table[name] = measure(_describe(photos, describe), _describe(views, describe), clothes, luma)
        noise = np.random.default_rng(0)
        rows = [noise.standard_normal((len(some), 64)).astype(np.float32) for some in (photos, views)]
        table["chance"] = measure(_unit(rows[0]), _unit(rows[1]), clothes, luma)
    bars = {"category among 10": 0.76, "product among 5": 0.78}
    lines = []
    for name, row in table.items():
        for column, figure in row.items():
            bar = bars.get(column) if name == encoder.space.name else None
            lines.append(
                Line(
                    what=f"{name}: {column} ({figure['queries']} photos)",
                    figure=f"{figure['value']:.3f} ({figure['low']:.3f} – {figure['high']:.3f})",
                    bar=None if bar is None else f"≥ {bar}",
                    met=None if bar is None else figure["value"] >= bar,
                )
            )
    speed = (len(photos) + len(views)) / seconds
    lines.append(Line("photos per CPU second, one thread, preparing included", f"{speed:.0f}", "≥ 60", speed >= 60))
    print_report("image_encoder", lines)
    return 0


def measure(
    clothing: Rows, views: Rows, clothes: list[dict[str, Any]], luma: list[tuple[str, set[str]]]
) -> dict[str, Any]:
    """Both bars for unit rows: clothing float32[n, d] in the order of `clothes`, views float32[m, d] of `luma`."""
    kinds = np.array([row["category"] for row in clothes])
    train = np.array([row["split"] == "train" for row in clothes])
    near = np.argsort(-(clothing[~train] @ clothing[train].T), axis=1, kind="stable")[:, :10]
    shares = (kinds[train][near] == kinds[~train][:, None]).mean(1)
    products = [set(owners) for _, owners in luma]
    listed = np.array([bool(owners) for owners in products])
    sharing = _sharing(products)[np.ix_(listed, listed)]
    hits, queries = _hits(views[listed], sharing)
    codes = np.array([sorted(owners)[0] if owners else "" for owners in products])[listed][queries]
    half = np.array([hashlib.sha256(code.encode()).digest()[0] % 2 for code in codes])
    stems = [name.removeprefix("images/").rsplit("_", 1)[0] for name, _ in luma]
    all_hits, all_queries = _hits(views, _sharing([{stem} for stem in stems]))
    all_codes = np.array([stem.split("-")[0] for stem in stems])[all_queries]
    return {
        "category among 10": _interval(shares, np.arange(len(shares))),
        "product among 5": _interval(hits, codes),
        "half A": _interval(hits[half == 0], codes[half == 0]),
        "half B": _interval(hits[half == 1], codes[half == 1]),
        "product, all files": _interval(all_hits, all_codes),
    }


def _hits(rows: Rows, sharing: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For every row that has a partner: 1 where one of its five nearest others is a partner."""
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    near = np.argsort(-likeness, axis=1, kind="stable")[:, :5]
    queries = np.asarray(sharing.any(1), np.bool_)
    found = np.asarray(np.take_along_axis(sharing, near, axis=1).any(1), np.float64)
    return found[queries], queries


def _sharing(owners: list[set[str]]) -> NDArray[np.bool_]:
    names = {name: i for i, name in enumerate(sorted(set().union(*owners)))}
    member = np.zeros((len(owners), len(names)), np.int64)
    for i, some in enumerate(owners):
        member[i, [names[name] for name in some]] = 1
    sharing = member @ member.T > 0
    np.fill_diagonal(sharing, False)
    return np.asarray(sharing)


def _interval(values: NDArray[np.float64], clusters: NDArray[Any]) -> dict[str, Any]:
    """Mean and its 95 % interval; whole clusters are drawn, for photos of one product are not independent."""
    _, index = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return {
        "value": round(float(values.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "queries": len(values),
    }


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _luma(folder: Path) -> list[tuple[str, set[str]]]:
    """Every photo of the set with the products of items.jsonl that show it."""
    owners: dict[str, set[str]] = {f"images/{path.name}": set() for path in sorted((folder / "images").iterdir())}
    for item in _jsonl(folder / "items.jsonl"):
        for name in {*(item.get("images") or []), *([item["image"]] if item.get("image") else [])}:
            owners[name].add(item["id"])
    return list(owners.items())


def _load(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _unit(rows: Rows) -> Rows:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def _describe(photos: Photos, describe: Callable[[NDArray[np.uint8]], Rows]) -> Rows:
    return _unit(np.stack([describe(square(photo, BASELINE_SIDE)) for photo in photos]))


def _histogram(photo: NDArray[np.uint8]) -> Rows:
    cells = (photo >> 5).astype(np.int64)
    counts = np.bincount((cells[..., 0] * 64 + cells[..., 1] * 8 + cells[..., 2]).ravel(), minlength=512)
    return np.asarray(np.sqrt(counts / counts.sum()), np.float32)


def _hog(photo: NDArray[np.uint8]) -> Rows:
    """Nine directions in cells of 16 px, blocks of 2 x 2 cells normalised (Dalal & Triggs 2005)."""
    grey = photo.astype(np.float32).mean(2)
    dy, dx = np.gradient(grey)
    strength, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi)
    bins = np.minimum((angle / np.pi * 9).astype(np.int64), 8)
    n = BASELINE_SIDE // 16
    y, x = np.mgrid[0:BASELINE_SIDE, 0:BASELINE_SIDE] // 16
    cells = np.bincount(((y * n + x) * 9 + bins).ravel(), weights=strength.ravel(), minlength=n * n * 9)
    cells = cells.reshape(n, n, 9)
    blocks = np.concatenate([cells[:-1, :-1], cells[1:, :-1], cells[:-1, 1:], cells[1:, 1:]], axis=2)
    return np.asarray(blocks / (np.linalg.norm(blocks, axis=2, keepdims=True) + 1.0), np.float32).ravel()


if __name__ == "__main__":
    sys.exit(main())
