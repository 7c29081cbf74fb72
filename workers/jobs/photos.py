"""Photos: fetched for several items at once, decoded as they come, encoded together, pooled per item.

A slow image server holds up its own shop's photos only: items wait for their photos side by side, and no tenant
has more than its share of the places.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256
from time import perf_counter
from typing import Final, Protocol

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray

from infra.blob import BlobMissing, BlobStore
from infra.clock import Clock, utc_now
from infra.db import Database, TenantId
from infra.errors import KindredError, Overloaded, UpstreamFailed
from tenants.catalog.item import digest
from tenants.catalog.photos import photo_key
from tenants.vectors.encoding import (
    ABSENT,
    DONE,
    FAILED,
    PENDING,
    EncodedHalf,
    PendingPhotos,
    PhotoSource,
    claim_photos,
    known_hashes,
    list_waiting,
    store_halves,
)
from workers.encoders.photo import BadPhoto, decode_photo
from workers.encoders.types import FloatArray, Photo
from workers.jobs.encode import IDLE_S, Stored, Targets, encode_seconds, find_targets, items_encoded
from workers.models import Models
from workers.turns import Turns

log = structlog.get_logger(__name__)

PHOTOS: Final = 32
"""Photos of one run of the encoder."""

ITEMS: Final = 16
"""Items whose photos are in hand."""

PER_TENANT: Final = 8
"""Of these at most so many are of one tenant, as long as there are others or not: their servers are slow alone."""

ATTEMPTS: Final = 5
"""Times that a photo is asked for before its server's trouble counts as final."""

SIDE: Final = 320
"""Longest side of a decoded photo in hand: more than any encoder looks at."""

_ITEM_S: Final = 60.0
_PHOTO_S: Final = 20.0
_BACKOFF_S: Final = (5, 20, 60, 240)
_REASON_CHARS: Final = 1000


class FetchesPhotos(Protocol):
    """What a `Fetcher` does; the only part of it that is needed here."""

    async def __call__(self, url: str) -> bytes:
        """The bytes at an address. Raises KindredError."""
        ...


class Prepared(Struct, kw_only=True):
    """An item whose photos have been fetched and decoded. `failures` are told to the shop; `again`: worth a retry."""

    tenant_id: TenantId
    item: PendingPhotos
    targets: Targets
    known: Mapping[tuple[int, int], bytes]
    photos: list[Photo]
    content_hash: bytes
    failures: list[str]
    again: bool


class PhotoLoop:
    """Encodes the photos of what is pending until it is told to stop."""

    def __init__(
        self,
        database: Database,
        models: Sequence[Models],
        blobs: BlobStore,
        fetch: FetchesPhotos,
        *,
        clock: Clock = utc_now,
        stored: Stored | None = None,
    ) -> None:
        self._database = database
        self._models = {one.layout.layout_id: one for one in models}
        self._blobs = blobs
        self._fetch = fetch
        self._clock = clock
        self._stored = stored
        self._turns = Turns(rest_s=0.5)
        self._in_hand: Counter[TenantId] = Counter()
        self._room = asyncio.Event()
        self._ready: asyncio.Queue[Prepared | None] = asyncio.Queue()
        self._decoding = ThreadPoolExecutor(2, thread_name_prefix="photos")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; the items in hand are finished."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._encode_ready())
                fetching: set[asyncio.Task[None]] = set()
                while not stop.is_set():
                    claimed = await self.claim()
                    for one in claimed:
                        task = group.create_task(self._prepare_and_hand_on(one))
                        fetching.add(task)
                        task.add_done_callback(fetching.discard)
                    if not claimed:
                        self._room.clear()
                        await _first(stop.wait(), self._room.wait(), timeout_s=IDLE_S)
                if fetching:
                    await asyncio.wait(fetching)
                await self._ready.put(None)
        finally:
            self._in_hand.clear()
            self._ready = asyncio.Queue()

    async def step(self) -> int:
        """What can be claimed now, from claim to store; how many items."""
        claimed = await self.claim()
        prepared = await asyncio.gather(*(self.prepare(one) for one in claimed))
        if prepared:
            await self._finish(prepared)
        return len(claimed)

    async def claim(self) -> list[Prepared]:
        """Items of the tenant whose turn it is, as many as there is room for."""
        room = ITEMS - self._in_hand.total()
        if room <= 0:
            return []
        async with self._database.system_session(reason="tenants with pending photos") as system:
            waiting = await list_waiting(system, "image")
        for tenant_id in self._turns.order(waiting):
            limit = min(room, PER_TENANT - self._in_hand[tenant_id])
            if limit <= 0:
                continue
            async with self._database.tenant_session(tenant_id) as conn:
                targets = await find_targets(conn, tenant_id, self._models)
                items = await claim_photos(conn, tenant_id, limit, self._clock()) if targets.models else []
                if not items:
                    self._turns.rest(tenant_id)
                    continue
                spaces = [models.layout.image_space for models in targets.models]
                known = await known_hashes(conn, tenant_id, [item.item_no for item in items], spaces)
            self._turns.served(tenant_id)
            self._in_hand[tenant_id] += len(items)
            return [
                Prepared(
                    tenant_id=tenant_id,
                    item=item,
                    targets=targets,
                    known=known,
                    photos=[],
                    content_hash=b"",
                    failures=[],
                    again=False,
                )
                for item in items
            ]
        return []

    async def _prepare_and_hand_on(self, one: Prepared) -> None:
        await self._ready.put(await self.prepare(one))

    async def prepare(self, one: Prepared) -> Prepared:
        """Fetch and decode an item's photos. Never raises: what fails becomes a sentence."""
        count = len(one.item.photos)
        results = await asyncio.gather(
            *(self._photo(one.tenant_id, source, at, count) for at, source in enumerate(one.item.photos, 1))
        )
        hashes = []
        for photo, content_hash, failure, again in results:
            if photo is not None:
                one.photos.append(photo)
                hashes.append(content_hash)
            if failure:
                one.failures.append(failure)
            one.again |= again
        one.content_hash = digest(b"".join(hashes))
        return one

    async def _photo(
        self, tenant_id: TenantId, source: PhotoSource, at: int, count: int
    ) -> tuple[Photo | None, bytes, str, bool]:
        """The decoded photo and its hash; or why there is none, and whether to try again."""
        which = "The photo" if count == 1 else f"Photo {at} of {count}"
        try:
            async with asyncio.timeout(_ITEM_S):
                data = await self._bytes(tenant_id, source)
        except BlobMissing:
            return None, b"", f"{which} is not there any more; upload it again.", False
        except (UpstreamFailed, Overloaded) as error:
            return None, b"", f"{which} could not be fetched: {error.detail}", True
        except KindredError as error:
            return None, b"", f"{which} could not be fetched: {error.detail}", False
        except TimeoutError:
            return None, b"", f"{which} could not be fetched: its server is too slow.", True
        except Exception:
            log.exception("items.photo_fetch_failed")
            return None, b"", f"{which} could not be fetched; the failure is in the worker's log.", True
        try:
            loop = asyncio.get_running_loop()
            photo = await loop.run_in_executor(self._decoding, lambda: decode_photo(data, side=SIDE))
        except BadPhoto as error:
            return None, b"", f"{which} cannot be used: {error.detail}", False
        except Exception:
            log.exception("items.photo_decode_failed")
            return None, b"", f"{which} could not be read; the failure is in the worker's log.", False
        return photo, sha256(data).digest(), "", False

    async def _bytes(self, tenant_id: TenantId, source: PhotoSource) -> bytes:
        if source.sha256 is not None:
            return await self._blobs.get(photo_key(tenant_id, source.sha256))
        return await self._fetch(source.url or "")

    async def _encode_ready(self) -> None:
        """Take what is ready, up to one run of the encoder, and finish it; until the end is announced."""
        ended = False
        while not ended:
            first = await self._ready.get()
            if first is None:
                return
            batch = [first]
            photos = len(first.photos)
            while photos < PHOTOS and not self._ready.empty():
                one = self._ready.get_nowait()
                if one is None:
                    ended = True
                    break
                batch.append(one)
                photos += len(one.photos)
            await self._finish(batch)

    async def _finish(self, batch: Sequence[Prepared]) -> None:
        halves = await asyncio.to_thread(encode_photos, batch, self._clock())
        for tenant_id in dict.fromkeys(one.tenant_id for one in batch):
            own = [(one, half) for one, half in zip(batch, halves, strict=True) if one.tenant_id == tenant_id]
            targets = own[0][0].targets
            async with self._database.tenant_session(tenant_id) as conn:
                current = await store_halves(
                    conn,
                    tenant_id,
                    "image",
                    [half for _, half in own],
                    [models.layout for models in targets.models],
                    untouched=targets.untouched,
                )
            items_encoded("image").inc(len(current))
            self._in_hand[tenant_id] -= len(own)
            self._room.set()
            if self._stored is not None:
                self._stored(tenant_id, "image", len(current))


async def _first(*waits: object, timeout_s: float) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def encode_photos(batch: Sequence[Prepared], now: datetime) -> list[EncodedHalf]:
    """Pooled vectors of a batch of items, in every space that is asked for. Runs in a thread, never raises."""
    vectors: list[dict[int, NDArray[np.float32] | None]] = [{} for _ in batch]
    broken: set[int] = set()
    began = perf_counter()
    layouts = {models.layout.image_space: models for one in batch for models in one.targets.models}
    for space, models in layouts.items():
        fresh = []
        for index, one in enumerate(batch):
            if not one.photos or all(wanted.layout.image_space != space for wanted in one.targets.models):
                continue
            if one.known.get((one.item.item_no, space)) == one.content_hash:
                vectors[index][space] = None
            else:
                fresh.append(index)
        pooled = _pool_safely(models, [batch[index].photos for index in fresh])
        for index, vector in zip(fresh, pooled, strict=True):
            if vector is None:
                broken.add(index)
            else:
                vectors[index][space] = vector
    encode_seconds("image").observe(perf_counter() - began)
    return [_half(one, vectors[index], index in broken, now) for index, one in enumerate(batch)]


def _half(one: Prepared, vectors: dict[int, NDArray[np.float32] | None], broken: bool, now: datetime) -> EncodedHalf:
    item = one.item
    reason = " ".join(one.failures)[:_REASON_CHARS] or None
    state, due = DONE, None
    if broken:
        state, vectors = FAILED, {}
        reason = "The photos could not be encoded. The failure is in the worker's log; change them to try again."
    elif one.again and item.attempts < ATTEMPTS:
        state = PENDING
        due = now + timedelta(seconds=_BACKOFF_S[item.attempts - 1])
    elif not item.photos:
        state = ABSENT
    elif not one.photos:
        state = FAILED
    return EncodedHalf(
        item_no=item.item_no,
        version=item.version,
        state=state,
        reason=reason,
        due=due,
        content_hash=one.content_hash,
        vectors=vectors,
    )


def _pool_safely(models: Models, items: Sequence[Sequence[Photo]]) -> list[NDArray[np.float32] | None]:
    """The pooled vector of each item; None for one that the encoder cannot take, found by trying one by one."""
    if not items:
        return []
    try:
        return list(pool(models.image.encode([photo for photos in items for photo in photos]), items))
    except Exception:
        log.exception("items.encode_failed", count=len(items))
        if len(items) == 1:
            return [None]
        return [vector for one in items for vector in _pool_safely(models, [one])]


def pool(rows: FloatArray, items: Sequence[Sequence[Photo]]) -> list[NDArray[np.float32]]:
    """The normalised mean of each item's rows (`rows` are in the order of the items' photos)."""
    pooled = []
    start = 0
    for photos in items:
        mean = rows[start : start + len(photos)].mean(axis=0)
        start += len(photos)
        pooled.append(np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32))
    return pooled
