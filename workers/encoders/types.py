"""The vocabulary of encoders: a space, the two protocols, and the arrays that pass between them."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
"""Embeddings, `float32[n, dim]`, every row of length 1 (or all zeros where nothing could be encoded)."""

Photo = NDArray[np.uint8]
"""A decoded photo, `uint8[height, width, 3]`, RGB, already upright."""

Role = Literal["document", "query"]
"""What a text is for: some packs put a different prefix before a query than before a document."""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """A vector space: vectors compare only within one space.

    `name` is `pack@revision`, the revision cut to 12 characters; `dim` the number of columns.
    """

    name: str
    kind: Literal["text", "image"]
    dim: int


class TextEncoder(Protocol):
    """Turns texts into rows of one space."""

    @property
    def space(self) -> Space:
        """The space of the rows."""
        ...

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> FloatArray:
        """`float32[len(texts), space.dim]`, rows L2-normalised, in the order of `texts`."""
        ...


class ImageEncoder(Protocol):
    """Turns photos into rows of one space."""

    @property
    def space(self) -> Space:
        """The space of the rows."""
        ...

    def encode(self, photos: Sequence[Photo]) -> FloatArray:
        """`float32[len(photos), space.dim]`, rows L2-normalised, in the order of `photos`."""
        ...
