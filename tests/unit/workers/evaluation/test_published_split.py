"""A split made by others, in the layout `user item item …`, against the arithmetic of the papers in bare NumPy."""

from pathlib import Path

import numpy as np
import pytest

from infra.settings import Settings
from workers.evaluation.run import Options, evaluate

SHOPPERS, ITEMS, DIMS, ALPHA = 400, 320, 256, 0.3


def _split(folder: Path) -> tuple[np.ndarray, np.ndarray, Options]:  # type: ignore[type-arg]
    """Shoppers of eight tastes with popular and rare items; a fifth of each shopper's items is the test."""
    rng = np.random.default_rng(7)
    train, test = np.zeros((SHOPPERS, ITEMS)), np.zeros((SHOPPERS, ITEMS))
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.7
    for shopper in range(SHOPPERS):
        liking = popularity * np.where(np.arange(ITEMS) % 8 == shopper % 8, 12, 1)
        items = rng.choice(ITEMS, rng.integers(10, 30), replace=False, p=liking / liking.sum())
        held = max(1, len(items) // 5)
        train[shopper, items[held:]], test[shopper, items[:held]] = 1, 1
    for name, matrix in (("train", train), ("test", test)):
        lines = [f"{shopper} {' '.join(map(str, np.flatnonzero(row)))}" for shopper, row in enumerate(matrix)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    options = Options(train=folder / "train.txt", test=folder / "test.txt", models=("graph",), out=folder, ks=(10, 20))
    return train, test, options


def test_the_graph_filter_has_the_papers_figures(tmp_path: Path) -> None:
    """Recall and NDCG at 10 and 20, full ranking, agree to four digits with the dense formula of GF-CF and LightGCN's
    way of measuring.
    """
    train, test, options = _split(tmp_path)
    by_shopper, by_item = train.sum(axis=1), np.maximum(train.sum(axis=0), 1)
    normal = train / np.sqrt(by_shopper)[:, None] / np.sqrt(by_item)[None, :]
    vectors = np.linalg.svd(normal, full_matrices=False)[2][:DIMS].T
    ideal_pass = vectors @ vectors.T / np.sqrt(by_item)[:, None] * np.sqrt(by_item)[None, :]
    scores = train @ (normal.T @ normal + ALPHA * ideal_pass)
    scores[train > 0] = -np.inf
    ranked = np.argsort(-scores, axis=1)
    found = evaluate(options, Settings()).models["graph"]
    for k in options.ks:
        hit = np.take_along_axis(test, ranked[:, :k], axis=1)
        wanted = test.sum(axis=1)
        gain = hit @ (1 / np.log2(np.arange(2, k + 2)))
        ideal = np.array([(1 / np.log2(np.arange(2, min(int(n), k) + 2))).sum() for n in wanted])
        assert found[f"recall@{k}"].value == pytest.approx((hit.sum(axis=1) / wanted).mean(), abs=5e-5)
        assert found[f"ndcg@{k}"].value == pytest.approx((gain / ideal).mean(), abs=5e-5)
        assert 0.05 < found[f"recall@{k}"].value < 0.95
