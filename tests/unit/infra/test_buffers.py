"""The embedded PostgreSQL keeps in memory what the machine can spare."""

from pathlib import Path

import pytest

from infra.buffers import cluster_mb, memory_mb, shared_buffers_mb


@pytest.mark.parametrize(
    ("cluster", "memory", "buffers"),
    [
        (0, 24_000, 64),
        (1023, 24_000, 64),
        (1155, 24_000, 576),
        (20_000, 24_000, 2944),
        (20_000, 1_000, 64),
        (20_000, 400, 64),
    ],
)
def test_buffers_by_cluster_and_machine(cluster: int, memory: int, buffers: int) -> None:
    """64 MB while the cluster is small, then half of it, within an eighth of the machine."""
    assert shared_buffers_mb(cluster, memory) == buffers


def test_a_cluster_is_measured_by_its_tables(tmp_path: Path) -> None:
    """Files below `base`, in all databases; WAL and logs do not count, and a new cluster has none."""
    assert cluster_mb(tmp_path) == 0
    for name, size in (("base/1/2", 3 << 20), ("base/5/6", 2 << 20), ("pg_wal/0", 9 << 20)):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    assert cluster_mb(tmp_path) == 5


def test_the_machine_has_memory() -> None:
    """Whatever limits it."""
    assert memory_mb() > 100
