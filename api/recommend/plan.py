"""plan: a request and the tenant's defaults -> what the later stages do."""

from collections.abc import Sequence
from datetime import datetime

from api.recommend.cursor import read_cursor
from api.recommend.types import FIELDS, Plan, Query, Source
from infra.decode import InvalidFields, summary
from infra.errors import FieldError
from tenants.filters import parse_filter
from tenants.lifecycle import TenantRef
from tenants.retrieval import SCALAR_FIELDS

_MANY = ("categories", "tags")


def plan(query: Query, tenant: TenantRef, *, now: datetime, secret: bytes) -> Plan:
    """Raises InvalidFields, InvalidFilter and BadCursor, each naming what to mend."""
    source, seeds = _source(query)
    text_weight, image_weight = _weights(query, tenant, source)
    faults = [
        *_check(query.same, "same", (*SCALAR_FIELDS, *_MANY)),
        *_check(query.max_per, "max_per", (*SCALAR_FIELDS, *_MANY)),
        *_check(query.fields, "fields", FIELDS),
    ]
    if source in ("similar", "visual") and text_weight + image_weight == 0:
        faults.append(
            FieldError(
                pointer="/weights", code="out_of_range", message="At least one of text and image must be above 0."
            )
        )
    if query.same and not seeds:
        faults.append(
            FieldError(pointer="/same", code="missing_field", message="`same` compares with seeds; send `item_ids`.")
        )
    if faults:
        raise InvalidFields(summary(faults), errors=faults)
    return Plan(
        tenant=tenant,
        now=now,
        source=source,
        count=query.count,
        seeds=seeds,
        text_weight=text_weight,
        image_weight=image_weight,
        filter=None if query.filter is None else parse_filter(query.filter),
        same=query.same,
        exclude_ids=query.exclude.ids,
        shown=[] if query.cursor is None else read_cursor(secret, tenant.tenant_id, query.cursor),
        max_per=query.max_per,
        min_score=query.min_score,
        out_of_stock="out_of_stock" in query.include,
        fallback=query.fallback == "popular",
        fields=query.fields,
        explain=query.explain,
        warnings=["`weights.behaviour` has no effect before there are events."] if query.weights.behaviour else [],
    )


def _source(query: Query) -> tuple[Source, Sequence[str]]:
    """Which source serves a strategy. Without seeds of its own a likeness starts from the session."""
    recent = list(dict.fromkeys(reversed(query.session.recent_items)))[:10]
    seeds = list(dict.fromkeys(query.item_ids)) or recent
    match query.strategy or "for_you":
        case "similar":
            return "similar", seeds
        case "visually_similar":
            return "visual", seeds
        case "new":
            return "new", []
        case "popular":
            return "popular", []
        case "for_you":
            return ("similar", seeds) if seeds else ("popular", [])


def _weights(query: Query, tenant: TenantRef, source: Source) -> tuple[float, float]:
    """The dial of this request; `visually_similar` is the image alone, whatever the dial says."""
    if source == "visual":
        return 0.0, 1.0
    text, image = query.weights.text, query.weights.image
    if text is None and image is None:
        return tenant.generation.text_weight, tenant.generation.image_weight
    return text or 0.0, image or 0.0


def _check(
    names: Sequence[str] | dict[str, int], where: str, allowed: Sequence[str] | frozenset[str]
) -> list[FieldError]:
    return [
        FieldError(
            pointer=f"/{where}/{name if isinstance(names, dict) else at}",
            code="unknown_field",
            message=f"`{where}` cannot name {name!r}; it takes {', '.join(sorted(allowed))} and attributes.<name>.",
        )
        for at, name in enumerate(names)
        if name not in allowed and not (name.startswith("attributes.") and 11 < len(name) <= 139)
    ]
