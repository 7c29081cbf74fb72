"""What a tenant is: its name and plan, its shard, and the generation of vectors that serves it."""

from msgspec import Struct

from infra.db import TenantId


class SpaceRef(Struct, frozen=True, kw_only=True):
    """A vector space as one tenant sees it: `mean` and `dev` are of the cosine of random pairs of its items."""

    space_id: int
    name: str
    dim: int
    mean: float
    dev: float


class Generation(Struct, frozen=True, kw_only=True):
    """The immutable set of spaces that answers come from.

    The text half of a fused row is of `text`, or of `ngrams` (the same size)
    where the text encoder does not cover the item's language.
    """

    gen: int
    layout_id: int
    text: SpaceRef
    ngrams: SpaceRef
    image: SpaceRef
    text_weight: float
    image_weight: float


class TenantRef(Struct, frozen=True, kw_only=True):
    """What the paths of one tenant need to know of it; dropped from caches by the change feed."""

    tenant_id: TenantId
    name: str
    shard: int
    currency: str
    generation: Generation
