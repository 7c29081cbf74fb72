"""Precomputed neighbours: which builds there are, when the next is due, and how its rows are read and written.

A build is of one layout and one recipe (calibration and weights), and serves from the moment a generation names it.
Items encoded after its `watermark`, less `SLACK`, may not be in it: a reader scans them exactly, beside it, and leaves
out what the lists say of them. An item without a row (a build that lacks it, or is gone) is answered live.
"""

from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver, fetch
from tenants.jobs import create_job

NEIGHBOURS_JOB: Final = "neighbours"

KIND_CONTENT: Final = 1
KIND_PHOTOS: Final = 2
KIND_GRAPH: Final = 3
KIND_BOUGHT_TOGETHER: Final = 4
KIND_ALSO_VIEWED: Final = 5
KIND_ITEM_CF: Final = 6

STALE_SHARE: Final = 0.02
"""Items encoded since a build, or gone, from which the next is due."""

FEWEST_STALE: Final = 20
"""So many are scanned in no time; a small shop is not built anew for each item."""

SLACK: Final = timedelta(minutes=1)
"""A vector bears the time at which its transaction began: so much later it may be committed. Items encoded so shortly
before a build count as encoded since; where they are many, as after an upload, the next build is due for them."""

OFTEN: Final = timedelta(minutes=1)
"""A shop is built anew no more often."""


class NeighboursJob(Struct, frozen=True, kw_only=True):
    """The message of a job that builds."""


class OpenBuild(Struct, frozen=True, kw_only=True):
    """A build that is begun. `shard`, `layout_id`: where its vectors are."""

    build: int
    shard: int
    layout_id: int


RECIPE: Final = "sha256(convert_to(g.layout_id || ' ' || g.calibration || ' ' || (g.weights - 'blend'), 'UTF8'))"
"""What the lists of a generation `g` depend on besides the vectors."""

_DUE: Final = f"""
select t.tenant_id
from tenants t join generations g on g.tenant_id = t.tenant_id and g.gen = t.active_gen
left join neighbour_builds b on b.tenant_id = t.tenant_id and b.build = g.neighbours_build
    and b.layout_id = g.layout_id and b.recipe = {RECIPE}
cross join lateral (
    select count(*) as items from item_facets f where f.tenant_id = t.tenant_id
) n
cross join lateral (
    select count(distinct v.item_no) as fresh from item_vectors v
    where v.tenant_id = t.tenant_id and v.encoded_at > b.watermark - $5::interval
) d
where t.deleted_at is null and n.items > 1
and exists (select 1 from item_vectors v where v.tenant_id = t.tenant_id)
and (b.build is null or b.created_at < now() - $4::interval
    and greatest(d.fresh, abs(n.items - b.items)) > greatest($1::int, $2::float8 * b.items))
and not exists (select 1 from items i where i.tenant_id = t.tenant_id and i.text_state = 0
    and i.text_due = '-infinity')
and not exists (select 1 from jobs j where j.tenant_id = t.tenant_id and j.kind = $3
    and (j.status in ('queued', 'running') or j.status = 'failed' and j.finished_at > now() - interval '1 hour'))
order by b.created_at nulls first, t.tenant_id
"""


async def list_due(conn: AsyncConnection) -> list[TenantId]:
    """Tenants whose neighbours are to be built, and no job is about to, the longest without first.

    A catalogue whose texts still wait to be encoded has its turn afterwards. `conn` is a system session.
    """
    records = await fetch(conn, _DUE, FEWEST_STALE, STALE_SHARE, NEIGHBOURS_JOB, OFTEN, SLACK)
    return [TenantId(record["tenant_id"]) for record in records]


async def queue_build(conn: AsyncConnection, tenant_id: TenantId) -> UUID:
    """Have the tenant's neighbours built."""
    return await create_job(conn, tenant_id, NEIGHBOURS_JOB, NeighboursJob())


async def open_build(conn: AsyncConnection, tenant_id: TenantId) -> OpenBuild | None:
    """Begin a build of the generation that serves, and drop what unfinished ones left; None without a generation.

    Only one runs at a time: they are jobs of one kind.
    """
    raw = await driver(conn)
    unfinished = "select b.build from neighbour_builds b where b.tenant_id = $1 and b.status = 'building'"
    await raw.execute(
        f"delete from item_neighbours n where n.tenant_id = $1 and n.kind in (1, 2) and n.build in ({unfinished})",
        tenant_id,
    )
    await raw.execute("delete from neighbour_builds where tenant_id = $1 and status = 'building'", tenant_id)
    # A transaction that began before now() may still commit vectors: a reader takes a minute of slack.
    record = await raw.fetchrow(
        f"""
        insert into neighbour_builds (tenant_id, build, layout_id, recipe, watermark, items, status)
        select $1, (select coalesce(max(b.build), 0) + 1 from neighbour_builds b where b.tenant_id = $1), g.layout_id,
            {RECIPE}, now(), (select count(*) from item_facets f where f.tenant_id = $1), 'building'
        from generations g join tenants t on t.tenant_id = $1 and t.active_gen = g.gen where g.tenant_id = $1
        returning build, layout_id, (select t.shard from tenants t where t.tenant_id = $1) as shard
        """,
        tenant_id,
    )
    return None if record is None else OpenBuild(**dict(record))


async def copy_vectors(conn: AsyncConnection, tenant_id: TenantId, build: OpenBuild, path: Path) -> None:
    """Write (item_no, text_space, image_space, group, shown, vec) of every item to a file, as binary COPY.

    `group` is the smallest number of the item's group; `shown` 1 where the item can be recommended now.
    """
    raw = await driver(conn)
    await raw.copy_from_query(
        f"select v.item_no, v.text_space, v.image_space, "
        "case when f.group_id is null then f.item_no else min(f.item_no) over (partition by f.group_id) end, "
        "(not f.hidden and f.availability < 3 and f.available_from <= now() and f.expires_at > now())::int::int2, "
        f"v.vec from fused_vectors v join item_facets f on f.tenant_id = $1 and f.item_no = v.item_no "
        f"where v.shard = {int(build.shard)} and v.tenant_id = $1 and v.layout_id = {int(build.layout_id)}",
        tenant_id,
        output=str(path),
        format="binary",
    )


async def copy_lists(conn: AsyncConnection, tenant_id: TenantId, build: int, path: Path) -> int:
    """Store rows (kind, item_no, others, scores) of a binary COPY under this build or model; how many.

    By way of a temporary table, for COPY itself is refused under row-level security.
    """
    raw = await driver(conn)
    await raw.execute(
        "create temporary table arrived (kind int2, item_no int4, others int4[], scores int2[]) on commit drop"
    )
    await raw.copy_to_table(
        "arrived", source=str(path), format="binary", columns=("kind", "item_no", "others", "scores")
    )
    done: str = await raw.execute(
        "insert into item_neighbours (tenant_id, kind, build, item_no, others, scores) "
        "select $1, a.kind, $2, a.item_no, a.others, a.scores from arrived a order by a.kind, a.item_no",
        tenant_id,
        build,
    )
    return int(done.rpartition(" ")[2])


async def finish_build(conn: AsyncConnection, tenant_id: TenantId, build: OpenBuild) -> bool:
    """The build is whole and may serve; False where the layout it is of does not serve any more."""
    raw = await driver(conn)
    await raw.execute(
        "update neighbour_builds set status = 'ready' where tenant_id = $1 and build = $2", tenant_id, build.build
    )
    layout_id = await raw.fetchval(
        "select g.layout_id from generations g join tenants t on t.tenant_id = $1 and t.active_gen = g.gen "
        "where g.tenant_id = $1 for update of t",
        tenant_id,
    )
    serves: bool = layout_id == build.layout_id
    return serves


async def drop_old_builds(conn: AsyncConnection, tenant_id: TenantId) -> int:
    """Remove the builds but that which serves and the one before it, for answers that are under way; how many."""
    raw = await driver(conn)
    records = await raw.fetch(
        "select b.build from neighbour_builds b where b.tenant_id = $1 and b.status = 'ready' "
        "and b.build is distinct from (select g.neighbours_build from generations g join tenants t "
        "on t.tenant_id = $1 and t.active_gen = g.gen where g.tenant_id = $1) order by b.build desc offset 1",
        tenant_id,
    )
    old = [record["build"] for record in records]
    await raw.execute(
        "delete from item_neighbours where tenant_id = $1 and kind in (1, 2) and build = any($2::int4[])",
        tenant_id,
        old,
    )
    await raw.execute("delete from neighbour_builds where tenant_id = $1 and build = any($2::int4[])", tenant_id, old)
    return len(old)
