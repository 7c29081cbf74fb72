"""A shard of its own for a large tenant: how it moves there while it is read and written, and what is left behind.

Shard 0 is shared and searched exactly. Above `LARGE` items a tenant gets partitions of `fused_vectors` and
`item_text` that hold nothing else, and indexes on them (docs/decisions/0005-large-tenants.md). They are filled and
indexed beside, attached, caught up and switched to; each step can be interrupted and the whole run again.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.apart import apart
from infra.changes import record_change
from infra.db import Database, TenantId, driver, owner_engine
from infra.errors import Conflict, Overloaded
from tenants.lifecycle import TenantNotFound
from tenants.vectors.form import half_expression

LARGE: Final = 20_000
"""Above this many items a tenant is worth a shard of its own; below, the exact list takes under 20 ms."""

INDEXED_FROM: Final = 5_000
"""Rows of one space from which its index pays; fewer are read one by one."""

KEEP_OLD: Final = timedelta(minutes=1)
"""For so long the rows in the shared shard outlive the move: somebody may still read there."""

_EF_CONSTRUCTION: Final = 200
"""With pgvector's 64, crowds of much alike rows are cut off: of 50 seeds some found 12 % of their neighbours."""

_BATCH: Final = 5_000
_LOCK_TRIES: Final = 20
_LOCK_TIMEOUT: Final = "2s"

_log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
"""Told the name of each step before it begins."""


class ShardBusy(Conflict):
    """Two moves of one tenant cannot run at once."""

    code = "shard_busy"
    title = "The tenant is being moved"


class WritersInTheWay(Overloaded):
    """The tenant's writers left no moment to switch; the move goes on from here when run again."""

    code = "shard_writers_in_the_way"
    title = "The tenant is being written to without a pause"


class MoveIncomplete(RuntimeError):
    """The two shards differ after the last catch-up; nothing was switched."""


async def hold_shard(conn: AsyncConnection, tenant_id: TenantId) -> int:
    """The shard that the tenant's rows are in until this transaction ends. Raises TenantNotFound.

    Every writer of `fused_vectors` and `item_text` asks here, before it locks an item: a move waits for it, and it
    for the switch, so that no row is written to the shard that was left. `TenantRef.shard` is for readers.
    """
    shard: int | None = await (await driver(conn)).fetchval("select hold_shard($1)", tenant_id)
    if shard is None:
        raise TenantNotFound("There is no such tenant, or it was deleted.")
    return shard


# Numbers are never reused, so the counter is never below the items there are.
_LARGE = """
select t.tenant_id from tenants t join tenant_counters c on c.tenant_id = t.tenant_id
where t.shard = 0 and t.deleted_at is null and c.next_item_no > $1
and (select count(*) from (select 1 from items i where i.tenant_id = t.tenant_id limit $1 + 1) i) > $1
order by t.created_at, t.tenant_id
"""


async def large_tenants(conn: AsyncConnection, *, above: int = LARGE) -> list[TenantId]:
    """Tenants of the shared shard with more than `above` items. `conn` is a system session."""
    records = await (await driver(conn)).fetch(_LARGE, above)
    return [TenantId(record["tenant_id"]) for record in records]


@asynccontextmanager
async def _owner(database: Database) -> AsyncIterator[Any]:
    """A connection of the owner, outside of any transaction, for DDL."""
    engine = owner_engine(database.direct_url)
    try:
        async with engine.connect() as connection:
            raw = await driver(connection)
            await raw.execute("set lock_timeout = '5s'")
            yield raw
    finally:
        await engine.dispose()


async def move_to_own_shard(
    database: Database, tenant_id: TenantId, *, memory_mb: int = 512, progress: Progress | None = None
) -> int:
    """Give the tenant its own shard and return its number; one that has it already keeps it.

    Readers and writers go on; writers wait for the last catch-up, about a second at 200,000 items. `memory_mb` is
    what the building of an index may take. Afterwards `remove_old_rows`. Raises TenantNotFound, ShardBusy,
    WritersInTheWay.
    """
    tell = progress or (lambda step: None)
    # Connections of its own: those of `database` are few, and the copy takes long.
    mover = Database(database.direct_url, hot=0, sessions=1)
    try:
        async with _owner(database) as owner:
            if not await owner.fetchval(
                "select pg_try_advisory_lock(hashtextextended('move of ' || $1::uuid::text, 0))", tenant_id
            ):
                raise ShardBusy("A move of this tenant is running; wait for its end.")
            tell("number")
            shard, moved = await _number(mover, tenant_id)
            if moved:
                return shard
            tell("make")
            await _make(owner, shard)
            tell("copy")
            await _copy(mover, tenant_id, shard)
            tell("index")
            await _index(owner, shard, memory_mb=memory_mb)
            # A tenant that was loaded a moment ago counts as empty until then, and its lists are planned for that.
            with suppress(asyncpg.LockNotAvailableError):  # somebody else is at it
                await owner.execute("analyze item_ids, items, item_facets, item_attrs")
            tell("catch up")
            async with mover.system_session(reason="catch up with a tenant's writers") as conn:
                await _catch_up(await driver(conn), tenant_id, shard)
            tell("attach")
            await _attach(owner, shard)
            tell("switch")
            await _switch(mover, tenant_id, shard)
            tell("done")
            _log.info("shards.moved", tenant_id=str(tenant_id), shard=shard)
            return shard
    finally:
        await mover.close()


async def _number(mover: Database, tenant_id: TenantId) -> tuple[int, bool]:
    """The shard that is, or becomes, the tenant's, and whether it serves already."""
    async with mover.system_session(reason="number a tenant's shard") as conn:
        raw = await driver(conn)
        serving = await raw.fetchval("select shard from tenants where tenant_id = $1 and deleted_at is null", tenant_id)
        if serving is None:
            raise TenantNotFound("There is no such tenant, or it was deleted.")
        if serving:
            return serving, True
        known: int | None = await raw.fetchval("select shard from shards where tenant_id = $1", tenant_id)
        if known is None:
            known = await raw.fetchval("insert into shards (tenant_id) values ($1) returning shard", tenant_id)
        assert known is not None
        return known, False


# Table -> its key, and the columns beside it and the shard.
_TABLES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "fused_vectors": ("tenant_id, layout_id, item_no", ("text_space", "image_space", "vec")),
    "item_text": ("tenant_id, item_no", ("words",)),
}


async def _make(owner: Any, shard: int) -> None:
    """The tables beside, without a grant to the application: a partition has no policy of its own."""
    for table, (key, _) in _TABLES.items():
        await owner.execute(
            f"create table if not exists {table}_shard_{shard} (like {table} including defaults including storage, "
            f"constraint in_shard check (shard = {shard}), primary key ({key}, shard))"
        )
        await owner.execute(f"grant select, insert, update, delete on {table}_shard_{shard} to kindred_system")


async def _copy(mover: Database, tenant_id: TenantId, shard: int) -> None:
    """Everything at once or nothing: an interrupted copy leaves the tables empty."""
    async with mover.system_session(reason="copy a tenant to its own shard") as conn:
        raw = await driver(conn)
        # First, so that whatever the copy may miss is not older.
        since = await raw.fetchval("select pg_snapshot_xmin(pg_current_snapshot())::text")
        if await raw.fetchval("select copied_from is not null from shards where shard = $1 for update", shard):
            return
        for table, (key, values) in _TABLES.items():
            columns = ", ".join([key, *values])
            await raw.execute(
                f"insert into {table}_shard_{shard} (shard, {columns}) select {shard}, {columns} from {table} "
                f"where shard = 0 and tenant_id = $1 order by {key}",
                tenant_id,
            )
        await raw.execute("update shards set copied_from = $2::text::xid8 where shard = $1", shard, since)


# Rows of a transaction that began no earlier than $2, by the 32 bits that a row has of it.
_CHANGED: Final = "((v.xmin::text::int8 - $2::int8) & 4294967295) < 2147483648"


async def _catch_up(raw: Any, tenant_id: TenantId, shard: int) -> None:
    """Bring what changed in the shared shard since the last time over: rows written, rows deleted."""
    now = await raw.fetchval("select pg_snapshot_xmin(pg_current_snapshot())::text")
    since = int(await raw.fetchval("select copied_from::text from shards where shard = $1 for update", shard))
    for table, (key, values) in _TABLES.items():
        columns = ", ".join([key, *values])
        sets = ", ".join(f"{column} = excluded.{column}" for column in values)
        await raw.execute(
            f"insert into {table}_shard_{shard} as own (shard, {columns}) select {shard}, {columns} from {table} v "
            f"where v.shard = 0 and v.tenant_id = $1 and {_CHANGED} on conflict ({key}, shard) do update set {sets}",
            tenant_id,
            since % 2**32,
        )
        same = " and ".join(f"v.{column} = own.{column}" for column in key.split(", "))
        await raw.execute(
            f"delete from {table}_shard_{shard} own where own.tenant_id = $1 and not exists "
            f"(select 1 from {table} v where v.shard = 0 and v.tenant_id = $1 and {same})",
            tenant_id,
        )
    await raw.execute("update shards set copied_from = $2::text::xid8 where shard = $1", shard, now)


async def _attached(owner: Any, table: str) -> bool:
    attached: bool = await owner.fetchval(
        "select exists (select 1 from pg_inherits where inhrelid = to_regclass($1))", table
    )
    return attached


async def _attach(owner: Any, shard: int) -> None:
    """Make the tables partitions. The constraint `in_shard` spares the scan; other tenants are not held up."""
    for table in _TABLES:
        own = f"{table}_shard_{shard}"
        if await _attached(owner, own):
            continue
        for tried in range(1, _LOCK_TRIES + 1):
            try:
                await owner.execute(f"alter table {table} attach partition {own} for values in ({shard})")
                break
            except asyncpg.LockNotAvailableError:
                if tried == _LOCK_TRIES:
                    raise WritersInTheWay(f"{own} could not be attached; run the move again.") from None


async def _switch(mover: Database, tenant_id: TenantId, shard: int) -> None:
    """In one transaction without other writers: the last changes over, then `tenants.shard`."""
    for _ in range(_LOCK_TRIES):
        # A writer that waits behind us waits no longer than the lock timeout; then they go first again.
        with suppress(asyncpg.LockNotAvailableError):
            async with mover.system_session(reason="switch a tenant to its own shard") as conn:
                raw = await driver(conn)
                await raw.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
                await raw.fetchval("select hold_shard($1, true)", tenant_id)
                await _catch_up(raw, tenant_id, shard)
                for table in _TABLES:
                    old, own = await raw.fetchrow(
                        f"select (select count(*) from {table} where shard = 0 and tenant_id = $1), "
                        f"(select count(*) from {table} where shard = {shard} and tenant_id = $1)",
                        tenant_id,
                    )
                    if old != own:
                        raise MoveIncomplete(f"{table}: {old} rows in the shared shard, {own} in shard {shard}")
                switched = await raw.fetchval(
                    "update tenants set shard = $2 where tenant_id = $1 and shard = 0 and deleted_at is null "
                    "returning 1",
                    tenant_id,
                    shard,
                )
                if not switched:
                    raise TenantNotFound("The tenant was deleted while it was moved.")
                await raw.execute("update shards set moved_at = now() where shard = $1", shard)
                await record_change(conn, tenant_id, "tenant")
            return
    raise WritersInTheWay("The tenant's writers left no moment to switch; run the move again.")


async def remove_old_rows(database: Database, *, after: timedelta = KEEP_OLD) -> int:
    """Remove what moved tenants left in the shared shard, in batches; returns how many rows. May be run again."""
    async with database.system_session(reason="list moved tenants") as conn:
        moved = await (await driver(conn)).fetch(
            "select s.shard, s.tenant_id from shards s join tenants t on t.tenant_id = s.tenant_id "
            "and t.shard = s.shard where s.cleaned_at is null and s.moved_at <= now() - $1::interval",
            after,
        )
    removed = 0
    for shard, tenant_id in moved:
        with apart("remove old rows", tenant_id):
            for table in _TABLES:
                while True:
                    async with database.system_session(reason="remove a moved tenant's old rows") as conn:
                        done: str = await (await driver(conn)).execute(
                            f"delete from {table} where shard = 0 and tenant_id = $1 and item_no in (select item_no "
                            f"from {table} where shard = 0 and tenant_id = $1 order by item_no limit {_BATCH})",
                            tenant_id,
                        )
                    count = int(done.rpartition(" ")[2])
                    removed += count
                    if not count:
                        break
            async with database.system_session(reason="remove a moved tenant's old rows") as conn:
                await (await driver(conn)).execute("update shards set cleaned_at = now() where shard = $1", shard)
    return removed


async def index_shards(database: Database, *, memory_mb: int = 512) -> list[str]:
    """Build the indexes that own shards lack, as after a change of encoder; the names of those built.

    Readers and writers go on meanwhile. For upkeep.
    """
    async with database.system_session(reason="list tenants with their own shard") as conn:
        records = await (await driver(conn)).fetch(
            "select shard, tenant_id from tenants where shard <> 0 and deleted_at is null order by shard"
        )
    built = []
    async with _owner(database) as owner:
        for record in records:
            with apart("index", record["tenant_id"]):
                built += await _index(owner, record["shard"], memory_mb=memory_mb)
    return built


_GRAPHS: Final = """
select v.space_id from (
    select text_space as space_id, count(*) as rows from fused_vectors
    where shard = {shard} and tenant_id = $1 and layout_id = $2 group by 1
    union all select image_space, count(*) from fused_vectors
    where shard = {shard} and tenant_id = $1 and layout_id = $2 group by 1) v
join spaces s on s.space_id = v.space_id where v.rows >= $3 order by 1
"""


async def graphs_of(conn: AsyncConnection, tenant_id: TenantId, layout_id: int) -> list[str]:
    """The names of the graphs that fast lists of this layout need; none in the shared shard. Reads every row once."""
    raw = await driver(conn)
    shard = await raw.fetchval("select shard from tenants where tenant_id = $1", tenant_id)
    if not shard:
        return []
    records = await raw.fetch(_GRAPHS.format(shard=int(shard)), tenant_id, layout_id, INDEXED_FROM)
    return [_graph(f"fused_vectors_shard_{shard}", layout_id, record["space_id"]) for record in records]


async def are_built(conn: AsyncConnection, names: Sequence[str]) -> bool:
    """Whether all these indexes are there and can be used."""
    built: int = await (await driver(conn)).fetchval(
        "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid "
        "where c.relname = any($1::text[]) and i.indisvalid",
        list(names),
    )
    return built == len(names)


def _graph(own: str, layout_id: int, space_id: int) -> str:
    return f"{own}_l{layout_id}_s{space_id}"


_SPACES: Final = """
select v.layout_id, s.space_id, s.kind, s.dim, t.dim as text_dim from (
    select layout_id, text_space as space_id, count(*) as rows from {own} group by 1, 2
    union all select layout_id, image_space, count(*) from {own} group by 1, 2) v
join spaces s on s.space_id = v.space_id join layouts l on l.layout_id = v.layout_id
join spaces t on t.space_id = l.text_space
where v.rows >= $1 order by 1, 2
"""


async def _index(owner: Any, shard: int, *, memory_mb: int) -> list[str]:
    """One graph for each space of each layout, and what makes small spaces quick to find."""
    own = f"fused_vectors_shard_{shard}"
    # A graph that was being built when somebody stopped it is there, but of no use.
    for record in await owner.fetch(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid "
        "where i.indrelid = to_regclass($1) and not i.indisvalid",
        own,
    ):
        await owner.execute(f'drop index if exists "{record["relname"]}"')
    wanted = {
        f"{own}_text": "(layout_id, text_space, item_no)",
        f"{own}_image": "(layout_id, image_space, item_no)",
    }
    for record in await owner.fetch(_SPACES.format(own=own), INDEXED_FROM):
        expression = half_expression(record["kind"], record["text_dim"], record["dim"])
        wanted[_graph(own, record["layout_id"], record["space_id"])] = (
            f"using hnsw (({expression}) halfvec_ip_ops) with (m = 16, ef_construction = {_EF_CONSTRUCTION}) "
            f"where layout_id = {record['layout_id']} and {record['kind']}_space = {record['space_id']}"
        )
    there = {
        record["relname"]
        for record in await owner.fetch(
            "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid "
            "where i.indrelid = to_regclass($1)",
            own,
        )
    }
    built = [name for name in wanted if name not in there]
    if not built:
        return []
    await owner.execute(f"set maintenance_work_mem = '{int(memory_mb)}MB'")
    how = "concurrently " if await _attached(owner, own) else ""
    for name in built:
        statement = f"create index {how}{name} on {own} {wanted[name]}"
        try:
            await owner.execute(statement)
        except asyncpg.DiskFullError:
            # A container's /dev/shm is often too small for a graph that several processes build together.
            await owner.execute(f"drop index if exists {name}")
            await owner.execute("set max_parallel_maintenance_workers = 0")
            await owner.execute(statement)
    await owner.execute(f"analyze {own}")
    await owner.execute(f"analyze item_text_shard_{shard}")
    return built


async def drop_orphans(database: Database) -> list[int]:
    """Drop the shards of tenants that were erased; their numbers. May be run again."""
    async with database.system_session(reason="list shards of erased tenants") as conn:
        records = await (await driver(conn)).fetch(
            "select s.shard from shards s where not exists "
            "(select 1 from tenants t where t.tenant_id = s.tenant_id) order by s.shard"
        )
    dropped = [record["shard"] for record in records]
    if not dropped:
        return []
    async with _owner(database) as owner:
        for shard in dropped:
            for table in _TABLES:
                await _drop(owner, table, f"{table}_shard_{shard}")
    async with database.system_session(reason="forget shards of erased tenants") as conn:
        await (await driver(conn)).execute("delete from shards where shard = any($1::int2[])", dropped)
    return dropped


async def _drop(owner: Any, table: str, own: str) -> None:
    pending = await owner.fetchval("select inhdetachpending from pg_inherits where inhrelid = to_regclass($1)", own)
    if pending is not None:
        how = "finalize" if pending else "concurrently"
        await owner.execute(f"alter table {table} detach partition {own} {how}")
    await owner.execute(f"drop table if exists {own}")
