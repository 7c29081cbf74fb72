"""The limits that one process decides about, and how it and the others tell each other what they passed.

`take` decides from memory. What passed is told in the background, a quarter of a second later or, where a lease is
half used, at once; the answer says where all processes together stand. All times here are of this process's
monotonic clock; the database's is measured with every answer, so it does not matter what a machine thinks the time is.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final
from weakref import WeakValueDictionary

import structlog
from msgspec import Struct

from infra.background import Background
from infra.clock import Offset
from infra.telemetry import Children, counter, gauge
from tenants.limits.gcra import LEASE_S, Bucket, BucketKey, Rate
from tenants.limits.store import US, BucketStore, Charge

PATIENCE_S: Final = 0.1
"""How long a use may wait for what the others passed, when a lease is used up."""

RETRY_S: Final = 0.5
_PAUSE_S: Final = 0.01
_LATE_S: Final = 0.25
"""A store that takes so long to answer counts as away."""

_settled: Final = Children(counter("limit_leases_total", "Leases renewed, by how it ended.", ["outcome"]))
_passed_open: Final = Children(
    counter("limit_open_total", "Uses that passed because the limit could not be asked.", ["reason"])
)
_known: Final = gauge("limit_buckets_count", "Limits that this process knows.")

_log = structlog.get_logger(__name__)


class Refusal(Struct, frozen=True):
    """A use that did not pass: the rate that it would have broken, and the seconds until it would pass.

    `one_s`: until a use of cost 1 would.
    """

    rate: Rate
    retry_s: float
    one_s: float


class Unheard:
    """The others must hear of earlier uses first."""


_UNHEARD: Final = Unheard()


class Leases:
    """The limits of one process, for as long as somebody holds them; forgotten ones are found again in the store."""

    def __init__(self, store: BucketStore, *, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._clock = clock
        # Weak, so that there is one state of each limit, and who bounds its own memory bounds ours.
        self._buckets: WeakValueDictionary[BucketKey, Bucket] = WeakValueDictionary()
        self._dirty: dict[BucketKey, Bucket] = {}
        self._store_clock = Offset()
        self._away = False
        self._asked_at: float | None = None
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._round: asyncio.Future[None] | None = None
        self._one = asyncio.Lock()
        self._background = Background("limits", self._run)

    def bucket(self, key: BucketKey, rate: Rate) -> Bucket:
        """The state of that limit, under this rate from now on."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(key, rate)
        elif bucket.rate is not rate:
            bucket.govern(rate)
        return bucket

    @property
    def now(self) -> float:
        """The clock that the limits go by."""
        return self._clock()

    @property
    def away(self) -> bool:
        """Whether the store does not answer, or not in time."""
        if self._away:
            return True
        return self._asked_at is not None and self._clock() - self._asked_at > _LATE_S

    async def admit(self, buckets: Sequence[Bucket], cost: float, spent: float = 0.0) -> Refusal | None:
        """Use every one of these limits, or none: None where it passes. Waits only where a lease is used up.

        `spent`: what the same call used before, when it did not say yet how much it is.
        Where the store is away, or late, a use passes, and is counted as such.
        """
        verdict = self.take(buckets, cost, spent)
        if not isinstance(verdict, Unheard):
            return verdict
        until = self._clock() + PATIENCE_S
        while True:
            if self._round is None:
                self._round = asyncio.get_running_loop().create_future()
            self._wake.set()
            self._urgent.set()
            left = until - self._clock()
            if left > 0:
                await asyncio.wait({self._round}, timeout=left)
            verdict = self.take(buckets, cost, spent)
            if not isinstance(verdict, Unheard):
                return verdict
            if self._clock() >= until:
                _passed_open("late").inc()
                self._spend(buckets, cost)
                return None

    def take(self, buckets: Sequence[Bucket], cost: float, spent: float = 0.0) -> Refusal | Unheard | None:
        """The same without waiting; `Unheard` where it would have to."""
        if (self._away or self._asked_at is not None) and self.away:
            _passed_open("away").inc()
            return None
        now = self._clock()
        unheard = False
        for bucket in buckets:
            # Looked at here first, without a call: this is in the way of every answer.
            if bucket.full_at + cost * bucket.interval - bucket.depth > now and (late := bucket.late(now, cost, spent)):
                return Refusal(bucket.rate, late, bucket.late(now, 1))
            if bucket.unsettled + bucket.settling + cost > bucket.lease and bucket.unheard(now, cost):
                unheard = True
        if unheard:
            return _UNHEARD
        for bucket in buckets:
            if not bucket.unsettled:
                self._dirty[bucket.key] = bucket
                if not self._wake.is_set():
                    self._wake.set()
            bucket.spend(now, cost)
            if bucket.unsettled * 2 >= bucket.lease and bucket.unheard(now, bucket.unsettled):
                self._urgent.set()
        return None

    def charge(self, buckets: Sequence[Bucket], cost: float) -> None:
        """Note a use that is not asked about: it passes in any case."""
        if not self.away:
            self._spend(buckets, cost)

    def _spend(self, buckets: Sequence[Bucket], cost: float) -> None:
        now = self._clock()
        for bucket in buckets:
            if not bucket.unsettled:
                self._dirty[bucket.key] = bucket
                self._wake.set()
            bucket.spend(now, cost)

    async def settle(self) -> int:
        """Tell what was passed and learn where all processes stand; how many limits. Raises what the store raises."""
        async with self._one:
            try:
                return await self._settle()
            finally:
                waiting, self._round = self._round, None
                if waiting is not None:
                    waiting.set_result(None)

    async def _settle(self) -> int:
        if self._store_clock.ahead_s is None:
            await self._ask([])
        dirty, self._dirty = list(self._dirty.values()), {}
        told = [(bucket, *bucket.charge()) for bucket in dirty]
        charges = [
            Charge(bucket.key, round((since + self._store_ahead_s) * US), round(use_s * US))
            for bucket, since, use_s in told
        ]
        try:
            standing = await self._ask(charges)
        except BaseException:
            for bucket, since, _ in told:
                bucket.unheeded(since)
                self._dirty[bucket.key] = bucket
            raise
        now = self._clock()
        for (bucket, _, _), full_at_us in zip(told, standing, strict=True):
            bucket.settled(full_at_us / US - self._store_ahead_s, now)
        _known.set(len(self._buckets))
        return len(told)

    @property
    def _store_ahead_s(self) -> float:
        ahead_s = self._store_clock.ahead_s
        assert ahead_s is not None
        return ahead_s

    async def _ask(self, charges: Sequence[Charge]) -> Sequence[int]:
        """Charge the store, and measure its clock by the way: it is read at some moment between question and answer."""
        self._asked_at = asked = self._clock()
        try:
            settled = await self._store.charge(charges)
        except Exception:
            # Whatever it is, the store cannot be asked: limits fail open until it can, and who asked is told the cause.
            self._away = True
            _settled("failed").inc()
            raise
        finally:
            self._asked_at = None
        self._store_clock.learn(settled.now_us / US, asked_s=asked, answered_s=self._clock())
        self._away = False
        _settled("ok").inc(len(charges))
        return settled.full_at_us

    def start(self) -> None:
        """Begin to tell; a store that is away is tried again for ever."""
        self._background.start()

    async def close(self) -> None:
        """Tell what is left, if the store answers, and let go of it."""
        await self._background.end()
        if self._dirty and not self._away:
            with suppress(Exception):  # it is told for the other processes' sake, and they forget it within minutes
                await self.settle()
        await self._store.close()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(LEASE_S):
                    await self._urgent.wait()
            self._wake.clear()
            self._urgent.clear()
            try:
                await self.settle()
            except Exception as error:
                _log.warning("limits.away", error=type(error).__name__, limits=len(self._dirty))
                self._wake.set()
                await asyncio.sleep(RETRY_S)
            else:
                if self._round is None:
                    # Nobody waits: what is used up meanwhile goes with the same statement.
                    await asyncio.sleep(_PAUSE_S)
