"""Sources from precomputed neighbours: what goes with, or was met by the same shoppers as, the anchors.

z(j) = Σ over the anchors i of w_i · s_ij, s in 0..1 as the build has it (tables of tenants' learning jobs).
"""

from typing import Final, Literal

from tenants.retrieval.nearest import each
from tenants.retrieval.wanted import TENANT
from tenants.sources.scene import Scene

Kind = Literal["content", "photos", "graph", "bought_together", "also_viewed", "item_cf"]

KINDS: Final[dict[Kind, int]] = {
    "content": 1,
    "photos": 2,
    "graph": 3,
    "bought_together": 4,
    "also_viewed": 5,
    "item_cf": 6,
}
"""Numbers of `item_neighbours.kind`; the first two are of the generation's `neighbours_build`, the others of its
`behaviour_model`."""


ROWS: Final = 1000
"""So many neighbours are summed at most: each anchor's share is that of its weight, its best first. On the histories of
online_retail it finds as much as all 4,900 of a shopper (Recall@20 .102 and .100), at a third of the time."""

_MOST: Final = 200
"""Neighbours that are stored of an item."""


def summed(scene: Scene, kind: Kind, build: int, *, anchor: str = "anchor") -> str:
    """SQL of (item_no, z, because): the neighbours of a CTE of (item_no, w)."""
    own = (
        f"i.tenant_id = {TENANT} and i.kind = {scene.bind(KINDS[kind], 'int2')} "
        f"and i.build = {scene.bind(build, 'int4')} and i.item_no = a.item_no"
    )
    share = f"least({_MOST}, greatest(1, {ROWS} * a.w / sum(a.w) over ()))::int"
    # Arrays are opened in the list of columns: in a join they are written to a store first, at twice the time.
    return f"""
        select n.item_no, sum(n.per * n.score) as z, {evidence(scene, "n.per * n.score")} as because from (
            select unnest(i.others[1:a.share]) as item_no, unnest(i.scores[1:a.share]) as score, a.per,
                a.item_no as because
            from (select a.item_no, a.w / 32767 as per, {share} as share from {anchor} a) a
            {each("item_neighbours", own, alias="i")}) n
        group by n.item_no"""


def evidence(scene: Scene, z: str) -> str:
    """The aggregate over rows `n` that names the item which added the most, by its `z`; only where it is asked for, as
    it costs a sort."""
    if not scene.asked.with_evidence:
        return "null::int4"
    return f"(array_agg(n.because order by {z} desc, n.because))[1]"


def bought_together(scene: Scene) -> str | None:
    """Bought in the same basket, by log-likelihood ratio."""
    return None if scene.model is None else summed(scene, "bought_together", scene.model)


def also_viewed(scene: Scene) -> str | None:
    """Met by the same shoppers in one session, by log-likelihood ratio."""
    return None if scene.model is None else summed(scene, "also_viewed", scene.model)


def item_cf(scene: Scene) -> str | None:
    """Liked alike: Pearson correlation of two items over their shoppers, shrunk by how many there are."""
    return None if scene.model is None else summed(scene, "item_cf", scene.model)
