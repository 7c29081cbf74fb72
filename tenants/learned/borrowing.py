"""A new item's place in behaviour space, borrowed as soon as it is encoded, until the next training knows it.

Its vector and its list of neighbours are the mean of those of its `LENDERS` likest items by content that have a place,
weighted by softmax of 10 · cos (docs/learning.md). `own` of such a row is 0; a later photo makes it anew. The first
`TOLD` of its list have it in theirs too, as a likeness has no direction: whoever met one of them is shown it at once.
"""

from datetime import datetime
from typing import Final

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver, fetch
from tenants.lifecycle import TenantRef
from tenants.retrieval.wanted import spread

LENDERS: Final = 10
AT_ONCE: Final = 32
"""Items of one statement: each is held against every item that has a place."""

KEPT: Final = 200

TOLD: Final = 20
"""So many others' lists take a newcomer in. Each is a row written anew, 1 to 2 KB: to tell all 200 would write half a
megabyte an item."""

_SHARPNESS: Final = 7.5


class Newcomers(Struct, frozen=True, kw_only=True):
    """Items encoded after the model that serves was trained; `latest` is when the last of them was encoded."""

    tenant_id: TenantId
    model: int
    item_nos: list[int]
    latest: datetime


# What was encoded while the model was trained may not be in it: a model takes minutes.
_NEW: Final = """
select t.tenant_id, m.model, v.item_nos, v.latest
from tenants t join generations g on g.tenant_id = t.tenant_id and g.gen = t.active_gen
join behaviour_models m on m.tenant_id = t.tenant_id and m.model = g.behaviour_model
cross join lateral (
    select array_agg(n.item_no order by n.encoded_at, n.item_no) as item_nos, max(n.encoded_at) as latest from (
        select v.item_no, max(v.encoded_at) as encoded_at from item_vectors v where v.tenant_id = t.tenant_id
            and v.encoded_at > coalesce((select s.at from unnest($1::uuid[], $2::int4[], $3::timestamptz[])
                s(tenant_id, model, at) where s.tenant_id = t.tenant_id and s.model = m.model), m.created_at)
            and not exists (select 1 from behaviour_vectors b where b.tenant_id = t.tenant_id and b.model = m.model
                and b.item_no = v.item_no and b.own > 0)
        group by v.item_no order by 2, 1 limit $4
    ) n
) v
where t.deleted_at is null and v.item_nos is not null
"""


async def list_newcomers(
    conn: AsyncConnection, since: dict[tuple[TenantId, int], datetime], *, at_once: int = AT_ONCE
) -> list[Newcomers]:
    """The next items of each tenant that want a place; `since`: until when each (tenant, model) is done. `conn` is a
    system session.
    """
    records = await fetch(
        conn,
        _NEW,
        [tenant_id for tenant_id, _ in since],
        [model for _, model in since],
        list(since.values()),
        at_once,
    )
    return [Newcomers(**dict(record)) for record in records]


# Vectors are weighted in single precision: a product of halves that is too small for a half is an error.
_LEND: Final = """
with newcomer as materialized (
    select v.item_no, v.vec, v.text_space, v.image_space from fused_vectors v
    where v.shard = {shard} and v.tenant_id = $1 and v.layout_id = {layout} and v.item_no = any($3::int4[])
), pair as materialized (
    select n.item_no, w.item_no as lender,
        (c.text + c.image) / nullif(sqrt(case when c.same_text then {text_weight} ^ 2 else 0 end
            + case when c.same_image then {image_weight} ^ 2 else 0 end), 0) as z
    from newcomer n cross join fused_vectors w
    join behaviour_vectors b on b.tenant_id = $1 and b.model = $2 and b.item_no = w.item_no and b.own > 0
    cross join lateral (select n.text_space > 0 and w.text_space = n.text_space as same_text,
        n.image_space > 0 and w.image_space = n.image_space as same_image offset 0) s
    cross join lateral (select s.same_text, s.same_image,
        case when s.same_text then {text_weight} * (-(subvector(n.vec, 1, {text_dim})
            <#> subvector(w.vec, 1, {text_dim})) - {text_mean}) / {text_dev} else 0 end as text,
        case when s.same_image then {image_weight} * (-(subvector(n.vec, {text_dim} + 1, {image_dim})
            <#> subvector(w.vec, {text_dim} + 1, {image_dim})) - {image_mean}) / {image_dev} else 0 end as image
        offset 0) c
    where w.shard = {shard} and w.tenant_id = $1 and w.layout_id = {layout} and w.item_no <> n.item_no
), likest as materialized (
    select r.item_no, r.lender, exp({sharpness} * (r.z / {best} - 1)) as likeness from (
        select p.*, row_number() over (partition by p.item_no order by p.z desc, p.lender) as place
        from pair p where p.z is not null) r
    where r.place <= {lenders}
), share as materialized (
    select l.item_no, l.lender, l.likeness / sum(l.likeness) over (partition by l.item_no) as w from likest l
), placed as (
    insert into behaviour_vectors (tenant_id, model, item_no, own, vec)
    select $1, $2, s.item_no, 0, sum(b.vec::vector * array_fill(s.w, array[vector_dims(b.vec)])::vector)::halfvec
    from share s join behaviour_vectors b on b.tenant_id = $1 and b.model = $2 and b.item_no = s.lender
    group by s.item_no
    on conflict (tenant_id, model, item_no) do update set vec = excluded.vec where behaviour_vectors.own = 0
    returning item_no
), mixed as materialized (
    select m.item_no, m.other, least(sum(m.score), 32767)::int2 as score from (
        select s.item_no, u.other, s.w * u.score as score from share s
        join item_neighbours i on i.tenant_id = $1 and i.kind = 3 and i.build = $2 and i.item_no = s.lender
        cross join lateral unnest(i.others, i.scores) u(other, score)
        union all
        select s.item_no, s.lender, s.w * b.own * 32767 from share s
        join behaviour_vectors b on b.tenant_id = $1 and b.model = $2 and b.item_no = s.lender) m
    where m.other <> m.item_no group by m.item_no, m.other having sum(m.score) >= 1
), ranked as materialized (
    select m.*, row_number() over (partition by m.item_no order by m.score desc, m.other) as place from mixed m
), listed as (
    insert into item_neighbours (tenant_id, kind, build, item_no, others, scores)
    select $1, 3, $2, r.item_no, array_agg(r.other order by r.place), array_agg(r.score order by r.place)
    from ranked r where r.place <= {kept} group by r.item_no
    on conflict (tenant_id, kind, build, item_no) do update set others = excluded.others, scores = excluded.scores
), told as materialized (
    select r.other as item_no, r.item_no as newcomer, r.score from ranked r
    where r.place <= {told} and r.other <> all($3::int4[])
), retold as materialized (
    select x.item_no, x.other, x.score,
        row_number() over (partition by x.item_no order by x.new desc, x.score desc, x.other) as place from (
        select t.item_no, t.newcomer as other, t.score, true as new from told t
        union all
        select i.item_no, u.other, u.score, false from item_neighbours i
        cross join lateral unnest(i.others, i.scores) u(other, score)
        where i.tenant_id = $1 and i.kind = 3 and i.build = $2
            and i.item_no = any(array(select t.item_no from told t))
            and not exists (select 1 from told t where t.item_no = i.item_no and t.newcomer = u.other)) x
), welcomed as (
    update item_neighbours i set others = r.others, scores = r.scores from (
        select r.item_no, array_agg(r.other order by r.score desc, r.other) as others,
            array_agg(r.score order by r.score desc, r.other) as scores
        from retold r where r.place <= {kept} group by r.item_no) r
    where i.tenant_id = $1 and i.kind = 3 and i.build = $2 and i.item_no = r.item_no
)
select count(*) from placed
"""


async def lend(conn: AsyncConnection, tenant: TenantRef, newcomers: Newcomers) -> int:
    """Give the newcomers their place, and their likest a line of them; how many got one: not those without content, or
    where nobody lends.
    """
    raw = await driver(conn)
    # Two workers would write the same lists, in different orders.
    await raw.fetchval(
        "select pg_advisory_xact_lock(hashtextextended('lending of ' || $1::text, 0))", str(tenant.tenant_id)
    )
    generation = tenant.generation
    text_mean, text_dev = spread(generation.text)
    image_mean, image_dev = spread(generation.image)
    text, image = generation.text_weight, generation.image_weight
    norm = (text**2 + image**2) ** 0.5 or 1.0
    best = (text * (1 - text_mean) / text_dev + image * (1 - image_mean) / image_dev) / norm
    statement = _LEND.format(
        shard=int(tenant.shard),
        layout=int(generation.layout_id),
        text_dim=int(generation.text.dim),
        image_dim=int(generation.image.dim),
        text_weight=f"{text!r}::float8",
        image_weight=f"{image!r}::float8",
        text_mean=f"{text_mean!r}::float8",
        text_dev=f"{text_dev!r}::float8",
        image_mean=f"{image_mean!r}::float8",
        image_dev=f"{image_dev!r}::float8",
        best=f"{best or 1.0!r}::float8",
        sharpness=_SHARPNESS,
        lenders=LENDERS,
        kept=KEPT,
        told=TOLD,
    )
    done: int = await raw.fetchval(statement, tenant.tenant_id, newcomers.model, newcomers.item_nos)
    return done
