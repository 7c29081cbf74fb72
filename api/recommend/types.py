"""The vocabulary of all stages: what was asked, what is planned, what was found, what is answered."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, structs

from tenants.catalog.filters import Filter
from tenants.catalog.item import Id
from tenants.lifecycle import TenantRef
from tenants.placements import Strategy
from tenants.retrieval.wanted import Hit
from tenants.sources.scene import Asked
from tenants.sources.shopper import Mark

MAX_COUNT: Final = 100
MAX_SEEDS: Final = 20
MAX_RERANKED: Final = 500
MAX_CONTEXT_BYTES: Final = 4096
"""Of a request's `context`, encoded: as of an event's."""
FIELDS: Final = frozenset(
    {
        "group_id",
        "title",
        "description",
        "url",
        "images",
        "categories",
        "brand",
        "seller_id",
        "price",
        "sale_price",
        "currency",
        "availability",
        "gtin",
        "language",
        "tags",
        "attributes",
        "available_from",
        "expires_at",
    }
)
"""What `fields` may name, besides `attributes.<name>`."""

Count = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0, le=1000)]
_LEAST_WEIGHT: Final = 1e-6


class Weights(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The dial: how much each modality counts, relative to the others. Less than a millionth is 0."""

    text: Weight | None = None
    image: Weight | None = None
    behaviour: Weight | None = None

    def __post_init__(self) -> None:
        # The square of 1e-166 is no number of float8: PostgreSQL answers with an error.
        for name in self.__struct_fields__:
            if (getattr(self, name) or 1) < _LEAST_WEIGHT:
                structs.force_setattr(self, name, 0.0)


class Session(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What this shopper just looked at, oldest first; nothing of it is stored."""

    recent_items: Annotated[list[Id], Meta(max_length=100)] = []


class Exclude(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Items that must not be in the list.

    `seen`: anything this shopper did something with, `purchased` and `in_cart` as they say, and other variants of
    these; for as long as events are kept.
    """

    ids: Annotated[list[Id], Meta(max_length=1000)] = []
    seen: bool = False
    purchased: bool = False
    in_cart: bool = False


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/recommend`."""

    placement: Id | None = None
    strategy: Strategy | None = None
    user_id: Id | None = None
    visitor_id: Id | None = None
    item_ids: Annotated[list[Id], Meta(max_length=MAX_SEEDS)] = []
    session: Session = Session()
    count: Count = 10
    cursor: Annotated[str, Meta(max_length=16_384)] | None = None
    filter: dict[str, Any] | None = None
    exclude: Exclude = Exclude()
    same: Annotated[list[str], Meta(max_length=10)] = []
    max_per: dict[str, Annotated[int, Meta(ge=1, le=100)]] = {}
    weights: Weights = Weights()
    diversity: Share = 0.0
    min_score: Share = 0.0
    fallback: Literal["popular", "none"] = "popular"
    include: list[Literal["out_of_stock"]] = []
    fields: Annotated[list[str], Meta(max_length=40)] = []
    explain: bool = False
    context: dict[str, Any] = {}


class RerankQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/rerank`: these items, in the order in which they would be recommended."""

    item_ids: Annotated[list[Id], Meta(min_length=1, max_length=MAX_RERANKED)]
    user_id: Id | None = None
    visitor_id: Id | None = None
    session: Session = Session()
    weights: Weights = Weights()
    include: list[Literal["out_of_stock"]] = []
    fields: Annotated[list[str], Meta(max_length=40)] = []
    explain: bool = False


class Plan(Struct, frozen=True, kw_only=True):
    """A checked request with every default filled in; all that the later stages read.

    `strategy` is what was asked for; `asked` the sources with their weights, the shopper and the anchors of the list.
    `seeds` are the items that were named in the request and are missed when unknown. `degraded`: a source of the
    placement cannot be asked; `warnings` says which.
    """

    tenant: TenantRef
    now: datetime
    strategy: str
    asked: Asked
    count: int
    seeds: Sequence[str]
    filter: Filter | None
    exclude_ids: Sequence[str]
    shown: Sequence[int]
    max_per: Mapping[str, int]
    diversity: float
    out_of_stock: bool
    fallback: bool
    fields: Sequence[str]
    explain: bool
    placement: str | None = None
    degraded: bool = False
    warnings: Sequence[str] = ()

    @property
    def personal(self) -> bool:
        """Whether the list depends on who asks."""
        return self.asked.shopper is not None or bool(self.asked.recent)


class Candidate(Struct, frozen=True, kw_only=True):
    """One item that may be answered, the source that speaks most for it, and the share of each in its score."""

    hit: Hit
    source: str
    fallback: bool = False
    parts: Sequence[tuple[str, float]] = ()


class Slate(Struct, frozen=True, kw_only=True):
    """The final list of one answer.

    `seeds`: numbers of the items asked about; `warnings`: what went wrong; `mark`: what it knew of its shopper, None
    where it is for nobody.
    """

    candidates: Sequence[Candidate]
    fallback_used: bool
    unknown_seeds: Sequence[str]
    seeds: Sequence[int] = ()
    warnings: Sequence[str] = ()
    mark: Mark | None = None


class Because(Struct, frozen=True, kw_only=True):
    """The evidence: an item that this shopper met, or that was asked about."""

    item_id: str


class Served(Struct, frozen=True, kw_only=True):
    """One answer, and what it was made of: for the log and the caches."""

    plan: Plan
    slate: Slate
    answer: "Answer"


class Explain(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the score is made of: the parts add up to the score before it is cut to 0..1.

    A likeness has `text` and `image` parts, beside the plain cosines they come from: those to the item named in
    `because`, or to the mean of the items asked about. `behaviour` is what shoppers did, `popularity` what sells or is
    new, `attributes` what is described alike; a search has `words` and `vectors`. A part that played no role is absent.
    """

    text: float | None = None
    image: float | None = None
    behaviour: float | None = None
    popularity: float | None = None
    attributes: float | None = None
    because: Because | None = None
    text_similarity: float | None = None
    image_similarity: float | None = None
    words: float | None = None
    vectors: float | None = None


class RecommendedItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of an answer; `rank` begins at 1."""

    id: str
    score: float
    rank: int
    source: str
    fallback: bool
    fields: dict[str, Any] | None = None
    explain: Explain | None = None


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of `recommend` and of `search`."""

    recommendation_id: str
    items: list[RecommendedItem]
    model_version: str
    fallback_used: bool
    took_ms: float
    cursor: str | None
    warnings: list[str] = []
