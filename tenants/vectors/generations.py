"""Generations: which spaces a tenant's answers come from, how a new set fills beside them and takes over.

A generation never changes but for its status; `tenants.active_gen` names the one that serves, so a change of
encoder or of calibration is one row written, and undone the same way (DECISIONS 9).
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.db import TenantId, driver
from infra.errors import NotFound
from tenants.lifecycle import NGRAMS_PREFIX

Calibration = Mapping[int, tuple[float, float]]
"""Space id -> mean and deviation of the cosine of random pairs."""

_ITEMS_KEY: Final = "items"
_WEIGHTS: Final = '{"text": 0.5, "image": 0.5}'


class GenerationNotFound(NotFound):
    """The tenant has no generation of that number."""

    code = "generation_not_found"
    title = "There is no such generation"


class Layout(Struct, frozen=True, kw_only=True):
    """What the halves of a fused row are; `ngrams_space` has the size of `text_space` and stands in for it."""

    layout_id: int
    text_space: int
    ngrams_space: int
    image_space: int
    text_dim: int
    image_dim: int


class GenerationState(Struct, frozen=True, kw_only=True):
    """One generation as the workers see it. `measured_items`: how many items its calibration was taken from."""

    gen: int
    layout: Layout
    status: Literal["filling", "ready"]
    active: bool
    reason: str
    measured_items: int


async def ensure_space(conn: AsyncConnection, *, name: str, kind: Literal["text", "image"], dim: int) -> int:
    """The number of a space, given at first sight. `conn` is a system session."""
    raw = await driver(conn)
    # Looked up first: a conflicting insert would use up numbers, and a smallint has few.
    found = await raw.fetchval("select space_id from spaces where name = $1", name)
    if found is None:
        await raw.execute(
            "insert into spaces (name, kind, dim) values ($1, $2, $3) on conflict (name) do nothing", name, kind, dim
        )
        found = await raw.fetchval("select space_id from spaces where name = $1", name)
    return int(found)


async def ensure_layout(conn: AsyncConnection, text_space: int, image_space: int) -> int:
    """The number of a layout, given at first sight. `conn` is a system session."""
    raw = await driver(conn)
    select = "select layout_id from layouts where text_space = $1 and image_space = $2"
    found = await raw.fetchval(select, text_space, image_space)
    if found is None:
        await raw.execute(
            "insert into layouts (text_space, image_space) values ($1, $2) on conflict do nothing",
            text_space,
            image_space,
        )
        found = await raw.fetchval(select, text_space, image_space)
    return int(found)


_LIST = """
select g.gen, g.status, g.reason, g.gen = t.active_gen as active, g.calibration::text as calibration,
    l.layout_id, l.text_space, l.image_space, a.dim as text_dim, b.dim as image_dim,
    coalesce(n.space_id, l.text_space) as ngrams_space
from tenants t join generations g on g.tenant_id = t.tenant_id
join layouts l on l.layout_id = g.layout_id
join spaces a on a.space_id = l.text_space
join spaces b on b.space_id = l.image_space
left join lateral (
    select s.space_id from spaces s where s.kind = 'text' and s.dim = a.dim and s.name like $2
        and g.calibration ? s.space_id::text order by s.space_id desc limit 1) n on true
where t.tenant_id = $1 and t.deleted_at is null {which} order by g.gen
"""


async def list_generations(conn: AsyncConnection, tenant_id: TenantId, *, all_: bool = False) -> list[GenerationState]:
    """The generations that are written to (the active one and those that fill), or every one; oldest first."""
    which = "" if all_ else "and (g.gen = t.active_gen or g.status = 'filling')"
    records = await (await driver(conn)).fetch(_LIST.format(which=which), tenant_id, NGRAMS_PREFIX + "%")
    return [
        GenerationState(
            gen=record["gen"],
            layout=Layout(**{name: record[name] for name in Layout.__struct_fields__}),
            status=record["status"],
            active=record["active"],
            reason=record["reason"],
            measured_items=msgspec.json.decode(record["calibration"]).get(_ITEMS_KEY, 0),
        )
        for record in records
    ]


def store_calibration(calibration: Calibration, measured_items: int) -> str:
    """A calibration as its column holds it."""
    spaces = {str(space_id): list(pair) for space_id, pair in calibration.items()}
    return msgspec.json.encode({**spaces, _ITEMS_KEY: measured_items}).decode()


async def list_new_tenants(conn: AsyncConnection) -> list[TenantId]:
    """Tenants that have no generation yet. `conn` is a system session."""
    records = await (await driver(conn)).fetch(
        "select t.tenant_id from tenants t where t.deleted_at is null and not exists "
        "(select 1 from generations g where g.tenant_id = t.tenant_id)"
    )
    return [TenantId(record["tenant_id"]) for record in records]


async def ensure_generation(
    conn: AsyncConnection, tenant_id: TenantId, layout_id: int, calibration: Calibration
) -> None:
    """Give a new tenant its first generation, ready at once: there is nothing to fill."""
    raw = await driver(conn)
    made = await raw.fetchval(
        "insert into generations (tenant_id, gen, layout_id, calibration, weights, status, reason) "
        "select $1, t.active_gen, $2, $3::text::jsonb, $4::text::jsonb, 'ready', 'the first' from tenants t "
        "where t.tenant_id = $1 and not exists (select 1 from generations g where g.tenant_id = $1) "
        "on conflict do nothing returning gen",
        tenant_id,
        layout_id,
        store_calibration(calibration, 0),
        _WEIGHTS,
    )
    if made is not None:
        await record_change(conn, tenant_id, "tenant")


async def open_generation(
    conn: AsyncConnection,
    tenant_id: TenantId,
    layout_id: int,
    *,
    reason: str,
    calibration: Calibration,
    measured_items: int = 0,
) -> int:
    """A new generation that fills; its number.

    The weights and the model of behaviour are those of the generation that serves; the neighbours in content too,
    where they were found in the same layout.
    """
    raw = await driver(conn)
    await _lock(raw, tenant_id)
    gen: int = await raw.fetchval(
        "with active as (select a.* from generations a join tenants t on t.tenant_id = $1 and t.active_gen = a.gen "
        "where a.tenant_id = $1) "
        "insert into generations (tenant_id, gen, layout_id, calibration, weights, status, reason, behaviour_model, "
        "neighbours_build) "
        "select $1, (select coalesce(max(g.gen), 0) + 1 from generations g where g.tenant_id = $1), $2, "
        "$3::text::jsonb, coalesce(a.weights, $4::text::jsonb), 'filling', $5, a.behaviour_model, "
        "case when a.layout_id = $2 then a.neighbours_build end "
        "from (select 1) one left join active a on true returning gen",
        tenant_id,
        layout_id,
        store_calibration(calibration, measured_items),
        _WEIGHTS,
        reason,
    )
    return gen


async def refill(conn: AsyncConnection, tenant_id: TenantId, gen: int, *, reason: str) -> None:
    """Let an earlier generation catch up with what changed since; it takes over when it is complete."""
    raw = await driver(conn)
    done = await raw.fetchval(
        "update generations set status = 'filling', reason = $3 where tenant_id = $1 and gen = $2 returning gen",
        tenant_id,
        gen,
        reason,
    )
    if done is None:
        raise GenerationNotFound(f"There is no generation {gen}. See `kindred models list`.")


async def abandon_filling(conn: AsyncConnection, tenant_id: TenantId, *, but_layout: int) -> int:
    """Stop filling generations of other layouts than this; how many there were. They keep what they have."""
    raw = await driver(conn)
    done: str = await raw.execute(
        "update generations g set status = 'ready', reason = g.reason || ' (given up)' from tenants t "
        "where g.tenant_id = $1 and t.tenant_id = $1 and g.status = 'filling' and g.layout_id <> $2 "
        "and g.gen <> t.active_gen",
        tenant_id,
        but_layout,
    )
    return int(done.rpartition(" ")[2])


async def activate(conn: AsyncConnection, tenant_id: TenantId, gen: int) -> None:
    """Answer from this generation from now on, in every process (by the change feed). Raises GenerationNotFound.

    One that was filling takes what was learned from behaviour meanwhile; one that served before comes back as it was.
    """
    raw = await driver(conn)
    await _lock(raw, tenant_id)
    await raw.execute(
        "update generations g set behaviour_model = a.behaviour_model, weights = a.weights "
        "from generations a, tenants t where t.tenant_id = $1 and a.tenant_id = $1 and a.gen = t.active_gen "
        "and g.tenant_id = $1 and g.gen = $2 and g.status = 'filling'",
        tenant_id,
        gen,
    )
    done = await raw.fetchval(
        "update generations set status = 'ready' where tenant_id = $1 and gen = $2 returning gen", tenant_id, gen
    )
    if done is None:
        raise GenerationNotFound(f"There is no generation {gen}. See `kindred models list`.")
    await _serve(conn, tenant_id, gen)


async def activate_model(
    conn: AsyncConnection,
    tenant_id: TenantId,
    *,
    reason: str,
    behaviour_model: int | UnsetType | None = UNSET,
    neighbours_build: int | UnsetType | None = UNSET,
    blend: Mapping[str, float] | UnsetType = UNSET,
) -> int:
    """Answer with this model of behaviour, these neighbours or this blend from now on; the new generation's number.

    A new generation of the layout that serves; what is not given stays. Undone by `activate` of the one before.
    Raises GenerationNotFound where a new tenant has none yet.
    """
    raw = await driver(conn)
    await _lock(raw, tenant_id)
    weights = {} if blend is UNSET else {"blend": dict(blend)}
    gen: int | None = await raw.fetchval(
        "insert into generations (tenant_id, gen, layout_id, calibration, weights, status, reason, behaviour_model, "
        "neighbours_build) "
        "select $1, (select max(g.gen) + 1 from generations g where g.tenant_id = $1), a.layout_id, a.calibration, "
        "a.weights || $2::text::jsonb, 'ready', $3, case when $4 then $5::int4 else a.behaviour_model end, "
        "case when $6 then $7::int4 else a.neighbours_build end "
        "from generations a join tenants t on t.tenant_id = $1 and t.active_gen = a.gen "
        "where a.tenant_id = $1 returning gen",
        tenant_id,
        msgspec.json.encode(weights).decode(),
        reason,
        behaviour_model is not UNSET,
        None if behaviour_model is UNSET else behaviour_model,
        neighbours_build is not UNSET,
        None if neighbours_build is UNSET else neighbours_build,
    )
    if gen is None:
        raise GenerationNotFound("The tenant has no generation yet; a worker makes the first within a second.")
    await _serve(conn, tenant_id, gen)
    return gen


async def _serve(conn: AsyncConnection, tenant_id: TenantId, gen: int) -> None:
    await (await driver(conn)).execute("update tenants set active_gen = $2 where tenant_id = $1", tenant_id, gen)
    await record_change(conn, tenant_id, "tenant")


async def _lock(raw: Any, tenant_id: TenantId) -> None:
    """Two workers that open or activate one at a time take turns, and neither undoes what the other did."""
    await raw.fetchval("select 1 from tenants where tenant_id = $1 for update", tenant_id)


# An item lacks a half where it is said to be encoded, or is waiting to be, but has no vector of the layout's spaces.
_LACKS: Final = {
    "text": "i.text_state in (0, 1) and not exists (select 1 from item_vectors v where v.tenant_id = $1 "
    "and v.item_no = i.item_no and v.space_id = any($2::int2[]))",
    "image": "i.image_state in (0, 1) and not exists (select 1 from item_vectors v where v.tenant_id = $1 "
    "and v.item_no = i.item_no and v.space_id = any($2::int2[]))",
}


def _spaces(layout: Layout, modality: Literal["text", "image"]) -> list[int]:
    return [layout.text_space, layout.ngrams_space] if modality == "text" else [layout.image_space]


async def missing(conn: AsyncConnection, tenant_id: TenantId, layout: Layout) -> int:
    """How many halves of items are still to be encoded before the layout is complete."""
    raw = await driver(conn)
    total = 0
    for modality in ("text", "image"):
        total += await raw.fetchval(
            f"select count(*) from items i where i.tenant_id = $1 and {_LACKS[modality]}",
            tenant_id,
            _spaces(layout, modality),
        )
    return total


async def queue_missing(
    conn: AsyncConnection, tenant_id: TenantId, layout: Layout, *, after_no: int, limit: int
) -> int:
    """Queue the next items that lack a vector of the layout; the last one's number, or -1 when there is none.

    Few at a time, so that an item that changes now does not wait behind the whole catalogue.
    """
    raw = await driver(conn)
    last = -1
    for modality in ("text", "image"):
        done: int | None = await raw.fetchval(
            f"""
            with next as materialized (
                select i.item_no from items i where i.tenant_id = $1 and i.item_no > $3 and {_LACKS[modality]}
                order by i.item_no limit $4 for update
            ), queued as (
                update items i set {modality}_state = 0, {modality}_due = '-infinity', {modality}_attempts = 0
                from next where i.tenant_id = $1 and i.item_no = next.item_no and i.{modality}_state = 1
            )
            select max(item_no) from next
            """,
            tenant_id,
            _spaces(layout, modality),
            after_no,
            limit,
        )
        # Both kinds go on from the same place: the one that got less far decides.
        if done is not None:
            last = done if last < 0 else min(last, done)
    return last
