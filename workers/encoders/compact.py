"""The offline image encoder: the small network of `packs/kindred-image-v1`, trained on CC0 photos and drawings.

Serves where no hub is reachable. What it is good and bad at is in the pack's CARD.md.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
from PIL import Image

from workers.encoders.types import FloatArray, Photo, Space

BATCH = 32
"""Photos in one run of the network; bounds its working memory (about 4 MB a photo)."""

PACK = Path(__file__).parent / "packs" / "kindred-image-v1"
"""The pack that is part of this repository."""


class _Size(msgspec.Struct, frozen=True, kw_only=True):
    height: int
    width: int


class _Preprocessor(msgspec.Struct, frozen=True, kw_only=True):
    pad_size: _Size
    pad_color: tuple[int, int, int]
    resample: int
    rescale_factor: float
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    revision: str
    dim: int


def square(
    photo: Photo,
    side: int,
    *,
    ground: tuple[int, int, int] = (255, 255, 255),
    resample: int = Image.Resampling.BICUBIC,
) -> Photo:
    """The whole photo, shrunk or enlarged to fit and centred on a plain square: `uint8[side, side, 3]`."""
    height, width = photo.shape[:2]
    scale = side / max(height, width)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(photo).resize(fitted, Image.Resampling(resample), reducing_gap=3.0)
    canvas = Image.new("RGB", (side, side), ground)
    canvas.paste(picture, ((side - fitted[0]) // 2, (side - fitted[1]) // 2))
    return np.asarray(canvas)


class CompactImageEncoder:
    """Photos to rows of 256 numbers: what a thing's shape is, then what its colours are.

    `folder` holds a pack (its files are taken as already verified); `threads` is what one run may use.
    """

    def __init__(self, folder: Path = PACK, threads: int = 1) -> None:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=_Manifest)
        self._prepare = msgspec.json.decode((folder / "preprocessor_config.json").read_bytes(), type=_Preprocessor)
        self.space = Space(name=f"{manifest.name}@{manifest.revision[:12]}", kind="image", dim=manifest.dim)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        self._session = ort.InferenceSession(
            str(folder / "model.onnx"), sess_options=options, providers=["CPUExecutionProvider"]
        )

    def encode(self, photos: Sequence[Photo]) -> FloatArray:
        """`float32[len(photos), 256]`, rows L2-normalised, in the order of `photos`.

        A photo is `uint8[height, width, 3]`, RGB and upright, of any size and aspect. A row does not depend on the
        other photos of the call beyond the last bits of its numbers.
        """
        rows = np.empty((len(photos), self.space.dim), np.float32)
        for start in range(0, len(photos), BATCH):
            pixels = self._pixels(photos[start : start + BATCH])
            rows[start : start + len(pixels)] = self._session.run(["image_embeds"], {"pixel_values": pixels})[0]
        return rows

    def _pixels(self, photos: Sequence[Photo]) -> FloatArray:
        p = self._prepare
        side = p.pad_size.height
        squares = np.stack([square(photo, side, ground=p.pad_color, resample=p.resample) for photo in photos])
        scaled = squares.astype(np.float32) * np.float32(p.rescale_factor)
        normed = (scaled - np.array(p.image_mean, np.float32)) / np.array(p.image_std, np.float32)
        return np.ascontiguousarray(normed.transpose(0, 3, 1, 2))
