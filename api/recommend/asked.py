"""What was asked: the body of a request and the placement that it names, as one query."""

from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from api.recommend.cache import Key, Level
from api.recommend.types import Query, RerankQuery
from infra.db import TenantId
from infra.decode import convert, decode_json, plain_json
from tenants.lifecycle import TenantRef
from tenants.placements import Placement, PlacementRefused, Placements, PlacementSource, SourceName, apply

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_NO_SESSION: Final = Query().session

# The same for everybody who asks, and the same for everybody who asks of these items.
_OF_THE_SHOP: Final[frozenset[SourceName]] = frozenset({"trending", "popular", "new", "on_sale"})
_OF_ITEMS: Final[frozenset[SourceName]] = frozenset(
    {
        "similar",
        "visually_similar",
        "bought_together",
        "also_viewed",
        "cart",
        "item_cf",
        "graph",
        "attributes",
    }
)


def shopper_of(query: Query | RerankQuery) -> tuple[int, str] | None:
    """Kind (0 visitor, 1 user) and id of the shopper that a request names."""
    if query.user_id is not None:
        return 1, query.user_id
    return None if query.visitor_id is None else (0, query.visitor_id)


class Asked(Struct, frozen=True, kw_only=True):
    """A request with its placement's defaults filled in. `sources` is empty where the strategy decides."""

    query: Query
    placement: Placement | None = None
    sources: tuple[PlacementSource, ...] = ()

    @property
    def shopper(self) -> tuple[int, str] | None:
        """Kind (0 visitor, 1 user) and id of who is shown the list, where that is said."""
        return shopper_of(self.query)


async def read_asked(
    placements: Placements, tenant_id: TenantId, body: bytes, *, allowed: frozenset[str] | None
) -> Asked:
    """Decode a body. `allowed`: the placements that the key is narrowed to, None for any request.

    Raises MalformedJson, InvalidFields, PlacementNotFound, PlacementRefused.
    """
    return await placed(placements, tenant_id, decode_json(body, Query), body, allowed=allowed)


async def placed(
    placements: Placements,
    tenant_id: TenantId,
    query: Query,
    body: bytes | msgspec.Raw | None = None,
    *,
    allowed: frozenset[str] | None,
) -> Asked:
    """The same of a query that is decoded; `body` is needed where it may name a placement."""
    if allowed is not None and query.placement not in allowed:
        raise PlacementRefused(
            "This key is for the placements "
            + (", ".join(sorted(allowed)) or "none")
            + (f", not for {query.placement!r}." if query.placement is not None else "; name one of them.")
        )
    if query.placement is None or body is None:
        return Asked(query=query)
    placement = await placements.get(tenant_id, query.placement)
    sent = plain_json(body)
    assert isinstance(sent, dict)
    if allowed is not None and "strategy" in sent:
        raise PlacementRefused("This key is for placements as they are; leave `strategy` out.")
    merged = apply(placement, sent)
    return Asked(
        query=convert(merged, Query),
        placement=placement,
        sources=() if "strategy" in sent else tuple(placement.sources),
    )


def logged(query: Query) -> bytes:
    """The request as the log keeps it and the caches know it: without who asks, and without the session."""
    if query.user_id is not None or query.visitor_id is not None or query.session is not _NO_SESSION:
        query = structs.replace(query, user_id=None, visitor_id=None, session=_NO_SESSION)
    return _encode(query)


def strategy_of(asked: Asked) -> str:
    """What a list is called in the log: its strategy, or the sources that it is blended from."""
    names = [f"{each.strategy}@{each.model}" if each.model else each.strategy for each in asked.sources]
    return "+".join(names) or asked.query.strategy or "for_you"


def key_of(tenant: TenantRef, asked: Asked, request: bytes) -> Key:
    """What an answer that all shoppers share is kept under; `request` is the query as `logged` writes it."""
    # The sources of a placement are set aside by a request's strategy, of which the query alone does not tell.
    what = b"%b %b" % (strategy_of(asked).encode(), request) if asked.placement is not None else request
    return tenant.tenant_id, tenant.generation.gen, what


def own_key_of(tenant: TenantRef, asked: Asked, request: bytes) -> Key:
    """What a shopper's own answer is kept under."""
    assert asked.shopper is not None
    tenant_id, gen, what = key_of(tenant, asked, request)
    kind, name = asked.shopper
    return tenant_id, gen, b"%b %d %b" % (what, kind, name.encode())


def level_of(asked: Asked) -> Level | None:
    """Where an answer may be kept; "shoppers": for this shopper alone; None for one of this request alone."""
    query = asked.query
    if query.session.recent_items or query.cursor is not None:
        return None
    exclude = query.exclude
    if asked.shopper is not None and exclude.seen:
        return None  # of years of views no mark is kept
    if asked.shopper is not None and (exclude.purchased or exclude.in_cart):
        return "shoppers"
    names: list[Any] = [source.strategy for source in asked.sources] or [query.strategy or "for_you"]
    if not query.item_ids and _OF_THE_SHOP.issuperset(names):
        return "lists"
    if asked.shopper is None or (query.item_ids and (_OF_THE_SHOP | _OF_ITEMS).issuperset(names)):
        return "answers"
    return "answers" if _OF_THE_SHOP.issuperset(names) else "shoppers"
