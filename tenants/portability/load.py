"""The lines of a bundle into the tables: checked structs in, one statement for a few hundred of them.

Every function works in the tenant's own session, under row-level security, and never commits.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from tenants.audience.segments import parse_segment
from tenants.catalog.item import Item
from tenants.catalog.store import upsert_items
from tenants.learned.neighbours import RECIPE
from tenants.lifecycle import TenantRef
from tenants.placements import Placement, source_faults
from tenants.portability.format import (
    BehaviourRow,
    Build,
    EventRow,
    Generation,
    ItemIdRow,
    ItemRow,
    LikeShoppersRow,
    ModelRow,
    NeighbourRow,
    PhotoRow,
    PlacementRow,
    ScoreRow,
    SegmentRow,
    ShopperRow,
    UserRow,
    VectorRow,
    corrupt,
)
from tenants.vectors.encoding import fuse
from tenants.vectors.form import halfvec_text
from tenants.vectors.generations import Layout, store_calibration
from tenants.vectors.shards import hold_shard

_encode = msgspec.json.Encoder().encode

# Rows whose columns are named as the fields of their struct.
_INSERT: Final[Mapping[type, str]] = {
    ItemIdRow: """
        insert into item_ids (tenant_id, item_no, external_id)
        select $1, no, id from jsonb_to_recordset($2::text::jsonb) as r(no int4, id text)
        """,
    PhotoRow: """
        insert into item_photos (tenant_id, item_no, position, sha256, content_type, size)
        select $1, item_no, position, decode(sha256, 'hex'), content_type, size
        from jsonb_to_recordset($2::text::jsonb)
        as r(item_no int4, position int2, sha256 text, content_type text, size int4)
        """,
    ShopperRow: """
        insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key, merged_into, merged_at,
            created_at)
        select $1, no, case kind when 'user' then 1 else 0 end, id, bucket_key, merged_into, merged_at, created_at
        from jsonb_to_recordset($2::text::jsonb) as r(no int8, kind text, id text, bucket_key int8, merged_into int8,
            merged_at timestamptz, created_at timestamptz)
        """,
    UserRow: """
        insert into users (tenant_id, shopper_no, segments, attributes, seller_id, created_at, updated_at)
        select $1, shopper_no, segments, attributes, seller_id, created_at, updated_at
        from jsonb_to_recordset($2::text::jsonb) as r(shopper_no int8, segments text[], attributes jsonb,
            seller_id text, created_at timestamptz, updated_at timestamptz)
        """,
    SegmentRow: """
        insert into segments (tenant_id, segment_id, filter, created_at, updated_at)
        select $1, id, filter, created_at, updated_at from jsonb_to_recordset($2::text::jsonb)
        as r(id text, filter jsonb, created_at timestamptz, updated_at timestamptz)
        """,
    PlacementRow: """
        insert into placements (tenant_id, placement_id, doc, created_at, updated_at)
        select $1, id, placement, created_at, updated_at from jsonb_to_recordset($2::text::jsonb)
        as r(id text, placement jsonb, created_at timestamptz, updated_at timestamptz)
        """,
    ModelRow: """
        insert into behaviour_models (tenant_id, model, status, code_version, window_from, window_to, counts,
            content_hash, sha256, settings, metrics, readiness, created_at)
        select $1, model, status, code_version, window_from, window_to, counts, decode(content_hash, 'hex'),
            decode(sha256, 'hex'), settings, metrics, readiness, created_at
        from jsonb_to_recordset($2::text::jsonb) as r(model int4, status text, code_version text,
            window_from timestamptz, window_to timestamptz, counts jsonb, content_hash text, sha256 text,
            settings jsonb, metrics jsonb, readiness jsonb, created_at timestamptz)
        """,
    NeighbourRow: """
        insert into item_neighbours (tenant_id, kind, build, item_no, others, scores)
        select $1, kind, build, item_no, others, scores from jsonb_to_recordset($2::text::jsonb)
        as r(kind int2, build int4, item_no int4, others int4[], scores int2[])
        """,
    ScoreRow: """
        insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events, repurchase_days)
        select $1, model, segment, item_no, popularity, trend, events, repurchase_days
        from jsonb_to_recordset($2::text::jsonb) as r(model int4, segment text, item_no int4, popularity real,
            trend real, events int4, repurchase_days real)
        """,
    LikeShoppersRow: """
        insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores)
        select $1, model, shopper_no, others, scores from jsonb_to_recordset($2::text::jsonb)
        as r(model int4, shopper_no int8, others int8[], scores int2[])
        """,
    EventRow: """
        insert into events (tenant_id, ts, event_no, line, type, shopper_no, item_no, quantity, price, value,
            currency, order_id, answer_id, position, placement, session_id, event_id, rating, flags, context)
        select $1, r.ts, r.no, r.line, r.type, s.shopper_no, d.item_no, r.quantity, r.price, r.value, r.currency,
            r.order_id, r.recommendation_id, r.position, r.placement, r.session_id, r.event_id, r.rating, r.flags,
            r.context
        from jsonb_to_recordset($2::text::jsonb) as r(ts timestamptz, no uuid, line int2, type text,
            shopper_kind text, shopper_id text, item_id text, quantity real, price int8, value int8, currency text,
            order_id text, recommendation_id uuid, position int2, placement text, session_id text, event_id text,
            rating real, flags int2, context jsonb)
        left join lateral (select s.shopper_no from shopper_ids s where s.tenant_id = $1
            and s.kind = case r.shopper_kind when 'user' then 1 else 0 end and s.external_id = r.shopper_id
            limit 1) s on true
        left join lateral (select d.item_no from item_ids d where d.tenant_id = $1 and d.external_id = r.item_id
            limit 1) d on true
        """,
}


async def insert_rows(conn: AsyncConnection, tenant_id: TenantId, kind: type, rows: Sequence[Any]) -> None:
    """Insert rows of one of the kinds above."""
    await (await driver(conn)).execute(_INSERT[kind], tenant_id, _encode(rows).decode())


# Where the text or the photos have the hash that they had there, they are as far as they were; else they are encoded.
_STATES: Final = """
update items i set created_at = r.created_at, updated_at = r.updated_at,
    text_version = r.text_version, image_version = r.image_version,
    text_state = case when i.text_hash = decode(r.text_hash, 'hex') then r.text_state else i.text_state end,
    text_reason = case when i.text_hash = decode(r.text_hash, 'hex') then r.text_reason end,
    image_state = case when i.image_hash = decode(r.image_hash, 'hex') then r.image_state else i.image_state end,
    image_reason = case when i.image_hash = decode(r.image_hash, 'hex') then r.image_reason end
from jsonb_to_recordset($2::text::jsonb) as r(no int4, text_hash text, image_hash text, text_state int2,
    image_state int2, text_version int4, image_version int4, text_reason text, image_reason text,
    created_at timestamptz, updated_at timestamptz)
where i.tenant_id = $1 and i.item_no = r.no
"""

_AGES: Final = """
update item_facets f set created_at = r.created_at
from jsonb_to_recordset($2::text::jsonb) as r(no int4, created_at timestamptz)
where f.tenant_id = $1 and f.item_no = r.no
"""


async def insert_items(conn: AsyncConnection, tenant: TenantRef, rows: Sequence[ItemRow], file: str) -> None:
    """Store items as all items are stored, under the numbers that their ids have by now. Raises BundleCorrupt."""
    items = []
    for row in rows:
        try:
            items.append(msgspec.convert(row.item, Item))
        except msgspec.ValidationError as error:
            raise corrupt(file, None, f"Item {row.no}: {error}.") from error
    latest = max(row.updated_at for row in rows)
    for outcome in await upsert_items(conn, tenant, items, now=latest):
        if outcome.error is not None:
            raise corrupt(file, None, f"Item {outcome.id!r}: {outcome.error.message}")
    raw = await driver(conn)
    stood = _encode([{**msgspec.structs.asdict(row), "item": None} for row in rows]).decode()
    done: str = await raw.execute(_STATES, tenant.tenant_id, stood)
    if done != f"UPDATE {len(rows)}":
        raise corrupt(file, None, "Its numbers are not those of item_ids.")
    await raw.execute(_AGES, tenant.tenant_id, stood)


def checked_segment(row: SegmentRow, file: str) -> SegmentRow:
    """The row, if its filter can be used. Raises InvalidFilter."""
    parse_segment(row.filter)
    return row


def checked_placement(row: PlacementRow, file: str) -> PlacementRow:
    """The row, with the placement as we would store it. Raises BundleCorrupt."""
    try:
        placement = msgspec.convert(row.placement, Placement)
    except msgspec.ValidationError as error:
        raise corrupt(file, None, f"Placement {row.id!r}: {error}.") from error
    if found := source_faults(placement):
        raise corrupt(file, None, f"Placement {row.id!r}: {found[0].message}")
    return msgspec.structs.replace(row, placement=msgspec.to_builtins(placement))


class _Counts(msgspec.Struct):
    """What statements over all tenants read of a model's counts: never to be anything else."""

    rows: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


class _Settings(msgspec.Struct):
    """The same of its settings."""

    blend: dict[str, float] = {}


def checked_model(row: ModelRow, file: str) -> ModelRow:
    """The row, if what others read of its JSON is as they expect; drift is measured anew. Raises BundleCorrupt."""
    try:
        msgspec.convert(row.counts, _Counts)
        msgspec.convert(row.settings, _Settings)
    except msgspec.ValidationError as error:
        raise corrupt(file, None, f"Model {row.model}: {error}.") from error
    return msgspec.structs.replace(row, metrics={name: each for name, each in row.metrics.items() if name != "drift"})


def _vector(packed: str, dim: int | None, file: str) -> str:
    """The literal of a packed vector; `dim` where it is known. Raises BundleCorrupt."""
    try:
        data = b64decode(packed, validate=True)
    except ValueError as error:
        raise corrupt(file, None, "A vector is not base64.") from error
    if not data or len(data) % 2 or (dim is not None and len(data) != 2 * dim):
        raise corrupt(file, None, f"A vector has {len(data) / 2:g} numbers instead of {dim}.")
    numbers = np.frombuffer(data, ">f2").astype(np.float32)
    if not np.isfinite(numbers).all():
        raise corrupt(file, None, "A vector holds what is no number.")
    return halfvec_text(numbers)


async def insert_vectors(
    conn: AsyncConnection, tenant_id: TenantId, space_id: int, dim: int, rows: Sequence[VectorRow], file: str
) -> None:
    """Store raw vectors of one space, as old as they were. Raises BundleCorrupt."""
    await (await driver(conn)).execute(
        "insert into item_vectors (tenant_id, space_id, item_no, content_hash, vec, encoded_at) "
        "select $1, $2, r.item_no, r.hash, r.vec::halfvec, r.at "
        "from unnest($3::int4[], $4::bytea[], $5::text[], $6::timestamptz[]) r(item_no, hash, vec, at)",
        tenant_id,
        space_id,
        [row.no for row in rows],
        [bytes.fromhex(row.hash) for row in rows],
        [_vector(row.vec, dim, file) for row in rows],
        [row.at for row in rows],
    )


async def insert_behaviour(conn: AsyncConnection, tenant_id: TenantId, rows: Sequence[BehaviourRow], file: str) -> None:
    """Store items' places in behaviour space. Raises BundleCorrupt."""
    await (await driver(conn)).execute(
        "insert into behaviour_vectors (tenant_id, model, item_no, own, vec) "
        "select $1, r.model, r.item_no, r.own, r.vec::halfvec "
        "from unnest($2::int4[], $3::int4[], $4::real[], $5::text[]) r(model, item_no, own, vec)",
        tenant_id,
        [row.model for row in rows],
        [row.item_no for row in rows],
        [row.own for row in rows],
        [_vector(row.vec, None, file) for row in rows],
    )


async def fuse_items(conn: AsyncConnection, tenant_id: TenantId, layout: Layout, item_nos: Sequence[int]) -> None:
    """Make the fused rows of items of their vectors."""
    shard = await hold_shard(conn, tenant_id)
    await fuse(await driver(conn), tenant_id, shard, layout, item_nos)


async def insert_generation(
    conn: AsyncConnection, tenant_id: TenantId, generation: Generation, layout: Layout, spaces: Mapping[str, int]
) -> None:
    """Store the generation that serves, with our numbers of its spaces, and the build of neighbours that it names."""
    raw = await driver(conn)
    weights: dict[str, Any] = {"text": generation.text_weight, "image": generation.image_weight}
    if generation.blend is not None:
        weights["blend"] = generation.blend
    await raw.execute(
        "insert into generations (tenant_id, gen, layout_id, calibration, weights, status, reason, created_at, "
        "behaviour_model, neighbours_build) "
        "values ($1, $2, $3, $4::text::jsonb, $5::text::jsonb, 'ready', $6, $7, $8, $9)",
        tenant_id,
        generation.gen,
        layout.layout_id,
        store_calibration(
            {spaces[space.name]: (space.mean, space.dev) for space in generation.spaces}, generation.measured_items
        ),
        _encode(weights).decode(),
        generation.reason,
        generation.created_at,
        generation.behaviour_model,
        None if generation.build is None else generation.build.build,
    )
    if generation.build is not None:
        await _insert_build(raw, tenant_id, generation.gen, generation.build)


async def _insert_build(raw: Any, tenant_id: TenantId, gen: int, build: Build) -> None:
    await raw.execute(
        "insert into neighbour_builds (tenant_id, build, layout_id, recipe, watermark, items, status, created_at) "
        f"select $1, $3, g.layout_id, case when $4 then {RECIPE} else ''::bytea end, $5, $6, 'ready', $7 "
        "from generations g where g.tenant_id = $1 and g.gen = $2",
        tenant_id,
        gen,
        build.build,
        build.current,
        build.watermark,
        min(build.items, 2**31 - 1),
        build.created_at,
    )


async def set_counters(conn: AsyncConnection, tenant_id: TenantId, next_item_no: int, next_shopper_no: int) -> None:
    """No number that was used there is used again; nor one that the rows use, whatever the bundle says."""
    raw = await driver(conn)
    await raw.execute(
        "update tenant_counters set next_item_no = greatest(next_item_no, $2, "
        "(select coalesce(max(d.item_no), 0) + 1 from item_ids d where d.tenant_id = $1)) where tenant_id = $1",
        tenant_id,
        next_item_no,
    )
    await raw.execute(
        "insert into shopper_counters (tenant_id, next_shopper_no) select $1, greatest($2, "
        "(select coalesce(max(s.shopper_no), 0) + 1 from shopper_ids s where s.tenant_id = $1))",
        tenant_id,
        next_shopper_no,
    )


async def hold_on(conn: AsyncConnection, tenant_id: TenantId, *, now: datetime, until: datetime) -> bool:
    """Keep upkeep off a tenant that is being filled until then; False where its time was over."""
    done = await (await driver(conn)).fetchval(
        "update tenants set erase_after = $3 where tenant_id = $1 and deleted_at is not null and erase_after > $2 "
        "returning 1",
        tenant_id,
        now,
        until,
    )
    return done is not None
