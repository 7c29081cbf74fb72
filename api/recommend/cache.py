"""Answers and item cards kept in this process; correct before fast (DECISIONS 15, 16).

L1 holds answers for 5 minutes, those of one shopper among them, L2 those lists that are the same for a whole shop
(popular, trending, new) for an hour, L3 the documents of items for a day. The rules that keep them true:

- A version of the tenant is read before the data; what was read under an older version is not kept.
- A change that names items drops at once every entry that shows them or starts from them. One that names none, and
  one that may have made other items fit, leaves the rest a moment to live (`ADDED_S`).
- No entry outlives the next moment at which an item of the shop comes or goes by itself.
- A change of the shop or of a placement drops all of the tenant.
- A shopper's list is given again only while the shopper's mark in the database is the one it was made by.
- While the change feed is older than 500 ms nothing is believed.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Final, Literal

from msgspec import Struct

from api.recommend.log import Shown
from infra.changes import ANY_ITEM, Change, ChangeFeed
from infra.db import TenantId
from infra.outage import STANDBY_S
from infra.telemetry import Children, counter, gauge
from tenants.sources.shopper import Mark

Level = Literal["answers", "shoppers", "lists", "cards"]

LIFE_S: Final[dict[Level, float]] = {"answers": 300.0, "shoppers": 300.0, "lists": 3600.0, "cards": 86_400.0}
ADDED_S: Final = 1.5
"""How long an entry may go without an item that was added after it: a new one is to be recommended within two seconds,
also where its list was asked for while it was encoded. While a shop changes all the time, its lists live as long."""

_EVERYTHING: Final = frozenset({"tenant", "placement", "segment", "model"})
_OVERHEAD: Final = 700
_PER_ITEM: Final = 150
"""Bytes of an entry beside its texts, and of one item in the map from items to entries."""

_looked: Final = Children(
    counter(
        "cache_lookups_total", "Look-ups in the caches, by level and whether they found something.", ["level", "hit"]
    )
)
_dropped: Final = Children(counter("cache_drops_total", "Entries dropped from the caches, and why.", ["level", "why"]))
_held: Final = gauge("cache_held_bytes", "Bytes held by the caches.", ["level"])

Key = tuple[TenantId, int, bytes]
"""Tenant, generation, what was asked."""


class Entry(Struct):
    """An answer in pieces: only its id and the time it took are its own each time."""

    middle: bytes
    tail: bytes
    shown: Shown
    level: Level
    listed: tuple[int, ...]
    groups: tuple[str | None, ...]
    items: frozenset[int]
    stored: float
    dies: float
    until: datetime | None
    size: int
    mark: Mark | None

    def render(self, recommendation_id: str, took_ms: float) -> bytes:
        """The whole answer."""
        return b'{"recommendation_id":"%b%b%.2f%b' % (recommendation_id.encode(), self.middle, took_ms, self.tail)


def pieces(encoded: bytes) -> tuple[bytes, bytes]:
    """Cut an encoded answer behind its id and around its time. The id is the first field; after the time come only
    a cursor and warnings, so its last mention is the one."""
    middle_at = encoded.index(b'"', len(b'{"recommendation_id":"'))
    before, mark, after = encoded[middle_at:].rpartition(b'"took_ms":')
    ends = min(at for at in (after.find(b","), after.find(b"}")) if at >= 0)
    return before + mark, after[ends:]


class _Tenant:
    """What is held of one tenant, and what happened to it."""

    __slots__ = ("added", "by_item", "by_shopper", "cards", "horizon", "keys", "version")

    def __init__(self) -> None:
        self.version = 0
        self.keys: set[Key] = set()
        self.by_item: dict[int, set[Key]] = {}
        self.by_shopper: dict[int, set[Key]] = {}
        self.cards: set[int] = set()
        self.added: list[float] = []  # the seconds in which items came, rising
        self.horizon: tuple[int, datetime | None] | None = None


class Card(Struct):
    """The document of an item, and its uploaded photos by position, as the catalogue has them."""

    doc: str
    photos: str | None


class AnswerCache:
    """The three levels of one process, bounded in bytes: the least recently used goes first."""

    def __init__(self, feed: ChangeFeed, *, max_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self._feed = feed
        self._clock = clock
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._cards: OrderedDict[tuple[TenantId, int], tuple[Card, float]] = OrderedDict()
        self._tenants: dict[TenantId, _Tenant] = {}
        self._room = max_bytes // 2
        self._bytes = 0
        self._card_bytes = 0
        _held.labels("answers").set_function(lambda: self._bytes)
        _held.labels("cards").set_function(lambda: self._card_bytes)
        feed.subscribe(self._on_change, self.clear)

    def version(self, tenant_id: TenantId) -> int:
        """To be taken before anything is read for an answer, and handed to `put` with it."""
        return self._tenant(tenant_id).version

    def get(self, key: Key, now: datetime, *, level: Level) -> Entry | None:
        """The answer, if there is one that may be believed at `now`."""
        entry = self.held(key, now)
        _looked(level, "no" if entry is None else "yes").inc()
        return entry

    async def get_marked(self, key: Key, now: datetime, read: Callable[[Mark], Awaitable[Mark]]) -> Entry | None:
        """The answer for one shopper, if `read` finds the mark that it was made by."""
        entry = self.held(key, now)
        if entry is not None and (entry.mark is None or await read(entry.mark) != entry.mark):
            entry = None
        _looked("shoppers", "no" if entry is None else "yes").inc()
        return entry

    def held(self, key: Key, now: datetime) -> Entry | None:
        """The answer, if there is one that may be believed at `now` as far as the feed knows."""
        entry = self._entries.get(key)
        if entry is None or not self._feed.fresh or not self._lives(key[0], entry, now):
            return None
        self._entries.move_to_end(key)
        return entry

    def get_stale(self, key: Key, now: datetime) -> Entry | None:
        """The answer though the changes cannot be read, for when the database is away.

        It shows no item whose change was seen, nor one that has gone by itself meanwhile.
        """
        entry = self._entries.get(key)
        if entry is None or self._feed.age_s >= STANDBY_S or self._clock() >= entry.stored + LIFE_S["lists"]:
            return None
        return None if entry.until is not None and now >= entry.until else entry

    def entry(
        self,
        encoded: bytes,
        shown: Shown,
        *,
        level: Level,
        listed: Sequence[int],
        groups: Sequence[str | None],
        seeds: Sequence[int],
        until: datetime | None,
        mark: Mark | None = None,
    ) -> Entry:
        """An answer that shows `listed` and starts from `seeds`, ready to be given and kept; `mark`: its shopper's."""
        middle, tail = pieces(encoded)
        now = self._clock()
        return Entry(
            middle=middle,
            tail=tail,
            shown=shown,
            level=level,
            listed=tuple(listed),
            groups=tuple(groups),
            items=frozenset((*listed, *seeds)),
            stored=now,
            dies=now + LIFE_S[level],
            until=until,
            size=len(encoded) + len(shown.body) + _OVERHEAD + _PER_ITEM * (len(listed) + len(seeds)),
            mark=mark,
        )

    def put(self, key: Key, entry: Entry, *, version: int) -> None:
        """Keep an answer, unless the tenant has changed since `version`."""
        tenant = self._tenant(key[0])
        if version != tenant.version or entry.size > self._room // 20:
            return
        self._remove(key, "replaced")
        self._entries[key] = entry
        tenant.keys.add(key)
        for item_no in entry.items:
            tenant.by_item.setdefault(item_no, set()).add(key)
        if entry.mark is not None and entry.mark.number is not None:
            tenant.by_shopper.setdefault(entry.mark.number, set()).add(key)
        self._bytes += entry.size
        while self._bytes > self._room:
            self._remove(next(iter(self._entries)), "room")

    def horizon(self, tenant_id: TenantId, now: datetime) -> tuple[datetime | None] | None:
        """When an item of the tenant next comes or goes by itself, in a tuple; None when that must be asked."""
        tenant = self._tenant(tenant_id)
        if tenant.horizon is None or tenant.horizon[0] != tenant.version:
            return None
        until = tenant.horizon[1]
        return (until,) if until is None or now < until else None

    def set_horizon(self, tenant_id: TenantId, until: datetime | None, *, version: int) -> None:
        """What `horizon` shall say, unless the tenant has changed since `version`."""
        tenant = self._tenant(tenant_id)
        if version == tenant.version:
            tenant.horizon = (version, until)

    def cards(self, tenant_id: TenantId, item_nos: Sequence[int]) -> dict[int, Card]:
        """Those cards that are held."""
        if not self._feed.fresh:
            return {}
        now = self._clock()
        found = {}
        for item_no in item_nos:
            held = self._cards.get((tenant_id, item_no))
            if held is not None and now < held[1]:
                self._cards.move_to_end((tenant_id, item_no))
                found[item_no] = held[0]
        if found:
            _looked("cards", "yes").inc(len(found))
        if len(found) < len(item_nos):
            _looked("cards", "no").inc(len(item_nos) - len(found))
        return found

    def put_cards(self, tenant_id: TenantId, cards: dict[int, Card], *, version: int) -> None:
        """Keep cards that were read under `version`."""
        tenant = self._tenant(tenant_id)
        if version != tenant.version:
            return
        dies = self._clock() + LIFE_S["cards"]
        for item_no, card in cards.items():
            self._remove_card(tenant_id, item_no)
            self._cards[tenant_id, item_no] = card, dies
            tenant.cards.add(item_no)
            self._card_bytes += _card_size(card)
        while self._card_bytes > self._room:
            (owner, item_no) = next(iter(self._cards))
            self._remove_card(owner, item_no)

    def clear(self) -> None:
        """Forget everything: nobody knows what was missed."""
        _dropped("answers", "reset").inc(len(self._entries))
        self._entries.clear()
        self._cards.clear()
        self._bytes = self._card_bytes = 0
        for tenant in self._tenants.values():
            tenant.keys.clear()
            tenant.by_item.clear()
            tenant.by_shopper.clear()
            tenant.cards.clear()
            tenant.added.clear()
            tenant.horizon = None
            tenant.version += 1

    @property
    def held_bytes(self) -> int:
        """Bytes of all levels, as far as they are counted."""
        return self._bytes + self._card_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _lives(self, tenant_id: TenantId, entry: Entry, now: datetime) -> bool:
        at = self._clock()
        if at >= entry.dies or (entry.until is not None and now >= entry.until):
            return False
        added = self._tenants[tenant_id].added
        if not added:
            return True
        # The first second, not before that of the entry, in which an item came.
        first = bisect_left(added, float(int(entry.stored)))
        return first == len(added) or at < added[first] + ADDED_S

    def _on_change(self, change: Change) -> None:
        if change.kind in _EVERYTHING:
            self._drop(change.tenant_id, change.kind)
        elif change.kind == "shopper":
            # Merged or erased: the mark would tell, but who is erased is to be in no memory either.
            tenant = self._tenants.get(change.tenant_id)
            if tenant is None:
                return
            tenant.version += 1
            for key in list(tenant.by_shopper.get(int(change.ref), ())):
                self._remove(key, "shopper")
        elif change.kind == "items":
            tenant = self._tenants.get(change.tenant_id)
            if tenant is None:
                return
            if change.ref == ANY_ITEM:
                self._drop(change.tenant_id, "items")
                for item_no in list(tenant.cards):
                    self._remove_card(change.tenant_id, item_no)
                return
            tenant.version += 1
            second = float(int(self._clock()))
            if not tenant.added or tenant.added[-1] < second:
                tenant.added.append(second)
                if len(tenant.added) > LIFE_S["lists"]:
                    del tenant.added[: len(tenant.added) // 2]
                    self._drop(change.tenant_id, "age")  # older than what is known of the tenant
            for number in change.ref.split(",") if change.ref else ():
                item_no = int(number)
                self._remove_card(change.tenant_id, item_no)
                for key in list(tenant.by_item.get(item_no, ())):
                    self._remove(key, "item")

    def _drop(self, tenant_id: TenantId, why: str) -> None:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return
        tenant.version += 1
        for key in list(tenant.keys):
            self._remove(key, why)
        if why == "tenant":  # it may be gone for good
            for item_no in list(tenant.cards):
                self._remove_card(tenant_id, item_no)

    def _remove(self, key: Key, why: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        tenant = self._tenants[key[0]]
        tenant.keys.discard(key)
        for item_no in entry.items:
            _forget(tenant.by_item, item_no, key)
        if entry.mark is not None and entry.mark.number is not None:
            _forget(tenant.by_shopper, entry.mark.number, key)
        self._bytes -= entry.size
        _dropped(entry.level, why).inc()

    def _remove_card(self, tenant_id: TenantId, item_no: int) -> None:
        held = self._cards.pop((tenant_id, item_no), None)
        if held is not None:
            self._tenants[tenant_id].cards.discard(item_no)
            self._card_bytes -= _card_size(held[0])

    def _tenant(self, tenant_id: TenantId) -> _Tenant:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant()
        return tenant


def _forget(keys_by: dict[int, set[Key]], number: int, key: Key) -> None:
    keys = keys_by[number]
    keys.discard(key)
    if not keys:
        del keys_by[number]


def _card_size(card: Card) -> int:
    return 2 * len(card.doc) + len(card.photos or "") + _OVERHEAD
