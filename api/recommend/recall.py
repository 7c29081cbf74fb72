"""recall: the candidates of a plan, in one statement; what the personal part fails at, the popular items answer."""

from collections.abc import Sequence

import asyncpg
import structlog
from msgspec import structs

from api.recommend.plan import CONTENT
from api.recommend.types import Candidate, Plan
from infra.db import Database
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.newest import find_newest
from tenants.retrieval.wanted import Found, Wanted
from tenants.sources.scene import Chosen
from tenants.sources.statement import Blended, find_blended

BUDGET_S = 0.5
"""How long the statement of a list for one shopper may take before the popular items are answered instead. It takes 5
ms; the first of a connection, which has to be planned, 50, and several times that on a machine without a core to spare.
"""

_log = structlog.get_logger()


class Recalled(Blended, frozen=True, kw_only=True):
    """What was found, and whether something failed on the way."""

    warnings: Sequence[str] = ()


def wanted(plan: Plan, *, limit: int, shown: Sequence[int] = (), apart_from: Sequence[str] = ()) -> Wanted:
    """What every source of this plan must obey."""
    return Wanted(
        now=plan.now,
        limit=limit,
        filter=plan.filter,
        exclude_ids=plan.exclude_ids,
        exclude_nos=[*plan.shown, *shown],
        apart_from=apart_from,
        out_of_stock=plan.out_of_stock,
        max_per=list(plan.max_per),
        with_doc=bool(plan.fields),
        with_photos="images" in plan.fields,
    )


async def recall(database: Database, plan: Plan, *, limit: int, everything: bool = False) -> Recalled:
    """The best `limit` candidates of the plan's sources in order, then the fallback's; `everything`: nothing is cut."""
    asked = plan.asked
    names = [chosen.name for chosen in asked.sources]
    of_session = asked.seen and asked.recent
    if asked.shopper is None and len(names) == 1 and asked.among is None and not of_session:
        if names == ["new"] and not asked.seeds:
            return _recalled(await find_newest(database, plan.tenant, wanted(plan, limit=limit)))
        if names[0] in CONTENT and asked.anchor == "seeds" and not _precomputed(plan, names[0], everything):
            return await _live(database, plan, limit=limit)
    found = await find_blended(
        database,
        plan.tenant,
        wanted(plan, limit=limit),
        structs.replace(asked, live=True) if everything else asked,
        everything=everything,
        timeout_s=BUDGET_S if plan.personal else None,
    )
    return _recalled(found)


async def recall_popular(database: Database, plan: Plan, chosen: Sequence[Candidate], *, limit: int) -> Recalled:
    """What fills a list when its sources could not, or failed: the popular items, then the newest."""
    leave_out = plan.asked.leave_out
    # What the request excludes, and what this shopper must never see, holds here too.
    asked = structs.replace(
        plan.asked,
        sources=[Chosen(name="popular", weight=1.0)],
        leave_out="nothing" if leave_out == "history" else leave_out,
        same=(),
        min_score=0.0,
        fallback=False,
        absolute=False,
        with_evidence=False,
        with_vectors=False,
    )
    shown = [candidate.hit.item_no for candidate in chosen]
    apart_from = plan.seeds if plan.asked.leave_out != "nothing" else ()
    asking = wanted(plan, limit=limit, shown=shown, apart_from=apart_from)
    found = await find_blended(database, plan.tenant, asking, asked)
    if len(found.hits) < limit and not found.complete:
        found = await find_blended(database, plan.tenant, asking, asked, everything=True)
    hits = [structs.replace(hit, fallback=True, parts=()) for hit in found.hits]
    return Recalled(hits=hits, known=found.known, complete=found.complete)


async def recall_or_popular(database: Database, plan: Plan, *, limit: int, everything: bool = False) -> Recalled:
    """`recall`; where the statement fails or is late, the popular items, and a warning that says so."""
    try:
        return await recall(database, plan, limit=limit, everything=everything)
    except (TimeoutError, asyncpg.PostgresError) as error:
        if not plan.personal:
            raise
        _log.warning("recommend.stage_failed", stage="recall", strategy=plan.strategy, error=type(error).__name__)
        warning = "The personal part could not be answered in time; these are the popular items."
        known = dict.fromkeys(plan.seeds, 0)  # nobody looked, so none is said to be unknown
        if not plan.fallback:
            return Recalled(hits=[], known=known, complete=True, warnings=[warning])
        found = await recall_popular(database, plan, [], limit=limit)
        return Recalled(hits=found.hits, known=known, complete=found.complete, warnings=[warning])


async def _live(database: Database, plan: Plan, *, limit: int) -> Recalled:
    """Items like those asked about, by one exact scan, with the parts of each score."""
    asked = plan.asked
    visual = asked.sources[0].name == "visually_similar"
    likeness = Likeness(
        seeds=asked.seeds,
        text_weight=0.0 if visual else asked.text_weight,
        image_weight=1.0 if visual else asked.image_weight,
        same=asked.same,
        min_score=asked.min_score,
    )
    found = await find_similar(database, plan.tenant, wanted(plan, limit=limit), likeness)
    if not plan.fallback or len(found.hits) >= limit:
        return _recalled(found)
    chosen = [Candidate(hit=hit, source="") for hit in found.hits]
    rest = await recall_popular(database, plan, chosen, limit=limit)
    return Recalled(hits=[*found.hits, *rest.hits], known=found.known, complete=found.complete and rest.complete)


def _precomputed(plan: Plan, name: str, everything: bool) -> bool:
    """Whether one item's neighbours are at hand, as they would be found now."""
    asked, generation = plan.asked, plan.tenant.generation
    dial = (asked.text_weight, asked.image_weight) == (generation.text_weight, generation.image_weight)
    return (
        generation.neighbours_build is not None
        and len(asked.seeds) == 1
        and (dial or name == "visually_similar")
        and not (asked.same or asked.min_score or plan.explain or everything or plan.diversity)
    )


def _recalled(found: Found) -> Recalled:
    mark, filled = (found.mark, found.filled) if isinstance(found, Blended) else (None, True)
    return Recalled(hits=found.hits, known=found.known, complete=found.complete, mark=mark, filled=filled)
