"""A tenant's catalogue and what its shoppers did, as files of the layouts that an evaluation reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver

_BATCH: Final = 1000

_EVENTS: Final = """
select e.shopper_no as shopper, d.external_id as item, w.weight as rating, e.ts as timestamp,
    coalesce(e.order_id, e.session_id, e.shopper_no || ' ' || (e.ts at time zone 'UTC')::date) as basket
from events e
join unnest($2::text[], $3::float8[]) w(type, weight) on w.type = e.type
join item_ids d on d.tenant_id = $1 and d.item_no = e.item_no
where e.tenant_id = $1 and e.shopper_no is not null and e.flags & 1 = 0 order by e.ts
"""


async def copy_interactions(
    conn: AsyncConnection, tenant_id: TenantId, weights: Mapping[str, float], path: Path
) -> None:
    """Write the events of people that speak for an item, oldest first, as CSV with a header; shoppers by number alone.

    `weights` are those of the tenant's event types; types of 0 and less are left out.
    """
    liked = {kind: weight for kind, weight in weights.items() if weight > 0}
    raw = await driver(conn)
    await raw.copy_from_query(
        _EVENTS, tenant_id, list(liked), list(liked.values()), output=str(path), format="csv", header=True
    )


async def copy_items(conn: AsyncConnection, tenant_id: TenantId, path: Path) -> None:
    """Write the catalogue's documents, one per line."""
    raw = await driver(conn)
    with path.open("w", encoding="utf-8") as file:
        async for record in raw.cursor(
            "select doc::text as doc from items where tenant_id = $1 order by item_no", tenant_id, prefetch=_BATCH
        ):
            file.write(record["doc"] + "\n")
