"""Shoppers and items as numbers: external ids of events resolved in one round trip, and remembered.

A shopper is a visitor (a browser that is not signed in) or a user. Both have a number, as every item has; an id that
was never seen gets a row of the dictionary, not one of the catalogue. A visitor that turned out to be a user
resolves to the user's number.
"""

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

from infra.changes import Change, ChangeFeed
from infra.db import Database, TenantId

VISITOR: Final = 0
USER: Final = 1
_KIND: Final = {"v": VISITOR, "u": USER}

SHOPPER_CHANGE: Final = "shopper"
"""The kind of change that says: what this number stood for is another's now, or nobody's. `ref` is the number."""

_NUMBER: Final = "select shopper_nos, item_nos from number_ids($1, $2, $3, $4, $5)"


def user_key(user_id: str) -> str:
    """The user as `ShopperIds` names it."""
    return "u" + user_id


def visitor_key(visitor_id: str) -> str:
    """The visitor as `ShopperIds` names it."""
    return "v" + visitor_id


def bucket_key(tenant_id: TenantId, key: str) -> int:
    """What decides a shopper's variant: 64 bits of a hash of the id it was first seen under, as a signed number."""
    digest = blake2b(key.encode(), digest_size=8, key=tenant_id.bytes).digest()
    return int.from_bytes(digest, signed=True)


async def number_ids(
    raw: Any, tenant_id: TenantId, shoppers: Sequence[str], items: Sequence[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """The number of every shopper (by `user_key`, `visitor_key`) and item; unknown ones get a number.

    One round trip, which sets the tenant itself. Safe beside others that name the same ids. No id holds a NUL.
    """
    (record,) = await raw.fetch(
        _NUMBER,
        tenant_id,
        [_KIND[key[0]] for key in shoppers],
        [key[1:] for key in shoppers],
        [bucket_key(tenant_id, key) for key in shoppers],
        items,
    )
    return (
        dict(zip(shoppers, record["shopper_nos"], strict=True)),
        dict(zip(items, record["item_nos"], strict=True)),
    )


class _Known:
    """What is known of one tenant."""

    __slots__ = ("items", "keys", "shoppers")

    def __init__(self) -> None:
        self.shoppers: dict[str, int] = {}
        self.keys: dict[int, list[str]] = {}
        self.items: dict[str, int] = {}


class ShopperIds:
    """Numbers by external id, of all tenants of one process; at most `limit` ids are remembered (~200 bytes each).

    The change feed drops a shopper that was merged or erased. While the feed is stale, shoppers are asked for anew.
    """

    def __init__(self, database: Database, feed: ChangeFeed, *, limit: int = 100_000) -> None:
        self._database = database
        self._feed = feed
        self._limit = limit
        self._tenants: dict[TenantId, _Known] = {}
        self._size = 0
        self._drops = 0
        feed.subscribe(self._on_change, self.clear)

    async def resolve(
        self, tenant_id: TenantId, shoppers: Collection[str], items: Collection[str]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """As `number_ids`; no round trip where this process knows them all."""
        known = self._tenants.get(tenant_id)
        if known is None:
            known = self._tenants[tenant_id] = _Known()
        fresh = self._feed.fresh
        known_shoppers, known_items = known.shoppers, known.items
        found = {key: known_shoppers[key] for key in shoppers if key in known_shoppers} if fresh else {}
        found_items = {item: known_items[item] for item in items if item in known_items}
        if len(found) < len(shoppers) or len(found_items) < len(items):
            new = [key for key in shoppers if key not in found]
            new_items = [item for item in items if item not in found_items]
            drops = self._drops
            numbers, item_numbers = await number_ids(self._database.hot, tenant_id, new, new_items)
            found |= numbers
            found_items |= item_numbers
            if fresh and drops == self._drops:
                self._remember(tenant_id, numbers, item_numbers)
        return found, found_items

    def clear(self) -> None:
        """Forget everything."""
        self._tenants.clear()
        self._size = 0
        self._drops += 1

    def __len__(self) -> int:
        return self._size

    def _remember(self, tenant_id: TenantId, shoppers: dict[str, int], items: dict[str, int]) -> None:
        # Looked up again: it may have been forgotten while the database was asked.
        known = self._tenants.setdefault(tenant_id, _Known())
        for key, number in shoppers.items():
            if key not in known.shoppers:
                known.shoppers[key] = number
                known.keys.setdefault(number, []).append(key)
                self._size += 1
        for item, number in items.items():
            if item not in known.items:
                known.items[item] = number
                self._size += 1
        while self._size > self._limit and self._tenants:
            self._halve(max(self._tenants.values(), key=lambda each: len(each.shoppers) + len(each.items)))

    def _halve(self, known: _Known) -> None:
        """Forget the older half of a tenant's ids."""
        for key in list(islice(known.shoppers, (len(known.shoppers) + 1) // 2)):
            self._forget(known, [key])
        for item in list(islice(known.items, (len(known.items) + 1) // 2)):
            del known.items[item]
            self._size -= 1

    def _forget(self, known: _Known, keys: Iterable[str]) -> None:
        for key in keys:
            number = known.shoppers.pop(key)
            self._size -= 1
            others = known.keys[number]
            others.remove(key)
            if not others:
                del known.keys[number]

    def _on_change(self, change: Change) -> None:
        if change.kind == SHOPPER_CHANGE:
            self._drops += 1
            known = self._tenants.get(change.tenant_id)
            if known is not None and change.ref.isdigit():
                self._forget(known, list(known.keys.get(int(change.ref), ())))
        elif change.kind == "tenant":
            self._drops += 1
            known = self._tenants.pop(change.tenant_id, None)
            if known is not None:
                self._size -= len(known.shoppers) + len(known.items)
