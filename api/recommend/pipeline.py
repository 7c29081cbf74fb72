"""The page to read: plan -> recall and blend -> diversify -> fall back -> answer.

Every stage is a function over the words of `types.py`. A list shorter than
min(count, matches) is a bug: where candidates run out under a cap, recall is
asked again for more, and what the sources cannot fill the fallback does.
"""

from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, Final

from msgspec import structs

from api.recommend.card import card
from api.recommend.cards import Cards
from api.recommend.cursor import write_cursor
from api.recommend.diversify import diversify, spread_out
from api.recommend.explain import explain
from api.recommend.plan import plan, plan_rerank
from api.recommend.recall import Recalled, recall_or_popular, recall_popular
from api.recommend.types import (
    Answer,
    Candidate,
    Plan,
    Query,
    RecommendedItem,
    RerankQuery,
    Served,
    Slate,
)
from infra.db import Database
from infra.ids import uuid7
from infra.secret import Secret
from tenants.lifecycle import TenantRef
from tenants.placements import PlacementSource
from tenants.retrieval.wanted import Hit

_EVERYTHING: Final = 1_000_000
_POOL: Final = 5
"""A diverse list is chosen from so many times as many candidates."""


async def serve(
    database: Database,
    tenant: TenantRef,
    query: Query,
    *,
    now: datetime,
    secret: Secret,
    sources: Sequence[PlacementSource] = (),
    cards: Cards | None = None,
) -> Served:
    """Answer one request, which its placement has been merged with already; `sources` are the placement's.

    With `cards` the fields of items come from there instead of the statement. Raises what `plan` raises.
    """
    started = perf_counter()
    planned = plan(query, tenant, now=now, secret=secret, sources=sources)
    if cards is not None and planned.fields:
        slate = await fill(database, structs.replace(planned, fields=()))
        slate = await cards.fill_in(tenant.tenant_id, slate, photos="images" in planned.fields)
    else:
        slate = await fill(database, planned)
    return Served(plan=planned, slate=slate, answer=answer(planned, slate, secret=secret, started=started))


async def rerank(
    database: Database,
    tenant: TenantRef,
    query: RerankQuery,
    *,
    now: datetime,
    secret: Secret,
    within: dict[str, Any] | None = None,
) -> Served:
    """The given items that may be shown, in the order of `for_you`. Raises what `plan` raises."""
    started = perf_counter()
    planned = plan_rerank(query, tenant, now=now, secret=secret, within=within)
    slate = await fill(database, planned)
    return Served(plan=planned, slate=slate, answer=answer(planned, slate, secret=secret, started=started))


async def fill(database: Database, planned: Plan) -> Slate:
    """recall and diversify until the list is full or nothing is left, then the fallback."""
    limit = planned.count
    if planned.max_per:
        limit = planned.count * 4
    if planned.diversity:
        limit = max(limit, planned.count * _POOL)
    found = await recall_or_popular(database, planned, limit=limit)
    chosen = _choose(planned, found)
    if len(chosen) < planned.count and not found.complete:
        found = await recall_or_popular(database, planned, limit=_EVERYTHING, everything=True)
        chosen = _choose(planned, found)
    if len(chosen) < planned.count and planned.fallback and (planned.max_per or not found.filled):
        # Where it came with the list, the fallback knew nothing of the caps.
        missing = _EVERYTHING if planned.max_per else planned.count - len(chosen)
        spare = await recall_popular(database, planned, chosen, limit=missing)
        more = [*chosen, *(_candidate(hit) for hit in spare.hits)]
        chosen = list(diversify(more, count=planned.count, max_per=planned.max_per))
    return Slate(
        candidates=chosen,
        fallback_used=planned.degraded or bool(found.warnings) or any(candidate.fallback for candidate in chosen),
        unknown_seeds=[seed for seed in planned.seeds if seed not in found.known],
        seeds=list(found.known.values()),
        warnings=found.warnings,
        mark=found.mark,
    )


def _choose(planned: Plan, found: Recalled) -> list[Candidate]:
    candidates = [_candidate(hit, planned.asked.sources[0].label) for hit in found.hits]
    ordered = spread_out(
        candidates, count=planned.count, diversity=planned.diversity, generation=planned.tenant.generation
    )
    return list(diversify(ordered, count=planned.count, max_per=planned.max_per))


def _candidate(hit: Hit, source: str = "popular") -> Candidate:
    """A hit, with the source that speaks most for it."""
    if hit.fallback:
        return Candidate(hit=hit, source="popular", fallback=True)
    return Candidate(hit=hit, source=hit.parts[0][0] if hit.parts else source, parts=hit.parts)


def answer(planned: Plan, slate: Slate, *, secret: Secret, started: float) -> Answer:
    """The slate as the API shows it."""
    shown = [*planned.shown, *(candidate.hit.item_no for candidate in slate.candidates)]
    full = len(slate.candidates) == planned.count and planned.asked.among is None
    return Answer(
        recommendation_id=str(uuid7()),
        items=[item(candidate, rank, planned, secret) for rank, candidate in enumerate(slate.candidates, 1)],
        model_version=model_version(planned.tenant),
        fallback_used=slate.fallback_used,
        took_ms=round((perf_counter() - started) * 1000, 2),
        cursor=write_cursor(secret.current, planned.tenant.tenant_id, shown, now=planned.now) if full else None,
        warnings=[
            *planned.warnings,
            *slate.warnings,
            *(f"There is no item {seed!r}; it was ignored." for seed in slate.unknown_seeds),
        ],
    )


def model_version(tenant: TenantRef) -> str:
    """Which generation, spaces and model of behaviour answered."""
    generation = tenant.generation
    behaviour = "" if generation.behaviour_model is None else f"+b{generation.behaviour_model}"
    return f"g{generation.gen}:{generation.text.name}+{generation.image.name}{behaviour}"


def item(candidate: Candidate, rank: int, planned: Plan, secret: Secret) -> RecommendedItem:
    """One candidate as the API shows it."""
    hit = candidate.hit
    return RecommendedItem(
        id=hit.id,
        score=round(hit.score, 4),
        rank=rank,
        source=candidate.source,
        fallback=candidate.fallback,
        fields=card(hit, planned.fields, planned.tenant, secret.current) if planned.fields else None,
        explain=explain(candidate, planned) if planned.explain and not candidate.fallback else None,
    )
