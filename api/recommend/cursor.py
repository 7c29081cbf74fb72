"""A page's cursor: signed, and it carries what was shown, so no page repeats an item on any replica."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from struct import pack, unpack
from typing import Final

from infra.db import TenantId
from infra.errors import Invalid

MAX_SHOWN: Final = 2000
"""After so many items a list ends: nobody pages further, and the cursor stays small."""

_TAG = 16


class BadCursor(Invalid):
    """The cursor is not one of ours, or of another tenant."""

    code = "bad_cursor"
    title = "The cursor cannot be used"


def _tag(secret: bytes, tenant_id: TenantId, body: bytes) -> bytes:
    return blake2b(tenant_id.bytes + body, key=secret[:64], digest_size=_TAG).digest()


def write_cursor(secret: bytes, tenant_id: TenantId, shown: Sequence[int]) -> str | None:
    """The cursor after these item numbers; None when the list has become too long to go on."""
    if not shown or len(shown) >= MAX_SHOWN:
        return None
    body = pack(f"<{len(shown)}i", *shown)
    return urlsafe_b64encode(_tag(secret, tenant_id, body) + body).decode().rstrip("=")


def read_cursor(secret: bytes, tenant_id: TenantId, cursor: str) -> list[int]:
    """The item numbers that were shown. Raises BadCursor."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:
        raw = b""
    tag, body = raw[:_TAG], raw[_TAG:]
    if len(body) % 4 or not hmac.compare_digest(tag, _tag(secret, tenant_id, body)):
        raise BadCursor("Begin again without a cursor; send back exactly the one of the last answer.")
    return list(unpack(f"<{len(body) // 4}i", body))
