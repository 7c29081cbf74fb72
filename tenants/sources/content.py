"""Sources from text and photos: items like the anchors.

Precomputed where the generation has a build of neighbours at the asked dial (DECISIONS 10), with an exact scan of the
items encoded since; otherwise the exact scan of all, or the graphs of a tenant with its own shard.
"""

from typing import Final

from tenants.learned.neighbours import SLACK
from tenants.retrieval.likeness import NEAR, Likeness, halves, query_vectors
from tenants.retrieval.nearest import FIRST_CUT, nearest
from tenants.retrieval.wanted import TENANT
from tenants.sources.neighbours import Kind, summed
from tenants.sources.scene import Scene

ANCHORS: Final = 10
"""So many of the anchors, the strongest, are looked for likes of; the mean of more is like everything."""


def similar(scene: Scene) -> str:
    """Like the anchors by text and photos, at the dial of the request."""
    asked, generation = scene.asked, scene.tenant.generation
    usual = (asked.text_weight, asked.image_weight) == (generation.text_weight, generation.image_weight)
    return _like(scene, asked.text_weight, asked.image_weight, "content" if usual else None)


def visually_similar(scene: Scene) -> str:
    """Like the anchors by photos alone."""
    return _like(scene, 0.0, 1.0, "photos")


def _like(scene: Scene, text_weight: float, image_weight: float, kind: Kind | None) -> str:
    statement = scene.statement
    likeness = Likeness(seeds=[], text_weight=text_weight, image_weight=image_weight)
    known = f"known as materialized (select a.item_no, a.w from anchor a order by a.w desc, a.item_no limit {ANCHORS})"
    query = query_vectors(statement, likeness, known)
    score = f"({NEAR}) / (select q.best from q)"
    if kind is not None and scene.build is not None:
        # Not every anchor brings each item: the mean is over all anchors, as of the exact score.
        near = summed(scene, kind, scene.build, anchor="known")
        since = (
            f"(select n.watermark - {scene.bind(SLACK, 'interval')} from neighbour_builds n "
            f"where n.tenant_id = {TENANT} and n.build = {scene.bind(scene.build, 'int4')})"
        )
        fresh = f"select distinct x.item_no from item_vectors x where x.tenant_id = {TENANT} and x.encoded_at > {since}"
        return f"""
    with {query}, fresh as materialized ({fresh}), total as materialized (select sum(k.w) as w from known k)
    select p.item_no, p.z / t.w as z, p.because from ({near}) p cross join total t
    where p.item_no not in (select r.item_no from fresh r)
    union all
    select n.item_no, n.z, null::int4 from (
        select v.item_no, {score} as z from fresh r
        join lateral (select v.* from fused_vectors v where v.item_no = r.item_no and {statement.fused()} offset 0) v
            on true offset 0) n"""
    if scene.tenant.shard != 0 and scene.cut is not None:
        walk, rows = nearest(statement, halves(scene.tenant), score=score, cut=max(FIRST_CUT, scene.cut), query="q")
        return f"with {query}, {walk} select n.item_no, n.z, null::int4 as because from ({rows}) n"
    passed = ""
    if scene.cut is None:
        # An array, not a join: misjudged by what a filter might pass, a join takes twice as long.
        passed = f"and v.item_no = any(array(select f.item_no from item_facets f where {scene.may_show()}))"
    return f"""
    with {query}
    select n.item_no, n.z, null::int4 as because from (
        select v.item_no, {score} as z from fused_vectors v
        where {statement.fused()} {passed} offset 0) n"""
