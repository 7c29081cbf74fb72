"""How vectors travel to and from PostgreSQL's halfvec."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray


def halfvec_text(vector: NDArray[np.float32]) -> str:
    """The literal of a halfvec; six digits are more than a half-precision number holds."""
    return "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]"


def half_expression(kind: Literal["text", "image"], text_dim: int, dim: int, row: str = "") -> str:
    """That half of a fused row, as its index has it: only a query that says exactly this uses the index."""
    return f"subvector({row}vec, {1 if kind == 'text' else text_dim + 1}, {dim})::halfvec({dim})"
