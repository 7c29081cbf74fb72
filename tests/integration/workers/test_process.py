"""The worker as a process: what it does when it is told to stop, and what is left when it is killed."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import numpy as np
import pytest
from sqlalchemy.exc import DBAPIError

from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId, fetch
from infra.embedded import EmbeddedPostgres
from infra.encoder import EncoderClient
from tenants.catalog.imports import BlobSource, start_import, upload_key
from tenants.jobs import get_job
from workers.models import Models

# On one version only: starting processes is slow, and what they do to the database is tested on both elsewhere.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("pg_major", [18], ids=["pg18"], indirect=True)]

# Above what a slow machine needs; reached only by a worker that hangs.
_PATIENCE_S = 60.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that a worker does."""
    async with asyncio.timeout(_PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - another process, there is no event to wait for
            await asyncio.sleep(0.02)


@pytest.fixture
def number(database: Database) -> Callable[..., Awaitable[int]]:
    """The number that a statement over a tenant's rows gives."""

    async def number(tenant_id: TenantId, statement: str) -> int:
        async with database.tenant_session(tenant_id) as conn:
            return int((await fetch(conn, statement, tenant_id))[0][0])

    return number


ENCODED = "select count(*) from items where tenant_id = $1 and text_state = 1"


async def test_a_worker_encodes_answers_queries_and_drains(
    database: Database, tiny: Models, make_shop: Any, start_worker: Any, number: Any, tmp_path: Any
) -> None:
    """Items that wait are encoded, queries are served under the spaces' names, and SIGTERM ends it with 0."""
    tenant_id = await make_shop([{"id": f"i{at}", "title": f"red shoe {at}"} for at in range(100)])
    worker = await asyncio.to_thread(start_worker)

    async def done() -> bool:
        return await number(tenant_id, ENCODED) == 100

    await until(done)
    client = EncoderClient(f"unix://{tmp_path}/s0", budget_s=20)
    row = await client.encode_texts(["red shoe"], tiny.names[0])
    np.testing.assert_allclose(row, tiny.text.encode(["red shoe"], role="query"), atol=1e-5)
    assert (await client.encode_texts(["red shoe"], tiny.names[1])).shape == (1, 8)
    await client.close()
    assert await asyncio.to_thread(worker.end, signal.SIGTERM) == 0
    assert "workers.drained" in "".join(worker.lines)


async def test_a_worker_killed_while_encoding_loses_nothing(
    database: Database, tiny: Models, make_shop: Any, start_worker: Any, number: Any
) -> None:
    """The next one encodes what the first had in hand, and every vector is that of its own item's text."""
    words = ["red", "blue", "green", "shoe", "shirt", "lamp", "mug"]
    titles = {f"i{at}": f"{words[at % 7]} {words[at // 7 % 7]} {words[at // 49 % 7]}" for at in range(2000)}
    tenant_id = await make_shop([{"id": name, "title": title} for name, title in titles.items()])
    first = await asyncio.to_thread(start_worker, "encode")

    async def some() -> bool:
        return await number(tenant_id, ENCODED) > 0

    await until(some)
    assert await asyncio.to_thread(first.end, signal.SIGKILL) == -signal.SIGKILL
    async with database.tenant_session(tenant_id) as conn:
        # As if the leases of the dead worker had run out: the test need not wait for that.
        await fetch(conn, "update items set text_due = '-infinity' where tenant_id = $1 and text_state = 0", tenant_id)
    await asyncio.to_thread(start_worker, "encode")

    async def done() -> bool:
        return await number(tenant_id, ENCODED) == 2000

    await until(done)
    async with database.tenant_session(tenant_id) as conn:
        records = await fetch(
            conn,
            "select d.external_id, v.vec::text from fused_vectors v join item_ids d on d.tenant_id = $1 "
            "and d.item_no = v.item_no where v.tenant_id = $1 and v.layout_id = $2",
            tenant_id,
            tiny.layout.layout_id,
        )
    assert len(records) == 2000
    stored = np.array([json.loads(record[1])[:8] for record in records], np.float32)
    expected = tiny.text.encode([titles[record[0]] for record in records])
    np.testing.assert_allclose(stored, expected, atol=2e-3)


async def test_a_worker_killed_while_importing_loses_nothing(
    database: Database, make_shop: Any, start_worker: Any, number: Any, tmp_path: Any
) -> None:
    """The next one goes on after the last commit; every row is there once and is counted once."""
    tenant_id = await make_shop()
    blobs = FolderBlobs(tmp_path / "blobs")
    key = upload_key(tenant_id, "feed")
    await blobs.put(key, b"".join(b'{"id": "i%d", "title": "red shoe %d"}\n' % (at, at) for at in range(12_000)))
    await blobs.aclose()
    async with database.tenant_session(tenant_id) as conn:
        job_id = await start_import(conn, tenant_id, BlobSource(key=key), mode="full")
    first = await asyncio.to_thread(start_worker, "imports")

    async def some() -> bool:
        return await number(tenant_id, "select done from jobs where tenant_id = $1") > 0

    await until(some)
    assert await asyncio.to_thread(first.end, signal.SIGKILL) == -signal.SIGKILL
    assert await number(tenant_id, "select done from jobs where tenant_id = $1") < 12_000
    async with database.tenant_session(tenant_id) as conn:
        await fetch(conn, "update jobs set due = '-infinity' where tenant_id = $1", tenant_id)
    await asyncio.to_thread(start_worker, "imports")

    async def done() -> bool:
        async with database.tenant_session(tenant_id) as conn:
            return (await get_job(conn, tenant_id, job_id)).status == "done"

    await until(done)
    async with database.tenant_session(tenant_id) as conn:
        job = await get_job(conn, tenant_id, job_id)
    assert (job.done, job.failed, job.total) == (12_000, 0, 12_000)
    assert await number(tenant_id, "select count(*) from items where tenant_id = $1") == 12_000


async def test_a_worker_outlives_its_connections(
    make_shop: Any, store_items: Any, start_worker: Any, number: Any, cluster: EmbeddedPostgres, database_url: str
) -> None:
    """When the database goes away and comes back, so does the work."""
    tenant_id = await make_shop([{"id": "a", "title": "red shoe"}])
    worker = await asyncio.to_thread(start_worker)

    async def done(count: int) -> bool:
        return await number(tenant_id, ENCODED) == count

    await until(lambda: done(1))
    name = urlsplit(database_url).path.removeprefix("/")
    admin = await asyncpg.connect(cluster.superuser_url)
    for _ in range(3):
        await admin.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and "
            "application_name = 'kindred' and pid <> pg_backend_pid()",
            name,
        )
    await admin.close()
    with suppress(DBAPIError):  # this process's own connections are gone too
        await number(tenant_id, ENCODED)
    await store_items(tenant_id, [{"id": "b", "title": "blue mug"}])
    await until(lambda: done(2))
    assert worker.process.poll() is None


def test_a_missing_pack_is_named_at_the_start(start_worker: Any) -> None:
    """The message says which pack and what to do; the exit says that trying again is of no use."""
    with pytest.raises(AssertionError, match="kindred models fetch multilingual-e5-small"):
        start_worker("encode", KINDRED_MODELS_TEXT="multilingual-e5-small")
