"""The catalogue in a real database, as the application role."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from infra.db import Database
from tenants.catalog import store as catalog
from tenants.catalog.filters import parse_filter
from tenants.catalog.item import Item, ItemNotFound
from tenants.catalog.photos import PhotoNotFound, delete_photo, get_photo, store_photo
from tenants.lifecycle import TenantRef
from tests.integration.tenants.conftest import MakeTenant

pytestmark = pytest.mark.anyio

_NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


async def _store(database: Database, tenant: TenantRef, *items: Item) -> list[str]:
    async with database.tenant_session(tenant.tenant_id) as connection:
        outcomes = await catalog.upsert_items(connection, tenant, items, now=_NOW)
    return [outcome.status for outcome in outcomes]


async def _get(database: Database, tenant: TenantRef, item_id: str) -> catalog.StoredItem:
    async with database.tenant_session(tenant.tenant_id) as connection:
        return await catalog.get_item(connection, tenant.tenant_id, item_id)


async def test_a_stored_item_comes_back_as_it_was(database: Database, make_tenant: MakeTenant) -> None:
    """Every field survives the round trip, and encoding waits for text and photos."""
    tenant = await make_tenant()
    item = Item(
        id="a/b ü",
        title="T",
        images=["https://example.com/1.jpg"],
        categories=["A > B"],
        price=2**53 - 1,
        attributes={"size": [1, "x"], "wet": True, "big": 10**400},
        available_from=_NOW,
    )
    assert await _store(database, tenant, item) == ["created"]
    stored = await _get(database, tenant, "a/b ü")
    assert msgspec.json.decode(stored.item, type=Item) == item
    assert (stored.text.state, stored.image.state) == ("pending", "pending")


async def test_unchanged_rows_are_not_written(database: Database, make_tenant: MakeTenant) -> None:
    """The same content again is `unchanged`, another is `updated` and keeps the time of creation."""
    tenant = await make_tenant()
    assert await _store(database, tenant, Item(id="a", title="T"), Item(id="b")) == ["created", "created"]
    first = await _get(database, tenant, "a")
    async with database.tenant_session(tenant.tenant_id) as connection:
        outcomes = await catalog.upsert_items(
            connection, tenant, [Item(id="a", title="T"), Item(id="b", price=5)], now=_NOW + timedelta(hours=1)
        )
    assert [outcome.status for outcome in outcomes] == ["unchanged", "updated"]
    assert (await _get(database, tenant, "a")).updated_at == first.updated_at
    second = await _get(database, tenant, "b")
    assert (second.created_at, second.updated_at) == (_NOW, _NOW + timedelta(hours=1))


async def test_of_two_rows_with_one_id_the_later_wins(database: Database, make_tenant: MakeTenant) -> None:
    """A feed that repeats an id stores its last row, once."""
    tenant = await make_tenant()
    rows = [Item(id="a", title="first"), Item(id="b"), Item(id="a", title="last")]
    assert await _store(database, tenant, *rows) == ["created"] * 3
    stored = await _get(database, tenant, "a")
    assert msgspec.json.decode(stored.item)["title"] == "last"


async def test_a_bad_repeat_of_an_id_does_not_lose_the_good_row(database: Database, make_tenant: MakeTenant) -> None:
    """The last row that can be stored wins, and the bad one is told apart."""
    tenant = await make_tenant()
    assert await _store(database, tenant, Item(id="a", title="good"), Item(id="a", title="b\0d")) == [
        "created",
        "rejected",
    ]
    assert msgspec.json.decode((await _get(database, tenant, "a")).item)["title"] == "good"


async def test_a_call_of_several_chunks_is_stored_whole(database: Database, make_tenant: MakeTenant) -> None:
    """Every row of a call that is larger than a chunk arrives under its own id."""
    tenant = await make_tenant()
    items = [Item(id=str(number), title=f"title {number}") for number in range(2 * catalog.CHUNK + 7)]
    assert set(await _store(database, tenant, *items)) == {"created"}
    for item_id in ("0", str(catalog.CHUNK), str(2 * catalog.CHUNK + 6)):
        assert msgspec.json.decode((await _get(database, tenant, item_id)).item)["title"] == f"title {item_id}"


async def test_a_price_change_encodes_nothing_anew(database: Database, make_tenant: MakeTenant) -> None:
    """Only a changed text or photo list makes the encoding pending again."""
    tenant = await make_tenant()
    await _store(database, tenant, Item(id="a", title="T"))
    async with database.tenant_session(tenant.tenant_id) as connection:
        await connection.exec_driver_sql("update items set text_state = 1")
    await _store(database, tenant, Item(id="a", title="T", price=7))
    assert (await _get(database, tenant, "a")).text.state == "done"
    await _store(database, tenant, Item(id="a", title="U", price=7))
    assert (await _get(database, tenant, "a")).text.state == "pending"


async def test_patch_merges_as_rfc_7396_says(database: Database, make_tenant: MakeTenant) -> None:
    """null removes, objects merge, lists replace; the id stays; a bad result is refused."""
    tenant = await make_tenant()
    await _store(database, tenant, Item(id="a", title="T", brand="B", tags=["x", "y"], attributes={"p": 1, "q": 2}))
    patch = {"brand": None, "tags": ["z"], "attributes": {"p": None, "r": 3}}
    async with database.tenant_session(tenant.tenant_id) as connection:
        outcome = await catalog.patch_item(connection, tenant, "a", patch, now=_NOW)
    assert outcome.status == "updated"
    stored = msgspec.json.decode((await _get(database, tenant, "a")).item)
    assert stored == {"id": "a", "title": "T", "tags": ["z"], "attributes": {"q": 2, "r": 3}}
    with pytest.raises(catalog.InvalidItem):
        async with database.tenant_session(tenant.tenant_id) as connection:
            await catalog.patch_item(connection, tenant, "a", {"id": "b"}, now=_NOW)
    with pytest.raises(ItemNotFound):
        async with database.tenant_session(tenant.tenant_id) as connection:
            await catalog.patch_item(connection, tenant, "none", {}, now=_NOW)


async def test_a_deleted_item_leaves_nothing_but_its_number(database: Database, make_tenant: MakeTenant) -> None:
    """The row is gone from every table; the number is never given to another id, and comes back with its own."""
    tenant = await make_tenant()
    await _store(database, tenant, Item(id="a", title="T", tags=["x"]), Item(id="b"))
    async with database.tenant_session(tenant.tenant_id) as connection:
        numbers = await catalog.item_numbers(connection, tenant.tenant_id, ["a", "b", "c"])
        assert set(numbers) == {"a", "b"}
        assert await catalog.delete_items(connection, tenant.tenant_id, [numbers["a"]]) == 1
        assert await catalog.delete_items(connection, tenant.tenant_id, [numbers["a"]]) == 0
        for table in ("items", "item_facets", "item_attrs", "item_text"):
            left = await connection.exec_driver_sql(f"select count(*) from {table} where item_no = {numbers['a']}")
            assert left.scalar() == 0
    await _store(database, tenant, Item(id="c"), Item(id="a"))
    async with database.tenant_session(tenant.tenant_id) as connection:
        again = await catalog.item_numbers(connection, tenant.tenant_id, ["a", "b", "c"])
    assert again["a"] == numbers["a"]
    assert again["c"] not in numbers.values()


async def test_writers_of_the_same_items_queue_instead_of_dead_locking(
    database: Database, make_tenant: MakeTenant
) -> None:
    """Opposite orders, new and known ids, at once: all succeed and the attributes are of one version."""
    tenant = await make_tenant()
    ids = [str(number) for number in range(40)]
    await _store(database, tenant, *(Item(id=item_id) for item_id in ids[:20]))

    async def write(version: int) -> None:
        order = ids if version % 2 else ids[::-1]
        await _store(database, tenant, *(Item(id=item_id, attributes={"v": version}) for item_id in order))

    await asyncio.gather(*(write(version) for version in range(8)))
    async with database.tenant_session(tenant.tenant_id) as connection:
        rows = await connection.exec_driver_sql(
            "select item_no, count(*), count(distinct value_num) from item_attrs group by item_no"
        )
        assert {(row[1], row[2]) for row in rows} == {(1, 1)}


async def test_a_list_is_paged_in_the_order_of_numbers(database: Database, make_tenant: MakeTenant) -> None:
    """Pages cover the filtered catalogue once, and the last says that it is."""
    tenant = await make_tenant()
    await _store(database, tenant, *(Item(id=str(number), price=number) for number in range(10)))
    cheap = parse_filter({"lt": ["price", 7]})
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        async with database.tenant_session(tenant.tenant_id) as connection:
            page = await catalog.list_items(connection, tenant.tenant_id, filter_=cheap, after_no=after, limit=3)
        seen += [msgspec.json.decode(stored.item)["id"] for stored in page.items]
        after = page.last_no
    assert seen == [str(number) for number in range(7)]


async def test_uploaded_photos_survive_a_put_and_queue_the_encoder(database: Database, make_tenant: MakeTenant) -> None:
    """PUT replaces every field but keeps uploads; the same bytes again change nothing; removal queues again."""
    tenant = await make_tenant()
    await _store(database, tenant, Item(id="a"))
    assert (await _get(database, tenant, "a")).image.state == "absent"

    async def upload(sha256: bytes) -> None:
        async with database.tenant_session(tenant.tenant_id) as connection:
            await store_photo(connection, tenant.tenant_id, "a", 3, sha256=sha256, content_type="image/png", size=9)

    await upload(b"1" * 32)
    await _store(database, tenant, Item(id="a", title="T"))
    stored = await _get(database, tenant, "a")
    assert [(photo.position, photo.sha256) for photo in stored.photos] == [(3, (b"1" * 32).hex())]
    assert stored.image.state == "pending"
    async with database.tenant_session(tenant.tenant_id) as connection:
        await connection.exec_driver_sql("update items set image_state = 1")
    await upload(b"1" * 32)
    assert (await _get(database, tenant, "a")).image.state == "done"
    async with database.tenant_session(tenant.tenant_id) as connection:
        assert (await get_photo(connection, tenant.tenant_id, "a", 3)).size == 9
        await delete_photo(connection, tenant.tenant_id, "a", 3)
    assert (await _get(database, tenant, "a")).image.state == "pending"
    with pytest.raises(PhotoNotFound):
        async with database.tenant_session(tenant.tenant_id) as connection:
            await delete_photo(connection, tenant.tenant_id, "a", 3)
