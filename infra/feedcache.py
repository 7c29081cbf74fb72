"""A bounded cache whose entries the change feed drops.

A value is believed while the feed is fresh and the entry is young. A value that was read before a drop is not
stored after it: the reader takes `mark` before it reads and hands it in with the value.
"""

from collections.abc import Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

from infra.changes import Change, ChangeFeed
from infra.db import TenantId
from infra.outage import STANDBY_S

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FeedCache(Generic[K, V]):
    """Values by key, each of one tenant; `kinds` names the changes that drop all of a tenant's entries."""

    def __init__(
        self,
        feed: ChangeFeed,
        *,
        kinds: frozenset[str],
        ttl_s: float = 60.0,
        limit: int = 10_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._feed = feed
        self._kinds = kinds
        self._ttl_s = ttl_s
        self._limit = limit
        self._clock = clock
        self._entries: dict[K, tuple[V, float, TenantId]] = {}
        self._keys: dict[TenantId, set[K]] = {}
        self._drops = 0
        feed.subscribe(self._on_change, self.clear)

    @property
    def mark(self) -> int:
        """To be taken before a value is read from the database, and handed to `put` with it."""
        return self._drops

    def get(self, key: K) -> V | None:
        """The value, or None when there is none that may be believed."""
        entry = self._entries.get(key)
        if entry is None or not self._feed.fresh or self._clock() >= entry[1]:
            return None
        return entry[0]

    def get_stale(self, key: K) -> V | None:
        """The value that was last known, for when the database cannot be asked; None where that is too long ago."""
        entry = self._entries.get(key)
        return None if entry is None or self._feed.age_s >= STANDBY_S else entry[0]

    def put(self, key: K, value: V, *, tenant_id: TenantId, mark: int) -> None:
        """Keep a value, unless something was dropped since `mark`; the oldest goes when the cache is full."""
        if mark != self._drops:
            return
        self._remove(key)
        if len(self._entries) >= self._limit:
            self._remove(next(iter(self._entries)))
        self._entries[key] = (value, self._clock() + self._ttl_s, tenant_id)
        self._keys.setdefault(tenant_id, set()).add(key)

    def drop(self, tenant_id: TenantId) -> None:
        """Forget all of a tenant."""
        self._drops += 1
        for key in list(self._keys.get(tenant_id, ())):
            self._remove(key)

    def clear(self) -> None:
        """Forget everything."""
        self._drops += 1
        self._entries.clear()
        self._keys.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        keys = self._keys[entry[2]]
        keys.discard(key)
        if not keys:
            del self._keys[entry[2]]

    def _on_change(self, change: Change) -> None:
        if change.kind in self._kinds:
            self.drop(change.tenant_id)
