"""Sources that need no history: what sells, what is on the rise, what is new, what is cheaper than it was."""

from datetime import UTC, timedelta
from typing import Final

from tenants.retrieval.wanted import TENANT
from tenants.sources.scene import Scene

_HOUR_HALF: Final = 20.0
"""So much weight of events within the last hour counts half of the strongest trend."""

_NEW: Final = 1e-3
"""Of items without any event, the newest first, far below those with some."""


def popular(scene: Scene, *, shown: str | None = None) -> str:
    """By popularity with time decay, in the shopper's segment where that is known; then the newest.

    `shown`: another condition on `item_facets f` than the scene's.
    """
    shown = scene.may_show(shown)
    best = f"""
        select s.item_no, s.popularity::float8 as z from item_scores s
        {"" if scene.cut is not None else f"join item_facets f on f.item_no = s.item_no and {shown}"}
        where {_scores(scene)} and s.segment = {_segment(scene)} and s.popularity > 0
        order by s.popularity desc, s.item_no limit {scene.enough}"""
    return f"""
    with best as materialized ({best})
    select b.item_no, b.z, null::int4 as because from best b union all
    select n.item_no, n.z * {_NEW} as z, null::int4 as because from ({_newest(scene, shown)}) n
    where n.item_no not in (select b.item_no from best b)"""


def new(scene: Scene) -> str:
    """The newest first."""
    return f"select n.item_no, n.z, null::int4 as because from ({_newest(scene, scene.may_show())}) n"


def trending(scene: Scene) -> str:
    """z(j) = trend of the days, as the learning job has it, + h / (h + 20) of the last hour's weighted events h."""
    since = scene.wanted.now - timedelta(hours=1)
    # Literals, so that few partitions are even planned.
    day, end = (f"{moment.astimezone(UTC):%Y-%m-%d}T00:00:00Z" for moment in (since, since + timedelta(days=2)))
    scored = "select null::int4 as item_no, 0::float8 as z where false"
    if scene.cut is None:
        scored = f"select s.item_no, s.trend::float8 as z from item_scores s where {_scores(scene)} and s.segment = ''"
    else:
        scored = (
            f"(select s.item_no, s.trend::float8 as z from item_scores s where {_scores(scene)} and s.segment = '' "
            f"order by s.trend desc, s.item_no limit {scene.limit})"
        )
    return f"""
    select t.item_no, sum(t.z) as z, null::int4 as because from (
        {scored} union all
        select h.item_no, h.weight / (h.weight + {_HOUR_HALF}) as z from (
            select m.item_no, sum(m.clicks * 0.5 + m.views + m.carts * 4 + m.purchases * 10)::float8 as weight
            from item_minutes m where m.tenant_id = {TENANT} and m.minute >= '{day}' and m.minute < '{end}'
                and m.minute > {scene.bind(since, "timestamptz")} group by m.item_no) h where h.weight > 0
    ) t where t.z > 0 group by t.item_no"""


def on_sale(scene: Scene) -> str:
    """Cheaper than it was: z(j) = popularity + half the share that is taken off."""
    popularity = (
        f"left join lateral (select s.popularity from item_scores s where {_scores(scene)} "
        "and s.segment = '' and s.item_no = f.item_no offset 0) s on true"
    )
    return f"""
    select f.item_no, coalesce(s.popularity, 0)::float8 + 0.5 * (1 - f.sale_price::float8 / f.price) as z,
        null::int4 as because
    from item_facets f {popularity}
    where {scene.eligible} and f.price > 0 and f.sale_price < f.price"""


def _newest(scene: Scene, shown: str) -> str:
    order = "f.created_at desc, f.item_no desc"
    return f"""
        select n.item_no, 1.0 / (1 + row_number() over (order by n.created_at desc, n.item_no desc) / 10.0)::float8 as z
        from (select f.item_no, f.created_at from item_facets f where {shown}
            order by {order} limit {scene.enough}) n"""


def _scores(scene: Scene) -> str:
    # Popularity is learned before anything else is, under the number 0 while there is no model.
    return f"s.tenant_id = {TENANT} and s.model = {scene.bind(scene.model or 0, 'int4')}"


def _segment(scene: Scene) -> str:
    """The first of the shopper's segments that has scores of its own; everybody's otherwise."""
    if scene.asked.shopper is None or scene.asked.shopper.kind == 0:
        return "''"
    model = scene.bind(scene.model or 0, "int4")
    return (
        "(select coalesce((select g.name from shopper p "
        "cross join lateral unnest(p.segments) with ordinality g(name, place) "
        f"cross join lateral (select 1 from item_scores x where x.tenant_id = {TENANT} and x.model = {model} "
        # In the order of the index, which is read for it; else, with one segment that all have, the table might be.
        "and x.segment = g.name order by x.popularity desc limit 1) known order by g.place limit 1), ''))"
    )
