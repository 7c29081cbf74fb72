"""Items like others: one statement, one round trip."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from infra.db import Database
from tenants.lifecycle import TenantRef
from tenants.nearest import FILTERED_CUT, FIRST_CUT, WIDE_CUT, HalfQuery, each, nearest, passes_few, rounded
from tenants.wanted import SCALAR_FIELDS, TENANT, Found, Statement, Wanted, found_of, spread


class Likeness(Struct, frozen=True, kw_only=True):
    """Like these items: `text_weight` and `image_weight` are the dial (not both 0)."""

    seeds: Sequence[str]
    text_weight: float
    image_weight: float
    same: Sequence[str] = ()
    min_score: float = 0.0


def _same(statement: Statement, fields: Sequence[str]) -> str:
    """Conditions that a field equals that of one of the seeds (`seed` is the statement's own)."""
    parts = []
    for field in fields:
        if field in SCALAR_FIELDS:
            parts.append(f"f.{field} in (select sf.{field} from seed_facets sf)")
            continue
        name = statement.bind(field, "text")
        # Of categories only the paths as given count, not their ancestors.
        given = " and a.value_num = 1 and b.value_num = 1" if field == "categories" else ""
        parts.append(
            f"f.item_no in (select a.item_no from item_attrs a join item_attrs b on b.tenant_id = {TENANT} "
            f"and b.name = {name} and b.value_text is not distinct from a.value_text "
            f"and b.value_num is not distinct from a.value_num{given} "
            f"where a.tenant_id = {TENANT} and a.name = {name} "
            f"and b.item_no in (select sf.item_no from seed_facets sf))"
        )
    return "".join(f" and {part}" for part in parts)


async def find_similar(database: Database, tenant: TenantRef, wanted: Wanted, likeness: Likeness) -> Found:
    """Items like the seeds, the seeds and their groups left out.

    score = clip(z / z of an identical item), z = the weighted sum of the
    cosines, each centred and scaled by its space's random pairs, over the
    halves that both sides have, divided by the norm of their weights.
    """
    for way, cut in await _attempts(database, tenant, wanted, likeness):
        found = await _similar(database, tenant, wanted, likeness, cut=cut, way=way)
        if found.complete or len(found.hits) >= wanted.limit:
            break
    return found


_Way = Literal["index", "index_filtered", "cut_first", "filter_first"]


async def _attempts(
    database: Database, tenant: TenantRef, wanted: Wanted, likeness: Likeness
) -> list[tuple[_Way, int | None]]:
    """The ways to make the list, the cheapest first; the last is exact and full."""
    last: list[tuple[_Way, int | None]] = [("filter_first", wanted.limit * 4 + 200), ("filter_first", None)]
    excluded = len(wanted.exclude_nos) + len(wanted.exclude_ids)
    filtered = wanted.filter is not None or bool(likeness.same)
    if tenant.shard == 0:
        # A filter is applied before the cut; without one the cut is made first and wide, and checked afterwards.
        if filtered or likeness.min_score:
            return last
        return [("cut_first", wanted.limit * 2 + excluded + 60), *last]
    if filtered:
        statement = Statement(tenant, wanted)
        seeds = _seeds(statement, likeness)
        few = await passes_few(database, statement, f"{statement.eligible()}{_same(statement, likeness.same)}", seeds)
        first = rounded(max(FILTERED_CUT, wanted.limit * 2 + excluded))
        return last if few else [("index_filtered", first), *last]
    first = rounded(max(FIRST_CUT, wanted.limit * 2 + excluded + 60))
    return [("index", first), ("index", max(WIDE_CUT, first * 4)), *last]


def _seeds(statement: Statement, likeness: Likeness) -> str:
    """CTEs `known` and `seed_facets`: the seeds that exist, and their facets."""
    ids = statement.bind(list(likeness.seeds), "text[]")
    return f"""
    known as materialized (
        select d.external_id, d.item_no from item_ids d
        join items i on i.tenant_id = {TENANT} and i.item_no = d.item_no
        where d.tenant_id = {TENANT} and d.external_id = any({ids})
    ), seed_facets as materialized (
        select sf.* from known k join item_facets sf on sf.tenant_id = {TENANT} and sf.item_no = k.item_no
    )"""


def _query_vectors(statement: Statement, likeness: Likeness) -> str:
    """The CTEs of `_seeds` and `q`: the mean of the seeds, scaled so that one inner product weighs both halves."""
    generation = statement.tenant.generation
    dim_text, dim_image = generation.text.dim, generation.image.dim
    seeds = _seeds(statement, likeness)
    weight_text = statement.bind(likeness.text_weight, "float8")
    weight_image = statement.bind(likeness.image_weight, "float8")
    text_mean, text_dev = spread(generation.text)
    gram_mean, gram_dev = spread(generation.ngrams)
    image_mean, image_dev = spread(generation.image)
    return f"""{seeds}, seed as materialized (
        select v.item_no, v.vec, v.text_space, v.image_space
        from known k join fused_vectors v on v.item_no = k.item_no and {statement.fused()}
    ), space as materialized (
        select mode() within group (order by text_space) filter (where text_space > 0) as text_space from seed
    ), mean as materialized (
        select p.text_space,
            avg(subvector(s.vec, 1, {dim_text})) filter (where s.text_space = p.text_space) as text,
            avg(subvector(s.vec, {dim_text + 1}, {dim_image})) filter (where s.image_space > 0) as image
        from seed s cross join space p group by p.text_space
    ), weight as materialized (
        select m.*, case when m.text is null then 0 else {weight_text} end as wt,
            case when m.image is null then 0 else {weight_image} end as wi,
            case when m.text_space = {int(generation.ngrams.space_id)} then {gram_mean!r}::float8
                else {text_mean!r}::float8 end as text_mean,
            case when m.text_space = {int(generation.ngrams.space_id)} then {gram_dev!r}::float8
                else {text_dev!r}::float8 end as text_dev,
            {image_mean!r}::float8 as image_mean, {image_dev!r}::float8 as image_dev
        from mean m
    ), q as materialized (
        select w.text_space, w.text, w.image, w.wt, w.wi, w.text_mean, w.text_dev, w.image_mean, w.image_dev,
            (w.wt * (1 - w.text_mean) / w.text_dev + w.wi * (1 - w.image_mean) / w.image_dev)
                / sqrt(w.wt * w.wt + w.wi * w.wi) as best,
            h.text || h.image as fused,
            array_fill(0, array[{dim_text}])::halfvec || h.image as image_only,
            w.wt * w.text_mean / w.text_dev as text_bias, w.wi * w.image_mean / w.image_dev as image_bias
        from weight w cross join lateral (select
            coalesce(w.text, array_fill(0, array[{dim_text}])::halfvec)
                * array_fill(w.wt / w.text_dev, array[{dim_text}])::halfvec as text,
            coalesce(w.image, array_fill(0, array[{dim_image}])::halfvec)
                * array_fill(w.wi / w.image_dev, array[{dim_image}])::halfvec as image) h
        where w.wt > 0 or w.wi > 0
    )"""


# The score of a fused row `v` against `q` by one inner product; null where no half is shared. Every use stands in
# a sub-select with `offset 0`, so that it is computed once per row, not again for the test and the order.
_NEAR: Final = """
    (-(v.vec <#> case when v.text_space in (0, q.text_space) then q.fused else q.image_only end)
        - case when v.text_space = q.text_space then q.text_bias else 0 end
        - case when v.image_space > 0 then q.image_bias else 0 end)
    / nullif(sqrt(case when v.text_space = q.text_space then q.wt * q.wt else 0 end
        + case when v.image_space > 0 then q.wi * q.wi else 0 end), 0)"""


async def _similar(
    database: Database, tenant: TenantRef, wanted: Wanted, likeness: Likeness, *, cut: int | None, way: _Way
) -> Found:
    statement = Statement(tenant, wanted)
    query = _query_vectors(statement, likeness)
    # Those of either half that passed are at most twice the cut.
    limit = "all" if cut is None or way == "index_filtered" else statement.bind(cut, "int8")
    eligible = (
        statement.eligible()
        + " and f.item_no not in (select k.item_no from known k)"
        + " and (f.group_id is null or f.group_id not in (select sf.group_id from seed_facets sf"
        + " where sf.group_id is not null))"
        + _same(statement, likeness.same)
    )
    row = f"join fused_vectors v on v.item_no = n.item_no and {statement.fused()}"
    facets = "join item_facets f on f.item_no = e.item_no"
    if way in ("index", "index_filtered"):
        assert cut is not None
        passing = eligible if way == "index_filtered" else None
        walk, near = nearest(statement, _halves(tenant), score=_NEAR, cut=cut, query="q", passing=passing)
        eligible = f"f.tenant_id = {TENANT}" if passing else eligible
        query += f", {walk}"
        row = each("fused_vectors", f"v.item_no = n.item_no and {statement.fused()}", alias="v")
        facets = each("item_facets", f"f.item_no = e.item_no and f.tenant_id = {TENANT}", alias="f")
    elif way == "filter_first":
        near = f"""
        select v.item_no, {_NEAR} as z
        from q, item_facets f join fused_vectors v on v.item_no = f.item_no and {statement.fused()}
        where {eligible} offset 0"""
        eligible = f"f.tenant_id = {TENANT}"
    else:
        near = f"select v.item_no, {_NEAR} as z from q, fused_vectors v where {statement.fused()} offset 0"
    columns, join = statement.extras()
    dim_text, dim_image = tenant.generation.text.dim, tenant.generation.image.dim
    minimum = statement.bind(likeness.min_score, "float8")
    wanted_rows = statement.bind(wanted.limit, "int8")
    inner = f"""
    with {query}, near as materialized (
        select n.item_no, n.z from ({near}) n where n.z is not null order by n.z desc, n.item_no limit {limit}
    ), exact as materialized (
        select n.item_no, c.t as text_cosine, c.i as image_cosine, p.t as text, p.i as image,
            greatest(0, least(1, coalesce(p.t, 0) + coalesce(p.i, 0))) as score,
            coalesce(p.t, 0) + coalesce(p.i, 0) as z
        from near n cross join q {row}
        cross join lateral (select
            case when q.wt > 0 and v.text_space = q.text_space
                then -(subvector(v.vec, 1, {dim_text}) <#> q.text) end as t,
            case when q.wi > 0 and v.image_space > 0
                then -(subvector(v.vec, {dim_text + 1}, {dim_image}) <#> q.image) end as i) c
        cross join lateral (select q.best * sqrt(case when c.t is null then 0 else q.wt * q.wt end
            + case when c.i is null then 0 else q.wi * q.wi end) as norm) o
        cross join lateral (select q.wt * (c.t - q.text_mean) / q.text_dev / o.norm as t,
            q.wi * (c.i - q.image_mean) / q.image_dev / o.norm as i) p
    ), hits as (
        select f.item_no, f.group_id, e.score, e.text, e.image, e.text_cosine, e.image_cosine, e.z,
            {statement.one_per_group("e.z desc, f.item_no")} as in_group, {columns}
        from exact e {facets}
        {join}
        where {eligible} and e.score >= {minimum}
    )
    select (select array_agg(k.external_id) from known k) as known, (select count(*) from near) as seen,
        (select min(e.score) from exact e) < {minimum} as below, h.*, d.external_id
    from (select 1) one left join lateral (
        select * from hits where in_group = 1 order by z desc, item_no limit {wanted_rows}) h on true
    left join lateral (select d.external_id from item_ids d where d.tenant_id = {TENANT} and d.item_no = h.item_no
        offset 0) d on true"""
    records = await database.fetch_scoped(tenant.tenant_id, inner, *statement.args[2:])
    found = found_of(records, cut, wanted.limit)
    if way in ("index", "index_filtered"):
        # The index may have missed some: nothing proves that there are no more, but that the likest are too unlike.
        return msgspec.structs.replace(found, complete=bool(records[0]["below"]) or not found.known)
    return found


def _halves(tenant: TenantRef) -> list[HalfQuery]:
    """The queries in `q`, by space: the seeds' text is of one of two spaces."""
    generation = tenant.generation
    texts = {space.space_id: space for space in (generation.text, generation.ngrams) if space.space_id}.values()
    return [
        *(
            HalfQuery(
                kind="text", space=space, vector="q.text", when=f"q.wt > 0 and q.text_space = {int(space.space_id)}"
            )
            for space in texts
        ),
        HalfQuery(kind="image", space=generation.image, vector="q.image", when="q.wi > 0"),
    ]
