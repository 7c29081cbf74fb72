"""The encode queue and the vectors it fills: which items wait, and what was made of them.

The pending state of an item is the queue (DECISIONS 20). A worker claims a few items in one short transaction,
encodes them in none, and stores the vectors in a third that names the version it has read: what changed meanwhile
stays pending, what was deleted is skipped.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import numpy as np
from msgspec import Struct, json
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_items
from infra.db import TenantId, driver
from tenants.catalog.document import item_text
from tenants.catalog.item import Item
from tenants.catalog.photos import by_position
from tenants.lifecycle import TenantNotFound
from tenants.vectors.form import halfvec_text
from tenants.vectors.generations import Layout
from tenants.vectors.shards import hold_shard

Modality = Literal["text", "image"]

PENDING: Final = 0
DONE: Final = 1
FAILED: Final = 2
ABSENT: Final = 3

TEXT_LEASE: Final = timedelta(seconds=30)
"""After this a claimed text may be claimed again: its worker is taken for dead."""
PHOTO_LEASE: Final = timedelta(minutes=2)


class PendingText(Struct, frozen=True, kw_only=True):
    """A claimed item's text, "" where it has none. `attempts` counts the claims of this version, this one too."""

    item_no: int
    version: int
    attempts: int
    text: str
    language: str | None
    content_hash: bytes


class PhotoSource(Struct, frozen=True, kw_only=True):
    """Where one photo of an item is: an address, or the hash of an upload."""

    url: str | None = None
    sha256: str | None = None


class PendingPhotos(Struct, frozen=True, kw_only=True):
    """A claimed item's photos in their order."""

    item_no: int
    version: int
    attempts: int
    photos: list[PhotoSource]


class EncodedHalf(Struct, frozen=True, kw_only=True):
    """What became of one modality of an item.

    `vectors` names every space that the item now has a vector in; None leaves the one that is stored, which is of
    the same content. `due`: not to be claimed before, for a state that stays pending.
    """

    item_no: int
    version: int
    state: int
    reason: str | None = None
    due: datetime | None = None
    content_hash: bytes = b""
    vectors: dict[int, NDArray[np.float32] | None] = {}


_TENANTS = """
with recursive waiting as (
    (select i.tenant_id from items i where i.{modality}_state = 0 order by i.tenant_id limit 1)
    union all
    select (select i.tenant_id from items i where i.{modality}_state = 0 and i.tenant_id > w.tenant_id
        order by i.tenant_id limit 1)
    from waiting w where w.tenant_id is not null
)
select w.tenant_id from waiting w where w.tenant_id is not null
"""


async def list_waiting(conn: AsyncConnection, modality: Modality) -> list[TenantId]:
    """Tenants with something pending, in any order; one index probe each. `conn` is a system session."""
    records = await (await driver(conn)).fetch(_TENANTS.format(modality=modality))
    return [TenantId(record["tenant_id"]) for record in records]


async def count_pending(conn: AsyncConnection, tenant_id: TenantId | None, modality: Modality) -> int:
    """How many items wait: of one tenant, or of all (in a system session)."""
    raw = await driver(conn)
    if tenant_id is None:
        count: int = await raw.fetchval(f"select count(*) from items i where i.{modality}_state = 0")
    else:
        count = await raw.fetchval(
            f"select count(*) from items i where i.tenant_id = $1 and i.{modality}_state = 0", tenant_id
        )
    return count


# Materialised: as a plain subquery the planner may run it once per outer row, and each time it would skip what it
# has locked itself and claim the next ones.
_CLAIM = """
with claimed as materialized (
    select c.item_no from items c where c.tenant_id = $1 and c.{modality}_state = 0 and c.{modality}_due <= $2
    order by c.item_no limit $4 for update skip locked
)
update items i set {modality}_due = $2 + $3::interval, {modality}_attempts = least(i.{modality}_attempts + 1, 1000)
from claimed where i.tenant_id = $1 and i.item_no = claimed.item_no
returning i.item_no, i.doc::text as doc, i.{modality}_version as version, i.{modality}_attempts as attempts,
    i.text_hash
"""


async def _claim(
    conn: AsyncConnection, tenant_id: TenantId, modality: Modality, limit: int, now: datetime, lease: timedelta
) -> list[Any]:
    records = await (await driver(conn)).fetch(_CLAIM.format(modality=modality), tenant_id, now, lease, limit)
    return sorted(records, key=lambda record: record["item_no"])


async def claim_text(conn: AsyncConnection, tenant_id: TenantId, limit: int, now: datetime) -> list[PendingText]:
    """The next `limit` texts that nobody has claimed, in the order of their numbers."""
    claimed = []
    for record in await _claim(conn, tenant_id, "text", limit, now, TEXT_LEASE):
        item = json.decode(record["doc"], type=Item)
        claimed.append(
            PendingText(
                item_no=record["item_no"],
                version=record["version"],
                attempts=record["attempts"],
                text=item_text(item),
                language=item.language,
                content_hash=record["text_hash"],
            )
        )
    return claimed


class _Photos(Struct):
    """The part of a document that names photos."""

    images: list[str] = []


async def claim_photos(conn: AsyncConnection, tenant_id: TenantId, limit: int, now: datetime) -> list[PendingPhotos]:
    """The photos of the next `limit` items that nobody has claimed, in the order of their numbers."""
    records = await _claim(conn, tenant_id, "image", limit, now, PHOTO_LEASE)
    if not records:
        return []
    uploads: dict[int, dict[int, PhotoSource]] = {}
    for item_no, position, sha256 in await (await driver(conn)).fetch(
        "select item_no, position, encode(sha256, 'hex') from item_photos "
        "where tenant_id = $1 and item_no = any($2::int4[])",
        tenant_id,
        [record["item_no"] for record in records],
    ):
        uploads.setdefault(item_no, {})[position] = PhotoSource(sha256=sha256)
    return [
        PendingPhotos(
            item_no=record["item_no"],
            version=record["version"],
            attempts=record["attempts"],
            photos=by_position(
                [PhotoSource(url=url) for url in json.decode(record["doc"], type=_Photos).images],
                uploads.get(record["item_no"], {}),
            ),
        )
        for record in records
    ]


async def known_hashes(
    conn: AsyncConnection, tenant_id: TenantId, item_nos: Sequence[int], spaces: Sequence[int]
) -> dict[tuple[int, int], bytes]:
    """(item, space) -> content hash of the vector that is stored, so that no content is encoded twice."""
    records = await (await driver(conn)).fetch(
        "select item_no, space_id, content_hash from item_vectors "
        "where tenant_id = $1 and space_id = any($2::int2[]) and item_no = any($3::int4[])",
        tenant_id,
        list(spaces),
        list(item_nos),
    )
    return {(record["item_no"], record["space_id"]): record["content_hash"] for record in records}


# In the order of numbers, as every writer of items locks them.
_LOCK = "select 1 from items where tenant_id = $1 and item_no = any($2::int4[]) order by item_no for update"

_FINISH = """
update items i set {modality}_state = r.state, {modality}_reason = r.reason,
    {modality}_due = coalesce(r.due, '-infinity'),
    {modality}_attempts = case when r.state = 0 then i.{modality}_attempts else 0 end
from unnest($2::int4[], $3::int4[], $4::int2[], $5::text[], $6::timestamptz[]) r(item_no, version, state, reason, due)
where i.tenant_id = $1 and i.item_no = r.item_no and i.{modality}_version = r.version and i.{modality}_state = 0
returning i.item_no
"""

# A vector that was not made of the present content goes, in every space that is not kept up: were it left, a later
# switch back would serve it. Where nobody can renew what serves now, the old one is better than none.
_FORGET = """
delete from item_vectors v where v.tenant_id = $1 and v.item_no = any($2::int4[])
and v.space_id in (select s.space_id from spaces s where s.kind = $3 and s.space_id <> all($4::int2[]))
and (v.item_no, v.space_id) not in (select * from unnest($5::int4[], $6::int2[]))
"""

_KEEP = """
insert into item_vectors (tenant_id, space_id, item_no, content_hash, vec)
select $1, r.space_id, r.item_no, r.content_hash, r.vec::halfvec
from unnest($2::int2[], $3::int4[], $4::bytea[], $5::text[]) r(space_id, item_no, content_hash, vec)
on conflict (tenant_id, space_id, item_no) do update
set content_hash = excluded.content_hash, vec = excluded.vec, encoded_at = excluded.encoded_at
"""

# Made of both halves as they are stored now: the lock on the item lets only one encoder of it get here at a time.
_FUSE = """
with half as materialized (
    select n.item_no, t.space_id as text_space, t.vec as text, b.space_id as image_space, b.vec as image
    from unnest($2::int4[]) n(item_no)
    left join lateral (
        select v.space_id, v.vec from item_vectors v where v.tenant_id = $1 and v.item_no = n.item_no
        and v.space_id in ({text}, {ngrams}) order by v.space_id <> {text} limit 1) t on true
    left join item_vectors b on b.tenant_id = $1 and b.item_no = n.item_no and b.space_id = {image}
), gone as (
    delete from fused_vectors f using half h where f.shard = {shard} and f.tenant_id = $1 and f.layout_id = {layout}
    and f.item_no = h.item_no and h.text_space is null and h.image_space is null
)
insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec)
select {shard}, $1, {layout}, h.item_no, coalesce(h.text_space, 0), coalesce(h.image_space, 0),
    coalesce(h.text, array_fill(0, array[{text_dim}])::halfvec)
    || coalesce(h.image, array_fill(0, array[{image_dim}])::halfvec)
from half h where h.text_space is not null or h.image_space is not null
on conflict (tenant_id, layout_id, item_no, shard) do update
set text_space = excluded.text_space, image_space = excluded.image_space, vec = excluded.vec
"""

_UNFUSE = """
delete from fused_vectors f where f.shard = {shard} and f.tenant_id = $1 and f.item_no = any($2::int4[])
and f.layout_id <> all($3::int2[])
"""


async def store_halves(
    conn: AsyncConnection,
    tenant_id: TenantId,
    modality: Modality,
    halves: Sequence[EncodedHalf],
    layouts: Sequence[Layout],
    *,
    untouched: Sequence[Layout] = (),
) -> list[int]:
    """Store what was encoded; the numbers of the items that it still was right for.

    `layouts` are kept up (their fused rows are written), `untouched` are served from although nobody here can
    encode for them. All others lose these items' vectors.
    """
    raw = await driver(conn)
    try:
        shard = await hold_shard(conn, tenant_id)  # before any lock on items
    except TenantNotFound:
        return []
    await raw.execute(_LOCK, tenant_id, [half.item_no for half in halves])
    records = await raw.fetch(
        _FINISH.format(modality=modality),
        tenant_id,
        [half.item_no for half in halves],
        [half.version for half in halves],
        [half.state for half in halves],
        [half.reason for half in halves],
        [half.due for half in halves],
    )
    current = {record["item_no"] for record in records}
    if not current:
        return []
    numbers = sorted(current)
    stored = [half for half in halves if half.item_no in current]
    spared = {space for layout in untouched for space in _spaces(layout, modality)}
    spared -= {space for layout in layouts for space in _spaces(layout, modality)}
    kept = [(half.item_no, space_id) for half in stored for space_id in half.vectors]
    await raw.execute(
        _FORGET, tenant_id, numbers, modality, list(spared), [item for item, _ in kept], [space for _, space in kept]
    )
    fresh = [
        (space_id, half.item_no, half.content_hash, halfvec_text(vector))
        for half in stored
        for space_id, vector in half.vectors.items()
        if vector is not None
    ]
    if fresh:
        columns = [list(column) for column in zip(*fresh, strict=True)]
        await raw.execute(_KEEP, tenant_id, *columns)
    for layout in layouts:
        await fuse(raw, tenant_id, shard, layout, numbers)
    served = [layout.layout_id for layout in (*layouts, *untouched)]
    await raw.execute(_UNFUSE.format(shard=shard), tenant_id, numbers, served)
    await record_items(conn, tenant_id, [])
    return numbers


async def fuse(raw: Any, tenant_id: TenantId, shard: int, layout: Layout, item_nos: Sequence[int]) -> None:
    """Write the fused rows of these items anew, of their vectors as they are stored. The caller holds the shard."""
    await raw.execute(
        _FUSE.format(
            shard=shard,
            layout=int(layout.layout_id),
            text=int(layout.text_space),
            ngrams=int(layout.ngrams_space),
            image=int(layout.image_space),
            text_dim=int(layout.text_dim),
            image_dim=int(layout.image_dim),
        ),
        tenant_id,
        list(item_nos),
    )


def _spaces(layout: Layout, modality: Modality) -> list[int]:
    return [layout.text_space, layout.ngrams_space] if modality == "text" else [layout.image_space]
