"""The installation's secret."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.secret import BadSecretFile, load_secret
from infra.settings import Settings


def test_the_setting_wins(tmp_path: Path) -> None:
    """With KINDRED_SECRET_KEY no file is made."""
    assert load_secret(Settings(data_dir=tmp_path, secret_key="x" * 32)) == b"x" * 32
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    """Every later start reads the same."""
    settings = Settings(data_dir=tmp_path / "new")
    first = load_secret(settings)
    assert load_secret(settings) == first
    assert len(first) == 64


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    """It is 0600, and nothing is left beside it."""
    load_secret(Settings(data_dir=tmp_path))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    """Of many that find no file one makes it, and all use that one."""
    settings = Settings(data_dir=tmp_path)
    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(lambda _: load_secret(settings), range(64)))
    assert len(found) == 1


def test_an_emptied_file_is_refused(tmp_path: Path) -> None:
    """An empty secret would make keys that anybody can sign."""
    (tmp_path / "secret_key").write_text("")
    with pytest.raises(BadSecretFile, match="backup"):
        load_secret(Settings(data_dir=tmp_path))
