"""What nobody needs any more is taken away, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from infra.blob_folder import FolderBlobs
from infra.changes import record_change
from infra.db import Database
from tenants.catalog.photos import photo_key, store_photo
from workers.jobs import upkeep as upkeep_job
from workers.jobs.encode import TextLoop
from workers.jobs.upkeep import SWEPT_AT_ONCE, Upkeep
from workers.models import Models

pytestmark = pytest.mark.anyio


async def test_old_changes_are_dropped(database: Database, make_shop: Any, blobs: FolderBlobs, query: Any) -> None:
    """Those of the last hour stay."""
    from workers.jobs.encode import utc_now

    tenant_id = await make_shop()
    async with database.tenant_session(tenant_id) as conn:
        await record_change(conn, tenant_id, "tenant")
    await query(tenant_id, "update changes set at = at - interval '2 hours' where tenant_id = $1")
    async with database.tenant_session(tenant_id) as conn:
        await record_change(conn, tenant_id, "tenant")
    await Upkeep(database, blobs, clock=utc_now).prune()
    assert await query(tenant_id, "select count(*) from changes where tenant_id = $1") == [(1,)]


async def test_limits_that_are_all_free_are_forgotten(
    database: Database, make_shop: Any, blobs: FolderBlobs, query: Any, clock: Any
) -> None:
    """Those that somebody has used up stay, however old."""
    tenant_id = await make_shop()
    now = int(clock().timestamp() * 1_000_000)
    hours = {"old": -2, "fresh": -0.5, "debt": 3}
    for name, ahead in hours.items():
        at = now + int(ahead * 3_600_000_000)
        await query(tenant_id, "insert into rate_buckets values ($1, $2, $3, 0)", name, at)
    await Upkeep(database, blobs, clock=clock).prune()
    found = await query(tenant_id, "select bucket from rate_buckets where tenant_id = $1 order by 1")
    assert found == [("debt",), ("fresh",)]


async def test_photos_that_no_item_shows_are_swept(
    database: Database, make_shop: Any, blobs: FolderBlobs, clock: Any
) -> None:
    """Only when they were unused at the last sweep already: an upload's row comes after its bytes."""
    tenant_id = await make_shop([{"id": "a"}])
    used, unused, feed = (
        photo_key(tenant_id, "aa" * 32),
        photo_key(tenant_id, "bb" * 32),
        f"tenants/{tenant_id}/imports/x",
    )
    for key in (used, unused, feed):
        await blobs.put(key, b"x")
    async with database.tenant_session(tenant_id) as conn:
        await store_photo(conn, tenant_id, "a", 0, sha256=bytes.fromhex("aa" * 32), content_type="image/png", size=1)
    upkeep = Upkeep(database, blobs, clock=clock)
    assert await upkeep.sweep() == 0
    assert await upkeep.sweep() == 1
    assert sorted([key async for key in blobs.iter_keys("tenants/")]) == sorted([used, feed])


async def test_pending_items_are_counted(database: Database, make_shop: Any, blobs: FolderBlobs) -> None:
    """The gauges are what autoscaling reads."""
    from infra.telemetry import REGISTRY

    await make_shop([{"id": "a", "title": "red shoe", "images": ["https://s.example/1"]}, {"id": "b", "title": "mug"}])
    await Upkeep(database, blobs).count()
    counts = [REGISTRY.get_sample_value("queue_items_pending", {"modality": m}) for m in ("text", "image")]
    assert counts == [2, 1]


async def test_a_large_tenant_gets_a_shard_of_its_own(
    database: Database, tiny: Models, make_shop: Any, blobs: FolderBlobs, query: Any, clock: Any
) -> None:
    """Not while its texts wait to be encoded; its vectors are there afterwards."""
    tenant_id = await make_shop([{"id": f"i{at}", "title": f"red shoe {at}"} for at in range(12)])
    upkeep = Upkeep(database, blobs)
    assert await upkeep.shards(above=10) == 0
    await TextLoop(database, [tiny], clock=clock).step()
    assert await upkeep.shards(above=10) == 1
    assert await upkeep.shards(above=10) == 0
    ((shard, count),) = await query(
        tenant_id,
        "select t.shard, count(*) from tenants t join fused_vectors v on v.tenant_id = $1 and v.shard = t.shard "
        "where t.tenant_id = $1 group by 1",
    )
    assert (shard > 0, count) == (True, 12)


async def test_late_events_are_put_right_a_few_shoppers_at_a_time(
    database: Database, make_shop: Any, blobs: FolderBlobs, query: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are claimed over the same connection: many sign-ins of one shop must not hold it. None is left out."""
    one, other = await make_shop(), await make_shop()
    for tenant_id in (one, other):
        await query(
            tenant_id,
            "insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key, merged_into, merged_at) "
            "select $1, n, 0, 'v' || n, n, 100 + n, $2::timestamptz - n % 3 * interval '1 second' "
            "from generate_series(1, 8) n",
            clock(),
        )
        await query(
            tenant_id,
            "insert into events (tenant_id, ts, event_no, type, shopper_no) "
            "select $1, $2::timestamptz, gen_random_uuid(), 'view', n from generate_series(1, 9) n",
            clock(),
        )
    held = []
    whole = upkeep_job.settle_late

    async def few(raw: Any, since: Any, **options: Any) -> Any:
        some = await whole(raw, since, limit=3, **options)
        held.append(some.rows)
        return some

    monkeypatch.setattr(upkeep_job, "settle_late", few)
    upkeep = Upkeep(database, blobs, clock=clock)
    assert await upkeep.settle() == sum(held) >= 16
    assert max(held) == 3
    for tenant_id in (one, other):
        numbers = await query(tenant_id, "select shopper_no from events where tenant_id = $1 order by 1")
        assert numbers == [(9,), *((101 + n,) for n in range(8))]


async def test_a_settling_that_failed_is_made_up_for(
    database: Database, make_shop: Any, blobs: FolderBlobs, query: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago: a database that was away for an hour leaves nothing under a number that is merged."""
    tenant_id = await make_shop()
    upkeep = Upkeep(database, blobs, clock=clock)
    await upkeep.settle()
    await query(
        tenant_id,
        "insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key, merged_into, merged_at) "
        "values ($1, 1, 0, 'v', 1, 2, $2)",
        clock(),
    )
    await query(
        tenant_id,
        "insert into events (tenant_id, ts, event_no, type, shopper_no) values ($1, $2, gen_random_uuid(), 'view', 1)",
        clock(),
    )
    clock.advance(3600)
    with monkeypatch.context() as broken:

        async def away(*_: Any, **__: Any) -> Any:
            raise ConnectionError("away")

        broken.setattr(upkeep_job, "settle_late", away)
        with pytest.raises(ConnectionError):
            await upkeep.settle()
    await upkeep.settle()
    assert await query(tenant_id, "select shopper_no from events where tenant_id = $1") == [(2,)]


async def test_a_photo_that_comes_back_during_the_sweep_stays(
    database: Database, make_shop: Any, tmp_path: Path, clock: Any
) -> None:
    """What was uploaded again after it was found unused is left alone, whoever has to wait for whom."""
    tenant_id = await make_shop([{"id": "a"}])
    doomed = [photo_key(tenant_id, f"{n:02x}" * 32) for n in range(2 * SWEPT_AT_ONCE)]

    class Store(FolderBlobs):
        async def delete(self, key: str) -> None:
            await super().delete(key)
            if key == doomed[0]:
                async with database.tenant_session(tenant_id) as conn:
                    for n, back in enumerate(doomed[SWEPT_AT_ONCE : SWEPT_AT_ONCE + 2]):
                        sha256 = bytes.fromhex(back[-64:])
                        await store_photo(conn, tenant_id, "a", n, sha256=sha256, content_type="image/png", size=1)

    store = Store(tmp_path / "swept")
    for key in doomed:
        await store.put(key, b"x")
    upkeep = Upkeep(database, store, clock=clock)
    assert await upkeep.sweep() == 0
    assert await upkeep.sweep() == len(doomed) - 2
    assert sorted([key async for key in store.iter_keys("tenants/")]) == doomed[SWEPT_AT_ONCE : SWEPT_AT_ONCE + 2]
    await store.aclose()
