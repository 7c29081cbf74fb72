"""Sources from what this shopper did before: looked at, or bought."""

from tenants.learned.history import OTHERS, OTHERS_DAYS, OTHERS_EVENTS
from tenants.learned.repurchase import due_sql
from tenants.retrieval.wanted import TENANT
from tenants.sources.scene import Scene
from tenants.sources.shopper import MEANT


def recently_viewed(scene: Scene) -> str | None:
    """What was looked at, the latest first; the session's items count as looked at now."""
    parts = []
    if scene.asked.recent:
        parts.append(f"select r.item_no, {scene.now} as ts, r.place from recent r")
    if scene.asked.shopper is not None:
        parts.append(
            "select a.item_no, a.ts, 0 as place from activity a "
            "where a.type not in ('remove_from_cart', 'refund', 'dislike')"
        )
    if not parts:
        return None
    return f"""
    select v.item_no, 1.0 / (1 + row_number() over (order by v.ts desc, v.place, v.item_no) / 10.0)::float8 as z,
        null::int4 as because
    from (select v.item_no, max(v.ts) as ts, min(v.place) as place from ({" union all ".join(parts)}) v
        group by v.item_no) v"""


def buy_again(scene: Scene) -> str | None:
    """What was bought and is due (tenants/learned/repurchase.py).

    The usual days are the shopper's own mean pause where there were two purchases, else the item's (of the learning
    job), else 30.
    """
    if scene.asked.shopper is None:
        return None
    return f"""
    select b.item_no, {due_sql("b.days", "b.since", "b.usual")} as z, b.item_no as because from bought b"""


def user_cf(scene: Scene) -> str | None:
    """What shoppers of like taste met lately: z(j) = Σ over them of likeness · weight of their last events."""
    if scene.asked.shopper is None or scene.model is None:
        return None
    alike = f"""
        select o.shopper_no, o.score / 32767.0::float8 as score from shopper_neighbours n
        cross join lateral unnest(n.others, n.scores) with ordinality o(shopper_no, score, place)
        where n.tenant_id = {TENANT} and n.model = {scene.bind(scene.model, "int4")}
            and n.shopper_no = (select s.shopper_no from shopper s) and o.place <= {OTHERS}"""
    return f"""
    select e.item_no, sum(o.score * t.weight) as z, null::int4 as because from ({alike}) o
    cross join lateral (
        select e.item_no, e.type from (
            select e.item_no, e.type, e.ts, e.flags from events e
            where e.shopper_no = o.shopper_no and {scene.events("e", OTHERS_DAYS)}
            order by e.ts desc limit {OTHERS_EVENTS * 5}) e
        where {MEANT} order by e.ts desc limit {OTHERS_EVENTS}) e
    join {scene.weights("t")} on t.type = e.type
    group by e.item_no"""
