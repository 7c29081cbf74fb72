"""A rate limit and its state in one process: the generic cell rate algorithm, with leases.

GCRA (ITU-T I.371, annex A) keeps one number, the theoretical arrival time: here `full_at`, the moment at which all of
the limit is free again. A use of cost c moves it on by c intervals; it is refused where that would lie further in the
future than the depth of the limit. So no window of t seconds ever passes more than burst + rate·t.

One process knows at once what it passes itself, and what the others pass a quarter of a second later. It may
run ahead of what they know by one lease: `max(1, rate × 250 ms)`; right after it heard from them, by a quarter of what
is free. What it passed is charged to the limit in any case, so it runs ahead, never away (docs/decisions/0009).
"""

from typing import Final, TypeAlias

from msgspec import Struct

from infra.db import TenantId

LEASE_S: Final = 0.25
"""The time for which a process may pass uses that no other knows of."""

SPARE: Final = 0.25
"""The share of what is free that may pass right after that was heard: many at once need not be told one by one."""

FRESH_S: Final = 0.01
"""How long that holds."""

_SMALL: Final = 20.0
"""Uses a second below which a lease is a single one: there, four uses are a visible part of a window."""

_EPSILON_S: Final = 1e-6


class Rate(Struct, frozen=True, kw_only=True):
    """`quota` uses in each `window_s` seconds, sustained; up to `burst` of them at once after a rest."""

    name: str
    quota: int
    window_s: int
    burst: int

    @property
    def interval_s(self) -> float:
        """Seconds that one use costs."""
        return self.window_s / self.quota

    @property
    def depth_s(self) -> float:
        """Seconds of use that may be in advance: the burst."""
        return self.burst * self.window_s / self.quota


BucketKey: TypeAlias = tuple[TenantId, str] | bytes
"""Whose limit it is: a tenant's, by name, or a stranger's, by a keyed hash of who that is and what it tries."""


class Bucket:
    """The state of one limit as this process knows it; all times are seconds of its own monotonic clock.

    `unsettled`: uses passed here that no other process knows of, the first of them at `since`; `settling`: those that
    are being told just now. Both are in `full_at`, which was last `heard` of when all processes together stood there.
    """

    __slots__ = (
        "__weakref__",
        "depth",
        "full_at",
        "heard",
        "interval",
        "key",
        "lease",
        "name",
        "rate",
        "settling",
        "since",
        "unsettled",
    )

    def __init__(self, key: BucketKey, rate: Rate) -> None:
        self.key = key
        self.full_at = 0.0
        self.unsettled = 0.0
        self.settling = 0.0
        self.since = 0.0
        self.heard = float("-inf")
        self.govern(rate)

    def govern(self, rate: Rate) -> None:
        """Let another rate hold from now on, as after a change of the plan; what was used stays used."""
        self.rate = rate
        self.name = rate.name.encode()
        self.interval = rate.interval_s
        self.depth = rate.depth_s
        per_s = rate.quota / rate.window_s
        self.lease = per_s * LEASE_S if per_s >= _SMALL else 1.0

    def late(self, now: float, cost: float, spent: float = 0.0) -> float:
        """Seconds after which a use of this cost would pass; 0 where it passes now.

        One that costs more than the burst passes when the limit is wholly free, and is paid off afterwards: else no
        call of twenty would ever pass where the limit is one a second. `spent`: the part of the same call that was
        used already, without which the limit may be as free.
        """
        ahead = self.full_at - now
        if ahead <= spent * self.interval + _EPSILON_S:
            return 0.0
        late = ahead + cost * self.interval - self.depth
        if late <= _EPSILON_S:
            return 0.0
        # Another try is all of the call again.
        return min(late + spent * self.interval, ahead)

    def unheard(self, now: float, cost: float) -> bool:
        """Whether the others must hear of earlier uses before one of this cost may pass."""
        pending = self.unsettled + self.settling
        if not pending or pending + cost <= self.lease:
            return False
        if now - self.heard > FRESH_S:
            return True
        free = (self.depth - max(0.0, self.full_at - now)) / self.interval
        return pending + cost > (free + pending) * SPARE

    def spend(self, now: float, cost: float) -> None:
        """Note a use that passed."""
        self.full_at = (self.full_at if self.full_at > now else now) + cost * self.interval
        if not self.unsettled:
            self.since = now
        self.unsettled += cost

    def left(self, now: float) -> tuple[int, int]:
        """Uses that would pass at once, and whole seconds, rounded up, until all of it is free again."""
        ahead = self.full_at - now
        if ahead <= 0:
            return self.rate.burst, 0
        free = (self.depth - ahead) / self.interval + _EPSILON_S
        return (int(free) if free > 0 else 0), -int(-ahead // 1)

    def charge(self) -> tuple[float, float]:
        """What is to be told of it, as it is being told from now on: since when, and seconds of use."""
        self.settling += self.unsettled
        self.unsettled = 0.0
        return self.since, self.settling * self.interval

    def settled(self, full_at: float, now: float) -> None:
        """It was told: all processes together stand at `full_at`."""
        self.heard = now
        if self.unsettled:
            full_at = max(full_at, self.since) + self.unsettled * self.interval
        self.full_at = full_at
        self.settling = 0.0

    def unheeded(self, since: float) -> None:
        """It could not be told."""
        self.unsettled += self.settling
        self.settling = 0.0
        self.since = since
