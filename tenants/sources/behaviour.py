"""Sources from the behaviour space: the shopper is folded in from the history at the time of asking.

`behaviour_vectors.vec` holds, of an item, what it adds to a shopper's vector and what the shopper's vector is
multiplied by, one after the other (source ‖ target, float16[2d]): of the graph filter V/√degree and V·√degree, mixed
with those of look-alikes where an item has few events of its own; `own` is the item's weight on itself.
"""

from typing import Final

from tenants.retrieval.nearest import each
from tenants.retrieval.wanted import TENANT
from tenants.sources.neighbours import evidence, summed
from tenants.sources.scene import Scene

RESCORED: Final = 120
"""The spectral part is computed of so many, the best by their neighbours: of all 10,000 it would take 4 ms."""

SCORED: Final = 400
"""Factors are multiplied for so many, the best by their neighbours: for all 10,000 items it takes 8 ms."""

_ALPHA: Final = 0.3


def graph(scene: Scene) -> str | None:
    """The graph filter (GF-CF, CIKM 2021): z(j) = Σ_i w_i (s_ij + α · source_i · target_j) over the history i."""
    if scene.model is None:
        return None
    dims = "vector_dims(b.vec) / 2"
    alpha = (
        f"coalesce((select (m.settings ->> 'alpha')::float8 from behaviour_models m "
        f"where m.tenant_id = {TENANT} and m.model = {scene.bind(scene.model, 'int4')}), {_ALPHA})"
    )
    near = f"{summed(scene, 'graph', scene.model)} order by 2 desc, 1 limit {RESCORED}"
    rows = "select n.item_no, n.z, 0 as w, n.because from near n"
    shown = scene.shown_anchors
    if shown is not None:
        # What an item says of itself; it is rarely among the best of its own neighbours.
        rows = (
            f"select n.item_no, sum(n.z) as z, sum(n.w) as w, {evidence(scene, 'n.z')} as because from ("
            f"{rows} union all select a.item_no, 0, a.w, a.item_no from ({shown}) a) n group by n.item_no"
        )
    return f"""
    with folded as materialized ({_folded(scene)}), alpha as materialized (select {alpha} as value),
    near as materialized ({near})
    select n.item_no,
        n.z + n.w * coalesce(b.own, 0) + coalesce(a.value * -(subvector(b.vec, {dims} + 1, {dims}) <#> u.vec), 0) as z,
        n.because
    from ({rows}) n cross join alpha a left join folded u on true
    left join lateral (select b.own, b.vec from behaviour_vectors b where {_own(scene, "n.item_no")} offset 0) b
        on true"""


def als(scene: Scene) -> str | None:
    """Factors alone: z(j) = Σ_i w_i source_i · target_j, of the best by their neighbours, of every item where all are
    looked at."""
    if scene.model is None:
        return None
    dims = "vector_dims(b.vec) / 2"
    # Not merged with what asks for z > 0, which would compute each twice.
    z = f"-(subvector(b.vec, {dims} + 1, {dims}) <#> u.vec) as z, null::int4 as because"
    if scene.cut is None:
        return f"""
    with folded as materialized ({_folded(scene)})
    select b.item_no, {z} from folded u, behaviour_vectors b
    where b.tenant_id = {TENANT} and b.model = {scene.bind(scene.model, "int4")} and u.vec is not null offset 0"""
    near = f"{summed(scene, 'graph', scene.model)} order by 2 desc, 1 limit {SCORED}"
    return f"""
    with folded as materialized ({_folded(scene)}), near as materialized ({near})
    select b.item_no, {z} from folded u cross join near n
    {each("behaviour_vectors", _own(scene, "n.item_no"), alias="b")} where u.vec is not null offset 0"""


def _folded(scene: Scene) -> str:
    """SQL of one row, the shopper's vector: the weighted sum of the sources of the anchors."""
    dims = "vector_dims(b.vec) / 2"
    # There is no product of a vector and a number: the weight is spread over an array.
    # In single precision: a product of halves that is too small for a half is an error.
    weighted = f"subvector(b.vec, 1, {dims})::vector * array_fill(a.w, array[{dims}])::vector"
    own = each("behaviour_vectors", _own(scene, "a.item_no"), alias="b")
    return f"select sum({weighted})::halfvec as vec from anchor a {own}"


def _own(scene: Scene, item_no: str) -> str:
    return f"b.tenant_id = {TENANT} and b.model = {scene.bind(scene.model, 'int4')} and b.item_no = {item_no}"
