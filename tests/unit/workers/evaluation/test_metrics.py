"""Metrics on lists whose answer is known."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from workers.evaluation.metrics import catalogue_metrics, hits, ranking_metrics, top_lists


def test_the_best_come_first_and_the_forbidden_never() -> None:
    """-inf is no candidate; a list is as long as there are candidates."""
    scores = np.array([[1.0, 3.0, -np.inf, 2.0], [-np.inf, -np.inf, 5.0, -np.inf]], np.float32)
    assert top_lists(scores, 3, rng=np.random.default_rng(0)).tolist() == [[1, 3, 0], [2, -1, -1]]


def test_chance_breaks_ties_evenly() -> None:
    """A model that says nothing is shown as random, whatever the order of the catalogue."""
    scores = np.zeros((2000, 10), np.float32)
    scores[:, 0] = 1
    lists = top_lists(scores, 3, rng=np.random.default_rng(0))
    assert (lists[:, 0] == 0).all()
    counts = np.bincount(lists[:, 1:].ravel(), minlength=10)[1:]
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


def test_metrics_of_a_list_by_hand() -> None:
    """Two of three wanted items at places 1 and 3 of four."""
    relevant = csr_array(np.array([[1, 0, 1, 0, 0, 1]], np.float32))
    hit = hits(np.array([[0, 1, 2, 3]], np.int32), relevant)
    assert hit.tolist() == [[True, False, True, False]]
    found = ranking_metrics(hit, np.array([3]), (2, 4))
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    wanted = {"recall@2": 1 / 3, "recall@4": 2 / 3, "precision@4": 0.5, "hit@2": 1.0, "mrr@4": 1.0}
    wanted |= {"ndcg@4": (1 + 1 / 2) / ideal, "ndcg@2": 1 / (1 + 1 / math.log2(3))}
    for name, value in wanted.items():
        assert found[name][0] == pytest.approx(value), name


def test_no_item_is_no_hit() -> None:
    """Filled-up places never count, even where the last item of the row before is wanted."""
    relevant = csr_array(np.array([[0, 0, 1], [0, 0, 1]], np.float32))
    assert hits(np.array([[-1, -1], [-1, 2]], np.int32), relevant).tolist() == [[False, False], [False, True]]


def test_one_list_for_all_is_unequal_and_every_item_once_is_equal() -> None:
    """Gini 0 where all are shown alike, near 1 where one item has all slots."""
    popularity = np.arange(10, dtype=np.float32)
    alike = catalogue_metrics(np.arange(10, dtype=np.int32).reshape(10, 1), popularity, 10)
    one = catalogue_metrics(np.full((10, 1), 9, np.int32), popularity, 10)
    assert alike["gini"] == pytest.approx(0)
    assert alike["coverage"] == 1
    assert alike["popularity_share"] == pytest.approx(0.1)
    assert one["gini"] == pytest.approx(0.9)
    assert one["coverage"] == pytest.approx(0.1)
    assert one["popularity_share"] == 1
    assert one["novelty"] < alike["novelty"]
