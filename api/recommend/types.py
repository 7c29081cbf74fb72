"""The vocabulary of all stages: what was asked, what is planned, what was found, what is answered."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from tenants.filters import Filter
from tenants.item import Id
from tenants.lifecycle import TenantRef
from tenants.retrieval import Hit

Strategy = Literal["for_you", "similar", "visually_similar", "popular", "new"]
Source = Literal["similar", "visual", "popular", "new", "search"]

MAX_COUNT: Final = 100
MAX_SEEDS: Final = 20
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


class Weights(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The dial: how much each modality counts, relative to the others."""

    text: Weight | None = None
    image: Weight | None = None
    behaviour: Weight | None = None


class Session(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What this shopper just looked at, oldest first; nothing of it is stored."""

    recent_items: Annotated[list[Id], Meta(max_length=100)] = []


class Exclude(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Items that must not be in the list."""

    ids: Annotated[list[Id], Meta(max_length=1000)] = []


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/recommend`."""

    placement: Id | None = None
    user_id: Id | None = None
    visitor_id: Id | None = None
    strategy: Strategy | None = None
    item_ids: Annotated[list[Id], Meta(max_length=MAX_SEEDS)] = []
    session: Session = Session()
    count: Count = 10
    cursor: Annotated[str, Meta(max_length=16_384)] | None = None
    filter: dict[str, Any] | None = None
    exclude: Exclude = Exclude()
    same: Annotated[list[str], Meta(max_length=10)] = []
    max_per: dict[str, Annotated[int, Meta(ge=1, le=100)]] = {}
    weights: Weights = Weights()
    min_score: Share = 0.0
    fallback: Literal["popular", "none"] = "popular"
    include: list[Literal["out_of_stock"]] = []
    fields: Annotated[list[str], Meta(max_length=40)] = []
    explain: bool = False


class Plan(Struct, frozen=True, kw_only=True):
    """A checked request with every default filled in; all that the later stages read."""

    tenant: TenantRef
    now: datetime
    source: Source
    count: int
    seeds: Sequence[str]
    text_weight: float
    image_weight: float
    filter: Filter | None
    same: Sequence[str]
    exclude_ids: Sequence[str]
    shown: Sequence[int]
    max_per: Mapping[str, int]
    min_score: float
    out_of_stock: bool
    fallback: bool
    fields: Sequence[str]
    explain: bool
    warnings: Sequence[str] = ()


class Candidate(Struct, frozen=True, kw_only=True):
    """One item that may be answered, and where it came from."""

    hit: Hit
    source: Source
    fallback: bool = False


class Slate(Struct, frozen=True, kw_only=True):
    """The final list of one answer."""

    candidates: Sequence[Candidate]
    fallback_used: bool
    unknown_seeds: Sequence[str]


class Served(Struct, frozen=True, kw_only=True):
    """One answer, and what it was made of: for the log and the caches."""

    plan: Plan
    slate: Slate
    answer: "Answer"


class Explain(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the score is made of: the parts add up to the score before it is cut to 0..1.

    A likeness has `text` and `image` parts, beside the plain cosines they come
    from; a search has `words` and `vectors`. A part that played no role is absent.
    """

    text: float | None = None
    image: float | None = None
    text_similarity: float | None = None
    image_similarity: float | None = None
    words: float | None = None
    vectors: float | None = None


class RecommendedItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of an answer; `rank` begins at 1."""

    id: str
    score: float
    rank: int
    source: Source
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
