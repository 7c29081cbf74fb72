"""The secret that API keys, cursors and addresses of photos are signed with, and those that it replaces.

What is written is written under the current secret; what is read is believed under any of them, so that a secret can
be changed while everything runs (docs/secrets.md).
"""

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from infra.errors import Conflict, Invalid
from infra.settings import Settings

_NAME: Final = "secret_key"
_NEXT: Final = "secret_key.next"
_OLD: Final = "secret_key.old"
_BYTES: Final = 32


class BadSecretFile(Invalid):
    """The data folder's secret file holds something else."""

    code = "bad_secret_file"
    title = "The secret file cannot be used"


class SecretFromSettings(Conflict):
    """The secret is set from outside, so no command can change it."""

    code = "secret_from_settings"
    title = "The secret is not in the data folder"


class Secret(Struct, frozen=True, kw_only=True):
    """The installation's secret: `current` signs; `others`, older or coming, are believed beside it."""

    current: bytes
    others: tuple[bytes, ...] = ()

    @property
    def every(self) -> tuple[bytes, ...]:
        """The current one first."""
        return (self.current, *self.others)

    def __repr__(self) -> str:
        # An error's traceback shows what a function was given.
        return f"<secret {mark_of(self.current)} and {len(self.others)} others>"


def mark_of(secret: bytes) -> str:
    """Eight hexadecimal digits by which what was made under a secret is told; they do not tell the secret."""
    return hmac.digest(secret, b"tombstones", "sha256")[:4].hex()


def load_secret(settings: Settings) -> Secret:
    """The secret of this installation; every process of it gets the same.

    `KINDRED_SECRET_KEY` wins. Otherwise 32 random bytes are made once in `<data_dir>/secret_key` (0600), and the
    files beside it hold the secret to come and those before. `KINDRED_SECRET_KEY_OLD` adds to either.
    Losing it makes every API key unknown. Raises BadSecretFile when the file was cut or emptied.
    """
    others = [each.encode() for each in settings.secret_key_old]
    if settings.secret_key is not None:
        current = settings.secret_key.encode()
    else:
        path = settings.data_dir / _NAME
        if not path.exists():
            _make(path)
        found = _read(path)
        if len(found) != 1:
            raise _bad(path)
        current = found[0]
        others += [*_read(settings.data_dir / _NEXT), *_read(settings.data_dir / _OLD)]
    return Secret(current=current, others=tuple(each for each in dict.fromkeys(others) if each != current))


def announce_secret(settings: Settings) -> bool:
    """Make the secret to come, which every process believes from its next start; False where there is one.

    Raises SecretFromSettings.
    """
    _own(settings)
    load_secret(settings)  # a secret that cannot be read is not replaced
    path = settings.data_dir / _NEXT
    if _read(path):
        return False
    _make(path)
    return True


def adopt_secret(settings: Settings) -> None:
    """Sign with the announced secret from the next start on, and believe the present one as an old one.

    Cut off half-way it can be called again. Raises SecretFromSettings; Conflict where none was announced.
    """
    _own(settings)
    folder = settings.data_dir
    coming = _read(folder / _NEXT)
    if not coming:
        raise Conflict("No secret is announced; `kindred secret rotate` makes one.")
    current = load_secret(settings).current
    if current != coming[0]:
        kept = dict.fromkeys([*_read(folder / _OLD), current])
        _write(folder / _OLD, b"\n".join(kept))
        _write(folder / _NAME, coming[0])
    (folder / _NEXT).unlink()


def forget_old_secrets(settings: Settings) -> int:
    """Believe the old secrets no longer, from the next start on; how many there were. Raises SecretFromSettings."""
    _own(settings)
    forgotten = len(_read(settings.data_dir / _OLD))
    (settings.data_dir / _OLD).unlink(missing_ok=True)
    return forgotten


def new_secret() -> str:
    """A secret from the system's randomness: 64 hexadecimal digits."""
    return secrets.token_hex(_BYTES)


def _own(settings: Settings) -> None:
    if settings.secret_key is not None:
        raise SecretFromSettings(
            "KINDRED_SECRET_KEY is set, so change it where it is set: docs/secrets.md says in which order."
        )


def _read(path: Path) -> list[bytes]:
    """The secrets of a file, one a line; none where there is no file. Raises BadSecretFile."""
    try:
        found = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    if any(len(each) < _BYTES for each in found):
        raise _bad(path)
    return [each.encode() for each in found]


def _bad(path: Path) -> BadSecretFile:
    return BadSecretFile(
        f"{path} does not hold a secret of {_BYTES} characters or more. Restore it from a backup; "
        "or remove it, and then make every API key anew."
    )


def _make(path: Path) -> None:
    """Write the file aside and link it into place: of two processes that start together one wins, whole."""
    aside = _aside(path, new_secret().encode())
    try:
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()


def _write(path: Path, content: bytes) -> None:
    """Replace the file, whole or not at all."""
    _aside(path, content).replace(path)


def _aside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return aside
