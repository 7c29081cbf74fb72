"""What a browser carries from one step of signing in to the next: sealed, so that it neither reads nor forges it.

Nothing of who has not signed in yet is stored here. What the cookie holds is good for ten minutes, for its own step,
and opens nothing by itself.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from infra.crypt import Undecipherable, decrypt, encrypt
from infra.oidc import Flow
from infra.secret import Secret
from tenants.accounts.sessions import SignedIn

T = TypeVar("T", bound=Struct)

CARRIED_S: Final = 600


class Halfway(Struct, frozen=True, kw_only=True):
    """Who has proved who they are, and has yet to show a code. `then`: the page that was asked for."""

    signed_in: SignedIn
    then: str


class AtProvider(Struct, frozen=True, kw_only=True):
    """Who went to the provider, and the page that was asked for."""

    flow: Flow
    then: str


Carried = Halfway | AtProvider


class _Envelope(Struct, frozen=True, array_like=True):
    ends: float
    content: msgspec.Raw


def seal_carried(secret: Secret, name: str, value: Carried, *, now: datetime) -> str:
    """The value of the cookie of that name."""
    envelope = _Envelope(now.timestamp() + CARRIED_S, msgspec.Raw(msgspec.json.encode(value)))
    sealed = encrypt(secret.current, msgspec.json.encode(envelope), purpose="cookie", about=_step(name))
    return urlsafe_b64encode(sealed).rstrip(b"=").decode()


def open_carried(secret: Secret, name: str, text: str, kind: type[T], *, now: datetime) -> T | None:
    """What the cookie of that name holds; None where it is too old, of another release, or was never ours."""
    try:
        sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        plain = decrypt(secret.every, sealed, purpose="cookie", about=_step(name))
        envelope = msgspec.json.decode(plain, type=_Envelope)
        return None if envelope.ends <= now.timestamp() else msgspec.json.decode(envelope.content, type=kind)
    except (ValueError, Undecipherable):  # what another release sealed is of another form
        return None


def _step(name: str) -> bytes:
    return name.encode()
