"""A page's cursor: signed, and it carries what was shown, so no page repeats an item on any replica."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from struct import pack, unpack
from typing import Final

from infra.db import TenantId
from infra.errors import Invalid
from infra.secret import Secret

MAX_SHOWN: Final = 2000
"""After so many items a list ends: nobody pages further, and the cursor stays small."""

LIFE: Final = timedelta(days=1)
"""An older cursor continues a list that is not there any more."""

_TAG = 16


class BadCursor(Invalid):
    """The cursor is not one of ours, or of another tenant, or older than a day."""

    code = "bad_cursor"
    title = "The cursor cannot be used"


def _tag(secret: bytes, tenant_id: TenantId, body: bytes) -> bytes:
    return blake2b(tenant_id.bytes + body, key=secret[:64], digest_size=_TAG).digest()


def write_cursor(secret: bytes, tenant_id: TenantId, shown: Sequence[int], *, now: datetime) -> str | None:
    """The cursor after these item numbers; None when the list has become too long to go on."""
    if not shown or len(shown) >= MAX_SHOWN:
        return None
    body = pack(f"<I{len(shown)}i", int(now.timestamp()) // 60, *shown)
    return urlsafe_b64encode(_tag(secret, tenant_id, body) + body).decode().rstrip("=")


def read_cursor(secret: Secret, tenant_id: TenantId, cursor: str, *, now: datetime) -> list[int]:
    """The item numbers that were shown. Raises BadCursor."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:
        raw = b""
    tag, body = raw[:_TAG], raw[_TAG:]
    ours = any(hmac.compare_digest(tag, _tag(each, tenant_id, body)) for each in secret.every)
    if len(body) % 4 or not body or not ours:
        raise BadCursor("Begin again without a cursor; send back exactly the one of the last answer.")
    minute, *shown = unpack(f"<I{len(body) // 4 - 1}i", body)
    if now.timestamp() - minute * 60 > LIFE.total_seconds():
        raise BadCursor("This cursor is older than a day. Begin again without one.")
    return shown
