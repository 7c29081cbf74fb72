"""Items like others: one statement, one round trip."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from infra.db import Database
from tenants.lifecycle import SpaceRef, TenantRef
from tenants.retrieval.nearest import FILTERED_CUT, FIRST_CUT, WIDE_CUT, HalfQuery, each, nearest, passes_few, rounded
from tenants.retrieval.wanted import SCALAR_FIELDS, TENANT, Found, Statement, Wanted, found_of, one_per_group, spread


class Likeness(Struct, frozen=True, kw_only=True):
    """Like these items: `text_weight` and `image_weight` are the dial (not both 0)."""

    seeds: Sequence[str]
    text_weight: float
    image_weight: float
    same: Sequence[str] = ()
    min_score: float = 0.0


def same_as_known(statement: Statement, fields: Sequence[str]) -> str:
    """Conditions that a field equals that of one of the seeds (`known` is the statement's own)."""
    parts = []
    for field in fields:
        if field in SCALAR_FIELDS:
            parts.append(f"f.{field} in (select k.{field} from known k)")
            continue
        name = statement.bind(field, "text")
        # Of categories only the paths as given count, not their ancestors.
        given = " and a.value_num = 1 and b.value_num = 1" if field == "categories" else ""
        parts.append(
            f"f.item_no in (select a.item_no from item_attrs a join item_attrs b on b.tenant_id = {TENANT} "
            f"and b.name = {name} and b.value_text is not distinct from a.value_text "
            f"and b.value_num is not distinct from a.value_num{given} "
            f"where a.tenant_id = {TENANT} and a.name = {name} "
            f"and b.item_no in (select k.item_no from known k))"
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
    last: list[tuple[_Way, int | None]] = [("filter_first", rounded(wanted.limit * 4 + 200)), ("filter_first", None)]
    excluded = len(wanted.exclude_nos) + len(wanted.exclude_ids)
    filtered = wanted.filter is not None or bool(likeness.same)
    if tenant.shard == 0:
        # A filter is applied before the cut; without one the cut is made first and wide, and checked afterwards.
        if filtered or likeness.min_score:
            return last
        return [("cut_first", rounded(wanted.limit * 2 + excluded + 60)), *last]
    if filtered:
        statement = Statement(tenant, wanted)
        seeds = _seeds(statement, likeness)
        few = await passes_few(
            database, statement, f"{statement.eligible()}{same_as_known(statement, likeness.same)}", seeds
        )
        first = rounded(max(FILTERED_CUT, wanted.limit * 2 + excluded))
        return last if few else [("index_filtered", first), *last]
    first = rounded(max(FIRST_CUT, wanted.limit * 2 + excluded + 60))
    return [("index", first), ("index", max(WIDE_CUT, first * 4)), *last]


def _seeds(statement: Statement, likeness: Likeness) -> str:
    """The CTE `known`: the seeds that exist, with the facets that lists compare."""
    if len(likeness.seeds) == 1:
        # Of a list the planner expects ten seeds; a plan for any value then looks dearer than planning each time.
        named = f"= {statement.bind(likeness.seeds[0], 'text')}"
    else:
        named = f"= any({statement.bind(list(likeness.seeds), 'text[]')})"
    return f"""
    known as materialized (
        select d.external_id, d.item_no, f.group_id, f.brand, f.seller_id, f.currency, f.gtin, f.language
        from item_ids d {each("item_facets", f"f.tenant_id = {TENANT} and f.item_no = d.item_no", alias="f")}
        where d.tenant_id = {TENANT} and d.external_id {named}
    )"""


class _Spread(NamedTuple):
    """How the statement writes the calibration of a space.

    Bound, not written out: tenants of one layout share their statements, and with them the prepared plans.
    """

    mean: str
    dev: str


class _Vectors(NamedTuple):
    """What the text of the query's vectors is made of."""

    dim_text: int
    dim_image: int
    ngrams_id: int
    seeds: str
    fused: str
    weight_text: str
    weight_image: str
    text: _Spread
    ngrams: _Spread
    image: _Spread


class _Parts(NamedTuple):
    """What the text of the statement is made of: requests of one shape have equal parts, and so one text."""

    way: _Way
    limit: str
    vectors: _Vectors
    minimum: str
    eligible: str
    columns: str
    join: str
    wanted_rows: str
    walk: str
    walked: str


async def _similar(
    database: Database, tenant: TenantRef, wanted: Wanted, likeness: Likeness, *, cut: int | None, way: _Way
) -> Found:
    statement = Statement(tenant, wanted)
    parts = _parts(statement, likeness, cut=cut, way=way)
    records = await database.fetch_scoped(tenant.tenant_id, _text(parts), *statement.args[2:])
    found = found_of(records, cut, wanted.limit)
    if way in ("index", "index_filtered"):
        # The index may have missed some: nothing proves that there are no more, but that the likest are too unlike.
        return msgspec.structs.replace(found, complete=bool(records[0]["below"]) or not found.known)
    return found


def _parts(statement: Statement, likeness: Likeness, *, cut: int | None, way: _Way) -> _Parts:
    """Bind the values of one request."""
    bind = statement.bind
    walk = walked = ""
    eligible = statement.eligible() + _APART_FROM_SEEDS + same_as_known(statement, likeness.same)
    if way in ("index", "index_filtered"):
        assert cut is not None
        passing = eligible if way == "index_filtered" else None
        walk, walked = nearest(statement, halves(statement.tenant), score=NEAR, cut=cut, query="q", passing=passing)
    columns, join = statement.extras()
    return _Parts(
        way=way,
        # Written out: of a bound limit the planner expects a tenth of all rows to be left.
        # Of those that passed in either half there are at most twice as many as the cut.
        limit="all" if cut is None or way == "index_filtered" else str(int(cut)),
        vectors=_vectors(statement, likeness, _seeds(statement, likeness)),
        minimum=bind(likeness.min_score, "float8"),
        eligible=eligible,
        columns=columns,
        join=join,
        wanted_rows=bind(statement.wanted.limit, "int8"),
        walk=walk,
        walked=walked,
    )


def _vectors(statement: Statement, likeness: Likeness, seeds: str) -> _Vectors:
    generation = statement.tenant.generation
    bind = statement.bind

    def bound(space: SpaceRef) -> _Spread:
        mean, dev = spread(space)
        return _Spread(bind(mean, "float8"), bind(dev, "float8"))

    return _Vectors(
        dim_text=int(generation.text.dim),
        dim_image=int(generation.image.dim),
        ngrams_id=int(generation.ngrams.space_id),
        seeds=seeds,
        fused=statement.fused(),
        weight_text=bind(likeness.text_weight, "float8"),
        weight_image=bind(likeness.image_weight, "float8"),
        text=bound(generation.text),
        ngrams=bound(generation.ngrams),
        image=bound(generation.image),
    )


def query_vectors(statement: Statement, likeness: Likeness, seeds: str) -> str:
    """The CTEs of the query `q` for other statements; `seeds` is a CTE `known` of the items (item_no) it is made of."""
    return _query(_vectors(statement, likeness, seeds))


_APART_FROM_SEEDS: Final = (
    " and f.item_no not in (select k.item_no from known k)"
    " and (f.group_id is null or f.group_id not in (select k.group_id from known k where k.group_id is not null))"
)


def _q(column: str) -> str:
    # Read once before the scan; joined to every row instead, it takes a tenth longer.
    return f"(select q.{column} from q)"


NEAR: Final = f"""
    case when v.text_space = {_q("text_space")} then
        case when v.image_space > 0 then (-(v.vec <#> {_q("fused")}) - {_q("both_bias")}) * {_q("both_scale")}
            else (-(v.vec <#> {_q("fused")}) - {_q("text_bias")}) * {_q("text_scale")} end
    when v.image_space > 0 then (-(v.vec <#> {_q("image_only")}) - {_q("image_bias")}) * {_q("image_scale")} end"""
"""The score of a fused row `v` by one inner product; null where it shares no half with `q`."""


def _query(p: _Vectors) -> str:
    """The CTEs of `_seeds` and `q`: the mean of the seeds, scaled so that one inner product weighs both halves.

    A row shares both halves with the query, its text or its image alone, or nothing. `q` has the bias and the scale
    of each case, which leaves one inner product and two operations to the scan over all rows.
    """
    return f"""{p.seeds}, seed as materialized (
        select v.item_no, v.vec, v.text_space, v.image_space
        from known k {each("fused_vectors", f"v.item_no = k.item_no and {p.fused}", alias="v")}
    ), space as materialized (
        select mode() within group (order by text_space) filter (where text_space > 0) as text_space from seed
    ), mean as materialized (
        select p.text_space,
            avg(subvector(s.vec, 1, {p.dim_text})) filter (where s.text_space = p.text_space) as text,
            avg(subvector(s.vec, {p.dim_text + 1}, {p.dim_image})) filter (where s.image_space > 0) as image
        from seed s cross join space p group by p.text_space
    ), weight as materialized (
        select m.*, case when m.text is null then 0 else {p.weight_text} end as wt,
            case when m.image is null then 0 else {p.weight_image} end as wi,
            case when m.text_space = {p.ngrams_id} then {p.ngrams.mean} else {p.text.mean} end as text_mean,
            case when m.text_space = {p.ngrams_id} then {p.ngrams.dev} else {p.text.dev} end as text_dev,
            {p.image.mean} as image_mean, {p.image.dev} as image_dev
        from mean m
    ), q as materialized (
        select w.*, norm.both, w.wt * w.text_mean / w.text_dev as text_bias,
            w.wi * w.image_mean / w.image_dev as image_bias,
            w.wt * w.text_mean / w.text_dev + w.wi * w.image_mean / w.image_dev as both_bias,
            1 / nullif(w.wt, 0) as text_scale, 1 / nullif(w.wi, 0) as image_scale, 1 / norm.both as both_scale,
            (w.wt * (1 - w.text_mean) / w.text_dev + w.wi * (1 - w.image_mean) / w.image_dev) / norm.both as best,
            h.text || h.image as fused, array_fill(0, array[{p.dim_text}])::halfvec || h.image as image_only
        from weight w cross join lateral (select
            coalesce(w.text, array_fill(0, array[{p.dim_text}])::halfvec)
                * array_fill(w.wt / w.text_dev, array[{p.dim_text}])::halfvec as text,
            coalesce(w.image, array_fill(0, array[{p.dim_image}])::halfvec)
                * array_fill(w.wi / w.image_dev, array[{p.dim_image}])::halfvec as image) h
        cross join lateral (select sqrt(w.wt * w.wt + w.wi * w.wi) as both) norm
        where w.wt > 0 or w.wi > 0
    )"""


def _candidates(p: _Parts) -> tuple[str, str]:
    """Further CTEs, and the rows (item_no, z) of which the best are scored exactly."""
    match p.way:
        case "index" | "index_filtered":
            return f", {p.walk}", p.walked
        case "filter_first":
            # An array rather than a join: a join is planned by what a filter might pass, and where that is misjudged
            # takes twice as long (28 ms instead of 12 where all of 10,000 items pass).
            passed = f", passed as materialized (select f.item_no from item_facets f where {p.eligible})"
            return passed, (
                f"select v.item_no, {NEAR} as z from fused_vectors v "
                f"where {p.vectors.fused} and v.item_no = any(array(select p.item_no from passed p))"
            )
        case "cut_first":
            return "", f"select v.item_no, {NEAR} as z from fused_vectors v where {p.vectors.fused}"


@lru_cache(maxsize=256)
def _text(p: _Parts) -> str:
    """The statement. Kept by its parts: one object per shape spares the driver comparing 5 KB for each request."""
    more, near = _candidates(p)
    # Already asked of those that passed.
    eligible = "true" if p.way in ("filter_first", "index_filtered") else p.eligible
    return f"""
    with {_query(p.vectors)}{more}, near as materialized (
        select n.item_no, n.z from ({near}) n order by n.z desc nulls last, n.item_no limit {p.limit}
    ), exact as materialized (
        select n.item_no, c.t as text_cosine, c.i as image_cosine, p.t as text, p.i as image,
            greatest(0, least(1, coalesce(p.t, 0) + coalesce(p.i, 0))) as score,
            coalesce(p.t, 0) + coalesce(p.i, 0) as z
        from near n cross join q {each("fused_vectors", f"v.item_no = n.item_no and {p.vectors.fused}", alias="v")}
        cross join lateral (select
            case when q.wt > 0 and v.text_space = q.text_space
                then -(subvector(v.vec, 1, {p.vectors.dim_text}) <#> q.text) end as t,
            case when q.wi > 0 and v.image_space > 0
                then -(subvector(v.vec, {p.vectors.dim_text + 1}, {p.vectors.dim_image}) <#> q.image) end as i) c
        cross join lateral (select q.best * sqrt(case when c.t is null then 0 else q.wt * q.wt end
            + case when c.i is null then 0 else q.wi * q.wi end) as norm) o
        cross join lateral (select q.wt * (c.t - q.text_mean) / q.text_dev / o.norm as t,
            q.wi * (c.i - q.image_mean) / q.image_dev / o.norm as i) p
        where n.z is not null
    ), hits as (
        select f.item_no, f.group_id, e.score, e.text, e.image, e.text_cosine, e.image_cosine, e.z,
            {one_per_group("e.z desc, f.item_no")} as in_group, {p.columns}
        from exact e {each("item_facets", f"f.item_no = e.item_no and f.tenant_id = {TENANT}", alias="f")}
        {p.join}
        where {eligible} and e.score >= {p.minimum}
    )
    select (select array_agg(k.external_id) from known k) as known,
        (select array_agg(k.item_no) from known k) as known_nos, (select count(n.z) from near n) as seen,
        (select min(e.score) from exact e) < {p.minimum} as below, h.*, d.external_id
    from (select 1) one left join lateral (
        select * from hits where in_group = 1 order by z desc, item_no limit {p.wanted_rows}) h on true
    left join lateral (select d.external_id from item_ids d where d.tenant_id = {TENANT} and d.item_no = h.item_no
        offset 0) d on true"""


def halves(tenant: TenantRef) -> list[HalfQuery]:
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
