"""Memory that was freed goes back to the system: a small server has none to spare for a past import."""

import ctypes
import sys
from typing import Final

_ARENA_MAX: Final = -8  # M_ARENA_MAX of malloc.h


def use_one_arena() -> None:
    """Let all threads share one heap (glibc): call before the first thread is started.

    One heap per thread kept 90 MB more after an import and 2,465 texts; Python's own lock lets one thread at a
    time allocate anyway, and ONNX Runtime allocates little within a run.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
        if mallopt is not None:
            mallopt(_ARENA_MAX, 1)


async def give_back() -> None:
    """Return free pages from inside the heap to the system; takes milliseconds."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
