"""A tenant out of the database: every file of the bundle but the photos, of one moment, in a folder.

One transaction that sees one snapshot reads it all, a few hundred rows at a time, so neither the tenant's size nor its
writers matter. Then the bundle is streamed from the folder and the blob store.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from infra.blob import BlobMissing, BlobStore
from infra.db import Database, TenantId, driver
from infra.partitions import floor_to, next_of
from tenants.catalog.photos import photo_key
from tenants.learned.neighbours import RECIPE
from tenants.lifecycle import NGRAMS_PREFIX, TenantNotFound
from tenants.portability.archive import FileEntry, end, header, padding
from tenants.portability.format import FORMAT, GENERATION, MANIFEST, PHOTOS, SHOP, FileInfo, Manifest

_ROWS: Final = 250
_PIECE: Final = 1024 * 1024

# Of every table what a line says; $1 is the tenant. A new table of tenants is named here, or in LEFT_OUT.
_LINES: Final[dict[str, str]] = {
    "item_ids": """
        select jsonb_build_object('no', item_no, 'id', external_id) from item_ids where tenant_id = $1 order by item_no
        """,
    "items": """
        select jsonb_build_object('no', item_no, 'item', doc, 'text_hash', encode(text_hash, 'hex'),
            'image_hash', encode(image_hash, 'hex'), 'text_state', text_state, 'image_state', image_state,
            'text_version', text_version, 'image_version', image_version, 'text_reason', text_reason,
            'image_reason', image_reason, 'created_at', created_at, 'updated_at', updated_at)
        from items where tenant_id = $1 order by item_no
        """,
    "photos": """
        select jsonb_build_object('item_no', item_no, 'position', position, 'sha256', encode(sha256, 'hex'),
            'content_type', content_type, 'size', size)
        from item_photos where tenant_id = $1 order by item_no, position
        """,
    "shoppers": """
        select jsonb_build_object('no', shopper_no, 'kind', case kind when 1 then 'user' else 'visitor' end,
            'id', external_id, 'bucket_key', bucket_key, 'merged_into', merged_into, 'merged_at', merged_at,
            'created_at', created_at)
        from shopper_ids where tenant_id = $1 order by shopper_no
        """,
    "users": """
        select jsonb_build_object('shopper_no', shopper_no, 'segments', segments, 'attributes', attributes,
            'seller_id', seller_id, 'created_at', created_at, 'updated_at', updated_at)
        from users where tenant_id = $1 order by shopper_no
        """,
    "segments": """
        select jsonb_build_object('id', segment_id, 'filter', filter, 'created_at', created_at,
            'updated_at', updated_at)
        from segments where tenant_id = $1 order by segment_id
        """,
    "placements": """
        select jsonb_build_object('id', placement_id, 'placement', doc, 'created_at', created_at,
            'updated_at', updated_at)
        from placements where tenant_id = $1 order by placement_id
        """,
    "models": """
        select jsonb_build_object('model', model, 'status', status, 'code_version', code_version,
            'window_from', window_from, 'window_to', window_to, 'counts', counts,
            'content_hash', encode(content_hash, 'hex'), 'sha256', encode(sha256, 'hex'), 'settings', settings,
            'metrics', metrics, 'readiness', readiness, 'created_at', created_at)
        from behaviour_models where tenant_id = $1 and status <> 'training' order by model
        """,
    "learned/neighbours": """
        select jsonb_build_object('kind', n.kind, 'build', n.build, 'item_no', n.item_no, 'others', n.others,
            'scores', n.scores)
        from item_neighbours n where n.tenant_id = $1 and case when n.kind in (1, 2)
            then n.build = (select g.neighbours_build from generations g join tenants t on t.tenant_id = $1
                and t.active_gen = g.gen where g.tenant_id = $1)
            else n.build in (select m.model from behaviour_models m where m.tenant_id = $1 and m.status = 'ready') end
        order by n.kind, n.build, n.item_no
        """,
    "learned/behaviour": """
        select jsonb_build_object('model', b.model, 'item_no', b.item_no, 'own', b.own,
            'vec', translate(encode(substr(halfvec_send(b.vec), 5), 'base64'), E'\\n', ''))
        from behaviour_vectors b join behaviour_models m on m.tenant_id = $1 and m.model = b.model
            and m.status = 'ready'
        where b.tenant_id = $1 order by b.model, b.item_no
        """,
    "learned/scores": """
        select jsonb_build_object('model', s.model, 'segment', s.segment, 'item_no', s.item_no,
            'popularity', s.popularity, 'trend', s.trend, 'events', s.events, 'repurchase_days', s.repurchase_days)
        from item_scores s where s.tenant_id = $1 and (s.model = 0 or s.model in (
            select m.model from behaviour_models m where m.tenant_id = $1 and m.status = 'ready'))
        order by s.model, s.segment, s.item_no
        """,
    "learned/shoppers": """
        select jsonb_build_object('model', n.model, 'shopper_no', n.shopper_no, 'others', n.others, 'scores', n.scores)
        from shopper_neighbours n join behaviour_models m on m.tenant_id = $1 and m.model = n.model
            and m.status = 'ready'
        where n.tenant_id = $1 order by n.model, n.shopper_no
        """,
}

LEFT_OUT: Final[dict[str, str]] = {
    "answers": "what was answered is of the installation that answered",
    "audit": "who did what on this installation",
    "audit_seals": "a chain of this installation",
    "audit_unsealed": "a chain of this installation",
    "api_keys": "no secret leaves the installation; keys are made anew",
    "changes": "a feed between the processes of one installation",
    "erasures": "hashes under this installation's secret; who was erased is not in the bundle",
    "event_seen": "hashes under this installation's secret, of eight days",
    "fused_vectors": "made of the vectors",
    "idempotency": "answers of one day, encrypted",
    "import_seen": "of an import under way",
    "item_attrs": "made of the items",
    "item_facets": "made of the items",
    "item_minutes": "counts of three days",
    "item_text": "made of the items",
    "job_faults": "reports on work of this installation",
    "jobs": "work of this installation",
    "quota_notices": "of the plan that it has on this installation",
    "rate_buckets": "how much was asked of this installation lately",
    "usage_months": "what it used of its plan on this installation",
    "visitor_secrets": "no secret leaves the installation; they are made anew",
    "webhook_attempts": "what this installation has sent",
    "webhook_deliveries": "what this installation has sent",
    "webhook_endpoints": "no secret leaves the installation; webhooks are made anew",
    "webhook_events": "what this installation has sent",
    "webhook_notices": "what happened on this installation",
}
"""Tables of tenants that no bundle holds, and why."""

INCLUDED: Final = frozenset(
    {
        "behaviour_models",
        "behaviour_vectors",
        "events",
        "generations",
        "item_ids",
        "item_neighbours",
        "item_photos",
        "item_scores",
        "item_vectors",
        "items",
        "neighbour_builds",
        "placements",
        "segments",
        "shopper_counters",
        "shopper_ids",
        "shopper_neighbours",
        "tenant_counters",
        "tenants",
        "users",
    }
)
"""Tables of tenants that a bundle holds."""

_EVENTS: Final = """
select jsonb_build_object('ts', e.ts, 'no', e.event_no, 'line', e.line, 'type', e.type,
    'shopper_kind', case s.kind when 1 then 'user' when 0 then 'visitor' end, 'shopper_id', s.external_id,
    'item_id', d.external_id, 'quantity', e.quantity, 'price', e.price, 'value', e.value, 'currency', e.currency,
    'order_id', e.order_id, 'recommendation_id', e.answer_id, 'position', e.position, 'placement', e.placement,
    'session_id', e.session_id, 'event_id', e.event_id, 'rating', e.rating, 'flags', e.flags, 'context', e.context)
from events e left join shopper_ids s on s.tenant_id = $1 and s.shopper_no = e.shopper_no
left join item_ids d on d.tenant_id = $1 and d.item_no = e.item_no
where e.tenant_id = $1 and e.ts >= $2 and e.ts < $3 order by e.ts, e.event_no, e.line
"""

_VECTORS: Final = """
select jsonb_build_object('no', v.item_no, 'hash', encode(v.content_hash, 'hex'),
    'vec', translate(encode(substr(halfvec_send(v.vec), 5), 'base64'), E'\\n', ''), 'at', v.encoded_at)
from item_vectors v where v.tenant_id = $1 and v.space_id = $2 order by v.item_no
"""

_SHOP: Final = """
select jsonb_build_object('name', t.name, 'plan', t.plan, 'currency', t.currency, 'created_at', t.created_at,
    'next_item_no', c.next_item_no, 'next_shopper_no', coalesce(s.next_shopper_no, 1),
    'event_weights', coalesce(t.settings -> 'event_weights', '{}'),
    'retention', coalesce(t.settings -> 'retention', '{}'))::text
from tenants t join tenant_counters c on c.tenant_id = $1 left join shopper_counters s on s.tenant_id = $1
where t.tenant_id = $1 and t.deleted_at is null
"""

_GENERATION: Final = """
select g.gen, g.reason, g.created_at, g.behaviour_model, g.weights::text as weights,
    g.calibration::text as calibration, a.name as text, a.dim as text_dim, b.name as image,
    (select jsonb_build_object('build', n.build, 'watermark', n.watermark, 'items', n.items,
        'created_at', n.created_at, 'current', n.layout_id = g.layout_id and n.recipe = {recipe})::text
        from neighbour_builds n where n.tenant_id = $1 and n.build = g.neighbours_build and n.status = 'ready') as build
from tenants t join generations g on g.tenant_id = $1 and g.gen = t.active_gen
join layouts l on l.layout_id = g.layout_id join spaces a on a.space_id = l.text_space
join spaces b on b.space_id = l.image_space where t.tenant_id = $1
"""


class Dumped(Struct, frozen=True, kw_only=True):
    """The files of a tenant in a folder. `erasures`: how many people were erased by then, and the last of them when."""

    tenant_id: TenantId
    name: str
    made_at: datetime
    folder: Path
    files: dict[str, FileInfo]
    photos: list[str]
    erasures: tuple[int, datetime | None]


async def count_erasures(raw: Any, tenant_id: TenantId) -> tuple[int, datetime | None]:
    """How many people of the tenant were erased, and the last of them when: whether a bundle holds one of them."""
    record = await raw.fetchrow("select count(*), max(erased_at) from erasures where tenant_id = $1", tenant_id)
    return record[0], record[1]


async def dump(database: Database, tenant_id: TenantId, folder: Path, *, now: datetime) -> Dumped:
    """Write a tenant's files into an empty folder. Raises TenantNotFound."""
    made = _Files(folder)
    async with database.tenant_snapshot(tenant_id) as conn:
        raw = await driver(conn)
        shop = await raw.fetchval(_SHOP, tenant_id)
        if shop is None:
            raise TenantNotFound("There is no such tenant, or it was deleted.")
        made.store(SHOP, shop.encode())
        await _dump_generation(raw, tenant_id, made)
        for name, statement in _LINES.items():
            await made.lines(f"{name}.ndjson.gz", raw, statement, tenant_id)
        first, last = await raw.fetchrow("select min(ts), max(ts) from events where tenant_id = $1", tenant_id)
        month = None if first is None else floor_to("month", first)
        while month is not None and month <= last:
            following = next_of("month", month)
            await made.lines(f"events/{month:%Y-%m}.ndjson.gz", raw, _EVENTS, tenant_id, month, following)
            month = following
        photos = await raw.fetch(
            "select distinct encode(sha256, 'hex') as sha256 from item_photos where tenant_id = $1 order by 1",
            tenant_id,
        )
        return Dumped(
            tenant_id=tenant_id,
            name=msgspec.json.decode(shop)["name"],
            made_at=now,
            folder=folder,
            files=made.infos,
            photos=[record["sha256"] for record in photos],
            erasures=await count_erasures(raw, tenant_id),
        )


async def _dump_generation(raw: Any, tenant_id: TenantId, made: "_Files") -> None:
    """The generation that serves, with the vectors of its spaces; `null` for a shop that no worker has seen."""
    record = await raw.fetchrow(_GENERATION.format(recipe=RECIPE), tenant_id)
    if record is None:
        made.store(GENERATION, b"null")
        return
    calibration: dict[str, Any] = msgspec.json.decode(record["calibration"])
    weights: dict[str, Any] = msgspec.json.decode(record["weights"])
    known = await raw.fetch("select space_id, name, kind, dim from spaces order by space_id")
    spaces: list[dict[str, Any]] = []
    for space in known:
        if space["name"] in (record["text"], record["image"]) or (
            space["name"].startswith(NGRAMS_PREFIX)
            and space["dim"] == record["text_dim"]
            and str(space["space_id"]) in calibration
        ):
            mean, dev = calibration.get(str(space["space_id"]), (0.0, 1.0))
            file = f"vectors/{len(spaces)}.ndjson.gz"
            await made.lines(file, raw, _VECTORS, tenant_id, space["space_id"])
            spaces.append(
                {
                    "name": space["name"],
                    "kind": space["kind"],
                    "dim": space["dim"],
                    "file": file,
                    "mean": mean,
                    "dev": dev,
                }
            )
    generation = {
        "gen": record["gen"],
        "text": record["text"],
        "image": record["image"],
        "spaces": spaces,
        "measured_items": calibration.get("items", 0),
        "text_weight": weights.get("text", 0.5),
        "image_weight": weights.get("image", 0.5),
        "blend": weights.get("blend"),
        "reason": record["reason"],
        "behaviour_model": record["behaviour_model"],
        "build": None if record["build"] is None else msgspec.json.decode(record["build"]),
        "created_at": record["created_at"],
    }
    made.store(GENERATION, msgspec.json.encode(generation))


async def bundle(dumped: Dumped, blobs: BlobStore) -> AsyncIterator[bytes]:
    """The bundle in pieces of at most a megabyte: the files, the photos, the manifest."""
    for name, info in dumped.files.items():
        yield header(FileEntry(name=name, size=info.bytes))
        for piece in _pieces(dumped.folder / name.replace("/", "_")):
            yield piece
            await asyncio.sleep(0)
        yield padding(info.bytes)
    photos = size = 0
    for sha in dumped.photos:
        try:
            data = await blobs.get(photo_key(dumped.tenant_id, sha))
        except BlobMissing:
            continue
        yield header(FileEntry(name=PHOTOS + sha, size=len(data)))
        yield data + padding(len(data))
        photos += 1
        size += len(data)
    manifest = msgspec.json.encode(
        Manifest(
            format=FORMAT,
            kindred=version("kindred"),
            tenant_id=dumped.tenant_id,
            name=dumped.name,
            made_at=dumped.made_at,
            files=dumped.files,
            photos=photos,
            photo_bytes=size,
            missing_photos=len(dumped.photos) - photos,
        )
    )
    manifest = msgspec.json.format(manifest, indent=1)
    yield header(FileEntry(name=MANIFEST, size=len(manifest))) + manifest + padding(len(manifest)) + end()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


class _Files:
    """The files that were written so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.infos: dict[str, FileInfo] = {}

    def store(self, name: str, data: bytes) -> None:
        """A small file, whole."""
        (self._folder / name).write_bytes(data)
        self.infos[name] = FileInfo(bytes=len(data), sha256=sha256(data).hexdigest())

    async def lines(self, name: str, raw: Any, statement: str, *args: object) -> None:
        """A file of one JSON document per row of the statement, which gives one column."""
        path = self._folder / name.replace("/", "_")
        with path.open("wb") as file:
            writer = _Hashing(file)
            # Without a time in it: the same rows make the same file.
            with gzip.GzipFile(filename="", fileobj=writer, mode="wb", compresslevel=5, mtime=0) as packed:
                rows = unpacked = 0
                held: list[str] = []
                # As text: the driver would make Python objects of it.
                wrapped = f"select l.line::text from ({statement}) l(line)"
                async for record in raw.cursor(wrapped, *args, prefetch=_ROWS):
                    held.append(record[0])
                    if len(held) == _ROWS:
                        unpacked += await asyncio.to_thread(_write, packed, held)
                        rows += len(held)
                        held = []
                unpacked += await asyncio.to_thread(_write, packed, held)
                rows += len(held)
        self.infos[name] = FileInfo(bytes=writer.size, sha256=writer.digest.hexdigest(), rows=rows, unpacked=unpacked)


def _write(packed: gzip.GzipFile, lines: list[str]) -> int:
    data = "".join(f"{line}\n" for line in lines).encode()
    packed.write(data)
    return len(data)


class _Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write on."""
        self.digest.update(data)
        self.size += len(data)
        written: int = self._file.write(data)
        return written

    def flush(self) -> None:
        """Nothing: it is closed by who opened it."""
