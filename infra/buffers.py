"""How much of a cluster the embedded PostgreSQL keeps in memory of its own (`shared_buffers`)."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SMALL_MB: Final = 64
"""What a small installation has: the promise of one small server counts on it."""

_LARGE_MB: Final = 1024
"""Clusters of this size and more get buffers by their size."""

_STEP_MB: Final = 64
_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def shared_buffers_mb(cluster_mb: int, memory_mb: int) -> int:
    """Half of a large cluster, but no more than an eighth of the machine.

    The walk through the graphs of a tenant of 200,000 items reads 14,000 pages where a filter passes a tenth of them.
    Out of the system's cache that took 159 ms of CPU, out of buffers 54.
    """
    if cluster_mb < _LARGE_MB:
        return SMALL_MB
    return max(SMALL_MB, min(cluster_mb // 2, memory_mb // 8) // _STEP_MB * _STEP_MB)


def cluster_mb(data: Path) -> int:
    """Megabytes of the tables and indexes of a cluster; 0 where there are none yet."""
    size = 0
    for folder, _, names in os.walk(data / "base"):
        for name in names:
            with suppress(FileNotFoundError):  # a temporary file of a server that is just ending
                size += os.stat(os.path.join(folder, name)).st_size
    return size >> 20


def memory_mb() -> int:
    """Megabytes of the machine, or of the container where that has a limit."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # absent, or "max"
            sizes.append(int(limit.read_text()))
    return min(sizes) >> 20
