"""The erasure of deleted tenants: every row and every file, in small transactions.

The tenant's own row goes last. Until then it says what is left to do, so whoever was stopped begins again, and
finds less. What goes is counted in the transactions in which it goes, for the certificate.
"""

from datetime import datetime
from typing import Final

from infra.blob import BlobMissing, BlobStore
from infra.db import Database, TenantId, driver, fetch
from tenants.certificates import close_certificate, count_files, count_rows, open_certificate
from tenants.lifecycle import TenantNotFound

_BATCH: Final = 5000
_FILES: Final = 500

# Of the catalogue, so that no table of a later migration is forgotten. The change feed is pruned by its age, and by
# `shards` upkeep finds the partitions that it drops. By name, rows that refer to others precede them.
_TABLES: Final = """
select c.relname from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
and c.relname not in ('changes', 'erasure_certificates', 'shards', 'tenants') order by c.relname
"""

# By place, whatever the key. Places repeat between partitions: then a batch has more rows, of the same tenant.
_ERASE: Final = """
delete from {table} where tenant_id = $1
and ctid = any(array(select t.ctid from {table} t where t.tenant_id = $1 limit $2))
"""

# From here on it cannot be had back.
_BEGIN: Final = """
update tenants set former_name = null
where tenant_id = $1 and deleted_at is not null and coalesce(erase_after, deleted_at) <= $2 returning name
"""

RESTORING: Final = "restoring:"
"""How the name begins of a tenant that a restore fills: one that was killed leaves it, and nobody's data to certify."""


async def deleted_tenants(database: Database, now: datetime) -> list[TenantId]:
    """Tenants whose days of grace are over and that are still to be erased, the first deleted first."""
    async with database.system_session(reason="list deleted tenants") as conn:
        records = await fetch(
            conn,
            "select tenant_id from tenants where coalesce(erase_after, deleted_at) <= $1 and deleted_at is not null "
            "order by deleted_at, tenant_id",
            now,
        )
    return [TenantId(record["tenant_id"]) for record in records]


async def erase_tenant(
    database: Database, blobs: BlobStore, tenant_id: TenantId, *, now: datetime, secret: bytes
) -> int:
    """Remove every row and file of a tenant whose time is over; how many rows. May be run again after a crash.

    Raises TenantNotFound for one that is not deleted, or can still be had back, and what the blob store raises.
    """
    async with database.system_session(reason="erase a deleted tenant") as conn:
        raw = await driver(conn)
        name = await raw.fetchval(_BEGIN, tenant_id, now)
        if name is None:
            raise TenantNotFound("There is no deleted tenant with that id whose days of grace are over.")
        if not name.startswith(RESTORING):
            await open_certificate(raw, tenant_id, now=now)
        tables = [record["relname"] for record in await fetch(conn, _TABLES)]
    erased = 0
    # Again until nothing is found: a worker that held an item may have written its vector meanwhile.
    while found := sum([await _erase_rows(database, tenant_id, table) for table in tables]):
        erased += found
    await _erase_files(database, blobs, tenant_id)
    async with database.system_session(reason="forget an erased tenant") as conn:
        raw = await driver(conn)
        await raw.execute("delete from tenants where tenant_id = $1 and deleted_at is not null", tenant_id)
        await count_rows(raw, tenant_id, "tenants", 1)
        await close_certificate(raw, tenant_id, now=now, secret=secret)
    return erased


async def _erase_rows(database: Database, tenant_id: TenantId, table: str) -> int:
    erased = 0
    while True:
        async with database.system_session(reason="erase a deleted tenant") as conn:
            raw = await driver(conn)
            done: str = await raw.execute(_ERASE.format(table=table), tenant_id, _BATCH)
            count = int(done.rpartition(" ")[2])
            if not count:
                return erased
            await count_rows(raw, tenant_id, table, count)
        erased += count


async def _erase_files(database: Database, blobs: BlobStore, tenant_id: TenantId) -> None:
    prefix = f"tenants/{tenant_id}/"
    files = size = 0
    async for key in blobs.iter_keys(prefix):
        try:
            size += await blobs.size(key)
        except BlobMissing:  # a photo that was swept meanwhile
            continue
        await blobs.delete(key)
        files += 1
        if files == _FILES:
            await _note_files(database, tenant_id, files, size)
            files = size = 0
    await _note_files(database, tenant_id, files, size)
    await blobs.delete_prefix(prefix)


async def _note_files(database: Database, tenant_id: TenantId, files: int, size: int) -> None:
    async with database.system_session(reason="count the files of an erased tenant") as conn:
        await count_files(await driver(conn), tenant_id, files, size)
