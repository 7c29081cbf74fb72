"""How long what was read of a catalogue stays true when nobody writes."""

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


async def next_boundary(database: Database, tenant_id: TenantId, now: datetime) -> datetime | None:
    """The next moment after `now` at which an item begins or ceases to be available by itself."""
    (record,) = await database.fetch_scoped(tenant_id, _NEXT, now)
    found: datetime | None = record["moment"]
    return found
