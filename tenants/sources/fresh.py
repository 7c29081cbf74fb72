"""The source of what few have met yet: drawn from the list's own sources of behaviour and of content."""

from tenants.learned.blend import FEW_EVENTS, KNOWING
from tenants.retrieval.wanted import TENANT
from tenants.sources.neighbours import evidence
from tenants.sources.scene import Scene


def fresh(scene: Scene) -> str | None:
    """Of the list's sources among `KNOWING`, the items that few have met (tenants/learned/blend.py has the formula).

    None where the list has no such source.
    """
    known = [scene.listed[name] for name in KNOWING if name in scene.listed]
    if not known:
        return None
    model = scene.bind(scene.model or 0, "int4")
    met = (
        f"select 1 from item_scores p where p.tenant_id = {TENANT} and p.model = {model} "
        f"and p.segment = '' and p.item_no = x.item_no and p.events >= {FEW_EVENTS}"
    )
    rows = " union all ".join(
        f"select x.item_no, x.z / max(x.z) over () as z, x.because from {name} x where x.z > 0 and not exists ({met})"
        for name in known
    )
    return f"select n.item_no, sum(n.z) as z, {evidence(scene, 'n.z')} as because from ({rows}) n group by n.item_no"
