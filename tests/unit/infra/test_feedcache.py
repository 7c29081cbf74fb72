"""The cache that the change feed drops."""

from uuid import UUID

import pytest

from infra.changes import Change, OnChange, OnReset
from infra.db import TenantId
from infra.feedcache import FeedCache

A, B = TenantId(UUID(int=1)), TenantId(UUID(int=2))


class _Feed:
    """A feed that is told what happened."""

    def __init__(self) -> None:
        self.fresh = True
        self.subscribers: list[tuple[OnChange, OnReset]] = []

    def subscribe(self, on_change: OnChange, on_reset: OnReset) -> None:
        self.subscribers.append((on_change, on_reset))

    def tell(self, kind: str, tenant_id: TenantId) -> None:
        for on_change, _ in self.subscribers:
            on_change(Change(kind=kind, tenant_id=tenant_id, ref=""))


class _Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def feed() -> _Feed:
    return _Feed()


@pytest.fixture
def ticks() -> _Ticks:
    return _Ticks()


@pytest.fixture
def cache(feed: _Feed, ticks: _Ticks) -> FeedCache[str, int]:
    return FeedCache(feed, kinds=frozenset({"key"}), ttl_s=60, limit=3, clock=ticks)  # type: ignore[arg-type]


def _put(cache: FeedCache[str, int], key: str, value: int, tenant_id: TenantId = A) -> None:
    cache.put(key, value, tenant_id=tenant_id, mark=cache.mark)


def test_a_value_is_found_again(cache: FeedCache[str, int]) -> None:
    """What was put is got."""
    _put(cache, "a", 1)
    assert cache.get("a") == 1


def test_a_change_drops_its_tenant_alone(cache: FeedCache[str, int], feed: _Feed) -> None:
    """Others keep what they have."""
    _put(cache, "a", 1, A)
    _put(cache, "b", 2, B)
    feed.tell("key", A)
    assert (cache.get("a"), cache.get("b")) == (None, 2)


def test_a_change_of_another_kind_drops_nothing(cache: FeedCache[str, int], feed: _Feed) -> None:
    """Only the kinds that were named."""
    _put(cache, "a", 1)
    feed.tell("rules", A)
    assert cache.get("a") == 1


def test_nothing_is_believed_while_the_feed_is_stale(cache: FeedCache[str, int], feed: _Feed) -> None:
    """It is asked anew, and believed again when the feed is back."""
    _put(cache, "a", 1)
    feed.fresh = False
    assert cache.get("a") is None
    feed.fresh = True
    assert cache.get("a") == 1


def test_a_value_read_before_a_drop_is_not_kept_after_it(cache: FeedCache[str, int], feed: _Feed) -> None:
    """The reader saw the old state; keeping it would undo the drop."""
    mark = cache.mark
    feed.tell("key", A)
    cache.put("a", 1, tenant_id=A, mark=mark)
    assert cache.get("a") is None


def test_a_value_ends_with_its_time(cache: FeedCache[str, int], ticks: _Ticks) -> None:
    """60 seconds, whatever the feed says."""
    _put(cache, "a", 1)
    ticks.now = 60.0
    assert cache.get("a") is None


def test_the_oldest_goes_when_it_is_full(cache: FeedCache[str, int]) -> None:
    """Bounded in memory."""
    for number, key in enumerate("abcd"):
        _put(cache, key, number)
    assert len(cache) == 3
    assert cache.get("a") is None


def test_a_reset_forgets_everything(cache: FeedCache[str, int], feed: _Feed) -> None:
    """After a lost connection nobody knows what was missed."""
    _put(cache, "a", 1)
    feed.subscribers[0][1]()
    assert cache.get("a") is None
