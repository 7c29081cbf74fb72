"""How vectors travel to and from PostgreSQL's halfvec."""

import numpy as np
from numpy.typing import NDArray


def halfvec_text(vector: NDArray[np.float32]) -> str:
    """The literal of a halfvec; six digits are more than a half-precision number holds."""
    return "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]"
