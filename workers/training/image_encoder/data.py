"""What the image encoder is trained on: the train split of the CC0 clothing photos, and drawings.

The validation split is loaded by `benchmarks/image_encoder.py` alone.
"""

import hashlib
import random
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.encoders.compact import square
from workers.training.image_encoder.drawings import DRAWERS, draw

STORED_SIDE = 128
"""Side of the stored squares; larger than the network's input, so that a crop loses no detail."""


class Pictures(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled squares on white: `pixels` uint8[n, 3, side, side], `labels` int64[n], indices into `kinds`."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    kinds: tuple[str, ...]
    sha256: str
    """Over the sorted lines `id category sha256-of-file` of the photos; for drawings over the pixels."""


class _Row(msgspec.Struct, frozen=True):
    id: str
    category: str
    split: str
    image: str


def load_photos(folder: Path, side: int = STORED_SIDE) -> Pictures:
    """The photos of `folder`/items.jsonl whose split is `train`, in the order of their ids."""
    lines = (folder / "items.jsonl").read_bytes().splitlines()
    rows = [row for row in (msgspec.json.decode(line, type=_Row) for line in lines) if row.split == "train"]
    rows.sort(key=lambda row: row.id)
    kinds = tuple(sorted({row.category for row in rows}))
    listing = hashlib.sha256()
    pixels = np.empty((len(rows), 3, side, side), np.uint8)
    for i, row in enumerate(rows):
        path = folder / row.image
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        listing.update(f"{row.id} {row.category} {digest}\n".encode())
        with Image.open(path) as picture:
            pixels[i] = square(np.asarray(picture.convert("RGB")), side).transpose(2, 0, 1)
    labels = np.array([kinds.index(row.category) for row in rows], np.int64)
    return Pictures(pixels=pixels, labels=labels, kinds=kinds, sha256=listing.hexdigest())


def draw_pictures(per_kind: int, seed: int, first: tuple[str, ...] = (), side: int = STORED_SIDE) -> Pictures:
    """`per_kind` drawings of everything that can be drawn; `first` fixes the numbers of the first kinds."""
    rng = random.Random(seed)  # noqa: S311 -- pictures, no secrets
    kinds = (*first, *(kind for kind in DRAWERS if kind not in first))
    drawn = [(kinds.index(kind), draw(kind, side, rng)) for kind in DRAWERS for _ in range(per_kind)]
    pixels = np.stack([picture.transpose(2, 0, 1) for _, picture in drawn])
    labels = np.array([label for label, _ in drawn], np.int64)
    return Pictures(pixels=pixels, labels=labels, kinds=kinds, sha256=hashlib.sha256(pixels.tobytes()).hexdigest())
