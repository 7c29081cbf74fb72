"""Placements: a list's defaults under a name, so that a shop changes what a page shows without a release.

A placement fills in what a request leaves out, names the sources that its list
is blended from, and says which fields a request may set itself.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import ChangeFeed, record_change
from infra.db import Database, TenantId, driver
from infra.decode import InvalidFields, pointer_part, summary
from infra.errors import FieldError, Forbidden, NotFound
from infra.feedcache import FeedCache
from infra.outage import AWAY
from tenants.learned.models import ready_models
from tenants.usage import lock_stock
from tenants.versions import ALWAYS, Condition, etag_of, expect

Strategy = Literal[
    "for_you",
    "similar",
    "visually_similar",
    "bought_together",
    "also_viewed",
    "cart",
    "trending",
    "popular",
    "new",
    "recently_viewed",
    "buy_again",
    "on_sale",
]
"""What a request may ask for."""

SourceName = Literal[Strategy, "user_cf", "item_cf", "als", "graph", "attributes", "fresh"]
"""What a list may be blended from: every strategy, and the sources that only a placement names."""
SOURCE_NAMES: Final[tuple[SourceName, ...]] = get_args(SourceName)

MAX_PLACEMENTS: Final = 500
"""Of one tenant; all of them are held in memory while the tenant is served."""

REQUESTS_OWN: Final = frozenset({"placement", "user_id", "visitor_id", "session", "item_ids", "cursor", "context"})
"""Fields that say who asks, where and about what: a request always sets them itself."""

PlacementId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$(?!\n)")]


class PlacementNotFound(NotFound):
    """The tenant has no placement of that name."""

    code = "placement_not_found"
    title = "There is no such placement"


class PlacementRefused(Forbidden):
    """The key is narrowed to some placements, and this is none of them."""

    code = "placement_refused"
    title = "The API key is not for this placement"


class TooManyPlacements(Forbidden):
    """The tenant has as many placements as it may have."""

    code = "too_many_placements"
    title = "There are too many placements"


LEARNED: Final[frozenset[SourceName]] = frozenset(
    {"for_you", "graph", "als", "item_cf", "user_cf", "bought_together", "also_viewed", "cart"}
)
"""The sources that read a trained model, and so may name another than the one that serves."""

COMPARED: Final = frozenset({"brand", "categories", "tags", "price", "attributes"})
"""What `fields` of the source `attributes` may name, besides `attributes.<name>`."""

FieldWeight = Annotated[float, Meta(ge=0, le=1000)]


class PlacementSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One source of a list: its weight relative to the others, and how many of its candidates are looked at.

    `model`: the number of a trained model that a learned source reads instead of the one that serves, so that two of
    them can be compared, in one list or in two placements. `fields`, of the source `attributes` alone: which fields are
    compared, and how much each counts relative to the others; `attributes` stands for every attribute that is not named
    itself. Absent, the usual weights.
    """

    strategy: SourceName
    weight: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    model: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    fields: Annotated[dict[str, FieldWeight], Meta(max_length=64)] = {}


class Rank(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How candidates are put in order: by the blend of their sources.

    `model` is for trained rankers, of which there are none yet.
    """

    model: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Placement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is stored under a name.

    `defaults`: fields of `POST /v1/recommend` for requests that leave them out. `sources`: what the list is blended
    from; empty, the strategy decides. `override`: the fields that a request may set; absent, all of them.
    """

    defaults: dict[str, Any] = {}
    sources: Annotated[list[PlacementSource], Meta(max_length=20)] = []
    rank: Rank = Rank()
    rules: Literal["on", "off"] = "on"
    override: Annotated[list[str], Meta(max_length=100)] | None = None


class StoredPlacement(Struct, frozen=True, kw_only=True):
    """A placement with its name; `etag` changes with its content."""

    id: str
    placement: Placement
    etag: str
    created_at: datetime
    updated_at: datetime


def source_faults(placement: Placement) -> list[FieldError]:
    """What the fields' own limits cannot say of the sources: weights that sum to 0, the same source twice, fields that
    cannot be compared."""
    found = []
    if placement.sources and sum(source.weight for source in placement.sources) == 0:
        found.append(
            FieldError(pointer="/sources", code="out_of_range", message="At least one weight must be above 0.")
        )
    seen: set[tuple[str, str | None]] = set()
    for at, source in enumerate(placement.sources):
        key = (source.strategy, source.model)
        if key in seen:
            found.append(
                FieldError(
                    pointer=f"/sources/{at}/strategy", code="repeated_source", message="This source is named twice."
                )
            )
        seen.add(key)
        if source.model is not None and source.strategy not in LEARNED:
            message = f"The source reads no model; {', '.join(sorted(LEARNED))} do."
            found.append(FieldError(pointer=f"/sources/{at}/model", code="invalid_value", message=message))
        found += _field_faults(source, f"/sources/{at}/fields")
    return found


def _model_faults(placement: Placement, ready: Collection[int]) -> list[FieldError]:
    """Models that cannot serve now."""
    known = ", ".join(str(model) for model in sorted(ready)) or "none"
    found = [
        FieldError(
            pointer=f"/sources/{at}/model",
            code="unknown_model",
            message=f"No model {source.model!r} can serve; ready are: {known} (GET /v1/models).",
        )
        for at, source in enumerate(placement.sources)
        if source.model is not None and model_number(source.model) not in ready
    ]
    if placement.rank.model is not None:
        message = "No ranker has been trained; leave `rank` out."
        found.append(FieldError(pointer="/rank/model", code="unknown_model", message=message))
    return found


def model_number(name: str) -> int | None:
    """The number of the model of behaviour that a source names; None where it names nothing like one."""
    return int(name) if name.isascii() and name.isdigit() and len(name) < 10 else None


def _field_faults(source: PlacementSource, where: str) -> list[FieldError]:
    fields = source.fields
    if not fields:
        return []
    if source.strategy != "attributes":
        message = "Only the source `attributes` compares fields."
        return [FieldError(pointer=where, code="invalid_value", message=message)]
    found = [
        FieldError(
            pointer=f"{where}/{pointer_part(name)}",
            code="unknown_field",
            message=f"{name!r} cannot be compared; {', '.join(sorted(COMPARED))} and attributes.<name> can.",
        )
        for name in fields
        if name not in COMPARED and not (name.startswith("attributes.") and 11 < len(name) <= 139)
    ]
    if not any(weight for name, weight in fields.items() if name != "price"):
        # A price band alone is half the catalogue: it tells likes apart and finds none.
        message = "At least one weight besides that of the price must be above 0."
        found.append(FieldError(pointer=where, code="out_of_range", message=message))
    return found


def apply(placement: Placement, sent: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request with those that it leaves out filled in. Raises InvalidFields naming each refused one.

    A field that says the same as the placement is no override. `strategy` replaces the placement's sources.
    """
    if placement.override is not None:
        allowed = REQUESTS_OWN.union(placement.override)
        refused = [
            name
            for name, value in sent.items()
            if name not in allowed and not (name in placement.defaults and placement.defaults[name] == value)
        ]
        if refused:
            faults = [
                FieldError(
                    pointer=f"/{name}",
                    code="override_refused",
                    message=f"This placement does not let a request set `{name}`.",
                )
                for name in refused
            ]
            raise InvalidFields(summary(faults), errors=faults)
    return {**placement.defaults, **sent}


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Placement).decode
_COLUMNS: Final = "placement_id, doc::text as doc, created_at, updated_at"


def _stored(record: Any) -> StoredPlacement:
    placement = _decode(record["doc"])
    return StoredPlacement(
        id=record["placement_id"],
        placement=placement,
        etag=etag_of(_encode(placement)),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )


async def list_placements(conn: AsyncConnection, tenant_id: TenantId) -> list[StoredPlacement]:
    """All placements of a tenant by name."""
    raw = await driver(conn)
    records = await raw.fetch(
        f"select {_COLUMNS} from placements where tenant_id = $1 order by placement_id", tenant_id
    )
    return [_stored(record) for record in records]


async def get_placement(conn: AsyncConnection, tenant_id: TenantId, placement_id: str) -> StoredPlacement:
    """One placement. Raises PlacementNotFound."""
    raw = await driver(conn)
    record = await raw.fetchrow(
        f"select {_COLUMNS} from placements where tenant_id = $1 and placement_id = $2", tenant_id, placement_id
    )
    if record is None:
        raise _unknown(placement_id)
    return _stored(record)


async def put_placement(
    conn: AsyncConnection,
    tenant_id: TenantId,
    placement_id: str,
    placement: Placement,
    *,
    now: datetime,
    condition: Condition = ALWAYS,
) -> tuple[StoredPlacement, bool]:
    """Store a placement whole; True when it is new.

    Raises InvalidFields, TooManyPlacements, and what `expect` raises.
    """
    faults = source_faults(placement) + _model_faults(placement, await ready_models(conn, tenant_id))
    if faults:
        raise InvalidFields(summary(faults), errors=faults)
    # Nobody else may make it, or the last one that there is room for, after this has looked.
    await lock_stock(conn, tenant_id, "placements")
    raw = await driver(conn)
    found = await _lock(raw, tenant_id, placement_id)
    expect(condition, None if found is None else found.etag)
    if found is None:
        count = await raw.fetchval("select count(*) from placements where tenant_id = $1", tenant_id)
        if count >= MAX_PLACEMENTS:
            raise TooManyPlacements(f"A tenant has at most {MAX_PLACEMENTS} placements; delete one that is not used.")
    elif found.placement == placement:
        return found, False
    record = await raw.fetchrow(
        "insert into placements (tenant_id, placement_id, doc, created_at, updated_at) "
        "values ($1, $2, $3::text::jsonb, $4, $4) on conflict (tenant_id, placement_id) do update "
        f"set doc = excluded.doc, updated_at = excluded.updated_at returning {_COLUMNS}",
        tenant_id,
        placement_id,
        _encode(placement).decode(),
        now,
    )
    await record_change(conn, tenant_id, "placement", placement_id)
    return _stored(record), found is None


async def delete_placement(
    conn: AsyncConnection, tenant_id: TenantId, placement_id: str, *, condition: Condition = ALWAYS
) -> None:
    """Remove a placement. Raises PlacementNotFound, and what `expect` raises."""
    raw = await driver(conn)
    found = await _lock(raw, tenant_id, placement_id)
    if found is None:
        raise _unknown(placement_id)
    expect(condition, found.etag)
    await raw.execute("delete from placements where tenant_id = $1 and placement_id = $2", tenant_id, placement_id)
    await record_change(conn, tenant_id, "placement", placement_id)


async def _lock(raw: Any, tenant_id: TenantId, placement_id: str) -> StoredPlacement | None:
    record = await raw.fetchrow(
        f"select {_COLUMNS} from placements where tenant_id = $1 and placement_id = $2 for update",
        tenant_id,
        placement_id,
    )
    return None if record is None else _stored(record)


def _unknown(placement_id: str) -> PlacementNotFound:
    return PlacementNotFound(f"There is no placement {placement_id!r}; GET /v1/placements lists them.")


_ALL: Final = "select placement_id, doc::text as doc from placements where tenant_id = $2::uuid"


class Placements:
    """The placements of the tenants that this process serves, cached until the change feed says otherwise."""

    def __init__(self, database: Database, feed: ChangeFeed) -> None:
        self._database = database
        self._cache: FeedCache[TenantId, Mapping[str, Placement]] = FeedCache(
            feed, kinds=frozenset({"placement", "tenant"})
        )

    async def get(self, tenant_id: TenantId, placement_id: str) -> Placement:
        """One placement, as it was last known where the database is away. Raises PlacementNotFound."""
        known = self._cache.get(tenant_id)
        if known is None:
            mark = self._cache.mark
            try:
                records = await self._database.fetch_scoped(tenant_id, _ALL)
            except AWAY:
                known = self._cache.get_stale(tenant_id)
                if known is None:
                    raise
            else:
                known = {record["placement_id"]: _decode(record["doc"]) for record in records}
                self._cache.put(tenant_id, known, tenant_id=tenant_id, mark=mark)
        found = known.get(placement_id)
        if found is None:
            raise _unknown(placement_id)
        return found
