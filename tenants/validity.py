"""How long what was read of a catalogue stays true when nobody writes, and which items a request speaks of."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from infra.db import Database, TenantId

# Two probes of the indexes on the moments that are not for ever.
_NEXT: Final = """
select least(
    (select f.available_from from item_facets f where f.tenant_id = $2::uuid and f.available_from > $3
        and f.available_from > '-infinity' order by f.available_from limit 1),
    (select f.expires_at from item_facets f where f.tenant_id = $2::uuid and f.expires_at > $3
        and f.expires_at < 'infinity' order by f.expires_at limit 1)) as moment
"""

_NUMBERS: Final = (
    "select d.external_id, d.item_no from item_ids d where d.tenant_id = $2::uuid and d.external_id = any($3::text[])"
)


async def next_boundary(database: Database, tenant_id: TenantId, now: datetime) -> datetime | None:
    """The next moment after `now` at which an item begins or ceases to be available by itself."""
    (record,) = await database.fetch_scoped(tenant_id, _NEXT, now)
    found: datetime | None = record["moment"]
    return found


async def numbers_of(database: Database, tenant_id: TenantId, external_ids: Sequence[str]) -> dict[str, int]:
    """The numbers of the ids that were ever seen; a number never changes and is never given to another id."""
    records = await database.fetch_scoped(tenant_id, _NUMBERS, list(external_ids))
    return {record["external_id"]: record["item_no"] for record in records}
