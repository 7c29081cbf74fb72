"""The secret that API keys and cursors are signed with: from the settings, or made once in the data folder."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from infra.errors import Invalid
from infra.settings import Settings

_NAME: Final = "secret_key"
_BYTES: Final = 32


class BadSecretFile(Invalid):
    """The data folder's secret file holds something else."""

    code = "bad_secret_file"
    title = "The secret file cannot be used"


def load_secret(settings: Settings) -> bytes:
    """The secret of this installation; every process of it gets the same.

    `KINDRED_SECRET_KEY` wins. Otherwise 32 random bytes are made once in `<data_dir>/secret_key` (0600).
    Losing it makes every API key unknown. Raises BadSecretFile when the file was cut or emptied.
    """
    if settings.secret_key is not None:
        return settings.secret_key.encode()
    path = settings.data_dir / _NAME
    if not path.exists():
        _make(path)
    secret = path.read_text().strip()
    if len(secret) < _BYTES:
        raise BadSecretFile(
            f"{path} does not hold a secret of {_BYTES} characters or more. Restore it from a backup; "
            "or remove it, and then make every API key anew."
        )
    return secret.encode()


def _make(path: Path) -> None:
    """Write the file aside and link it into place: of two processes that start together one wins, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{_NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()
