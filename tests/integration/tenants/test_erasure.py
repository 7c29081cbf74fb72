"""Of a deleted tenant nothing is left, whatever stops the erasure in between."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from infra.blob import BlobsUnavailable
from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId, driver
from infra.secret import Secret, mark_of
from tenants import erasure
from tenants.catalog.item import Item
from tenants.catalog.store import upsert_items
from tenants.certificates import CertificateInvalid, count_certificates, get_certificate, verify
from tenants.deletion import delete_tenant
from tenants.erasure import deleted_tenants, erase_tenant
from tenants.keys import KeyRequest, create_key
from tenants.lifecycle import TenantNotFound, create_tenant, load_tenant
from tests.conftest import START
from workers.jobs.upkeep import Upkeep

pytestmark = pytest.mark.anyio

LATER = START + timedelta(minutes=2)
SECRET = b"s" * 32
_ITEMS = 10
_OF_OTHER_TABLES = (
    "insert into placements (tenant_id, placement_id, doc) select $1, n::text, '{}' from generate_series(1, 4) n",
    "insert into item_minutes (tenant_id, minute, item_no, views) select $1, $2, n, 1 from generate_series(1, 4) n",
)


async def remove(database: Database, tenant_id: TenantId) -> None:
    """Delete it at the frozen time, without grace."""
    async with database.tenant_session(tenant_id) as conn:
        await delete_tenant(conn, tenant_id, now=START, grace=timedelta())


class _Killed(BaseException):
    """No error that anybody handles."""


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[FolderBlobs]:
    """A blob store of the test's own."""
    store = FolderBlobs(tmp_path / "blobs")
    yield store
    await store.aclose()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "_BATCH", 3)


@pytest.fixture
def make_shop(database: Database, blobs: FolderBlobs, clock: Callable[[], datetime]) -> Any:
    """Make a tenant with rows in many tables, and a file."""

    async def make() -> TenantId:
        tenant_id = await create_tenant(database, f"shop {uuid4()}")
        async with database.tenant_session(tenant_id) as conn:
            tenant = await load_tenant(conn, tenant_id)
            items = [Item(id=str(number), title="x", tags=["a"]) for number in range(_ITEMS)]
            await upsert_items(conn, tenant, items, now=clock())
            await create_key(conn, tenant_id, KeyRequest(name="k"), secret=b"s" * 32, cell="00", now=clock())
            raw = await driver(conn)
            for statement in _OF_OTHER_TABLES:
                await raw.execute(statement, tenant_id, *([clock()] if "$2" in statement else []))
        await blobs.put(f"tenants/{tenant_id}/imports/feed", b"x")
        return tenant_id

    return make


async def test_an_erased_tenant_leaves_nothing(database: Database, make_shop: Any, blobs: FolderBlobs) -> None:
    """No row in any table but the change feed, and no file; another tenant keeps everything."""
    gone, other = await make_shop(), await make_shop()
    kept = await _counts(database, other)
    await remove(database, gone)
    assert await erase_tenant(database, blobs, gone, now=LATER, secret=SECRET) > 4 * _ITEMS
    assert set(await _counts(database, gone)) == {"changes", "erasure_certificates"}
    assert await _counts(database, other) == kept
    assert [key async for key in blobs.iter_keys("tenants/")] == [f"tenants/{other}/imports/feed"]
    with pytest.raises(TenantNotFound):
        await erase_tenant(database, blobs, gone, now=LATER, secret=SECRET)


async def test_an_erasure_that_is_killed_goes_on(
    database: Database, make_shop: Any, blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was erased until then stays erased, and the next turn of upkeep erases the rest."""
    tenant_id = await make_shop()
    await remove(database, tenant_id)
    before = await _counts(database, tenant_id)
    whole = erasure._erase_rows

    async def killed(database: Database, erased: TenantId, table: str) -> int:
        if erased == tenant_id and table == "item_ids":
            raise _Killed
        return await whole(database, erased, table)

    monkeypatch.setattr(erasure, "_erase_rows", killed)
    upkeep = Upkeep(database, blobs, clock=lambda: LATER, secret=Secret(current=SECRET))
    with pytest.raises(_Killed):
        await upkeep.erase()
    half = await _counts(database, tenant_id)
    assert sum(half.values()) < sum(before.values())
    assert half["items"] == _ITEMS
    monkeypatch.setattr(erasure, "_erase_rows", whole)
    assert await upkeep.erase() >= 1
    assert set(await _counts(database, tenant_id)) == {"changes", "erasure_certificates"}
    assert tenant_id not in await deleted_tenants(database, LATER)


async def test_a_certificate_is_signed_under_the_secret_that_follows(
    database: Database, make_shop: Any, blobs: FolderBlobs
) -> None:
    """It is counted under the old one until then, and holds when that is forgotten; one that was changed never does."""
    new = Secret(current=b"n" * 32, others=(SECRET,))

    async def counted() -> Counter[str]:
        async with database.system_session(reason="test look") as conn:
            return await count_certificates(conn, new)

    good, changed = await make_shop(), await make_shop()
    before = (await counted())["unknown"]
    for tenant_id in (good, changed):
        await remove(database, tenant_id)
        await erase_tenant(database, blobs, tenant_id, now=LATER, secret=SECRET)
    async with database.system_session(reason="somebody changes it") as conn:
        await (await driver(conn)).execute(
            "update erasure_certificates set document = replace(document, '\"files\":1', '\"files\":0') "
            "where tenant_id = $1",
            changed,
        )
    assert (await counted())[mark_of(SECRET)] >= 1
    assert (await counted())["unknown"] == before + 1
    upkeep = Upkeep(database, blobs, clock=lambda: LATER, secret=new)
    assert await upkeep.rehash() >= 1
    assert await upkeep.rehash() == 0
    assert (await counted()).keys() == {mark_of(new.current), "unknown"}
    verify(msgspec.json.encode(await get_certificate(database, good)), secrets=(new.current,))
    with pytest.raises(CertificateInvalid):
        verify(msgspec.json.encode(await get_certificate(database, changed)), secrets=new.every)


async def test_files_that_cannot_be_reached_are_tried_again(
    database: Database, make_shop: Any, blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tenant stays on the list until its last file is gone."""
    tenant_id = await make_shop()
    await remove(database, tenant_id)

    async def away(prefix: str) -> int:
        raise BlobsUnavailable("The store is away.")

    with monkeypatch.context() as broken:
        broken.setattr(blobs, "delete_prefix", away)
        await Upkeep(database, blobs, clock=lambda: LATER, secret=Secret(current=SECRET)).erase()
    assert tenant_id in await deleted_tenants(database, LATER)
    await Upkeep(database, blobs, clock=lambda: LATER, secret=Secret(current=SECRET)).erase()
    assert tenant_id not in await deleted_tenants(database, LATER)
    assert not await blobs.exists(f"tenants/{tenant_id}/imports/feed")


async def test_a_tenant_just_deleted_is_left_alone(database: Database, make_shop: Any, blobs: FolderBlobs) -> None:
    """What is being answered for it may still write."""
    tenant_id = await make_shop()
    await remove(database, tenant_id)
    await Upkeep(database, blobs, clock=lambda: START, secret=Secret(current=SECRET)).erase()
    assert (await _counts(database, tenant_id))["items"] == _ITEMS


async def test_a_living_tenant_cannot_be_erased(database: Database, make_shop: Any, blobs: FolderBlobs) -> None:
    """It must be deleted first."""
    tenant_id = await make_shop()
    with pytest.raises(TenantNotFound, match="no deleted tenant"):
        await erase_tenant(database, blobs, tenant_id, now=LATER, secret=SECRET)
    assert tenant_id not in await deleted_tenants(database, LATER)


async def _counts(database: Database, tenant_id: TenantId) -> dict[str, int]:
    """Rows of the tenant by table, of those that have any."""
    async with database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        tables = await raw.fetch(
            "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' "
            "where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
        )
        counts = {
            table["relname"]: await raw.fetchval(
                f"select count(*) from {table['relname']} where tenant_id = $1", tenant_id
            )
            for table in tables
        }
    return {table: count for table, count in counts.items() if count}
