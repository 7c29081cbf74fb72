"""recall: the candidates of a plan, from the source it names."""

from collections.abc import Sequence

from api.recommend.types import Candidate, Plan
from infra.db import Database
from tenants.retrieval import Found, Likeness, Wanted, find_newest, find_similar


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


async def recall(database: Database, plan: Plan, *, limit: int) -> Found:
    """The best `limit` candidates of the plan's source, in order."""
    if plan.source in ("similar", "visual"):
        if not plan.seeds:
            return Found(hits=[], known=[], complete=True)
        likeness = Likeness(
            seeds=plan.seeds,
            text_weight=plan.text_weight,
            image_weight=plan.image_weight,
            same=plan.same,
            min_score=plan.min_score,
        )
        return await find_similar(database, plan.tenant, wanted(plan, limit=limit), likeness)
    return await find_newest(database, plan.tenant, wanted(plan, limit=limit))


async def recall_fallback(database: Database, plan: Plan, chosen: Sequence[Candidate], *, limit: int) -> Found:
    """What fills a list that its source could not: the popular items, until there are events the newest."""
    return await find_newest(
        database,
        plan.tenant,
        wanted(plan, limit=limit, shown=[candidate.hit.item_no for candidate in chosen], apart_from=plan.seeds),
    )
