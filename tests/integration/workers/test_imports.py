"""Feeds become items, a thousand rows at a time, and nothing of them is lost or removed by accident."""

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any, Self
from uuid import UUID

import msgspec
import pytest

from billing import plans
from infra.allowance import Allowance
from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId
from infra.fetch import Fetcher
from tenants.catalog.imports import BlobSource, UrlSource, cancel_import, confirm_import, start_import, upload_key
from tenants.jobs import Job, JobFault, JobNotFound, JobNotHeld, claim_job, get_job, iter_faults, list_jobs
from workers.jobs.imports import Imports
from workers.runner import JobLoop, run_job

pytestmark = pytest.mark.anyio

Begin = Callable[..., Awaitable[UUID]]


def ndjson(items: list[dict[str, Any]]) -> bytes:
    """A feed of these items."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def shoes(count: int, **more: Any) -> list[dict[str, Any]]:
    """Items i0, i1, …"""
    return [{"id": f"i{at}", "title": f"red shoe {at}", **more} for at in range(count)]


@pytest.fixture
def begin(database: Database, blobs: FolderBlobs, clock: Any) -> Begin:
    """Upload a feed and queue its import, a second after whatever came before."""

    async def begin(tenant_id: TenantId, feed: bytes, **options: Any) -> UUID:
        clock.advance(1)
        key = upload_key(tenant_id, f"{random.randrange(10**9)}.feed")
        await blobs.put(key, feed)
        async with database.tenant_session(tenant_id) as conn:
            return await start_import(conn, tenant_id, BlobSource(key=key), **options)

    return begin


@pytest.fixture
def imports(database: Database, blobs: FolderBlobs, clock: Any) -> Imports:
    """The handler; a piece is two transactions."""
    return Imports(database, blobs, None, clock=clock, piece=2)


@pytest.fixture
def work(database: Database, imports: Imports, clock: Any) -> Callable[[], Awaitable[None]]:
    """Run jobs until none is due."""

    async def work() -> None:
        jobs = JobLoop(database, {"import": imports}, clock=clock)
        while await jobs.step():
            pass
        await imports.close()

    return work


async def job_of(database: Database, tenant_id: TenantId, job_id: UUID) -> Job:
    """The job as the API shows it."""
    async with database.tenant_session(tenant_id) as conn:
        return await get_job(conn, tenant_id, job_id)


async def faults_of(database: Database, tenant_id: TenantId, job_id: UUID) -> list[JobFault]:
    """All faults of a job."""
    async with database.tenant_session(tenant_id) as conn:
        return [fault async for fault in iter_faults(conn, tenant_id, job_id)]


COUNT = "select count(*) from items where tenant_id = $1"


async def test_a_feed_becomes_items(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any, blobs: FolderBlobs
) -> None:
    """The job is done, says what became of the rows, and its upload is gone."""
    tenant_id = await make_shop()
    job_id = await begin(tenant_id, ndjson(shoes(2500)))
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert (job.status, job.total, job.done, job.failed, job.errors_url) == ("done", 2500, 2500, 0, None)
    report = msgspec.json.decode(job.report)
    assert (report["created"], report["format"], report["removed"]) == (2500, "ndjson", 0)
    assert await query(tenant_id, COUNT) == [(2500,)]
    assert [key async for key in blobs.iter_keys("tenants/")] == []


async def test_bad_rows_do_not_lose_the_good_ones(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any
) -> None:
    """Each is named with its line, its item and what is wrong with it."""
    tenant_id = await make_shop()
    rows = [
        *shoes(3),
        {"id": "x" * 200, "title": "too long"},
        {"id": "y", "images": [f"https://s.example/{n}" for n in range(11)]},
    ]
    job_id = await begin(tenant_id, ndjson(rows) + b"{broken\n")
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert job.status == "done"
    assert job.total == job.done + job.failed == 6
    assert job.errors_url == f"/v1/jobs/{job_id}/errors"
    faults = await faults_of(database, tenant_id, job_id)
    assert {fault.line for fault in faults if fault.severity == "error"} >= {4, 6}


async def test_a_second_run_of_the_same_piece_changes_nothing(
    database: Database, make_shop: Any, begin: Any, imports: Imports, query: Any, clock: Any
) -> None:
    """A handler that is run again after its worker died converges to the same rows and the same counts."""
    tenant_id = await make_shop()
    job_id = await begin(tenant_id, ndjson([*shoes(1500), {"id": ""}]))
    async with database.system_session(reason="test") as conn:
        first = await claim_job(conn, ["import"], clock())
    assert first is not None
    await run_job(database, first, imports, clock=clock)
    done = await job_of(database, tenant_id, job_id)
    await query(tenant_id, "update jobs set status = 'running' where tenant_id = $1")
    await imports.close()
    await run_job(database, first, imports, clock=clock)
    again = await job_of(database, tenant_id, job_id)
    assert (again.done, again.failed) == (done.done, done.failed)
    assert await query(tenant_id, COUNT) == [(1500,)]


async def test_another_worker_goes_on_after_the_last_commit(
    database: Database, blobs: FolderBlobs, make_shop: Any, begin: Any, imports: Imports, work: Any, clock: Any
) -> None:
    """Rows are counted once, although the feed is read again from its start."""
    tenant_id = await make_shop()
    job_id = await begin(tenant_id, ndjson(shoes(4500)))
    async with database.system_session(reason="test") as conn:
        job = await claim_job(conn, ["import"], clock())
    assert job is not None
    await imports(job)
    await imports.close()
    halfway = await job_of(database, tenant_id, job_id)
    assert (halfway.status, halfway.done, halfway.total) == ("queued", 2000, None)
    await work()
    job = await job_of(database, tenant_id, job_id)  # type: ignore[assignment]
    assert (job.status, job.done) == ("done", 4500)  # type: ignore[union-attr]
    assert msgspec.json.decode(job.report)["created"] == 4500  # type: ignore[union-attr]


async def test_a_worker_whose_job_was_taken_over_stores_nothing(
    database: Database, make_shop: Any, begin: Any, imports: Imports, query: Any, clock: Any
) -> None:
    """Whoever comes back from a long pause finds that the claim is another's, and its rows are rolled back."""
    tenant_id = await make_shop()
    await begin(tenant_id, ndjson(shoes(10)))
    async with database.system_session(reason="test") as conn:
        slow = await claim_job(conn, ["import"], clock())
    clock.advance(61)
    async with database.system_session(reason="test") as conn:
        quick = await claim_job(conn, ["import"], clock())
    assert slow is not None
    assert quick is not None
    await run_job(database, slow, imports, clock=clock)
    assert await query(tenant_id, COUNT) == [(0,)]


async def test_imports_of_two_shops_take_turns(
    database: Database, make_shop: Any, begin: Any, imports: Imports, clock: Any
) -> None:
    """A long feed lets go of its job after each piece, and the shop that waited longest is next."""
    big, small = await make_shop(), await make_shop()
    await begin(big, ndjson(shoes(9000)))
    clock.advance(1)
    await begin(small, ndjson(shoes(10)))
    served = []

    async def handle(job: Any) -> None:
        served.append(job.tenant_id)
        clock.advance(1)
        await imports(job)

    jobs = JobLoop(database, {"import": handle}, clock=clock)
    while await jobs.step():
        pass
    assert served[:2] == [big, small]
    assert served[2:] == [big] * 4


async def test_one_shop_s_imports_run_one_after_the_other(
    database: Database, make_shop: Any, begin: Any, clock: Any
) -> None:
    """The second is not claimed while the first is in hand: the later feed must win."""
    tenant_id = await make_shop()
    await begin(tenant_id, ndjson(shoes(1)))
    await begin(tenant_id, ndjson(shoes(1)))
    async with database.system_session(reason="test") as conn:
        assert await claim_job(conn, ["import"], clock()) is not None
        assert await claim_job(conn, ["import"], clock()) is None


async def test_a_shop_that_queues_many_imports_starves_nobody(
    database: Database, blobs: FolderBlobs, make_shop: Any, begin: Begin, clock: Any
) -> None:
    """When one of its imports ends, its next goes behind those that wait."""
    busy, other = await make_shop(), await make_shop()
    queued = [await begin(busy, ndjson(shoes(1))) for _ in range(6)]
    waiting = await begin(other, ndjson(shoes(2_500)))
    imports = Imports(database, blobs, None, clock=clock, piece=1)
    loop = JobLoop(database, {"import": imports}, clock=clock)
    while (await job_of(database, other, waiting)).status != "done":
        assert await loop.step()
        clock.advance(1)
    statuses = [(await job_of(database, busy, job_id)).status for job_id in queued]
    # Three pieces of the large one, and a turn of the busy shop before each of them.
    assert statuses.count("done") <= 4
    await imports.close()


async def test_an_import_ends_where_the_plan_has_no_more_room(
    database: Database,
    blobs: FolderBlobs,
    make_shop: Any,
    begin: Begin,
    query: Any,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Telling which plan has more; what came before stays."""
    less = msgspec.structs.replace(plans.FREE, quotas={"items": plans.Quota(limit=1_500, beyond="refuse")})
    monkeypatch.setattr(plans, "PLANS", {**plans.PLANS, "free": less})
    tenant_id = await make_shop()
    job_id = await begin(tenant_id, ndjson(shoes(2_500)))
    imports = Imports(database, blobs, None, mode="plans", clock=clock, piece=1)
    loop = JobLoop(database, {"import": imports}, clock=clock)
    while await loop.step():
        clock.advance(1)
    job = await job_of(database, tenant_id, job_id)
    assert (job.status, job.done) == ("failed", 1_000)
    assert "includes 1,500 items" in (job.error or "")
    assert "pro has more" in (job.error or "")
    assert await query(tenant_id, "select count(*) from items where tenant_id = $1") == [(1_000,)]
    assert await query(tenant_id, "select percent from quota_notices where tenant_id = $1") == []
    await imports.close()


async def test_an_incremental_import_removes_nothing(make_shop: Any, begin: Any, work: Any, query: Any) -> None:
    """What the feed does not name stays."""
    tenant_id = await make_shop(shoes(10))
    await begin(tenant_id, ndjson(shoes(1)))
    await work()
    assert await query(tenant_id, COUNT) == [(10,)]


async def test_a_full_import_removes_what_it_does_not_name(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any
) -> None:
    """Unchanged items are named too."""
    tenant_id = await make_shop(shoes(10))
    job_id = await begin(tenant_id, ndjson(shoes(8)), mode="full")
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert job.status == "done"
    assert msgspec.json.decode(job.report)["removed"] == 2
    assert await query(tenant_id, COUNT) == [(8,)]
    assert await query(tenant_id, "select count(*) from import_seen where tenant_id = $1") == [(0,)]


async def test_a_full_import_that_removes_too_much_is_held(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any, clock: Any
) -> None:
    """Nothing is removed until somebody confirms it."""
    tenant_id = await make_shop(shoes(10))
    job_id = await begin(tenant_id, ndjson(shoes(6)), mode="full")
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert (job.status, msgspec.json.decode(job.report)["would_remove"]) == ("held", 4)
    assert await query(tenant_id, COUNT) == [(10,)]
    async with database.tenant_session(tenant_id) as conn:
        await confirm_import(conn, tenant_id, job_id, now=clock())
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert (job.status, msgspec.json.decode(job.report)["removed"]) == ("done", 4)
    assert await query(tenant_id, COUNT) == [(6,)]


async def test_a_held_import_can_be_cancelled(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any, clock: Any
) -> None:
    """What it stored stays, nothing is removed, and it cannot be confirmed any more."""
    tenant_id = await make_shop(shoes(10))
    job_id = await begin(tenant_id, ndjson(shoes(1, brand="b")), mode="full")
    await work()
    async with database.tenant_session(tenant_id) as conn:
        await cancel_import(conn, tenant_id, job_id, now=clock())
    await work()
    assert (await job_of(database, tenant_id, job_id)).status == "cancelled"
    assert await query(tenant_id, COUNT) == [(10,)]
    with pytest.raises(JobNotHeld):
        async with database.tenant_session(tenant_id) as conn:
            await confirm_import(conn, tenant_id, job_id, now=clock())


async def test_what_was_written_after_the_import_began_stays(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any, clock: Any, store_items: Any
) -> None:
    """A full feed is older than an item that the API has stored meanwhile."""
    tenant_id = await make_shop(shoes(10))
    job_id = await begin(tenant_id, ndjson(shoes(2)), mode="full")
    await work()
    clock.advance(5)
    await store_items(tenant_id, [{"id": "newer", "title": "blue mug"}])
    async with database.tenant_session(tenant_id) as conn:
        await confirm_import(conn, tenant_id, job_id, now=clock())
    await work()
    assert await query(tenant_id, COUNT) == [(3,)]


@pytest.mark.parametrize("mistake", [{"title": "t" * 2000}, {"price": "cheap"}])
async def test_a_row_with_a_mistake_does_not_remove_its_item(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any, mistake: dict[str, Any]
) -> None:
    """The feed has named the item, although it cannot be stored as it stands there."""
    tenant_id = await make_shop(shoes(10))
    rows = shoes(10)
    rows[3].update(mistake)
    job_id = await begin(tenant_id, ndjson(rows), mode="full")
    await work()
    assert (await job_of(database, tenant_id, job_id)).status == "done"
    assert await query(tenant_id, COUNT) == [(10,)]


async def test_a_feed_that_stops_half_way_removes_nothing(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any
) -> None:
    """What came before the end is stored, and the job has failed with the reason."""
    tenant_id = await make_shop(shoes(10))
    packed = gzip.compress(ndjson([{"id": f"n{at}", "title": str(random.random())} for at in range(500)]))
    job_id = await begin(tenant_id, packed[: len(packed) // 2], mode="full")
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert "half-way" in job.error
    assert (await query(tenant_id, COUNT))[0][0] > 10


async def test_an_empty_full_feed_removes_nothing(
    database: Database, make_shop: Any, begin: Any, work: Any, query: Any
) -> None:
    """An empty file is a mistake, not an empty shop."""
    tenant_id = await make_shop(shoes(3))
    job_id = await begin(tenant_id, b"", mode="full")
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert (job.status, job.error) == ("failed", "The file is empty.")
    assert await query(tenant_id, COUNT) == [(3,)]


async def test_an_upload_that_is_gone_fails_the_job_at_once(
    database: Database, make_shop: Any, begin: Any, work: Any, blobs: FolderBlobs
) -> None:
    """Trying again would not bring it back."""
    tenant_id = await make_shop()
    job_id = await begin(tenant_id, ndjson(shoes(1)))
    async for key in blobs.iter_keys("tenants/"):
        await blobs.delete(key)
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert "Start the import again" in job.error


async def test_faults_beyond_the_limit_are_counted_only(
    database: Database, make_shop: Any, begin: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed without a single good row does not fill the database."""
    monkeypatch.setattr("tenants.jobs.MAX_FAULTS", 1200)
    tenant_id = await make_shop()
    job_id = await begin(tenant_id, b"{broken\n" * 2500)
    await work()
    job = await job_of(database, tenant_id, job_id)
    assert (job.status, job.failed) == ("failed", 2500)
    faults = await faults_of(database, tenant_id, job_id)
    assert [fault.line for fault in faults] == list(range(1, 1201))


async def test_jobs_are_seen_by_their_own_tenant_only(database: Database, make_shop: Any, begin: Any) -> None:
    """The list is from the newest on; another tenant's job does not exist."""
    one, two = await make_shop(), await make_shop()
    first, second = await begin(one, b""), await begin(one, b"")
    async with database.tenant_session(one) as conn:
        assert [job.job_id for job in await list_jobs(conn, one)] == [second, first]
        assert [job.job_id for job in await list_jobs(conn, one, before=second)] == [first]
    async with database.tenant_session(two) as conn:
        assert await list_jobs(conn, two) == []
        with pytest.raises(JobNotFound):
            await get_job(conn, two, first)


async def test_two_loops_never_run_one_job_twice(
    database: Database, make_shop: Any, begin: Any, imports: Imports, clock: Any, query: Any
) -> None:
    """Every job is claimed by one of them."""
    shops = [await make_shop() for _ in range(6)]
    for shop in shops:
        await begin(shop, ndjson(shoes(3)))
    served: list[Any] = []

    async def handle(job: Any) -> None:
        served.append(job.job_id)
        await imports(job)

    async def drain() -> None:
        jobs = JobLoop(database, {"import": handle}, clock=clock)
        while await jobs.step():
            pass

    await asyncio.gather(drain(), drain())
    assert len(served) == len(set(served)) == 6


class Server:
    """An HTTP server on loopback that answers every request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.url = ""

    async def __aenter__(self) -> Self:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            await writer.drain()
            writer.close()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/feed.ndjson"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()


def answer(status: str, body: bytes = b"") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def test_a_feed_is_fetched_from_its_address_once(
    database: Database, blobs: FolderBlobs, make_shop: Any, query: Any, clock: Any
) -> None:
    """What was fetched is what is read to the end, also when the address answers something else meanwhile."""
    tenant_id = await make_shop()
    loopback = Allowance.parse("127.0.0.0/8")
    async with (
        Server(answer("200 OK", ndjson(shoes(1500)))) as server,
        Fetcher(allow=[loopback], ports=None) as fetcher,
    ):
        async with database.tenant_session(tenant_id) as conn:
            job_id = await start_import(conn, tenant_id, UrlSource(url=server.url))
        imports = Imports(database, blobs, fetcher, clock=clock, piece=1)
        jobs = JobLoop(database, {"import": imports}, clock=clock)
        await jobs.step()
        await imports.close()
        server.answer = answer("200 OK", b"")
        while await jobs.step():
            pass
        await imports.close()
    assert (await job_of(database, tenant_id, job_id)).status == "done"
    assert await query(tenant_id, COUNT) == [(1500,)]
    assert [key async for key in blobs.iter_keys("tenants/")] == []


async def test_a_feed_s_server_in_trouble_is_asked_again(
    database: Database, blobs: FolderBlobs, make_shop: Any, clock: Any
) -> None:
    """The job waits with the reason, and is done once the server answers."""
    tenant_id = await make_shop()
    loopback = Allowance.parse("127.0.0.0/8")
    async with Server(answer("503 Busy")) as server, Fetcher(allow=[loopback], ports=None) as fetcher:
        async with database.tenant_session(tenant_id) as conn:
            job_id = await start_import(conn, tenant_id, UrlSource(url=server.url))
        jobs = JobLoop(database, {"import": Imports(database, blobs, fetcher, clock=clock)}, clock=clock)
        await jobs.step()
        job = await job_of(database, tenant_id, job_id)
        assert job.status == "queued"
        assert job.error is not None
        assert not await jobs.step()
        clock.advance(10)
        server.answer = answer("200 OK", ndjson(shoes(3)))
        await jobs.step()
    job = await job_of(database, tenant_id, job_id)
    assert (job.status, job.done, job.error) == ("done", 3, None)


async def test_an_address_that_must_not_be_fetched_fails_the_job(
    database: Database, blobs: FolderBlobs, make_shop: Any, clock: Any
) -> None:
    """This machine's own services are nobody's feed."""
    tenant_id = await make_shop()
    async with Fetcher() as fetcher:
        async with database.tenant_session(tenant_id) as conn:
            job_id = await start_import(conn, tenant_id, UrlSource(url="http://127.0.0.1/feed"))
        await JobLoop(database, {"import": Imports(database, blobs, fetcher, clock=clock)}, clock=clock).step()
    assert (await job_of(database, tenant_id, job_id)).status == "failed"
