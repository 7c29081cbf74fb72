"""What the image encoder is trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workers.training.image_encoder.data import draw_pictures, load_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos of two categories in the train split, one of validation whose file does not even exist."""
    rows = [("c", "hat", "train"), ("a", "shoes", "train"), ("b", "hat", "train"), ("d", "hat", "validation")]
    for number, (name, _, split) in enumerate(rows):
        if split == "train":
            Image.new("RGB", (20, 30), (40 * number, 0, 0)).save(tmp_path / f"{name}.png")
    lines = [json.dumps({"id": n, "category": c, "split": s, "image": f"{n}.png"}) for n, c, s in rows]
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_only_the_train_split_is_read(folder: Path) -> None:
    """Validation photos are neither loaded nor opened; photos come in the order of their ids."""
    photos = load_photos(folder, side=16)
    assert photos.pixels.shape == (3, 3, 16, 16)
    assert [photos.kinds[label] for label in photos.labels] == ["shoes", "hat", "hat"]


def test_listing_hash_follows_the_photos(folder: Path) -> None:
    """The hash is the same for the same files, and another one when a photo changes."""
    before = load_photos(folder, side=16).sha256
    assert load_photos(folder, side=16).sha256 == before
    Image.new("RGB", (20, 30), (1, 2, 3)).save(folder / "a.png")
    assert load_photos(folder, side=16).sha256 != before


def test_drawings_keep_the_numbers_of_the_photos_kinds() -> None:
    """Kinds given first have the first numbers, so that a drawn hat is a hat; others follow."""
    drawings = draw_pictures(1, seed=3, first=("shoes", "hat"), side=16)
    assert drawings.kinds[:2] == ("shoes", "hat")
    assert len(set(drawings.kinds)) == len(drawings.kinds)
    assert sorted(np.unique(drawings.labels)) == list(range(len(drawings.kinds)))
