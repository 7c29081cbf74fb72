"""Upkeep: takes away what nobody needs any more, and counts what waits."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from infra.apart import apart
from infra.blob import BlobStore
from infra.clock import Clock, utc_now
from infra.db import Database, driver
from infra.errors import UpstreamFailed
from infra.partitions import drop_partition, ensure_partitions, old_partitions
from infra.secret import Secret
from infra.telemetry import counter, gauge
from tenants.accounts.outbox import prune_accounts
from tenants.accounts.people import rehash_emails
from tenants.accounts.second_step import reseal_second_steps
from tenants.audience.tombstones import replay
from tenants.audience.users import settle_late
from tenants.audit.sealing import prune, seal, unsealed_tenants
from tenants.catalog.imports import uploaded_at
from tenants.catalog.photos import hold_unused, list_unused
from tenants.certificates import resign_certificates
from tenants.erasure import deleted_tenants, erase_tenant
from tenants.idempotency import forget_old
from tenants.lifecycle import TenantNotFound
from tenants.limits.store import prune_buckets
from tenants.quota_notices import tell_near
from tenants.retention import JUST_SENT, drop_old_rows, files_in_use, kept
from tenants.retention import prune as prune_rows
from tenants.vectors.encoding import count_pending
from tenants.vectors.shards import (
    LARGE,
    ShardBusy,
    WritersInTheWay,
    drop_orphans,
    index_shards,
    large_tenants,
    move_to_own_shard,
    remove_old_rows,
)
from tenants.webhooks import deliveries
from tenants.webhooks.endpoints import reseal_secrets
from tenants.webhooks.notices import tell_disabled

log = structlog.get_logger(__name__)

RATES_KEPT: Final = timedelta(hours=1)
"""A rate limit that has been all free for so long is not worth a row, whatever the clocks differ by."""

LATE: Final = timedelta(minutes=10)
"""An API process believes what it remembers of a shopper for less than a second; the rest is for its clock."""

SWEPT_AT_ONCE: Final = 20
"""Photos that are deleted in one transaction: jobs are claimed over the same connection."""

Photo = tuple[UUID, bytes]
"""The tenant and the sha256."""

_NO_SECRET: Final = Secret(current=b"")
"""Of who has no erasures to replay."""

INDEX_MB: Final = 256
"""What the building of a large tenant's index may take."""

_sealed = counter("audit_entries_sealed_total", "Entries of the audit log that were sealed.")
queue_pending = gauge("queue_items_pending", "Items that wait to be encoded", ["modality"])
webhooks_pending = gauge("webhook_deliveries_pending", "Messages that wait to be sent, or to be sent again")


class Upkeep:
    """Small tasks across tenants, each of which may be repeated at any time."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        clock: Clock = utc_now,
        events_days: int | None = None,
        secret: Secret = _NO_SECRET,
    ) -> None:
        """`events_days`: how long events are kept; None for ever. `secret`: what erased ids are hashed with."""
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._events_days = events_days
        self._secret = secret
        self._unused: set[str] = set()
        self._settled: datetime | None = None

    async def count(self) -> None:
        """Set the gauges that autoscaling reads."""
        async with self._database.system_session(reason="count pending items") as system:
            queue_pending.labels("text").set(await count_pending(system, None, "text"))
            queue_pending.labels("image").set(await count_pending(system, None, "image"))
            webhooks_pending.set(await deliveries.count_pending(system))

    async def rehash(self) -> int:
        """While the secret is changed: have people found, secrets sealed and certificates signed by the current one.

        Returns how many were not. API keys are hashed anew when they are used, for only then are they known.
        """
        if not self._secret.others:
            return 0
        async with self._database.system_session(reason="store secrets of webhooks under the current secret") as system:
            resealed = await reseal_secrets(system, self._secret.every)
        async with self._database.system_session(reason="sign certificates under the current secret") as system:
            resealed += await resign_certificates(system, self._secret)
        async with self._database.system_session(reason="hash addresses under the current secret") as system:
            people = await rehash_emails(system, self._secret.current)
            return resealed + people + await reseal_second_steps(system, self._secret)

    async def prune(self) -> int:
        """Drop old changes, reports, jobs, rates, answers, audit entries, deliveries, old accounts; how many."""
        now = self._clock()
        async with self._database.system_session(reason="prune the change feed, reports and jobs") as system:
            rows = await prune_rows(system, now=now) + await prune_accounts(system, now)
            rows += await prune_buckets(await driver(system), now - RATES_KEPT)
        async with self._database.system_session(reason="forget old deliveries") as system:
            rows += await deliveries.prune_deliveries(system, now - deliveries.KEPT)
        return rows + await forget_old(self._database, now) + await prune(self._database, now=now)

    async def tell(self) -> int:
        """Tell tenants that they near a quota, or that a webhook was disabled; how many notices."""
        told = 0
        while True:
            async with self._database.system_session(reason="tell tenants of quotas and webhooks") as system:
                some = await tell_near(system, now=self._clock()) + await tell_disabled(system, now=self._clock())
            told += some
            if not some:
                return told

    async def retain(self) -> int:
        """Drop the events and answers that are older than their tenants keep them, to the row; how many rows."""
        return await drop_old_rows(self._database, now=self._clock(), events_days=self._events_days)

    async def seal(self) -> int:
        """Seal the entries of the audit log that are in no seal yet; how many."""
        sealed = 0
        for tenant_id in await unsealed_tenants(self._database):
            with apart("seal", tenant_id):
                while count := await seal(self._database, tenant_id, now=self._clock()):
                    sealed += count
        _sealed.inc(sealed)
        return sealed

    async def partitions(self) -> int:
        """Make the partitions of the coming months and drop those whose time is over; how many of both."""
        now = self._clock()
        async with self._database.system_session(reason="partitions ahead") as system:
            count = await ensure_partitions(await driver(system), now)
        async with self._database.system_session(reason="partitions whose time is over") as system:
            old = await old_partitions(await driver(system), now, events_days=self._events_days)
        for table, first in old:
            # One by one: where one is being read, the others need not wait.
            try:
                async with self._database.system_session(reason="drop an old partition") as system:
                    count += await drop_partition(await driver(system), table, first)
            except asyncpg.LockNotAvailableError:
                log.info("partitions.postponed", table=table, first=first.isoformat())
        return count

    async def settle(self) -> int:
        """Put right what was written in the very moment in which its shopper was merged or erased; how many rows."""
        now = self._clock()
        # What a turn before did not come to is looked at still.
        since = min(self._settled or now, now) - LATE
        rows, place = 0, None
        while True:
            # Of so many at a time: jobs are claimed over the same connection.
            async with self._database.system_session(reason="late events of merged and erased shoppers") as system:
                some = await settle_late(await driver(system), since, after=place)
            rows += some.rows
            place = some.last
            if place is None:
                self._settled = now
                return rows

    async def erase(self) -> int:
        """Erase the deleted tenants whose days of grace are over, to the last row and file; how many."""
        erased = 0
        for tenant_id in await deleted_tenants(self._database, self._clock()):
            with apart("erase", tenant_id):
                try:
                    rows = await erase_tenant(
                        self._database, self._blobs, tenant_id, now=self._clock(), secret=self._secret.current
                    )
                except (TenantNotFound, UpstreamFailed) as error:
                    # Another worker was quicker, or the files cannot be reached now: the others go on.
                    log.info("tenant.erasure_postponed", tenant_id=str(tenant_id), error=error.code)
                    continue
                log.info("tenant.erased", tenant_id=str(tenant_id), rows=rows)
                erased += 1
        return erased

    async def replay(self) -> int:
        """Erase again whoever a restored backup has brought back; how many ids."""
        done = await replay(self._database, self._blobs, self._secret)
        if done.erased or done.foreign:
            log.warning("erasures.replayed", ids=done.erased, foreign=done.foreign)
        return done.erased

    async def shards(self, *, above: int = LARGE) -> int:
        """Give large tenants shards of their own, and index what those lack; how many tenants were moved.

        A tenant that is still being loaded has its turn when its texts are encoded: it would be copied twice.
        """
        async with self._database.system_session(reason="large tenants") as system:
            large = await large_tenants(system, above=above)
        moved = 0
        for tenant_id in large:
            with apart("shards", tenant_id):
                async with self._database.tenant_session(tenant_id) as conn:
                    if await count_pending(conn, tenant_id, "text"):
                        continue
                try:
                    await move_to_own_shard(self._database, tenant_id, memory_mb=INDEX_MB)
                except (ShardBusy, WritersInTheWay, TenantNotFound) as error:
                    # Another worker has it, its writers left no moment, or it was deleted: the others go on.
                    log.info("shard.postponed", tenant_id=str(tenant_id), error=error.code)
                    continue
                moved += 1
        await remove_old_rows(self._database)
        await drop_orphans(self._database)
        await index_shards(self._database, memory_mb=INDEX_MB)
        return moved

    async def sweep_files(self) -> int:
        """Delete uploads that no work needs any more and bundles whose time is over; how many files."""
        now = self._clock()
        old: list[str] = []
        async for key in self._blobs.iter_keys("tenants/"):
            made = _made(key)
            if made is not None and now - made > JUST_SENT:
                old.append(key)
        if not old:
            return 0
        async with self._database.system_session(reason="files that work needs") as system:
            used = await files_in_use(system, now=now)
        # What has been there for so long is in nobody's way of work any more, whatever its job says.
        doomed = [key for key in old if key not in used or ("/imports/" in key and _is_over(key, now))]
        for key in doomed:
            await self._blobs.delete(key)
        if doomed:
            log.info("files.swept", count=len(doomed))
        return len(doomed)

    async def sweep(self) -> int:
        """Delete the photos that no item shows; how many.

        One that is found unused is deleted by the next sweep, if it is unused still: the bytes of an upload are
        stored a moment before the row that names them.
        """
        unused: dict[str, Photo] = {}
        batch: dict[str, Photo] = {}
        async for key in self._blobs.iter_keys("tenants/"):
            if (photo := _photo(key)) is not None:
                batch[key] = photo
            if len(batch) == 1000:
                unused |= await self._without_item(batch)
                batch = {}
        unused |= await self._without_item(batch)
        doomed = sorted(unused.keys() & self._unused)
        swept = 0
        for start in range(0, len(doomed), SWEPT_AT_ONCE):
            swept += await self._sweep({key: unused.pop(key) for key in doomed[start : start + SWEPT_AT_ONCE]})
        self._unused = set(unused)
        if swept:
            log.info("photos.swept", count=swept)
        return swept

    async def _without_item(self, photos: dict[str, Photo]) -> dict[str, Photo]:
        keys = list(photos)
        async with self._database.system_session(reason="photos that no item shows") as system:
            return {keys[at]: photos[keys[at]] for at in await list_unused(system, list(photos.values()))}

    async def _sweep(self, photos: dict[str, Photo]) -> int:
        """Delete those that no item shows even now; whoever uploads one of them meanwhile waits."""
        keys = list(photos)
        async with self._database.system_session(reason="sweep photos that no item shows") as system:
            unused = await hold_unused(system, list(photos.values()))
            for at in unused:
                await self._blobs.delete(keys[at])
        return len(unused)


def _made(key: str) -> datetime | None:
    """When an upload was begun or a bundle was asked for, by its name; None for any other key."""
    parts = key.split("/")
    return uploaded_at(key) if len(parts) == 4 and parts[2] in ("imports", "exports") else None


def _is_over(key: str, now: datetime) -> bool:
    made = uploaded_at(key)
    return made is not None and now - made > kept("uploads")


def _photo(key: str) -> Photo | None:
    """The tenant and hash in the key of an uploaded photo; None for any other key."""
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != "tenants" or parts[2] != "photos":
        return None
    try:
        return UUID(parts[1]), bytes.fromhex(parts[3])
    except ValueError:
        return None
