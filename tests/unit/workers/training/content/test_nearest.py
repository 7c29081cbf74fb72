"""The nearest by content: the same lists as a plain computation over all pairs."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.training.content import nearest
from workers.training.content.nearest import Catalogue, Dial, Half, nearest_lists

TEXT, GRAMS, IMAGE = 1, 2, 3
SPREAD = {TEXT: (0.2, 0.3), GRAMS: (0.1, 0.2)}
PHOTOS = {IMAGE: (0.3, 0.4)}


def _catalogue(count: int, seed: int, *, groups: int = 0) -> Catalogue:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 10)).astype(np.float32)
    vectors[rng.random(count) < 0.2] = vectors[0]  # equal items, so that scores tie
    text_space = rng.choice([0, TEXT, TEXT, GRAMS], count).astype(np.int16)
    image_space = rng.choice([0, IMAGE, IMAGE], count).astype(np.int16)
    vectors[:, :6] /= np.linalg.norm(vectors[:, :6], axis=1, keepdims=True)
    vectors[:, 6:] /= np.linalg.norm(vectors[:, 6:], axis=1, keepdims=True)
    vectors[text_space == 0, :6] = 0
    vectors[image_space == 0, 6:] = 0
    numbers = rng.permutation(count * 3)[:count].astype(np.int32)
    group = numbers.copy()
    for code in range(groups):
        members = rng.choice(count, min(count, 4), replace=False)
        group[members] = numbers[members].min() if code else group[members]
    return Catalogue(
        item_no=numbers,
        vectors=vectors,
        text_dim=6,
        text_space=text_space,
        image_space=image_space,
        group=group,
        shown=rng.random(count) < 0.7,
    )


def _dial(kind: int, text: float, image: float) -> Dial:
    return Dial(kind=kind, text=Half(weight=text, spread=SPREAD), image=Half(weight=image, spread=PHOTOS))


def _plain(catalogue: Catalogue, seed: int, text: float, image: float, keep: int) -> list[tuple[int, float]]:
    """(number, score) of the best of each other group."""
    vectors = catalogue.vectors.astype(np.float64)
    own_text, own_image = int(catalogue.text_space[seed]), int(catalogue.image_space[seed])
    text = text if own_text else 0.0
    image = image if own_image else 0.0
    if not text and not image:
        return []
    mean_t, dev_t = SPREAD.get(own_text, (0.0, 1.0))
    mean_i, dev_i = PHOTOS[IMAGE]
    best = (text * (1 - mean_t) / dev_t + image * (1 - mean_i) / dev_i) / np.hypot(text, image)
    some_shown = {int(code) for code in catalogue.group[catalogue.shown]}
    found: dict[int, tuple[float, int]] = {}
    for other in range(len(vectors)):
        code = int(catalogue.group[other])
        if code == int(catalogue.group[seed]) or (code in some_shown and not catalogue.shown[other]):
            continue
        z, norm = 0.0, 0.0
        if text and catalogue.text_space[other] == own_text:
            z += text * (vectors[other, :6] @ vectors[seed, :6] - mean_t) / dev_t
            norm += text**2
        if image and catalogue.image_space[other]:
            z += image * (vectors[other, 6:] @ vectors[seed, 6:] - mean_i) / dev_i
            norm += image**2
        if norm:
            found[code] = min(
                found.get(code, (np.inf, 0)), (-round(z / best / norm**0.5, 5), int(catalogue.item_no[other]))
            )
    return [(number, -negative) for negative, number in sorted(found.values())[:keep]]


@given(
    count=st.integers(1, 90),
    seed=st.integers(0, 10**6),
    groups=st.integers(0, 12),
    keep=st.sampled_from([1, 3, 200]),
    dial=st.sampled_from([(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.9, 0.2)]),
)
def test_the_lists_are_those_of_all_pairs(
    count: int, seed: int, groups: int, keep: int, dial: tuple[float, float]
) -> None:
    """Items that lack a half, several text spaces, variants, equal items; every score in order."""
    catalogue = _catalogue(count, seed, groups=groups)
    dials = [_dial(1, *dial), _dial(2, 0.0, 1.0)]
    rows: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for lists in nearest_lists(catalogue, dials, keep=keep, threads=2):
        for at, number in enumerate(lists.item_no.tolist()):
            size = int(lists.sizes[at])
            rows[lists.kind, number] = list(
                zip(lists.others[at, :size].tolist(), (lists.scores[at, :size] / 32767).tolist(), strict=True)
            )
    for kind, weights in ((1, dial), (2, (0.0, 1.0))):
        for place, number in enumerate(catalogue.item_no.tolist()):
            everything = dict(_plain(catalogue, place, *weights, len(catalogue.item_no)))
            expected = list(everything.values())[:keep]
            got = rows.get((kind, number), [])
            assert [score for _, score in got] == pytest.approx([min(max(score, 0), 1) for score in expected], abs=1e-4)
            assert len({other for other, _ in got}) == len(got)
            if not groups:
                assert [everything[other] for other, _ in got] == pytest.approx(expected, abs=1e-4)


def test_tiles_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, few seeds at once, any number of threads: the same scores."""
    catalogue = _catalogue(900, 4, groups=30)

    def lists(threads: int) -> Any:
        found: dict[tuple[int, int], list[int]] = {}
        for block in nearest_lists(catalogue, [_dial(1, 0.5, 0.5), _dial(2, 0.0, 1.0)], keep=10, threads=threads):
            found |= {(block.kind, int(number)): block.scores[at].tolist() for at, number in enumerate(block.item_no)}
        return [found[key] for key in sorted(found)]

    # Equal items may change places: a matrix product rounds by where in the matrix a column stands.
    whole = np.array(lists(1))
    monkeypatch.setattr(nearest, "_TILE_BYTES", 50_000)
    assert np.abs(lists(3) - whole).max() <= 1
    monkeypatch.setattr(nearest, "_SEEDS", 7)
    assert np.abs(lists(2) - whole).max() <= 1


@pytest.mark.parametrize("photographed", [0.02, 1.0], ids=["nearly none has a photo", "all have the same photo"])
def test_memory_is_that_of_some_tiles(photographed: float) -> None:
    """Also where hardly any item has a list, or all are equally like: what a list cannot hold is not held."""
    count = 2400
    photo = (np.arange(count) < count * photographed)[:, None] * np.eye(1, 10, 6, dtype=np.float32)
    catalogue = Catalogue(
        item_no=np.arange(count, dtype=np.int32),
        vectors=(photo + np.eye(1, 10, dtype=np.float32)).astype(np.float32),
        text_dim=6,
        text_space=np.full(count, TEXT, np.int16),
        image_space=np.where(photo.any(axis=1), IMAGE, 0).astype(np.int16),
        group=np.arange(count, dtype=np.int32),
        shown=np.ones(count, bool),
    )
    tracemalloc.start()
    try:
        for lists in nearest_lists(catalogue, [_dial(1, 0.5, 0.5), _dial(2, 0.0, 1.0)], threads=1):
            first = lists.others[np.arange(len(lists.sizes)), 0]
            assert (first == np.where(lists.item_no == 0, 1, 0)).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000


def test_progress_reaches_the_number_of_items() -> None:
    """Also of items that have no list."""
    told: list[Any] = []
    catalogue = _catalogue(50, 1)
    for _ in nearest_lists(catalogue, [_dial(1, 0.0, 1.0)], progress=told.append):
        pass
    assert told[-1] == 50
