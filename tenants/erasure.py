"""The erasure of deleted tenants: every row and every file, in small transactions.

The tenant's own row goes last. Until then it says what is left to do, so whoever was stopped begins again, and
finds less.
"""

from datetime import timedelta
from typing import Final

from infra.blob import BlobStore
from infra.db import Database, TenantId, driver, fetch
from tenants.lifecycle import TenantNotFound

ERASE_AFTER: Final = timedelta(minutes=1)
"""A deleted tenant is left alone for so long: what was being answered or computed for it has written by then."""

_BATCH: Final = 5000

# Of the catalogue, so that no table of a later migration is forgotten. The change feed is pruned by its age, and by
# `shards` upkeep finds the partitions that it drops. By name, rows that refer to others precede them.
_TABLES: Final = """
select c.relname from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
and c.relname not in ('changes', 'shards', 'tenants') order by c.relname
"""

# By place, whatever the key. Places repeat between partitions: then a batch has more rows, of the same tenant.
_ERASE: Final = """
delete from {table} where tenant_id = $1
and ctid = any(array(select t.ctid from {table} t where t.tenant_id = $1 limit $2))
"""


async def deleted_tenants(database: Database, *, after: timedelta = ERASE_AFTER) -> list[TenantId]:
    """Tenants deleted at least so long ago that are still to be erased, the first deleted first."""
    async with database.system_session(reason="list deleted tenants") as conn:
        records = await fetch(
            conn, "select tenant_id from tenants where deleted_at <= now() - $1::interval order by deleted_at", after
        )
    return [TenantId(record["tenant_id"]) for record in records]


async def erase_tenant(database: Database, blobs: BlobStore, tenant_id: TenantId) -> int:
    """Remove every row and file of a deleted tenant; how many rows. May be run again after a crash.

    Raises TenantNotFound for one that is not deleted, and what the blob store raises.
    """
    async with database.system_session(reason="erase a deleted tenant") as conn:
        records = await fetch(conn, "select 1 from tenants where tenant_id = $1 and deleted_at is not null", tenant_id)
        if not records:
            raise TenantNotFound("There is no deleted tenant with that id.")
        tables = [record["relname"] for record in await fetch(conn, _TABLES)]
    erased = 0
    # Again until nothing is found: a worker that held an item may have written its vector meanwhile.
    while found := sum([await _erase_rows(database, tenant_id, table) for table in tables]):
        erased += found
    await blobs.delete_prefix(f"tenants/{tenant_id}/")
    async with database.system_session(reason="forget an erased tenant") as conn:
        raw = await driver(conn)
        await raw.execute("delete from tenants where tenant_id = $1 and deleted_at is not null", tenant_id)
    return erased


async def _erase_rows(database: Database, tenant_id: TenantId, table: str) -> int:
    erased = 0
    while True:
        async with database.system_session(reason="erase a deleted tenant") as conn:
            done: str = await (await driver(conn)).execute(_ERASE.format(table=table), tenant_id, _BATCH)
        count = int(done.rpartition(" ")[2])
        if not count:
            return erased
        erased += count
