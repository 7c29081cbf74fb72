"""Old events are imported in bulk, once each, and nothing of a file is lost."""

import gzip
import json
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from billing import plans
from billing.entitlements import Mode
from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId
from infra.lone import LoneConnection
from infra.secret import Secret
from tenants.catalog.imports import HISTORY_JOB, BlobSource, HistoryRequest, start_history, upload_key
from tenants.jobs import Job, JobFault, claim_job, get_job, iter_faults
from tenants.usage import Usage
from workers.jobs.history import HistoryImports
from workers.runner import JobLoop, run_job

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Job]]
FOUND = """
select e.type, s.external_id, d.external_id, e.quantity, e.price, e.ts
from events e join shopper_ids s on s.tenant_id = $1 and s.shopper_no = e.shopper_no
join item_ids d on d.tenant_id = $1 and d.item_no = e.item_no where e.tenant_id = $1 order by e.ts, 3
"""
COUNT = "select count(*) from events where tenant_id = $1"
USED = "select meter, used from usage_months where tenant_id = $1"


@pytest.fixture
def begin(database: Database, blobs: FolderBlobs) -> Callable[..., Awaitable[UUID]]:
    """Upload a file and queue its import."""

    async def begin(tenant_id: TenantId, file: bytes, **options: Any) -> UUID:
        key = upload_key(tenant_id, f"{random.randrange(10**9)}.events")
        await blobs.put(key, file)
        async with database.tenant_session(tenant_id) as conn:
            return await start_history(conn, tenant_id, HistoryRequest(source=BlobSource(key=key), **options))

    return begin


@pytest.fixture
def run(database: Database, blobs: FolderBlobs, clock: Any, begin: Any) -> Run:
    """Import a file; the job as the API shows it."""

    async def run(tenant_id: TenantId, file: bytes, *, mode: Mode = "licence", **options: Any) -> Job:
        clock.advance(1)
        job_id = await begin(tenant_id, file, **options)
        handler = HistoryImports(database, blobs, secret=Secret(current=b"s" * 32), mode=mode, clock=clock, piece=2)
        jobs = JobLoop(database, {HISTORY_JOB: handler}, clock=clock)
        while await jobs.step():
            pass
        await handler.close()
        async with database.tenant_session(tenant_id) as conn:
            return await get_job(conn, tenant_id, job_id)

    return run


def views(count: int, clock: Any) -> bytes:
    """So many events over a year."""
    start = clock() - timedelta(days=365)
    return b"".join(
        json.dumps(
            {
                "type": "view",
                "user_id": f"u{n % 50}",
                "item_id": f"i{n % 70}",
                "ts": (start + timedelta(hours=n)).isoformat(),
            }
        ).encode()
        + b"\n"
        for n in range(count)
    )


async def test_a_history_is_stored(make_shop: Any, run: Run, query: Any, clock: Any, blobs: FolderBlobs) -> None:
    """The job says what there was, and the upload is gone."""
    tenant_id = await make_shop()
    job = await run(tenant_id, gzip.compress(views(4500, clock)))
    assert (job.status, job.total, job.done, job.failed) == ("done", 4500, 4500, 0)
    report = msgspec.json.decode(job.report)
    assert (report["stored"], report["types"], report["format"]) == (4500, {"view": 4500}, "ndjson")
    assert await query(tenant_id, COUNT) == [(4500,)]
    assert [key async for key in blobs.iter_keys("tenants/")] == []


async def test_a_file_imported_twice_is_stored_once(make_shop: Any, run: Run, query: Any, clock: Any) -> None:
    """By its ids where it has some, and by what it says where not."""
    tenant_id = await make_shop()
    file = views(1500, clock)
    await run(tenant_id, file)
    again = await run(tenant_id, file + b'{"type":"view","item_id":"i","event_id":"e","ts":"2025-12-01T00:00:00Z"}\n')
    report = msgspec.json.decode(again.report)
    assert (report["stored"], report["duplicate"]) == (1, 1500)
    assert await query(tenant_id, COUNT) == [(1501,)]


async def test_what_is_stored_counts_as_events_of_the_month(make_shop: Any, run: Run, query: Any, clock: Any) -> None:
    """Once, and whenever they were; what was there before does not."""
    tenant_id = await make_shop()
    file = views(2_500, clock)
    for _ in range(2):
        await run(tenant_id, file)
        assert await query(tenant_id, USED) == [("events", 2_500)]


async def test_a_history_ends_where_the_plan_has_no_more_events(
    database: Database, make_shop: Any, run: Run, query: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telling which plan has more; what came before stays, and counts together with what came live."""
    less = msgspec.structs.replace(plans.FREE, quotas={"events": plans.Quota(limit=2_500, beyond="refuse")})
    monkeypatch.setattr(plans, "PLANS", {**plans.PLANS, "free": less})
    tenant_id = await make_shop()
    usage = Usage(LoneConnection(database, name="test"), clock=clock)
    usage.count(tenant_id, "events", 600, quota=2_500)
    await usage.close()
    job = await run(tenant_id, views(4_500, clock), mode="plans")
    assert (job.status, job.done) == ("failed", 1_000)
    assert job.error is not None
    assert "includes 2,500 events a month, of which 1,600 are used, and this would add 1,000" in job.error
    assert "pro has more" in job.error
    assert await query(tenant_id, COUNT) == [(1_000,)]
    assert await query(tenant_id, USED) == [("events", 1_600)]
    assert await query(tenant_id, "select percent from quota_notices where tenant_id = $1") == []


async def test_a_csv_is_read_by_its_column_names(make_shop: Any, run: Run, query: Any) -> None:
    """Amounts in major units, times as exports write them, a type for all lines."""
    tenant_id = await make_shop()
    file = (
        "InvoiceNo,StockCode,Quantity,InvoiceDate,Unit Price,Customer ID,Country\n"
        '536365,85123A,6,2025-12-01T08:26:00,"2,55",17850,UK\n'
        "536366,71053,2,1764578760,3.39,17851,UK\n"
    )
    job = await run(tenant_id, file.encode(), default_type="purchase")
    assert (job.status, job.done, job.failed) == ("done", 2, 0), job
    rows = await query(tenant_id, FOUND)
    assert [row[:5] for row in rows] == [
        ("purchase", "17850", "85123A", 6.0, 255),
        ("purchase", "17851", "71053", 2.0, 339),
    ]
    assert rows[0][5].isoformat() == "2025-12-01T08:26:00+00:00"
    columns = msgspec.json.decode(job.report)["columns"]
    assert (columns["Customer ID"]["field"], columns["Country"]["use"]) == ("user_id", "dropped")


async def test_bad_lines_are_named_and_lose_nothing_else(
    database: Database, make_shop: Any, run: Run, query: Any
) -> None:
    """Line by line, without the ids of shoppers."""
    tenant_id = await make_shop()
    lines = [
        b'{"type":"view","item_id":"i","ts":"2025-12-01T00:00:00Z","user_id":"u"}',
        b'{"type":"view","item_id":"i","ts":"2020-12-01T00:00:00Z","user_id":"u"}',
        b'{"type":"view","item_id":"i","user_id":"u"}',
        b"{broken",
        b'{"type":"purchase","ts":"2025-12-01T00:00:00Z","items":[{"id":"i","price":-1}]}',
        b'{"type":"view","item_id":"a\\u0000b","ts":"2025-12-01T00:00:00Z"}',
    ]
    job = await run(tenant_id, b"\n".join(lines))
    assert (job.status, job.done, job.failed, job.total) == ("done", 1, 5, 6)
    async with database.tenant_session(tenant_id) as conn:
        faults: list[JobFault] = [fault async for fault in iter_faults(conn, tenant_id, job.job_id)]
    assert sorted((fault.line, fault.pointer) for fault in faults) == [
        (2, "/ts"),
        (3, "/ts"),
        (4, ""),
        (5, "/items/0/price"),
        (6, "/item_id"),
    ]
    assert await query(tenant_id, COUNT) == [(1,)]


@pytest.mark.parametrize("file", [b"type,user_id\n", b"not a table", b'{"type":"view"}\n'])
async def test_a_file_without_one_event_has_failed(make_shop: Any, run: Run, file: bytes) -> None:
    """And says why."""
    job = await run(await make_shop(), file)
    assert job.status == "failed"
    assert job.error


async def test_a_dead_worker_loses_no_line_and_doubles_none(
    database: Database, make_shop: Any, begin: Any, query: Any, clock: Any, blobs: FolderBlobs
) -> None:
    """Another takes the job up at the last commit."""
    tenant_id = await make_shop()
    await begin(tenant_id, views(3500, clock))
    first = HistoryImports(database, blobs, secret=Secret(current=b"s" * 32), clock=clock, piece=2)
    async with database.system_session(reason="claim a job") as system:
        job = await claim_job(system, [HISTORY_JOB], clock())
    assert job is not None
    await run_job(database, job, first, clock=clock)  # a piece; then it is never heard of again
    assert await query(tenant_id, COUNT) == [(2000,)]
    clock.advance(120)
    second = HistoryImports(database, blobs, secret=Secret(current=b"s" * 32), clock=clock)
    jobs = JobLoop(database, {HISTORY_JOB: second}, clock=clock)
    while await jobs.step():
        pass
    await first.close()
    await second.close()
    assert await query(tenant_id, COUNT) == [(3500,)]
