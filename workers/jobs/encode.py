"""Texts: pending items to vectors, a batch at a time, while the next batch is claimed and the last one stored."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Final

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.clock import Clock, utc_now
from infra.db import Database, TenantId
from infra.telemetry import Children, counter, histogram
from tenants.vectors.encoding import (
    ABSENT,
    DONE,
    FAILED,
    EncodedHalf,
    PendingText,
    claim_text,
    known_hashes,
    list_waiting,
    store_halves,
)
from tenants.vectors.generations import Layout, list_generations
from workers.models import Models
from workers.turns import Turns

log = structlog.get_logger(__name__)

TEXTS: Final = 64
"""Texts of one batch at most: another shop's item waits for two of them."""

FEWEST: Final = 8
TURN_S: Final = 1.0
"""Time in the encoder that one batch is meant to take; on a slow machine it has fewer texts."""

IDLE_S: Final = 0.1
_GIVE_UP: Final = 6
"""Claims after which an item counts as one that ends its worker."""

FAILED_TEXT: Final = "The text could not be encoded. The failure is in the worker's log; change the text to try again."

items_encoded = Children(counter("items_encoded_total", "Items whose encoding was stored", ["modality"]))
encode_seconds = Children(histogram("encode_batch_seconds", "Time in the encoder for one batch", ["modality"]))

Stored = Callable[[TenantId, str, int], None]
"""Told after each batch: whose it was, which modality, how many items."""


class Targets(Struct, frozen=True, kw_only=True):
    """Which layouts a tenant's items are encoded for, and which are served from but cannot be kept up."""

    models: list[Models]
    untouched: list[Layout]


class TextBatch(Struct, frozen=True, kw_only=True):
    """Claimed texts of one tenant; `known` are the hashes of vectors that are stored already."""

    tenant_id: TenantId
    items: list[PendingText]
    known: Mapping[tuple[int, int], bytes]
    targets: Targets


async def find_targets(conn: AsyncConnection, tenant_id: TenantId, models: Mapping[int, Models]) -> Targets:
    """What the tenant's generations ask of this worker. `conn` is the tenant's session."""
    generations = await list_generations(conn, tenant_id)
    layouts = {state.layout.layout_id: state for state in generations}
    return Targets(
        models=[models[layout_id] for layout_id in layouts if layout_id in models],
        untouched=[state.layout for state in layouts.values() if state.layout.layout_id not in models],
    )


class TextLoop:
    """Encodes what is pending until it is told to stop."""

    def __init__(
        self,
        database: Database,
        models: Sequence[Models],
        *,
        clock: Clock = utc_now,
        stored: Stored | None = None,
        batch: int = TEXTS,
    ) -> None:
        self._database = database
        self._models = {one.layout.layout_id: one for one in models}
        self._clock = clock
        self._stored = stored
        self._batch = batch
        self._text_s = 0.0
        self._turns = Turns(rest_s=0.25)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; the batches in hand are finished."""
        storing: asyncio.Task[None] | None = None
        claiming = asyncio.create_task(self.claim())
        try:
            while True:
                batch = await claiming
                if batch is None:
                    if stop.is_set():
                        break
                    try:
                        await asyncio.wait_for(stop.wait(), IDLE_S)
                    except TimeoutError:
                        claiming = asyncio.create_task(self.claim())
                        continue
                    break
                claiming = asyncio.create_task(self._nothing() if stop.is_set() else self.claim())
                began = perf_counter()
                halves = await asyncio.to_thread(encode_texts, batch)
                self._pace(len(batch.items), perf_counter() - began)
                if storing is not None:
                    await storing
                storing = asyncio.create_task(self.store(batch, halves))
        finally:
            if storing is not None:
                await storing
            claiming.cancel()

    async def _nothing(self) -> TextBatch | None:
        return None

    def _pace(self, texts: int, seconds: float) -> None:
        """Remember how long a text takes, smoothed, so that no batch keeps others waiting for long."""
        each = seconds / texts
        self._text_s = each if not self._text_s else 0.7 * self._text_s + 0.3 * each

    @property
    def limit(self) -> int:
        """Texts of the next batch."""
        if not self._text_s:
            return self._batch
        return max(min(FEWEST, self._batch), min(self._batch, int(TURN_S / self._text_s)))

    async def step(self) -> int:
        """One batch from claim to store; how many items it had."""
        batch = await self.claim()
        if batch is None:
            return 0
        await self.store(batch, await asyncio.to_thread(encode_texts, batch))
        return len(batch.items)

    async def claim(self) -> TextBatch | None:
        """The next tenant's batch."""
        async with self._database.system_session(reason="tenants with pending texts") as system:
            waiting = await list_waiting(system, "text")
        for tenant_id in self._turns.order(waiting):
            async with self._database.tenant_session(tenant_id) as conn:
                targets = await find_targets(conn, tenant_id, self._models)
                items = []
                if targets.models:
                    items = await claim_text(conn, tenant_id, self.limit, self._clock())
                if not items:
                    self._turns.rest(tenant_id)
                    continue
                spaces = [s for m in targets.models for s in (m.layout.text_space, m.layout.ngrams_space)]
                known = await known_hashes(conn, tenant_id, [item.item_no for item in items], spaces)
            self._turns.served(tenant_id)
            return TextBatch(tenant_id=tenant_id, items=items, known=known, targets=targets)
        return None

    async def store(self, batch: TextBatch, halves: Sequence[EncodedHalf]) -> None:
        """Write the batch; what changed meanwhile stays pending."""
        layouts = [models.layout for models in batch.targets.models]
        async with self._database.tenant_session(batch.tenant_id) as conn:
            current = await store_halves(
                conn, batch.tenant_id, "text", halves, layouts, untouched=batch.targets.untouched
            )
        items_encoded("text").inc(len(current))
        if self._stored is not None:
            self._stored(batch.tenant_id, "text", len(current))


def encode_texts(batch: TextBatch) -> list[EncodedHalf]:
    """Vectors of a batch, in every space that the tenant's layouts ask for. Runs in a thread, never raises."""
    vectors: dict[int, dict[int, NDArray[np.float32] | None]] = {item.item_no: {} for item in batch.items}
    failed = {item.item_no for item in batch.items if item.attempts > _GIVE_UP}
    texts = [item for item in batch.items if item.text and item.item_no not in failed]
    began = perf_counter()
    for models in batch.targets.models:
        covered = [item for item in texts if models.covers(item.text, item.language)]
        others = {item.item_no for item in texts} - {item.item_no for item in covered}
        uncovered = [item for item in texts if item.item_no in others]
        for space, encoder, items in (
            (models.layout.text_space, models.text, covered),
            (models.layout.ngrams_space, models.ngrams, uncovered),
        ):
            fresh = []
            for item in items:
                if space in vectors[item.item_no]:
                    continue
                if batch.known.get((item.item_no, space)) == item.content_hash:
                    vectors[item.item_no][space] = None
                else:
                    fresh.append(item)
            # Variants often share their text.
            different = list(dict.fromkeys(item.text for item in fresh))
            rows = _encode_safely(encoder.encode, different)
            for item in fresh:
                row = rows[item.text]
                if row is None:
                    failed.add(item.item_no)
                elif row.any():
                    vectors[item.item_no][space] = row
    encode_seconds("text").observe(perf_counter() - began)
    return [_half(item, vectors[item.item_no], item.item_no in failed) for item in batch.items]


def _half(item: PendingText, vectors: dict[int, NDArray[np.float32] | None], failed: bool) -> EncodedHalf:
    if failed:
        return EncodedHalf(item_no=item.item_no, version=item.version, state=FAILED, reason=FAILED_TEXT)
    if not vectors:
        reason = "The text has no words." if item.text else None
        return EncodedHalf(item_no=item.item_no, version=item.version, state=ABSENT, reason=reason)
    return EncodedHalf(
        item_no=item.item_no, version=item.version, state=DONE, content_hash=item.content_hash, vectors=vectors
    )


def _encode_safely(
    encode: Callable[[Sequence[str]], NDArray[np.float32]], texts: list[str]
) -> dict[str, NDArray[np.float32] | None]:
    """Row of each text; None for one that the encoder cannot take, found by trying one by one."""
    if not texts:
        return {}
    try:
        return dict(zip(texts, encode(texts), strict=True))
    except Exception:
        log.exception("items.encode_failed", count=len(texts))
        if len(texts) == 1:
            return {texts[0]: None}
        rows: dict[str, NDArray[np.float32] | None] = {}
        for text in texts:
            rows |= _encode_safely(encode, [text])
        return rows
