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


ROWS: Final = 3000
"""So many neighbours are summed at most, the best of each anchor: all 200 of 15 anchors, 100 of 30. Summing 6,000 takes
6 ms, as long as all else together."""


def summed(scene: Scene, kind: Kind, build: int, *, anchor: str = "anchor", also: str = "") -> str:
    """SQL of (item_no, z, because): the neighbours of a CTE of (item_no, w), and `also` rows of the same columns."""
    own = (
        f"i.tenant_id = {TENANT} and i.kind = {scene.bind(KINDS[kind], 'int2')} "
        f"and i.build = {scene.bind(build, 'int4')} and i.item_no = a.item_no"
    )
    first = f"[1:{ROWS} / (select count(*) from {anchor})]"
    rows = (
        f"select n.item_no, a.w * n.score / 32767 as z, a.item_no as because from {anchor} a "
        f"{each('item_neighbours', own, alias='i')} "
        f"cross join lateral unnest(i.others{first}, i.scores{first}) n(item_no, score)"
    )
    rows += f" union all {also}" if also else ""
    return f"select n.item_no, sum(n.z) as z, {evidence(scene, 'n')} as because from ({rows}) n group by n.item_no"


def evidence(scene: Scene, alias: str) -> str:
    """The aggregate that names the item which added the most; only where it is asked for, as it costs a sort."""
    if not scene.asked.with_evidence:
        return "null::int4"
    return f"(array_agg({alias}.because order by {alias}.z desc, {alias}.because))[1]"


def bought_together(scene: Scene) -> str | None:
    """Bought in the same basket, by log-likelihood ratio."""
    return None if scene.model is None else summed(scene, "bought_together", scene.model)


def also_viewed(scene: Scene) -> str | None:
    """Met by the same shoppers in one session, by log-likelihood ratio."""
    return None if scene.model is None else summed(scene, "also_viewed", scene.model)


def item_cf(scene: Scene) -> str | None:
    """Liked alike: Pearson correlation of two items over their shoppers, shrunk by how many there are."""
    return None if scene.model is None else summed(scene, "item_cf", scene.model)
