"""Runs the image tower of a model pack, in the CLIP and SigLIP layouts in which optimum exports them."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.encoders.pack import BadPack, Pack
from workers.encoders.session import choose_output, open_session
from workers.encoders.text import normalise
from workers.encoders.types import FloatArray, Photo, Space

_OUTPUTS = ("image_embeds", "pooler_output", "embeddings")
_CONFIG = "preprocessor_config.json"


class Preparation(msgspec.Struct, frozen=True):
    """What a pack's `preprocessor_config.json` says, under Hugging Face's names."""

    size: int | dict[str, int] = 224
    resample: int = 3
    crop_size: int | dict[str, int] | None = None
    do_resize: bool = True
    do_center_crop: bool = False
    do_rescale: bool = True
    do_normalize: bool = True
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class OnnxImageEncoder:
    """An `ImageEncoder` over one pack's image tower; pictures are prepared as the pack's own file says."""

    def __init__(self, pack: Pack, *, threads: int = 1, batch: int = 16) -> None:
        """Open the session. `pack` must have been verified; raises `BadPack` where it cannot be run."""
        options = pack.manifest.image
        self._space = pack.space("image")
        self._batch = batch
        try:
            self.preparation = msgspec.json.decode(pack.file(_CONFIG).read_bytes(), type=Preparation)
        except msgspec.DecodeError as error:
            raise BadPack(f"{_CONFIG} of the pack {pack.manifest.name} cannot be used: {error}.") from error
        self._session = open_session(pack.file(options.model), threads=threads)
        self._inputs = [node.name for node in self._session.get_inputs()]
        if "pixel_values" not in self._inputs:
            raise BadPack(f"The image model of {pack.manifest.name} has no input pixel_values.")
        self._output = choose_output(self._session, options.output, _OUTPUTS)

    @property
    def space(self) -> Space:
        """The space of the rows."""
        return self._space

    def encode(self, photos: Sequence[Photo]) -> FloatArray:
        """`float32[len(photos), dim]`, rows L2-normalised, in the order of `photos`."""
        rows = np.zeros((len(photos), self._space.dim), np.float32)
        for start in range(0, len(photos), self._batch):
            pixels = np.stack([prepare(p, self.preparation) for p in photos[start : start + self._batch]])
            rows[start : start + len(pixels)] = self._run(pixels)
        return rows

    def _run(self, pixels: FloatArray) -> FloatArray:
        feed: dict[str, NDArray[Any]] = {"pixel_values": pixels}
        for name in self._inputs:
            if name != "pixel_values":
                # A model exported whole wants a text as well; the picture's vector does not depend on it.
                feed[name] = np.ones((1, 2), np.int64)
        output = np.asarray(self._session.run([self._output], feed)[0], np.float32)
        if output.shape != (len(pixels), self._space.dim):
            raise BadPack(f"{self._space.name} answers {output.shape[1:]} numbers, not {self._space.dim}.")
        return normalise(output)


def prepare(photo: Photo, how: Preparation) -> FloatArray:
    """One photo as `float32[3, height, width]`: resized, cropped, rescaled, normalised per channel."""
    picture = Image.fromarray(photo)
    if how.do_resize:
        picture = picture.resize(_target(picture.size, how.size), Image.Resampling(how.resample), reducing_gap=None)
    if how.do_center_crop and how.crop_size is not None:
        width, height = _rectangle(how.crop_size)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        # Outside the picture this fills with black, as Hugging Face's own cropping does.
        picture = picture.crop((left, top, left + width, top + height))
    values = np.asarray(picture, np.float32)
    if how.do_rescale:
        values = values * np.float32(how.rescale_factor)
    if how.do_normalize:
        mean, deviation = np.array(how.image_mean, np.float32), np.array(how.image_std, np.float32)
        values = np.asarray((values - mean) / deviation, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)


def _target(size: tuple[int, int], wanted: int | dict[str, int]) -> tuple[int, int]:
    """(width, height) to resize to: the shortest edge, or a rectangle."""
    shortest = wanted if isinstance(wanted, int) else wanted.get("shortest_edge")
    if shortest is None:
        return _rectangle(wanted)
    width, height = size
    if width <= height:
        return shortest, int(shortest * height / width)
    return int(shortest * width / height), shortest


def _rectangle(size: int | dict[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "width" not in size or "height" not in size:
        raise BadPack(f"{_CONFIG} names a size {json.dumps(size)} without width and height.")
    return size["width"], size["height"]
