"""plan: a request, its placement and the tenant's defaults -> what the later stages do."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import structs

from api.recommend.cursor import read_cursor
from api.recommend.types import (
    FIELDS,
    MAX_CONTEXT_BYTES,
    MAX_SEEDS,
    Plan,
    Query,
    RerankQuery,
    Weights,
)
from infra.decode import InvalidFields, summary
from infra.errors import FieldError
from infra.secret import Secret
from tenants.catalog.filters import parse_filter
from tenants.learned.blend import CONTENT_BLEND, DEFAULT_BLEND
from tenants.lifecycle import TenantRef
from tenants.placements import LEARNED, PlacementSource, Strategy, model_number
from tenants.retrieval.wanted import SCALAR_FIELDS
from tenants.sources.scene import Anchor, Asked, Chosen, LeaveOut
from tenants.sources.shopper import ShopperKey
from tenants.sources.statement import SOURCES

_encode: Final = msgspec.json.Encoder().encode

_MANY: Final = ("categories", "tags")

CONTENT: Final = frozenset({"similar", "visually_similar"})
BEHAVIOUR: Final = frozenset(
    {"graph", "als", "item_cf", "user_cf", "bought_together", "also_viewed", "recently_viewed", "buy_again", "fresh"}
)
"""Which dial of `weights` turns a source up and down; the rest (popularity, attributes) none does."""

_ANCHORED: Final = frozenset({"similar", "visually_similar", "bought_together", "also_viewed", "cart"})
"""Strategies that begin at the items asked about, and at the shopper's history where none is named."""

_READING: Final = _ANCHORED | {"graph", "als", "item_cf", "attributes"}
"""What `item_ids` matter to."""


class _Choice(NamedTuple):
    """What a list is made of, before the strategies of several sources are taken apart."""

    strategy: str
    weight: float
    limit: int | None
    model: int | None = None
    fields: Mapping[str, float] = {}


def plan(
    query: Query,
    tenant: TenantRef,
    *,
    now: datetime,
    secret: Secret,
    sources: Sequence[PlacementSource] = (),
) -> Plan:
    """`sources` are those of a placement, where the request names no strategy.

    Raises InvalidFields, InvalidFilter and BadCursor, each naming what to mend.
    """
    faults = [
        *_check(query.same, "same", (*SCALAR_FIELDS, *_MANY)),
        *_check(query.max_per, "max_per", (*SCALAR_FIELDS, *_MANY)),
        *_check(query.fields, "fields", FIELDS),
        *_check_weights(query.weights),
        *_check_context(query.context),
    ]
    named = bool(query.item_ids or query.session.recent_items)
    if query.same and not named:
        faults.append(
            FieldError(pointer="/same", code="missing_field", message="`same` compares with seeds; send `item_ids`.")
        )
    if query.user_id is not None and query.visitor_id is not None:
        faults.append(
            FieldError(pointer="/visitor_id", code="invalid_value", message="Send `user_id` or `visitor_id`, not both.")
        )
    if faults:
        raise InvalidFields(summary(faults), errors=faults)
    strategy: Strategy = query.strategy or "for_you"
    choices, missing = _choices(sources, tenant)
    if not choices:
        choices = [_Choice("popular" if missing else strategy, 1.0, None)]
    asked, seeds = _asked(query, tenant, choices, strategy)
    return Plan(
        tenant=tenant,
        now=now,
        strategy=strategy,
        asked=asked,
        count=query.count,
        seeds=seeds,
        filter=None if query.filter is None else parse_filter(query.filter),
        exclude_ids=query.exclude.ids,
        shown=[] if query.cursor is None else read_cursor(secret, tenant.tenant_id, query.cursor, now=now),
        max_per=query.max_per,
        diversity=query.diversity,
        out_of_stock="out_of_stock" in query.include,
        # Whoever asks for a least score wants fewer items rather than others.
        fallback=query.fallback == "popular" and not query.min_score,
        fields=query.fields,
        explain=query.explain,
        placement=query.placement,
        degraded=bool(missing),
        warnings=[*missing, *_unheard(query.weights, tenant)],
    )


def _choices(sources: Sequence[PlacementSource], tenant: TenantRef) -> tuple[list[_Choice], list[str]]:
    """The sources of a placement that can be asked, and a warning for each that names a model which is gone."""
    choices, missing = [], []
    for source in sources:
        model = None if source.model is None else model_number(source.model)
        if source.model is not None and model not in tenant.models:
            missing.append(f"The model {source.model!r} of the source {source.strategy} cannot serve; it was left out.")
        else:
            # What serves anyway is no other model, and is called as usual.
            other = None if model == tenant.generation.behaviour_model else model
            choices.append(_Choice(source.strategy, source.weight, source.limit, other, source.fields))
    return (choices if any(choice.weight > 0 for choice in choices) else []), missing


def _unheard(weights: Weights, tenant: TenantRef) -> list[str]:
    if weights.behaviour and tenant.generation.behaviour_model is None:
        return ["`weights.behaviour` has no effect before there are events."]
    return []


def plan_rerank(
    query: RerankQuery, tenant: TenantRef, *, now: datetime, secret: Secret, within: dict[str, Any] | None = None
) -> Plan:
    """The plan of `for_you` among given items, none of them left out for having been met. Raises InvalidFields.

    `within`: a filter that they must pass.
    """
    ids = list(dict.fromkeys(query.item_ids))
    planned = plan(
        Query(
            user_id=query.user_id,
            visitor_id=query.visitor_id,
            session=query.session,
            filter=within,
            weights=query.weights,
            include=query.include,
            fields=query.fields,
            explain=query.explain,
        ),
        tenant,
        now=now,
        secret=secret,
    )
    changes = {"among": ids, "seeds": ids, "leave_out": "nothing"}
    asked = Asked(**{name: getattr(planned.asked, name) for name in Asked.__struct_fields__} | changes)
    fields = {name: getattr(planned, name) for name in Plan.__struct_fields__}
    return Plan(**fields | {"asked": asked, "seeds": ids, "count": len(ids), "strategy": "rerank"})


def _asked(
    query: Query, tenant: TenantRef, choices: Sequence[_Choice], strategy: Strategy
) -> tuple[Asked, Sequence[str]]:
    """The list as the sources see it, and the ids of the request that are missed when unknown."""
    shopper = None
    if query.user_id is not None:
        shopper = ShopperKey(kind=1, id=query.user_id)
    elif query.visitor_id is not None:
        shopper = ShopperKey(kind=0, id=query.visitor_id)
    recent = query.session.recent_items[-50:]
    names = {choice.strategy for choice in choices}
    personal = "for_you" in names
    items = list(dict.fromkeys(query.item_ids)) if personal or query.same or names & _READING else []
    if query.same and not items:
        items = list(dict.fromkeys(recent))[-MAX_SEEDS:]
    if not items and shopper is None and not personal and names <= _ANCHORED:
        # A likeness with no seeds of its own starts from the session: its items are the seeds.
        items = list(dict.fromkeys(reversed(recent)))[:10]
    anchor: Anchor = "seeds" if items and not personal else "history"
    if names == {"cart"} and not items and shopper is not None:
        anchor = "cart"
    if personal:
        # What was asked about counts as looked at last.
        recent = [*recent, *(item for item in items if item not in recent)]
    leave_out: LeaveOut = "nothing"
    if names & (_READING | {"user_cf"}):
        leave_out = "history" if anchor == "history" else "anchor"
    known = shopper is not None or bool(recent) or bool(items)
    sources = _dialled(_expanded(choices, tenant, known=known), query.weights, tenant, strategy)
    single = [chosen.name for chosen in sources if chosen.weight > 0]
    text_weight, image_weight = _weights(query, tenant)
    asked = Asked(
        sources=sources,
        seeds=items,
        recent=recent,
        shopper=shopper,
        anchor=anchor,
        leave_out="history" if personal else leave_out,
        text_weight=text_weight,
        image_weight=image_weight,
        seen=query.exclude.seen,
        purchased=query.exclude.purchased,
        in_cart=query.exclude.in_cart,
        same=query.same,
        min_score=query.min_score,
        fallback=query.fallback == "popular" and not query.min_score,
        absolute=len(single) == 1 and single[0] in CONTENT,
        with_evidence=query.explain,
        with_vectors=query.diversity > 0,
    )
    return asked, items


def _expanded(choices: Sequence[_Choice], tenant: TenantRef, *, known: bool) -> list[Chosen]:
    """Sources for the strategies that are made of several; the same source twice has the sum of the weights."""
    found: dict[tuple[str, int | None], Chosen] = {}
    for choice in choices:
        parts: Mapping[str, float] = {choice.strategy: 1.0}
        if choice.strategy == "cart":
            parts = {"bought_together": 1.0}
        elif choice.strategy == "for_you":
            parts = _for_you(tenant, choice.model) if known else {"popular": 1.0}
        total = sum(parts.values())
        for name, share in parts.items():
            model = choice.model if name in LEARNED else None
            before = found[name, model].weight if (name, model) in found else 0.0
            weight = before + choice.weight * share / total
            found[name, model] = Chosen(name=name, weight=weight, limit=choice.limit, model=model, fields=choice.fields)
    return [chosen for chosen in found.values() if chosen.weight > 0]


def _for_you(tenant: TenantRef, model: int | None) -> Mapping[str, float]:
    """The blend that was fitted, with another model where one is named; before that, what has always done well."""
    generation = tenant.generation
    blend = generation.blend if model is None else tenant.models[model]
    fitted = {name: weight for name, weight in blend.items() if name in SOURCES and weight > 0}
    if fitted:
        return fitted
    return CONTENT_BLEND if model is None and generation.behaviour_model is None else DEFAULT_BLEND


def _dialled(sources: list[Chosen], weights: Weights, tenant: TenantRef, strategy: Strategy) -> list[Chosen]:
    """The sources with the request's dial: `text` + `image` is the weight of content, `behaviour` that of behaviour."""
    behaviour = weights.behaviour
    if behaviour is None:
        return sources
    content = (weights.text or 0.0) + (weights.image or 0.0)
    if weights.text is None and weights.image is None:
        content = 1.0
    if strategy in CONTENT and behaviour and tenant.generation.behaviour_model is not None:
        sources = [*sources, Chosen(name="graph", weight=1.0)]
    dialled = []
    for chosen in sources:
        weight = chosen.weight
        for kind, dial in ((CONTENT, content), (BEHAVIOUR, behaviour)):
            if chosen.name in kind:
                weight *= dial / sum(other.weight for other in sources if other.name in kind)
        if weight > 0:
            dialled.append(structs.replace(chosen, weight=weight))
    return dialled or [Chosen(name="popular", weight=1.0)]


def _weights(query: Query, tenant: TenantRef) -> tuple[float, float]:
    """The dial between text and photos of this request."""
    text, image = query.weights.text, query.weights.image
    if not text and not image:
        return tenant.generation.text_weight, tenant.generation.image_weight
    return text or 0.0, image or 0.0


def _check_weights(weights: Weights) -> list[FieldError]:
    content = [weight for weight in (weights.text, weights.image) if weight is not None]
    if content and not any(content) and not weights.behaviour:
        message = "At least one of text, image and behaviour must be above 0."
        return [FieldError(pointer="/weights", code="out_of_range", message=message)]
    return []


def _check_context(context: Mapping[str, Any]) -> list[FieldError]:
    if context and len(_encode(context)) > MAX_CONTEXT_BYTES:
        message = f"`context` may have {MAX_CONTEXT_BYTES:,} bytes; it is stored with every answer."
        return [FieldError(pointer="/context", code="out_of_range", message=message)]
    return []


def _check(
    names: Sequence[str] | Mapping[str, int], where: str, allowed: Sequence[str] | frozenset[str]
) -> list[FieldError]:
    return [
        FieldError(
            pointer=f"/{where}/{name if isinstance(names, Mapping) else at}",
            code="unknown_field",
            message=f"`{where}` cannot name {name!r}; it takes {', '.join(sorted(allowed))} and attributes.<name>.",
        )
        for at, name in enumerate(names)
        if name not in allowed and not (name.startswith("attributes.") and 11 < len(name) <= 139 and "\0" not in name)
    ]
