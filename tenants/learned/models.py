"""Models of behaviour: what one was trained on, how good it is, which one serves; and the rows it serves from.

A model is a number under which learned rows lie (`item_neighbours` of kinds 3 to 6, `behaviour_vectors`,
`item_scores`, `shopper_neighbours`). It serves from the moment a generation names it; the one before is kept, so that
going back is one row.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.db import TenantId, driver, fetch
from infra.errors import Conflict, NotFound
from tenants.jobs import create_job
from tenants.learned.neighbours import KIND_CONTENT, KIND_GRAPH, copy_lists
from tenants.vectors.generations import activate_model
from tenants.webhooks.events import ModelActivated
from tenants.webhooks.outbox import emit

TRAIN_JOB: Final = "train"

MODEL_CHANGE: Final = "model"
"""The kind of change that says: another model can serve, or can no more."""

REACH: Final = timedelta(days=730)
MOST_EVENTS: Final = 3_000_000
"""Events that a training reads, the latest: 2 million take a process of about a gigabyte."""

KEPT: Final = 2
"""Models whose rows are kept: the one that serves, and the latest other one, besides those that placements name."""

DAILY: Final = timedelta(hours=24)
AFTER_EVENTS: Final = 1.25
"""Trained anew once there are so many times the events of the last training, before the day is over."""
FIRST_EVENTS: Final = 500
OFTEN: Final = timedelta(minutes=30)
"""Never more often than this without being asked."""

ModelStatus = Literal["training", "ready", "waiting", "failed", "retired"]
"""`waiting`: there was too little to train on, see `readiness`; `retired`: its rows are gone."""


class ModelNotFound(NotFound):
    """The tenant has no model of that number."""

    code = "model_not_found"
    title = "There is no such model"


class ModelNotReady(Conflict):
    """A model can serve only while its rows are there: it is training, has failed, or was retired for a newer one."""

    code = "model_not_ready"
    title = "The model cannot serve"


class TrainJob(Struct, frozen=True, kw_only=True):
    """The message of a training job. `asked`: by a person, so it activates what it made whatever served before."""

    asked: bool = False


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A trained model. `window_from`, `window_to`: the events it was trained on; `counts` how many of what;
    `content_hash` of those events, `sha256` of what was made of them, both hexadecimal; `readiness` says of each part
    what there is, what it needs and what serves meanwhile.
    """

    model: int
    status: ModelStatus
    active: bool
    created_at: datetime
    code_version: str
    window_from: datetime | None
    window_to: datetime | None
    counts: msgspec.Raw
    content_hash: str | None
    sha256: str | None
    settings: msgspec.Raw
    metrics: msgspec.Raw
    readiness: msgspec.Raw


_COLUMNS: Final = """m.model, m.status, m.created_at, m.code_version, m.window_from, m.window_to,
    m.counts::text as counts, encode(m.content_hash, 'hex') as content_hash, encode(m.sha256, 'hex') as sha256,
    m.settings::text as settings, m.metrics::text as metrics, m.readiness::text as readiness,
    m.model is not distinct from (select g.behaviour_model from tenants t join generations g on g.tenant_id = $1
        and g.gen = t.active_gen where t.tenant_id = $1) as active"""


def _info(record: Any) -> ModelInfo:
    raw = {name: msgspec.Raw(record[name].encode()) for name in ("counts", "settings", "metrics", "readiness")}
    return ModelInfo(**{**dict(record), **raw})


async def list_models(conn: AsyncConnection, tenant_id: TenantId, *, limit: int = 50) -> list[ModelInfo]:
    """The models from the newest on."""
    records = await fetch(
        conn,
        f"select {_COLUMNS} from behaviour_models m where m.tenant_id = $1 order by m.model desc limit $2",
        tenant_id,
        limit,
    )
    return [_info(record) for record in records]


async def find_model(conn: AsyncConnection, tenant_id: TenantId, model: int) -> ModelInfo | None:
    """One model, by its number."""
    records = await fetch(
        conn, f"select {_COLUMNS} from behaviour_models m where m.tenant_id = $1 and m.model = $2", tenant_id, model
    )
    return _info(records[0]) if records else None


async def queue_training(conn: AsyncConnection, tenant_id: TenantId, *, asked: bool) -> UUID:
    """Have the tenant's models trained; the job's id, that of one that waits already where there is one."""
    raw = await driver(conn)
    await raw.fetchval("select pg_advisory_xact_lock(hashtextextended('training of ' || $1::text, 0))", str(tenant_id))
    waiting = await raw.fetchval(
        "select job_id from jobs where tenant_id = $1 and kind = $2 and status = 'queued' order by job_id limit 1",
        tenant_id,
        TRAIN_JOB,
    )
    if waiting is not None:
        return UUID(int=waiting.int)
    return await create_job(conn, tenant_id, TRAIN_JOB, TrainJob(asked=asked))


# Events are counted up to what would make the training due, in the order of their time.
_DUE: Final = """
select t.tenant_id
from tenants t
left join lateral (
    select m.created_at, (m.counts ->> 'rows')::int8 as rows, m.window_to from behaviour_models m
    where m.tenant_id = t.tenant_id order by m.model desc limit 1
) m on true
cross join lateral (
    select count(*) as fresh from (
        select 1 from events e where e.tenant_id = t.tenant_id and e.ts > coalesce(m.window_to, '-infinity')
            and e.ts <= $1::timestamptz
        limit greatest(coalesce(m.rows, 0) * ($5::float8 - 1), $4::int8)::int8 + 1
    ) e
) e
where t.deleted_at is null
and (m.created_at is null or m.created_at < $1::timestamptz - $6::interval)
and e.fresh > 0
and (m.created_at is null or m.created_at < $1::timestamptz - $3::interval
    or e.fresh > greatest(coalesce(m.rows, 0) * ($5::float8 - 1), $4::int8))
and not exists (select 1 from jobs j where j.tenant_id = t.tenant_id and j.kind = $2
    and (j.status in ('queued', 'running') or j.status = 'failed' and j.finished_at > $1::timestamptz - $6::interval))
order by m.created_at nulls first, t.tenant_id
"""


async def list_due(conn: AsyncConnection, now: datetime) -> list[TenantId]:
    """Tenants whose models are to be trained, those that waited longest first: daily where there are new events, and
    at once when there are many. `conn` is a system session.
    """
    records = await fetch(conn, _DUE, now, TRAIN_JOB, DAILY, FIRST_EVENTS, AFTER_EVENTS, OFTEN)
    return [TenantId(record["tenant_id"]) for record in records]


async def open_model(conn: AsyncConnection, tenant_id: TenantId, code_version: str, now: datetime) -> int:
    """Begin a model; its number. One that a killed worker left has failed, and its rows go."""
    raw = await driver(conn)
    records = await raw.fetch(
        "update behaviour_models set status = 'failed' where tenant_id = $1 and status = 'training' returning model",
        tenant_id,
    )
    await _drop_rows(raw, tenant_id, [record["model"] for record in records])
    model: int = await raw.fetchval(
        "insert into behaviour_models (tenant_id, model, status, code_version, created_at) select $1, "
        "coalesce(max(m.model), 0) + 1, 'training', $2, $3 from behaviour_models m where m.tenant_id = $1 "
        "returning model",
        tenant_id,
        code_version,
        now,
    )
    return model


async def copy_events(
    conn: AsyncConnection,
    tenant_id: TenantId,
    types: Sequence[str],
    path: Path,
    *,
    now: datetime,
    limit: int = MOST_EVENTS,
) -> None:
    """Write (shopper, item, ts, type, basket, joined) of the latest events of people to a file, as binary COPY.

    `ts` in seconds since 1970; `type` its place in `types`, others are left out; `basket` a number of the order, or of
    the shopper's day; `joined` 1 where the item is in the catalogue.
    """
    raw = await driver(conn)
    await raw.copy_from_query(
        "select e.shopper_no, e.item_no, extract(epoch from e.ts)::int8, "
        "(array_position($2::text[], e.type) - 1)::int2, "
        "hashtextextended(coalesce(e.order_id, e.shopper_no || ' ' || (e.ts at time zone 'UTC')::date), 0), "
        "(f.item_no is not null)::int::int2 "
        "from (select v.* from events v where v.tenant_id = $1 and v.ts > $3::timestamptz and v.ts <= $4::timestamptz "
        "and v.shopper_no is not null and v.item_no is not null and v.flags & 1 = 0 and v.type = any($2::text[]) "
        "order by v.ts desc limit $5) e left join item_facets f on f.tenant_id = $1 and f.item_no = e.item_no",
        tenant_id,
        list(types),
        now - REACH,
        now,
        limit,
        output=str(path),
        format="binary",
    )


async def copy_likes(conn: AsyncConnection, tenant_id: TenantId, of_each: int, path: Path) -> bool:
    """Write (item, other, score) of the content neighbours that serve, `of_each` of an item; False without a build."""
    raw = await driver(conn)
    build = await raw.fetchval(
        "select g.neighbours_build from tenants t join generations g on g.tenant_id = $1 and g.gen = t.active_gen "
        "where t.tenant_id = $1",
        tenant_id,
    )
    if build is None:
        return False
    await _copy_pairs(raw, tenant_id, KIND_CONTENT, build, of_each, path)
    return True


async def copy_served(
    conn: AsyncConnection, tenant_id: TenantId, model: int, of_each: int, lists: Path, vectors: Path
) -> None:
    """Write a model's behaviour: (item, other, score) of `of_each` neighbours, and (item, own, vec) of every place."""
    raw = await driver(conn)
    await _copy_pairs(raw, tenant_id, KIND_GRAPH, model, of_each, lists)
    await raw.copy_from_query(
        "select b.item_no, b.own, b.vec from behaviour_vectors b where b.tenant_id = $1 and b.model = $2",
        tenant_id,
        model,
        output=str(vectors),
        format="binary",
    )


async def _copy_pairs(raw: Any, tenant_id: TenantId, kind: int, build: int, of_each: int, path: Path) -> None:
    await raw.copy_from_query(
        f"select n.item_no, u.other, u.score from item_neighbours n cross join lateral "
        f"unnest(n.others[1:{int(of_each)}], n.scores[1:{int(of_each)}]) u(other, score) "
        f"where n.tenant_id = $1 and n.kind = {int(kind)} and n.build = $2",
        tenant_id,
        build,
        output=str(path),
        format="binary",
    )


class ModelFiles(Struct, frozen=True, kw_only=True):
    """Rows of a model as binary COPY: (kind, item_no, others, scores); (item_no, own, vec); (item_no,
    repurchase_days); (shopper_no, others, scores).
    """

    lists: Path
    vectors: Path
    scores: Path
    shoppers: Path


async def store_rows(conn: AsyncConnection, tenant_id: TenantId, model: int, files: ModelFiles, previous: int) -> None:
    """Store a model's rows; popularity is that of `previous` until it is computed anew."""
    raw = await driver(conn)
    await copy_lists(conn, tenant_id, model, files.lists)
    await _store(
        raw,
        files.vectors,
        "item_no int4, own real, vec halfvec",
        "insert into behaviour_vectors (tenant_id, model, item_no, own, vec) "
        "select $1, $2, a.item_no, a.own, a.vec from arrived_rows a order by a.item_no",
        tenant_id,
        model,
    )
    await raw.execute(
        "insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events) "
        "select s.tenant_id, $2, s.segment, s.item_no, s.popularity, s.trend, s.events from item_scores s "
        "where s.tenant_id = $1 and s.model = $3",
        tenant_id,
        model,
        previous,
    )
    await _store(
        raw,
        files.scores,
        "item_no int4, days real",
        "insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events, repurchase_days) "
        "select $1, $2, '', a.item_no, 0, 0, 0, a.days from arrived_rows a order by a.item_no "
        "on conflict (tenant_id, model, segment, item_no) do update set repurchase_days = excluded.repurchase_days",
        tenant_id,
        model,
    )
    await _store(
        raw,
        files.shoppers,
        "shopper_no int8, others int8[], scores int2[]",
        # A shopper who was erased meanwhile is in no new row.
        "insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores) "
        "select $1, $2, a.shopper_no, a.others, a.scores from arrived_rows a join shopper_ids s on s.tenant_id = $1 "
        "and s.shopper_no = a.shopper_no order by a.shopper_no",
        tenant_id,
        model,
    )


async def _store(raw: Any, path: Path, columns: str, insert: str, tenant_id: TenantId, model: int) -> None:
    await raw.execute(f"create temporary table arrived_rows ({columns})")
    names = tuple(column.split()[0] for column in columns.split(", "))
    await raw.copy_to_table("arrived_rows", source=str(path), format="binary", columns=names)
    await raw.execute(insert, tenant_id, model)
    await raw.execute("drop table arrived_rows")


class Trained(Struct, frozen=True, kw_only=True):
    """What a training made, for the model's row."""

    status: Literal["ready", "waiting"]
    window_from: datetime | None
    window_to: datetime | None
    counts: Struct
    content_hash: bytes
    sha256: bytes
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    readiness: Sequence[Struct]


async def close_model(conn: AsyncConnection, tenant_id: TenantId, model: int, trained: Trained) -> None:
    """Write what came of a training."""
    await (await driver(conn)).execute(
        "update behaviour_models set status = $3, window_from = $4, window_to = $5, counts = $6::text::jsonb, "
        "content_hash = $7, sha256 = $8, settings = $9::text::jsonb, metrics = $10::text::jsonb, "
        "readiness = $11::text::jsonb where tenant_id = $1 and model = $2",
        tenant_id,
        model,
        trained.status,
        trained.window_from,
        trained.window_to,
        msgspec.json.encode(trained.counts).decode(),
        trained.content_hash,
        trained.sha256,
        msgspec.json.encode(trained.settings).decode(),
        msgspec.json.encode(trained.metrics).decode(),
        msgspec.json.encode(trained.readiness).decode(),
    )
    await record_change(conn, tenant_id, MODEL_CHANGE)


async def serve_model(conn: AsyncConnection, tenant_id: TenantId, model: int, *, reason: str) -> int:
    """Answer from this model, with the blend that was fitted with it; the generation. The tenant's webhooks are told.

    Raises ModelNotFound, ModelNotReady.
    """
    record = await (await driver(conn)).fetchrow(
        "select status, (settings -> 'blend')::text as blend from behaviour_models where tenant_id = $1 and model = $2 "
        "for share",
        tenant_id,
        model,
    )
    if record is None:
        raise ModelNotFound(f"There is no model {model}. They are listed at /v1/models.")
    if record["status"] != "ready":
        raise ModelNotReady(f"The model is {record['status']}; only a ready one can serve.")
    blend: dict[str, float] = msgspec.json.decode(record["blend"] or b"{}")
    gen = await activate_model(conn, tenant_id, reason=reason, behaviour_model=model, blend=blend)
    await emit(conn, tenant_id, "model.activated", ModelActivated(model=model, generation=gen, reason=reason))
    return gen


async def retire_models(conn: AsyncConnection, tenant_id: TenantId) -> list[int]:
    """Drop the rows of all models but that which serves, those that placements name, and the latest other one; which
    models."""
    raw = await driver(conn)
    records = await raw.fetch(
        "update behaviour_models set status = 'retired' where tenant_id = $1 and model in ("
        "select m.model from behaviour_models m where m.tenant_id = $1 and m.status = 'ready' and m.model is distinct "
        "from (select g.behaviour_model from tenants t join generations g on g.tenant_id = $1 and g.gen = t.active_gen "
        "where t.tenant_id = $1) and not exists (select 1 from placements p "
        "cross join lateral jsonb_array_elements(p.doc -> 'sources') s "
        "where p.tenant_id = $1 and s ->> 'model' = m.model::text) order by m.model desc offset $2) returning model",
        tenant_id,
        KEPT - 1,
    )
    models = [record["model"] for record in records]
    await _drop_rows(raw, tenant_id, models)
    if models:
        await record_change(conn, tenant_id, MODEL_CHANGE)
    return models


async def ready_models(conn: AsyncConnection, tenant_id: TenantId) -> frozenset[int]:
    """The models that can serve, held until the transaction ends: none of them is retired meanwhile."""
    records = await fetch(
        conn, "select model from behaviour_models where tenant_id = $1 and status = 'ready' for share", tenant_id
    )
    return frozenset(record["model"] for record in records)


async def _drop_rows(raw: Any, tenant_id: TenantId, models: Sequence[int]) -> None:
    for statement in (
        "delete from item_neighbours where tenant_id = $1 and kind > 2 and build = any($2::int4[])",
        "delete from behaviour_vectors where tenant_id = $1 and model = any($2::int4[])",
        "delete from item_scores where tenant_id = $1 and model = any($2::int4[])",
        "delete from shopper_neighbours where tenant_id = $1 and model = any($2::int4[])",
    ):
        await raw.execute(statement, tenant_id, list(models))
