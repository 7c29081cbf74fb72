"""The fields of an item that an answer shows, so that a shop need not look them up."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tenants.catalog.photos import by_position, photo_path
from tenants.lifecycle import TenantRef
from tenants.retrieval.wanted import Hit

_ABSENT: Final[dict[str, Any]] = {
    "availability": "in_stock",
    "images": [],
    "categories": [],
    "tags": [],
    "attributes": {},
}


def card(hit: Hit, fields: Sequence[str], tenant: TenantRef, secret: bytes) -> dict[str, Any]:
    """The asked fields of a hit; one that the item lacks is null, or its default."""
    stored = msgspec.json.decode(hit.doc or "{}")
    attributes = stored.get("attributes", {})
    shown = {
        name: attributes.get(name.removeprefix("attributes."))
        if name.startswith("attributes.")
        else stored.get(name, _ABSENT.get(name))
        for name in fields
    }
    if "currency" in shown and shown["currency"] is None:
        shown["currency"] = tenant.currency
    if hit.photos is not None:
        uploaded = msgspec.json.decode(hit.photos, type=dict[int, str])
        paths = {position: photo_path(secret, tenant.tenant_id, sha256) for position, sha256 in uploaded.items()}
        shown["images"] = by_position(shown["images"], paths)
    return shown
