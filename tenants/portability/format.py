"""The form of a bundle: its files, what a line of each says, and what a reader refuses.

A tar of plain JSON, and of NDJSON packed with gzip; `manifest.json` comes last and names every file with its size and
sha256. The photos lie in it under their own sha256. docs/decisions/0011-tenant-bundle.md says why so.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct

from infra.errors import FieldError, Invalid, TooLarge
from tenants.catalog.item import AttributeName, AttributeValue, Id
from tenants.catalog.photos import MAX_PHOTO_BYTES, PHOTO_TYPES
from tenants.events.event import ContextValue, Quantity
from tenants.retention import Retention

FORMAT: Final = 1
"""Rises with every change that an older reader would get wrong."""

MANIFEST: Final = "manifest.json"
SHOP: Final = "shop.json"
GENERATION: Final = "generation.json"
PHOTOS: Final = "photos/"
NAME: Final = re.compile(r"(?:[a-z]+\.json|(?:[a-z]+/)?[a-z0-9_-]{1,40}\.ndjson\.gz|photos/[0-9a-f]{64})", re.ASCII)
"""What a file inside may be called: never a path that leads anywhere else."""

MAX_LINE_BYTES: Final = 1_000_000
MAX_JSON_BYTES: Final = 4_000_000
MAX_FILES: Final = 2_000
"""Besides the photos: a file for each month and each space."""
MAX_RATIO: Final = 200
"""How much larger than its packed form an honest file is at most."""


class BundleCorrupt(Invalid):
    """The file is not a bundle, was cut short, or is not what its manifest says."""

    code = "bundle_corrupt"
    title = "The bundle cannot be read"


class BundleTooNew(Invalid):
    """A newer Kindred has written the bundle."""

    code = "bundle_too_new"
    title = "The bundle is of a newer version"


class BundleTooLarge(TooLarge):
    """Something in the bundle is larger than anything that an export writes."""

    code = "bundle_too_large"
    title = "The bundle unpacks to too much"


class BundleMismatch(Invalid):
    """The bundle is whole, but this installation cannot serve from it."""

    code = "bundle_mismatch"
    title = "The bundle does not fit this installation"


def corrupt(file: str, line: int | None, what: str) -> BundleCorrupt:
    """The error of a line, or of a whole file."""
    where = file if line is None else f"{file}, line {line}"
    fault = FieldError(pointer=f"/{file}", code="corrupt", message=what, index=line)
    return BundleCorrupt(f"{where}: {what} Export the tenant again.", errors=[fault])


_Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
_Hex64 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Int2 = Annotated[int, Meta(ge=-32768, le=32767)]
_Int4 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Int8 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_No = Annotated[int, Meta(ge=1, le=2**31 - 2)]
_ShopperNo = Annotated[int, Meta(ge=1, le=2**62)]
_Count = Annotated[int, Meta(ge=0, le=2**62)]
_Share = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Moment = Annotated[datetime, Meta(tz=True)]
_Packed = Annotated[str, Meta(min_length=1, max_length=60_000)]
"""A vector: its numbers in half precision (IEEE 754), the high byte first, as base64."""
_Text = Annotated[str, Meta(max_length=1000)]
SpaceName = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]


class _Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line."""


class FileInfo(_Row, frozen=True, kw_only=True):
    """A file of the bundle as it lies there; `rows` are its lines, `unpacked` their bytes."""

    bytes: _Count
    sha256: _Hex64
    rows: _Count | None = None
    unpacked: _Count | None = None


class Manifest(_Row, frozen=True, kw_only=True):
    """What the bundle holds. `missing_photos`: rows name them, but their bytes were not to be had."""

    format: int
    kindred: _Text
    tenant_id: UUID
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    made_at: _Moment
    files: Annotated[dict[str, FileInfo], Meta(max_length=MAX_FILES)]
    photos: _Count
    photo_bytes: _Count
    missing_photos: _Count


class Shop(_Row, frozen=True, kw_only=True):
    """The tenant itself. `plan` is told, not taken: what it may do is the other installation's to say."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    plan: _Text
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")]
    created_at: _Moment
    next_item_no: _No
    next_shopper_no: _ShopperNo
    event_weights: dict[Annotated[str, Meta(min_length=1, max_length=64)], _Share] = {}
    retention: Retention = Retention()


class ItemIdRow(_Row, frozen=True, kw_only=True):
    """Every id that has a number, items that are gone and those that only events name included."""

    no: _No
    id: Id


_State = Annotated[int, Meta(ge=0, le=3)]


class ItemRow(_Row, frozen=True, kw_only=True):
    """An item, and where its encoding stands: 0 pending, 1 done, 2 failed, 3 absent. The hashes say of what."""

    no: _No
    item: dict[str, Any]
    text_hash: _Hex32
    image_hash: _Hex32
    text_state: _State
    image_state: _State
    text_version: _No
    image_version: _No
    text_reason: _Text | None
    image_reason: _Text | None
    created_at: _Moment
    updated_at: _Moment


class PhotoRow(_Row, frozen=True, kw_only=True):
    """An uploaded photo of an item; its bytes are `photos/<sha256>`."""

    item_no: _No
    position: Annotated[int, Meta(ge=0, le=9)]
    sha256: _Hex64
    content_type: Literal["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"]
    size: Annotated[int, Meta(ge=0, le=MAX_PHOTO_BYTES)]


assert PhotoRow.__annotations__["content_type"].__args__ == PHOTO_TYPES


class ShopperRow(_Row, frozen=True, kw_only=True):
    """A shopper's number; `bucket_key` decides the variant of experiments, `merged_into` the user a visitor became."""

    no: _ShopperNo
    kind: Literal["visitor", "user"]
    id: Annotated[str, Meta(min_length=1, max_length=128)]
    bucket_key: _Int8
    merged_into: _ShopperNo | None
    merged_at: _Moment | None
    created_at: _Moment


class UserRow(_Row, frozen=True, kw_only=True):
    """What the shop says of a user."""

    shopper_no: _ShopperNo
    segments: Annotated[list[Id], Meta(max_length=100)]
    attributes: Annotated[dict[AttributeName, AttributeValue], Meta(max_length=100)]
    seller_id: Id | None
    created_at: _Moment
    updated_at: _Moment


class SegmentRow(_Row, frozen=True, kw_only=True):
    """A saved filter over users."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    filter: dict[str, Any]
    created_at: _Moment
    updated_at: _Moment


class PlacementRow(_Row, frozen=True, kw_only=True):
    """A placement as it is stored."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    placement: dict[str, Any]
    created_at: _Moment
    updated_at: _Moment


_Ref = Annotated[str, Meta(min_length=1, max_length=128)]


class EventRow(_Row, frozen=True, kw_only=True):
    """One line of an event, with the shop's own ids."""

    ts: _Moment
    no: UUID
    line: _Int2
    type: Annotated[str, Meta(min_length=1, max_length=64)]
    shopper_kind: Literal["visitor", "user"] | None
    shopper_id: _Ref | None
    item_id: _Ref | None
    quantity: Quantity | None
    price: _Int8 | None
    value: _Int8 | None
    currency: Annotated[str, Meta(min_length=3, max_length=3)] | None
    order_id: _Ref | None
    recommendation_id: UUID | None
    position: _Int2 | None
    placement: _Ref | None
    session_id: _Ref | None
    event_id: _Ref | None
    rating: Annotated[float, Meta(ge=-1000, le=1000)] | None
    flags: _Int2
    context: Annotated[dict[Annotated[str, Meta(max_length=64)], ContextValue], Meta(max_length=50)] | None


class Space(_Row, frozen=True, kw_only=True):
    """A vector space that the generation serves from; `mean` and `dev` are its calibration."""

    name: SpaceName
    kind: Literal["text", "image"]
    dim: Annotated[int, Meta(ge=1, le=4000)]
    file: Annotated[str, Meta(pattern=r"^vectors/[0-9]{1,3}\.ndjson\.gz$(?!\n)")]
    mean: _Share
    dev: _Share


class Build(_Row, frozen=True, kw_only=True):
    """The precomputed neighbours that serve. `current`: they were found with the calibration that serves now."""

    build: _No
    watermark: _Moment
    items: _Count
    created_at: _Moment
    current: bool


class Generation(_Row, frozen=True, kw_only=True):
    """What the answers come from. `text`, `image`: names of spaces."""

    gen: _No
    text: SpaceName
    image: SpaceName
    spaces: Annotated[list[Space], Meta(min_length=2, max_length=8)]
    measured_items: _Count
    text_weight: _Share
    image_weight: _Share
    blend: dict[Annotated[str, Meta(max_length=64)], _Share] | None
    reason: _Text
    behaviour_model: _No | None
    build: Build | None
    created_at: _Moment


class VectorRow(_Row, frozen=True, kw_only=True):
    """An item's vector; `hash` says of what content."""

    no: _No
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{2,64}$")]
    vec: _Packed
    at: _Moment


class ModelRow(_Row, frozen=True, kw_only=True):
    """A trained model."""

    model: _No
    status: Literal["ready", "waiting", "failed", "retired"]
    code_version: _Text
    window_from: _Moment | None
    window_to: _Moment | None
    counts: dict[str, Any]
    content_hash: Annotated[str, Meta(max_length=128, pattern="^[0-9a-f]*$")] | None
    sha256: Annotated[str, Meta(max_length=128, pattern="^[0-9a-f]*$")] | None
    settings: dict[str, Any]
    metrics: dict[str, Any]
    readiness: list[Any]
    created_at: _Moment


class NeighbourRow(_Row, frozen=True, kw_only=True):
    """The nearest of an item, in order (infra/migrations/versions/0006)."""

    kind: Annotated[int, Meta(ge=1, le=20)]
    build: _No
    item_no: _No
    others: Annotated[list[_Int4], Meta(max_length=1000)]
    scores: Annotated[list[_Int2], Meta(max_length=1000)]


class BehaviourRow(_Row, frozen=True, kw_only=True):
    """An item's place in behaviour space."""

    model: _No
    item_no: _No
    own: _Share
    vec: _Packed


class ScoreRow(_Row, frozen=True, kw_only=True):
    """Popularity and trend of an item in a segment; model 0 is that of a shop without one."""

    model: Annotated[int, Meta(ge=0, le=2**31 - 2)]
    segment: Annotated[str, Meta(max_length=128)]
    item_no: _No
    popularity: _Share
    trend: _Share
    events: _Int4
    repurchase_days: _Share | None


class LikeShoppersRow(_Row, frozen=True, kw_only=True):
    """Shoppers of like taste."""

    model: _No
    shopper_no: _ShopperNo
    others: Annotated[list[_Int8], Meta(max_length=1000)]
    scores: Annotated[list[_Int2], Meta(max_length=1000)]
