"""What events of each type count for a shopper's taste, as a tenant has set it."""

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.db import TenantId, driver

_SET: Final = """
update tenants set settings = case when $2::text is null then settings - 'event_weights'
    else jsonb_set(settings, '{event_weights}', $2::text::jsonb) end
where tenant_id = $1
"""


async def set_weights(conn: AsyncConnection, tenant_id: TenantId, weights: Mapping[str, float]) -> None:
    """What events of each type count from now on, above the defaults; an empty one goes back to them."""
    given = msgspec.json.encode(weights).decode() if weights else None
    await (await driver(conn)).execute(_SET, tenant_id, given)
    await record_change(conn, tenant_id, "tenant")
