"""Ids become numbers, once, whoever asks."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.changes import Change, ChangeFeed
from infra.db import Database, TenantId, driver
from tenants.audience.shoppers import SHOPPER_CHANGE, ShopperIds, bucket_key, user_key, visitor_key

pytestmark = pytest.mark.anyio


@pytest.fixture
async def feed(database: Database) -> Any:
    """A change feed that is fresh."""
    made = ChangeFeed(database)
    await made.poll()
    await made.start()
    yield made
    await made.close()


async def test_unknown_ids_get_numbers_and_keep_them(database: Database, feed: ChangeFeed, make_tenant: Any) -> None:
    """A visitor and a user of one name are two; a second process finds the same."""
    tenant = (await make_tenant()).tenant_id
    ids = ShopperIds(database, feed)
    keys = {user_key("a"), visitor_key("a"), user_key("b")}
    shoppers, items = await ids.resolve(tenant, keys, {"i", "j"})
    assert len(set(shoppers.values())) == 3
    assert len(set(items.values())) == 2
    assert await ids.resolve(tenant, keys, {"i", "j"}) == (shoppers, items)
    assert await ShopperIds(database, feed).resolve(tenant, keys, {"i", "j"}) == (shoppers, items)


async def test_what_is_known_asks_nobody(
    database: Database, feed: ChangeFeed, make_tenant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No round trip."""
    tenant = (await make_tenant()).tenant_id
    ids = ShopperIds(database, feed)
    first = await ids.resolve(tenant, {user_key("a")}, {"i"})
    monkeypatch.setattr(ids, "_database", None)
    assert await ids.resolve(tenant, {user_key("a")}, {"i"}) == first


async def test_many_processes_name_the_same_ids_at_once(database: Database, feed: ChangeFeed, make_tenant: Any) -> None:
    """All get the same numbers."""
    tenant = (await make_tenant()).tenant_id
    keys, items = {user_key(str(n)) for n in range(50)}, {str(n) for n in range(50)}
    found = await asyncio.gather(*(ShopperIds(database, feed).resolve(tenant, keys, items) for _ in range(8)))
    assert all(each == found[0] for each in found)


async def test_two_tenants_share_nothing(database: Database, feed: ChangeFeed, make_tenant: Any) -> None:
    """Each has its own numbers and its own rows."""
    one, two = (await make_tenant()).tenant_id, (await make_tenant()).tenant_id
    ids = ShopperIds(database, feed)
    await ids.resolve(one, {user_key("a"), user_key("b")}, {"i"})
    await ids.resolve(two, {user_key("b")}, set())
    async with database.tenant_session(two) as conn:
        raw = await driver(conn)
        assert [r[0] for r in await raw.fetch("select external_id from shopper_ids")] == ["b"]
        assert await raw.fetch("select 1 from item_ids") == []


async def test_a_merged_visitor_is_the_user(database: Database, feed: ChangeFeed, make_tenant: Any) -> None:
    """After the change that says so, also where the visitor was remembered."""
    tenant = (await make_tenant()).tenant_id
    ids = ShopperIds(database, feed)
    shoppers, _ = await ids.resolve(tenant, {user_key("u"), visitor_key("v")}, set())
    async with database.tenant_session(tenant) as conn:
        await (await driver(conn)).execute(
            "update shopper_ids set merged_into = $1 where tenant_id = $2 and shopper_no = $3",
            shoppers[user_key("u")],
            tenant,
            shoppers[visitor_key("v")],
        )
    feed.announce(Change(kind=SHOPPER_CHANGE, tenant_id=tenant, ref=str(shoppers[visitor_key("v")])))
    again, _ = await ids.resolve(tenant, {user_key("u"), visitor_key("v")}, set())
    assert again == {user_key("u"): shoppers[user_key("u")], visitor_key("v"): shoppers[user_key("u")]}


async def test_memory_is_bounded(database: Database, feed: ChangeFeed, make_tenant: Any) -> None:
    """The oldest half of the largest tenant goes."""
    tenant = (await make_tenant()).tenant_id
    ids = ShopperIds(database, feed, limit=100)
    for start in range(0, 400, 50):
        await ids.resolve(tenant, {user_key(str(n)) for n in range(start, start + 50)}, {str(start)})
        assert len(ids) <= 100
    feed.announce(Change(kind="tenant", tenant_id=tenant, ref=""))
    assert len(ids) == 0


@given(st.uuids(), st.text(min_size=1, max_size=128))
def test_a_bucket_is_a_number_that_the_column_takes(tenant: Any, key: str) -> None:
    """64 bits with a sign, always the same."""
    bucket = bucket_key(TenantId(tenant), key.encode(errors="replace").decode())
    assert -(2**63) <= bucket < 2**63
