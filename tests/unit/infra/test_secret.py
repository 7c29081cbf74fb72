"""The installation's secret."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.errors import Conflict
from infra.secret import (
    BadSecretFile,
    Secret,
    SecretFromSettings,
    adopt_secret,
    announce_secret,
    forget_old_secrets,
    load_secret,
    mark_of,
)
from infra.settings import Settings


def test_the_setting_wins(tmp_path: Path) -> None:
    """With KINDRED_SECRET_KEY no file is made."""
    assert load_secret(Settings(data_dir=tmp_path, secret_key="x" * 32)).current == b"x" * 32
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    """Every later start reads the same."""
    settings = Settings(data_dir=tmp_path / "new")
    first = load_secret(settings)
    assert load_secret(settings) == first
    assert len(first.current) == 64


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


def test_other_secrets_are_believed_beside_the_current_one(tmp_path: Path) -> None:
    """In order, each once, and never the current one again."""
    settings = Settings(data_dir=tmp_path, secret_key="x" * 32, secret_key_old=("y" * 32, "x" * 32, "y" * 32))
    assert load_secret(settings).every == (b"x" * 32, b"y" * 32)


def test_a_secret_changes_in_two_steps_and_an_end(tmp_path: Path) -> None:
    """First all believe the new one, then it signs and the old one is believed, then the old one is gone."""
    settings = Settings(data_dir=tmp_path)
    old = load_secret(settings)
    assert announce_secret(settings)
    announced = load_secret(settings)
    assert announced.current == old.current
    assert not announce_secret(settings)  # again makes no other
    assert load_secret(settings) == announced
    adopt_secret(settings)
    adopted = load_secret(settings)
    assert (adopted.current, adopted.others) == (announced.others[0], (old.current,))
    assert forget_old_secrets(settings) == 1
    assert load_secret(settings).every == (adopted.current,)
    assert {path.name for path in tmp_path.iterdir()} == {"secret_key"}


def test_a_change_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    """Wherever it was: no secret is lost, and the same one is adopted."""
    settings = Settings(data_dir=tmp_path)
    old = load_secret(settings).current
    announce_secret(settings)
    coming = (tmp_path / "secret_key.next").read_bytes()
    (tmp_path / "secret_key.old").write_bytes(old)
    (tmp_path / "secret_key").write_bytes(coming)  # and cut off before the announcement was taken away
    assert load_secret(settings).every == (coming, old)
    adopt_secret(settings)
    assert load_secret(settings).every == (coming, old)


def test_nothing_is_adopted_that_was_not_announced(tmp_path: Path) -> None:
    """A process that does not believe it would refuse what it signs."""
    with pytest.raises(Conflict, match="announced"):
        adopt_secret(Settings(data_dir=tmp_path))


@pytest.mark.parametrize("change", [announce_secret, adopt_secret, forget_old_secrets])
def test_a_secret_of_the_settings_is_not_changed_here(tmp_path: Path, change: Callable[[Settings], object]) -> None:
    """Where it comes from it must be changed."""
    with pytest.raises(SecretFromSettings):
        change(Settings(data_dir=tmp_path, secret_key="x" * 32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["secret_key.next", "secret_key.old"])
def test_a_cut_file_beside_it_is_refused(tmp_path: Path, name: str) -> None:
    """A short secret can be guessed."""
    load_secret(Settings(data_dir=tmp_path))
    (tmp_path / name).write_text("short\n")
    with pytest.raises(BadSecretFile):
        load_secret(Settings(data_dir=tmp_path))


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    """Not even in a traceback: its mark tells it from others, and tells nothing of it."""
    secret = Secret(current=b"x" * 32, others=(b"y" * 32,))
    assert "xxxx" not in repr(secret) + str(secret) + f"{secret}"
    assert mark_of(b"x" * 32) in repr(secret)
    assert mark_of(b"x" * 32) != mark_of(b"y" * 32)
