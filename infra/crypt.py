"""Values that are stored encrypted, so that a copy of the database alone does not tell them.

AES-256-GCM under a key that HKDF (RFC 5869) derives from the installation's secret for one purpose. `about` names what
the value belongs to: moved to another row, it cannot be decrypted.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from infra.errors import Conflict

_NONCE: Final = 12


class Undecipherable(Conflict):
    """What was stored encrypted belongs to a secret of this installation that is no longer known."""

    code = "undecipherable"
    title = "A stored value cannot be decrypted"


class BadSeal(Exception):
    """Sealed under another key or about something else, or changed since."""


def seal(key: bytes, plain: bytes, *, about: bytes) -> bytes:
    """`plain` under a key of 32 bytes: a random nonce, then the ciphertext with its tag."""
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def unseal(key: bytes, sealed: bytes, *, about: bytes) -> bytes:
    """What was sealed under this key. Raises BadSeal."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
    except (InvalidTag, ValueError) as error:
        raise BadSeal from error


def encrypt(secret: bytes, plain: bytes, *, purpose: str, about: bytes) -> bytes:
    """`plain` as it may be stored: sealed under the key of this purpose."""
    return seal(_key(secret, purpose), plain, about=about)


def decrypt(secrets: Sequence[bytes], stored: bytes, *, purpose: str, about: bytes) -> bytes:
    """What was encrypted under one of these secrets. Raises Undecipherable."""
    for secret in secrets:
        try:
            return unseal(_key(secret, purpose), stored, about=about)
        except BadSeal:
            continue
    raise Undecipherable(
        "It was stored under another secret of this installation, or was changed. Restore KINDRED_SECRET_KEY, or make "
        "the value anew."
    )


def sealed_under(secrets: Sequence[bytes], stored: bytes, *, purpose: str, about: bytes) -> bytes | None:
    """Which of these secrets a value was encrypted under; None for none of them."""
    for secret in secrets:
        with suppress(Undecipherable):
            decrypt((secret,), stored, purpose=purpose, about=about)
            return secret
    return None


def _key(secret: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"kindred " + purpose.encode()).derive(secret)
