"""The source of what is described alike: rare values in common count more (IDF-weighted cosine).

    z(j) = Σ over the values v that j shares with the anchors of f_v · idf_v²  /  |j|,   idf_v = ln(1 + n / df_v)

Values are of the brand, categories, tags, attributes and the price band, as far as they are compared; `f_v` is how many
of the anchors have it, times the weight of its field. Frequencies are counted among the newest items. A value of j that
the anchors lack has no idf here: in |j| it weighs as the anchors' mean.
"""

from collections.abc import Mapping
from typing import Final

from tenants.retrieval.nearest import each
from tenants.retrieval.wanted import TENANT
from tenants.sources.scene import Scene

WEIGHTS: Final[Mapping[str, float]] = {"brand": 1.5, "categories": 1.0, "tags": 0.7, "price": 0.5, "attributes": 1.0}
"""How much each field counts where a placement says nothing; `attributes` is of every attributes.x not named itself."""

_ANCHORS: Final = 10
_VALUES: Final = 64
_SAMPLE: Final = 5000
_LOOKED_AT: Final = 400
_BAND: Final = 0.35
"""Prices are of one band when their logarithms differ by less: about ±40 %."""


def attributes(scene: Scene) -> str:
    """Described like the anchors."""
    own = each("item_attrs", f"a.tenant_id = {TENANT} and a.item_no = k.item_no", alias="a")
    facets = each("item_facets", f"f.tenant_id = {TENANT} and f.item_no = k.item_no", alias="f")
    compared = scene.fields or WEIGHTS
    names = scene.bind(list(compared), "text[]")
    weights = scene.bind([float(weight) for weight in compared.values()], "float8[]")
    price = scene.bind(float(compared.get("price", 0.0)), "float8")
    shared_text = f"a.tenant_id = {TENANT} and a.name = p.name and a.value_text = p.value_text"
    shared_num = f"a.tenant_id = {TENANT} and a.name = p.name and a.value_num = p.value_num"
    newest = "a.item_no > (select n.above from newest n)"
    return f"""
    with weighted as materialized (
        select w.name, w.weight from unnest({names}, {weights}) w(name, weight)
    ), known as materialized (
        select a.item_no, a.w from anchor a order by a.w desc, a.item_no limit {_ANCHORS}
    ), newest as materialized (
        select greatest(count(*), 1)::float8 as n, min(m.item_no) - 1 as above from (
            select f.item_no from item_facets f where f.tenant_id = {TENANT} order by f.item_no desc limit {_SAMPLE}) m
    ), probe as materialized (
        select p.name, p.value_text, p.value_num, sum(p.w) * {_weight("p")} as w
        from (
            select a.name, a.value_text, case when a.value_text is null then a.value_num end as value_num, k.w
            from known k {own} union all
            select 'brand', f.brand, null, k.w from known k {facets} where f.brand is not null
        ) p group by 1, 2, 3 having {_weight("p")} > 0 order by 4 desc, 1, 2, 3 limit {_VALUES}
    ), counted as materialized (
        select p.*, greatest(1, case
            when p.name = 'brand' then (select count(*) from item_facets a where a.tenant_id = {TENANT}
                and a.brand = p.value_text and {newest})
            when p.value_text is not null then (select count(*) from item_attrs a where {shared_text} and {newest})
            else (select count(*) from item_attrs a where {shared_num} and {newest}) end) as df
        from probe p
    ), idf as materialized (
        select c.*, ln(1 + n.n / c.df) as idf from counted c cross join newest n where c.df <= greatest(n.n / 2, 1)
    ), met as materialized (
        select m.item_no, sum(m.dot) as dot, sum(m.square) as square, count(*) as shared from (
            select a.item_no, p.w * p.idf * p.idf as dot, p.idf * p.idf as square from idf p
            join lateral (select a.item_no from item_attrs a where {shared_text} offset 0) a on true
            where p.name <> 'brand' and p.value_text is not null
            union all
            select a.item_no, p.w * p.idf * p.idf, p.idf * p.idf from idf p
            join lateral (select a.item_no from item_attrs a where {shared_num} offset 0) a on true
            where p.value_text is null
            union all
            select a.item_no, p.w * p.idf * p.idf, p.idf * p.idf from idf p
            join lateral (select a.item_no from item_facets a where a.tenant_id = {TENANT}
                and a.brand = p.value_text offset 0) a on true
            where p.name = 'brand'
        ) m group by m.item_no order by 2 desc, 1 limit {"all" if scene.cut is None else _LOOKED_AT}
    ), usual as materialized (
        select coalesce(avg(p.idf * p.idf), 1) as square, (select avg(ln(f.price + 1)) from known k {facets}
            where f.price is not null) as price from idf p
    )
    select m.item_no, (m.dot + case when abs(ln(f.price + 1) - u.price) < {_BAND} then {price} else 0 end)
        / sqrt(m.square + greatest(c.n - m.shared, 0) * u.square + 1) as z, null::int4 as because
    from met m cross join usual u
    cross join lateral (select count(*) as n from item_attrs a where a.tenant_id = {TENANT}
        and a.item_no = m.item_no{_compared(scene)}) c
    {each("item_facets", f"f.tenant_id = {TENANT} and f.item_no = m.item_no", alias="f")}"""


def _weight(alias: str) -> str:
    """SQL: how much the field `name` of a row counts; 0 for one that is not compared."""
    own = f"(select w.weight from weighted w where w.name = {alias}.name)"
    other = (
        f"(select w.weight from weighted w where w.name = 'attributes' and starts_with({alias}.name, 'attributes.'))"
    )
    return f"coalesce({own}, {other}, 0)"


def _compared(scene: Scene) -> str:
    """The condition on `item_attrs a` that its field is compared; nothing where all are, as usual."""
    if not scene.fields:
        return ""
    named = scene.bind([name for name, weight in scene.fields.items() if weight], "text[]")
    if not scene.fields.get("attributes"):
        return f" and a.name = any({named})"
    off = scene.bind([name for name, weight in scene.fields.items() if not weight], "text[]")
    return f" and (a.name = any({named}) or starts_with(a.name, 'attributes.') and a.name <> all({off}))"
