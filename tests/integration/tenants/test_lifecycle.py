"""Tenants are made, found, loaded and deleted."""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from infra.changes import ChangeFeed
from infra.db import Database
from tenants.deletion import delete_tenant
from tenants.directory import Directory
from tenants.keys import KeyRequest, create_key, find_key, hash_key
from tenants.lifecycle import (
    NO_GENERATION,
    InvalidTenant,
    TenantNameTaken,
    TenantNotFound,
    create_tenant,
    find_tenant,
    list_tenants,
    load_tenant,
)
from tenants.vectors.generations import activate, ensure_generation, ensure_layout, ensure_space, open_generation

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32
Clock = Callable[[], datetime]


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"shop {uuid4()}"


async def _layout(database: Database) -> tuple[int, int, int]:
    """A layout of its own: its number and its spaces."""
    mark = uuid4().hex[:8]
    async with database.system_session(reason="test set-up") as conn:
        text = await ensure_space(conn, name=f"text-{mark}", kind="text", dim=16)
        image = await ensure_space(conn, name=f"image-{mark}", kind="image", dim=8)
        return await ensure_layout(conn, text, image), text, image


async def test_a_made_tenant_is_found_by_name_and_by_id(database: Database, name: str) -> None:
    """With what it was made with."""
    tenant_id = await create_tenant(database, name, plan="pro", currency="EUR")
    found = await find_tenant(database, name)
    assert (found.tenant_id, found.plan, found.currency, found.items) == (tenant_id, "pro", "EUR", 0)
    assert await find_tenant(database, str(tenant_id)) == found
    assert found in await list_tenants(database)


async def test_a_name_is_taken_once(database: Database, name: str) -> None:
    """The second gets an error, not the first one's tenant."""
    await create_tenant(database, name)
    with pytest.raises(TenantNameTaken, match="another name"):
        await create_tenant(database, name)


@pytest.mark.parametrize(
    ("bad_name", "currency", "pointers"),
    [("", "EUR", ["/name"]), (" x", "eur", ["/name", "/currency"]), ("a\nb", "EURO", ["/name", "/currency"])],
)
async def test_bad_names_and_currencies_are_told(
    database: Database, bad_name: str, currency: str, pointers: list[str]
) -> None:
    """Both at once."""
    with pytest.raises(InvalidTenant) as caught:
        await create_tenant(database, bad_name, currency=currency)
    assert [fault.pointer for fault in caught.value.errors] == pointers


async def test_a_new_tenant_works_before_any_worker_has_seen_it(database: Database, name: str) -> None:
    """It has no generation yet, and loads all the same."""
    tenant_id = await create_tenant(database, name, currency="JPY")
    loaded = await load_tenant(database, tenant_id)
    assert (loaded.name, loaded.currency, loaded.shard) == (name, "JPY", 0)
    assert loaded.generation == NO_GENERATION


async def test_the_active_generation_is_loaded(database: Database, name: str) -> None:
    """By the hot pool and inside a session alike, with the calibration that was measured."""
    tenant_id = await create_tenant(database, name)
    layout_id, text, image = await _layout(database)
    async with database.tenant_session(tenant_id) as conn:
        await ensure_generation(conn, tenant_id, layout_id, {text: (0.1, 0.2), image: (0.3, 0.4)})
        inside = await load_tenant(conn, tenant_id)
    loaded = await load_tenant(database, tenant_id)
    assert loaded == inside
    generation = loaded.generation
    assert (generation.gen, generation.layout_id) == (1, layout_id)
    assert (generation.text.space_id, generation.text.mean, generation.text.dev) == (text, 0.1, 0.2)
    assert (generation.image.space_id, generation.image.mean, generation.image.dim) == (image, 0.3, 8)


async def test_a_flip_of_the_generation_reaches_the_directory(database: Database, name: str) -> None:
    """By the change feed, at the next poll."""
    tenant_id = await create_tenant(database, name)
    layout_id, text, image = await _layout(database)
    calibration = {text: (0.1, 0.2), image: (0.3, 0.4)}
    async with database.tenant_session(tenant_id) as conn:
        await ensure_generation(conn, tenant_id, layout_id, calibration)
    feed = ChangeFeed(database)
    directory = Directory(database, feed)
    await feed.poll()
    assert (await directory.get(tenant_id)).generation.gen == 1
    async with database.tenant_session(tenant_id) as conn:
        gen = await open_generation(conn, tenant_id, layout_id, reason="test", calibration=calibration)
        await activate(conn, tenant_id, gen)
    await feed.poll()
    assert (await directory.get(tenant_id)).generation.gen == gen
    await feed.close()


async def test_a_deleted_tenant_is_gone_for_everybody(database: Database, name: str, clock: Clock) -> None:
    """Its keys are unknown, it is in no list, and its name is free."""
    tenant_id = await create_tenant(database, name)
    async with database.tenant_session(tenant_id) as conn:
        made = await create_key(conn, tenant_id, KeyRequest(name="k"), secret=SECRET, cell="00", now=clock())
    assert await find_key(database, hash_key(SECRET, made.key)) is not None
    async with database.tenant_session(tenant_id) as conn:
        await delete_tenant(conn, tenant_id, now=clock(), grace=timedelta(days=1))
    assert await find_key(database, hash_key(SECRET, made.key)) is None
    with pytest.raises(TenantNotFound):
        await load_tenant(database, tenant_id)
    with pytest.raises(TenantNotFound):
        await find_tenant(database, name)
    assert await create_tenant(database, name) != tenant_id
    with pytest.raises(TenantNotFound):
        async with database.tenant_session(tenant_id) as conn:
            await delete_tenant(conn, tenant_id, now=clock(), grace=timedelta())
