"""The folders of training runs."""

import os
from pathlib import Path

import pytest

from workers.training.child import scratch, sweep_scratch


@pytest.mark.anyio
async def test_a_folder_goes_with_its_run(tmp_path: Path) -> None:
    """With all that is in it."""
    async with scratch(tmp_path / "new") as folder:
        (folder / "x").write_bytes(b"1")
        assert folder.parent == tmp_path / "new"
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_worker_left_is_swept_after_a_day(tmp_path: Path) -> None:
    """And nothing else."""
    for name, age in (("kindred-train-old", 90_000), ("kindred-train-new", 100), ("mine", 90_000)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1_000_000 - age, 1_000_000 - age))
    assert sweep_scratch(tmp_path, now=1_000_000) == 1
    assert {each.name for each in tmp_path.iterdir()} == {"kindred-train-new", "mine"}
