"""How messages are signed: Standard Webhooks 1.0 (https://www.standardwebhooks.com), symmetric, version `v1`."""

import base64
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

_PREFIX: Final = "whsec_"
_BYTES: Final = 32
"""The specification asks for 24 to 64."""


def new_secret() -> bytes:
    """The key of an endpoint, from the system's randomness."""
    return secrets.token_bytes(_BYTES)


def shown(secret: bytes) -> str:
    """The key as its owner is given it: `whsec_` and base64."""
    return _PREFIX + base64.b64encode(secret).decode()


def headers(keys: Sequence[bytes], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a message that is sent `at` a moment; one signature per key, the newest first."""
    timestamp = str(int(at.timestamp()))
    content = b".".join((message_id.encode(), timestamp.encode(), body))
    made = (base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{each}" for each in made),
    }
