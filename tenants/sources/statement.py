"""One statement for a whole list: every source of it, checked, blended, one of a group, the fallback behind.

Each source is cut to its best first and checked for what may be shown afterwards; under a filter the check comes
first. Either way the list is the exact one as long as it is full; `Found.complete` says whether more may be found by
asking without the cut.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from infra.db import Database
from tenants.learned.blend import KNOWING, LISTED, blend_sql
from tenants.lifecycle import TenantRef
from tenants.retrieval.nearest import each, rounded
from tenants.retrieval.wanted import TENANT, Found, Hit, Wanted, known_of, one_per_group
from tenants.sources import attributes, behaviour, content, neighbours, popularity, revisits
from tenants.sources.fresh import fresh
from tenants.sources.scene import Asked, Scene
from tenants.sources.shopper import MARK, Mark, mark_of

Source = Callable[[Scene], str | None]

SOURCES: Final[Mapping[str, Source]] = {
    "similar": content.similar,
    "visually_similar": content.visually_similar,
    "graph": behaviour.graph,
    "als": behaviour.als,
    "item_cf": neighbours.item_cf,
    "user_cf": revisits.user_cf,
    "attributes": attributes.attributes,
    "bought_together": neighbours.bought_together,
    "also_viewed": neighbours.also_viewed,
    "trending": popularity.trending,
    "popular": popularity.popular,
    "new": popularity.new,
    "recently_viewed": revisits.recently_viewed,
    "buy_again": revisits.buy_again,
    "on_sale": popularity.on_sale,
    "fresh": fresh,
}
"""Every source by its name; one signature, so that any list is names, weights and limits."""

_NOTHING: Final = "select null::int4 as item_no, 0::float8 as z, null::int4 as because where false"
_SPARE: Final = 60


_FILLING: Final = frozenset({"popular", "new"})
"""Sources that name every item, so that a list of theirs is short but seldom."""


class Blended(Found, frozen=True, kw_only=True):
    """What was found; `mark`: what it knew of the shopper, None of a list that is for nobody. `filled`: where the
    sources found too little, the fallback was asked too.
    """

    mark: Mark | None = None
    filled: bool = True


async def find_blended(
    database: Database,
    tenant: TenantRef,
    wanted: Wanted,
    asked: Asked,
    *,
    everything: bool = False,
    timeout_s: float | None = None,
) -> Blended:
    """The list, in one round trip. `everything`: no source is cut. Raises TimeoutError after `timeout_s`."""
    cut = None if everything or wanted.filter is not None or asked.among is not None or asked.same else _cut(wanted)
    scene = Scene(tenant, wanted, asked, cut=cut, stop=None if everything else _cut(wanted))
    inner = statement(scene)
    records = await database.fetch_scoped(tenant.tenant_id, inner, *scene.args, timeout_s=timeout_s)
    return _found(scene, records)


def _cut(wanted: Wanted) -> int:
    return rounded(wanted.limit * 2 + len(wanted.exclude_nos) + len(wanted.exclude_ids) + _SPARE)


def statement(scene: Scene) -> str:
    """The SQL, in the form of `Database.fetch_scoped`."""
    asked, wanted = scene.asked, scene.wanted
    ctes = list(scene.ctes)
    names = [f"s{at}" for at in range(len(asked.sources))]
    weights = [scene.bind(float(chosen.weight), "float8") for chosen in asked.sources]
    seen = []
    draws = any(chosen.name == "fresh" for chosen in asked.sources)
    # What is drawn from the other sources stands behind them.
    for at, chosen in sorted(enumerate(asked.sources), key=lambda pair: pair[1].name == "fresh"):
        rows = SOURCES[chosen.name](scene.of(chosen)) or _NOTHING
        scene.listed[chosen.name] = names[at]
        positive = "x.z is not null" if asked.absolute else "x.z > 0"
        cut = scene.cut
        if draws and cut is not None and chosen.name in KNOWING:
            cut = max(cut, LISTED)
        limits = [limit for limit in (chosen.limit, cut) if limit is not None]
        ctes.append(
            f"""s{at} as materialized (
        select x.item_no, x.z::float8 as z, x.because from ({rows}) x
        where {positive} order by x.z desc, x.item_no limit {min(limits, default="all")}
    )"""
        )
        if chosen.limit is None:
            seen.append(f"(select count(*) from s{at})")
    group = one_per_group("r.score desc, f.item_no")
    ctes.append(
        f"""parts as materialized ({blend_sql(names, weights, absolute=asked.absolute)}),
    ranked as materialized (
        select p.item_no, sum(p.part) as score, array_agg(p.src order by p.part desc, p.src) as srcs,
            array_agg(p.part order by p.part desc, p.src) as parts,
            (array_agg(p.because order by p.part desc, p.src))[1] as because
        from parts p group by p.item_no order by 2 desc, 1 limit {scene.limit}
    ), hits as materialized (
        select h.* from (
            select f.item_no, f.group_id, r.score, r.srcs, r.parts, r.because, {group} as in_group
            from ranked r {_facets(scene)}
            where {scene.eligible} and r.score >= {scene.bind(asked.min_score, "float8")}) h
        where h.in_group = 1 order by h.score desc, h.item_no limit {scene.bind(wanted.limit, "int8")}
    )"""
    )
    seen.append("(select count(*) from ranked)")
    rows = "select h.*, false as fallback, 0 as place from hits h"
    if _falls_back(scene):
        ctes += _rest(scene)
        seen.append("(select count(*) from spare)")
        rows += " union all select r.*, true as fallback, 1 as place from rest r"
    columns, join = scene.statement.extras()
    joins = each("item_facets", f"f.tenant_id = {TENANT} and f.item_no = t.item_no", alias="f") + join
    vector = evidence = "null"
    if asked.with_vectors:
        vector = (
            "(select halfvec_send(v.vec) from fused_vectors v "
            f"where v.item_no = t.item_no and {scene.statement.fused()})"
        )
    evidence = "null::float8 as text_cosine, null::float8 as image_cosine, null::text as because"
    if asked.with_evidence:
        evidence = "e.text_cosine, e.image_cosine, e.because"
        joins += f" left join lateral ({_evidence(scene)}) e on true"
    return f"""
    with {", ".join(ctes)}
    select {"" if asked.shopper is None else f"{MARK}, "}(select array_agg(k.external_id) from known k) as known,
        (select array_agg(k.item_no) from known k) as known_nos, greatest({", ".join(seen) or 0}, 0) as seen, x.*
    from (select 1) one left join lateral (
        select t.item_no, t.group_id, t.score, t.srcs, t.parts, t.fallback, t.place,
            {vector}::bytea as vector, {evidence}, {columns}, d.external_id
        from ({rows}) t {joins}
        join lateral (select d.external_id from item_ids d where d.tenant_id = {TENANT} and d.item_no = t.item_no
            offset 0) d on true
    ) x on true order by x.place, x.score desc, x.item_no"""


def _falls_back(scene: Scene) -> bool:
    """Whether the statement looks for the fallback as well: where a source fills the list, it is 50 steps of the plan
    that are prepared each time and run hardly ever."""
    return scene.asked.fallback and (scene.stop is None or _FILLING.isdisjoint(scene.listed))


def _facets(scene: Scene) -> str:
    """The join of rows `r` with their facets: a probe each where a source was cut to its best, of all items a hash."""
    if scene.cut is None:
        return f"join item_facets f on f.tenant_id = {TENANT} and f.item_no = r.item_no"
    return each("item_facets", f"f.tenant_id = {TENANT} and f.item_no = r.item_no", alias="f")


def _evidence(scene: Scene) -> str:
    """Of one item of the list: the anchor that it is there for, and how near the two are.

    Where a source did not say which, it is the nearest one.
    """
    generation, fused = scene.tenant.generation, scene.statement.fused()
    text, image = generation.text.dim, generation.image.dim

    def half(first: int, dim: int) -> str:
        return f"-(subvector(v.vec, {first}, {dim}) <#> subvector(b.vec, {first}, {dim}))"

    return f"""
        select case when v.text_space > 0 and v.text_space = b.text_space then {half(1, text)} end as text_cosine,
            case when v.image_space > 0 and b.image_space > 0 then {half(text + 1, image)} end as image_cosine,
            (select d.external_id from item_ids d where d.tenant_id = {TENANT} and d.item_no = a.item_no) as because
        from (select a.item_no from anchor a where t.because is null union select t.because) a
        left join lateral (select v.* from fused_vectors v where v.item_no = t.item_no and {fused} offset 0) v on true
        left join lateral (select v.* from fused_vectors v where v.item_no = a.item_no and {fused} offset 0) b on true
        where a.item_no is not null order by b.vec <#> v.vec, a.item_no limit 1"""


def _rest(scene: Scene) -> list[str]:
    """CTEs of what fills a list that its sources could not: looked for only then."""
    limit = scene.bind(scene.wanted.limit, "int8")
    outside = "(f.group_id is null or f.group_id not in (select h.group_id from hits h where h.group_id is not null))"
    eligible = f"{scene.base} and {outside} and f.item_no not in (select h.item_no from hits h)"
    group = one_per_group("r.z desc, f.item_no")
    return [
        f"""spare as materialized (
        select p.item_no, p.z from ({popularity.popular(scene, shown=eligible)}) p
        where (select count(*) from hits) < {limit}
    )""",
        f"""rest as materialized (
        select r.item_no, r.group_id, r.z / max(r.z) over () as score, '{{}}'::int4[] as srcs,
            '{{}}'::float8[] as parts, null::int4 as because, r.in_group
        from (select f.item_no, f.group_id, r.z, {group} as in_group
            from spare r {_facets(scene)} where {eligible}) r
        where r.in_group = 1 order by r.z desc, r.item_no limit {limit} - (select count(*) from hits)
    )""",
    ]


def _found(scene: Scene, records: Any) -> Blended:
    names = [chosen.label for chosen in scene.asked.sources]
    hits = [
        Hit(
            item_no,
            external_id,
            group_id,
            score,
            None,
            None,
            text_cosine,
            image_cosine,
            tuple(capped or ()),
            doc,
            photos,
            tuple(zip([names[src] for src in srcs], parts, strict=True)),
            because,
            fallback,
            vector,
        )
        # By place, in the order of the statement: by name it takes ten times as long.
        for (
            item_no,
            group_id,
            score,
            srcs,
            parts,
            fallback,
            _,
            vector,
            text_cosine,
            image_cosine,
            because,
            capped,
            doc,
            photos,
            external_id,
        ) in [record[-15:] for record in records]
        if item_no is not None
    ]
    first = records[0]
    whole = scene.stop is None or first["seen"] < scene.stop
    return Blended(
        hits=hits,
        known=known_of(first),
        complete=whole and len(hits) < scene.wanted.limit,
        mark=None if scene.asked.shopper is None else mark_of(first, reach=scene.reach),
        filled=_falls_back(scene),
    )
