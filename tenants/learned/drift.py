"""Drift: how far a shop's last week lies from the four before, and its new items from those the model knows.

PSI, the population stability index: Σ (a − e) · ln(a / e) over the shares of two counts; below 0.1 nothing moved, above
0.25 much did (the habit of credit scoring). It is written to the metrics of the model that serves, once a day.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver, fetch
from tenants.lifecycle import TenantRef

EVERY: Final = timedelta(days=1)
RECENT: Final = timedelta(days=7)
BEFORE: Final = timedelta(days=28)

MOVING: Final = 0.1
DRIFTED: Final = 0.25

FEWEST_EVENTS: Final = 100
FEWEST_ITEMS: Final = 20
SAMPLE: Final = 2000
"""Items of each side whose vectors are averaged, the newest."""

State = Literal["steady", "moving", "drifted", "unknown"]


class Drift(Struct, frozen=True, kw_only=True):
    """`event_mix` and `ctr` are PSI of the last 7 days against the 28 before; `ctr_now` and `ctr_before` clicks per
    impression; `text_shift` and `image_shift` 1 − cosine of the mean vectors of items before and after the training.
    None where there is too little to tell.
    """

    at: datetime
    state: State
    event_mix: float | None
    ctr: float | None
    ctr_now: float | None
    ctr_before: float | None
    text_shift: float | None
    image_shift: float | None


def psi(now: Mapping[str, int], before: Mapping[str, int]) -> float | None:
    """The index of two counts by name; None where either is of fewer than `FEWEST_EVENTS`. Half an event is added to
    each, so that a type seen on one side alone counts, and not without end.
    """
    names = now.keys() | before.keys()
    totals = (sum(now.values()), sum(before.values()))
    if min(totals) < FEWEST_EVENTS:
        return None
    score = 0.0
    for name in names:
        actual = (now.get(name, 0) + 0.5) / (totals[0] + 0.5 * len(names))
        expected = (before.get(name, 0) + 0.5) / (totals[1] + 0.5 * len(names))
        score += (actual - expected) * math.log(actual / expected)
    return round(score, 4)


def state_of(scores: list[float | None]) -> State:
    """What the highest of the indices says."""
    known = [score for score in scores if score is not None]
    if not known:
        return "unknown"
    return "drifted" if max(known) > DRIFTED else "moving" if max(known) > MOVING else "steady"


async def list_due(conn: AsyncConnection, now: datetime) -> list[TenantId]:
    """Tenants with a model that serves whose drift was not measured today. `conn` is a system session."""
    records = await fetch(
        conn,
        "select t.tenant_id from tenants t join generations g on g.tenant_id = t.tenant_id and g.gen = t.active_gen "
        "join behaviour_models m on m.tenant_id = t.tenant_id and m.model = g.behaviour_model "
        "where t.deleted_at is null and coalesce((m.metrics -> 'drift' ->> 'at')::timestamptz, '-infinity') "
        "< $1::timestamptz order by t.tenant_id",
        now - EVERY,
    )
    return [TenantId(record["tenant_id"]) for record in records]


_MIX: Final = """
select e.type, count(*) filter (where e.ts > $2::timestamptz) as now,
    count(*) filter (where e.ts <= $2::timestamptz) as before
from events e where e.tenant_id = $1 and e.ts > $3::timestamptz and e.ts <= $4::timestamptz and e.flags & 1 = 0
group by e.type
"""

_SHIFT: Final = """
with side as (
    select f.created_at > m.created_at as new, v.vec, v.text_space, v.image_space,
        row_number() over (partition by f.created_at > m.created_at order by f.created_at desc, f.item_no desc) as place
    from behaviour_models m join item_facets f on f.tenant_id = $1
    join fused_vectors v on v.shard = {shard} and v.tenant_id = $1 and v.layout_id = {layout} and v.item_no = f.item_no
    where m.tenant_id = $1 and m.model = $2
), mean as (
    select
        avg(subvector(s.vec, 1, {text_dim})) filter (where s.new and s.text_space > 0) as text_new,
        avg(subvector(s.vec, 1, {text_dim})) filter (where not s.new and s.text_space > 0) as text_old,
        avg(subvector(s.vec, {text_dim} + 1, {image_dim})) filter (where s.new and s.image_space > 0) as image_new,
        avg(subvector(s.vec, {text_dim} + 1, {image_dim})) filter (where not s.new and s.image_space > 0) as image_old,
        count(*) filter (where s.new and s.text_space > 0) as texts,
        count(*) filter (where s.new and s.image_space > 0) as images
    from side s where s.place <= {sample}
)
select case when m.texts >= {fewest} then m.text_new <=> m.text_old end as text,
    case when m.images >= {fewest} then m.image_new <=> m.image_old end as image from mean m
"""


async def measure_drift(conn: AsyncConnection, tenant: TenantRef, now: datetime) -> Drift | None:
    """Measure, and write to the metrics of the model that serves; None without one."""
    generation = tenant.generation
    model = generation.behaviour_model
    if model is None:
        return None
    raw = await driver(conn)
    mix = await raw.fetch(_MIX, tenant.tenant_id, now - RECENT, now - RECENT - BEFORE, now)
    recent = {record["type"]: record["now"] for record in mix}
    before = {record["type"]: record["before"] for record in mix}
    ctr_now, ctr_before = _rate(recent), _rate(before)
    ctr = psi(_clicked(recent), _clicked(before)) if ctr_now is not None and ctr_before is not None else None
    shift = await raw.fetchrow(
        _SHIFT.format(
            shard=int(tenant.shard),
            layout=int(generation.layout_id),
            text_dim=int(generation.text.dim),
            image_dim=int(generation.image.dim),
            sample=SAMPLE,
            fewest=FEWEST_ITEMS,
        ),
        tenant.tenant_id,
        model,
    )
    moved = psi(recent, before)
    drift = Drift(
        at=now,
        state=state_of([moved, ctr, shift["text"], shift["image"]]),
        event_mix=moved,
        ctr=ctr,
        ctr_now=ctr_now,
        ctr_before=ctr_before,
        text_shift=None if shift["text"] is None else round(shift["text"], 4),
        image_shift=None if shift["image"] is None else round(shift["image"], 4),
    )
    await raw.execute(
        "update behaviour_models set metrics = metrics || jsonb_build_object('drift', $3::text::jsonb) "
        "where tenant_id = $1 and model = $2",
        tenant.tenant_id,
        model,
        msgspec.json.encode(drift).decode(),
    )
    return drift


def _clicked(counts: Mapping[str, int]) -> dict[str, int]:
    """Impressions by whether they were clicked."""
    clicks = min(counts.get("click", 0), counts.get("impression", 0))
    return {"clicked": clicks, "passed": counts.get("impression", 0) - clicks}


def _rate(counts: Mapping[str, int]) -> float | None:
    shown = counts.get("impression", 0)
    return round(min(counts.get("click", 0) / shown, 1.0), 5) if shown >= FEWEST_EVENTS else None
