"""The page to read: plan -> recall -> diversify -> fall back -> answer.

Every stage is a function over the words of `types.py`. A list shorter than
min(count, matches) is a bug: where candidates run out under a cap, recall is
asked again for more, and what the source cannot fill the fallback does.
"""

from datetime import datetime
from time import perf_counter

from api.recommend.card import card
from api.recommend.cursor import write_cursor
from api.recommend.diversify import diversify
from api.recommend.plan import plan
from api.recommend.recall import recall, recall_fallback
from api.recommend.types import Answer, Candidate, Explain, Plan, Query, RecommendedItem, Served, Slate, Source
from infra.db import Database
from infra.ids import uuid7
from tenants.lifecycle import TenantRef
from tenants.retrieval import Hit

_EVERYTHING = 1_000_000


async def serve(database: Database, tenant: TenantRef, query: Query, *, now: datetime, secret: bytes) -> Served:
    """Answer one request. Raises what `plan` raises."""
    started = perf_counter()
    planned = plan(query, tenant, now=now, secret=secret)
    slate = await fill(database, planned)
    return Served(plan=planned, slate=slate, answer=answer(planned, slate, secret=secret, started=started))


async def fill(database: Database, planned: Plan) -> Slate:
    """recall and diversify until the list is full or nothing is left, then the fallback."""
    limit = planned.count if not planned.max_per else planned.count * 4
    while True:
        found = await recall(database, planned, limit=limit)
        chosen = diversify(
            [Candidate(hit=hit, source=planned.source) for hit in found.hits],
            count=planned.count,
            max_per=planned.max_per,
        )
        if len(chosen) == planned.count or found.complete or limit == _EVERYTHING:
            break
        limit = _EVERYTHING
    unknown = [seed for seed in planned.seeds if seed not in found.known]
    likeness = planned.source in ("similar", "visual")
    if not likeness or not planned.fallback or planned.min_score or len(chosen) == planned.count:
        return Slate(candidates=chosen, fallback_used=False, unknown_seeds=unknown if likeness else [])
    spare = await recall_fallback(
        database, planned, chosen, limit=planned.count if not planned.max_per else _EVERYTHING
    )
    fillers = [Candidate(hit=hit, source="popular", fallback=True) for hit in spare.hits]
    filled = diversify([*chosen, *fillers], count=planned.count, max_per=planned.max_per)
    return Slate(candidates=filled, fallback_used=len(filled) > len(chosen), unknown_seeds=unknown)


def answer(planned: Plan, slate: Slate, *, secret: bytes, started: float) -> Answer:
    """The slate as the API shows it."""
    shown = [*planned.shown, *(candidate.hit.item_no for candidate in slate.candidates)]
    full = len(slate.candidates) == planned.count
    return Answer(
        recommendation_id=str(uuid7()),
        items=[
            item(candidate.hit, rank, candidate.source, candidate.fallback, planned, secret)
            for rank, candidate in enumerate(slate.candidates, 1)
        ],
        model_version=model_version(planned.tenant),
        fallback_used=slate.fallback_used,
        took_ms=round((perf_counter() - started) * 1000, 2),
        cursor=write_cursor(secret, planned.tenant.tenant_id, shown) if full else None,
        warnings=[*planned.warnings, *(f"There is no item {seed!r}; it was ignored." for seed in slate.unknown_seeds)],
    )


def model_version(tenant: TenantRef) -> str:
    """Which generation and spaces answered."""
    generation = tenant.generation
    return f"g{generation.gen}:{generation.text.name}+{generation.image.name}"


def item(hit: Hit, rank: int, source: Source, fallback: bool, planned: Plan, secret: bytes) -> RecommendedItem:
    """One hit as the API shows it."""
    return RecommendedItem(
        id=hit.id,
        score=round(hit.score, 4),
        rank=rank,
        source=source,
        fallback=fallback,
        fields=card(hit, planned.fields, planned.tenant, secret) if planned.fields else None,
        explain=explanation(hit, source) if planned.explain and not fallback else None,
    )


def explanation(hit: Hit, source: Source) -> Explain:
    """The parts of a score, as its source has them."""

    def short(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    if source == "search" and hit.text_cosine is None and hit.image_cosine is None:
        return Explain(words=short(hit.text), vectors=short(hit.image))
    return Explain(
        text=short(hit.text),
        image=short(hit.image),
        text_similarity=short(hit.text_cosine),
        image_similarity=short(hit.image_cosine),
    )
