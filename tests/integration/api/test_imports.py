"""/v1/imports and /v1/jobs: what is queued and shown; the worker's own part is tested with the workers."""

from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import msgspec
import pytest

from api.app import Application
from infra.db import TenantId, driver
from tenants.catalog.imports import BlobSource, ImportRequest, UrlSource

pytestmark = pytest.mark.anyio


async def _queued(app: Application, job_id: str) -> ImportRequest:
    async with app.services.database.system_session(reason="test") as conn:
        payload = await (await driver(conn)).fetchval("select payload::text from jobs where job_id = $1", UUID(job_id))
    return msgspec.json.decode(payload, type=ImportRequest)


async def test_an_upload_is_kept_and_queued(client: httpx.AsyncClient, app: Application) -> None:
    """202 with the job; the bytes lie in the blob store, whole."""
    feed = b"id,title\n" + b"".join(b"%d,Lamp\n" % number for number in range(1000))
    answer = await client.post(
        "/v1/imports",
        params={"format": "csv", "mode": "full", "file_name": "feed.csv"},
        content=feed,
        headers={"content-type": "text/csv"},
    )
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    wanted = await _queued(app, job_id)
    assert (wanted.format, wanted.mode, wanted.file_name) == ("csv", "full", "feed.csv")
    assert isinstance(wanted.source, BlobSource)
    assert await app.services.blobs.get(wanted.source.key) == feed


async def test_an_upload_may_be_of_any_size(client: httpx.AsyncClient, app: Application) -> None:
    """It streams to the blob store: 30 MB pass where a JSON body may have 10."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 1_000_000

    answer = await client.post("/v1/imports", content=pieces(), headers={"content-type": "text/csv"})
    wanted = await _queued(app, answer.json()["job_id"])
    assert isinstance(wanted.source, BlobSource)
    assert len(await app.services.blobs.get(wanted.source.key)) == 30_000_000


async def test_a_url_is_queued(client: httpx.AsyncClient, app: Application) -> None:
    """JSON names where the feed lies."""
    answer = await client.post("/v1/imports", json={"url": "https://shop.example/feed.xml", "format": "yml"})
    wanted = await _queued(app, answer.json()["job_id"])
    assert (wanted.source, wanted.format, wanted.mode) == (
        UrlSource(url="https://shop.example/feed.xml"),
        "yml",
        "incremental",
    )


async def test_an_address_is_not_read_without_end(client: httpx.AsyncClient) -> None:
    """JSON is held in memory: it is refused by its first 64 kB, whatever it says, or does not say, of its length."""
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b" " * 10_000

    refused = await client.post("/v1/imports", content=body(), headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert refused.headers["connection"] == "close"
    assert taken == 7
    padded = msgspec.json.encode({"url": "https://shop.example/feed.xml"}).ljust(64_000)
    told = await client.post("/v1/imports", content=padded, headers={"content-type": "application/json"})
    assert told.status_code == 202


@pytest.mark.parametrize(
    "body", [{"url": "ftp://shop.example/feed"}, {"url": "https://shop.example", "format": "xls"}, {}]
)
async def test_a_bad_request_queues_nothing(client: httpx.AsyncClient, body: dict[str, str]) -> None:
    """422, and the list stays empty."""
    assert (await client.post("/v1/imports", json=body)).status_code == 422
    assert (await client.get("/v1/jobs")).json()["jobs"] == []


async def test_an_empty_upload_is_refused(client: httpx.AsyncClient) -> None:
    """Most likely somebody forgot the file."""
    answer = await client.post("/v1/imports", content=b"", headers={"content-type": "text/csv"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_a_job_is_shown_from_its_first_moment(client: httpx.AsyncClient) -> None:
    """Queued, with nothing done."""
    job_id = (await client.post("/v1/imports", json={"url": "https://shop.example/f.csv"})).json()["job_id"]
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["job_id"], job["kind"], job["status"], job["done"]) == (job_id, "import", "queued", 0)
    assert (job["finished_at"], job["error"], job["errors_url"]) == (None, None, None)


async def test_jobs_are_paged_from_the_newest(client: httpx.AsyncClient) -> None:
    """Every job once."""
    made = [
        (await client.post("/v1/imports", json={"url": f"https://shop.example/{number}"})).json()["job_id"]
        for number in range(3)
    ]
    first = (await client.get("/v1/jobs", params={"limit": 2})).json()
    second = (await client.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("job_id", ["01993b6e-7a10-7cc3-9f0e-3f6f6a4f2b11", "none"])
@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/jobs/{}/errors"])
async def test_an_unknown_job_is_not_found(client: httpx.AsyncClient, job_id: str, path: str) -> None:
    """404, also for what is no UUID."""
    assert (await client.get(path.format(job_id))).json()["code"] == "job_not_found"


async def _hold(app: Application, job_id: str) -> TenantId:
    async with app.services.database.system_session(reason="test") as conn:
        found: TenantId = await (await driver(conn)).fetchval(
            "update jobs set status = 'held' where job_id = $1 returning tenant_id", UUID(job_id)
        )
        return found


@pytest.mark.parametrize(("decision", "status"), [("confirm", "queued"), ("cancel", "cancelled")])
async def test_a_held_import_is_decided(
    client: httpx.AsyncClient, app: Application, decision: str, status: str
) -> None:
    """Confirmed it goes on, cancelled it ends; a second decision is a conflict."""
    job_id = (await client.post("/v1/imports", json={"url": "https://shop.example/f.csv"})).json()["job_id"]
    assert (await client.post(f"/v1/imports/{job_id}/{decision}")).json()["code"] == "job_not_held"
    await _hold(app, job_id)
    assert (await client.post(f"/v1/imports/{job_id}/{decision}")).is_success
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["status"] == status
    assert (await client.post(f"/v1/imports/{job_id}/{decision}")).status_code == 409


async def test_the_errors_of_a_job_are_lines_of_json(client: httpx.AsyncClient, app: Application) -> None:
    """In the order of the feed, to be downloaded."""
    job_id = (await client.post("/v1/imports", json={"url": "https://shop.example/f.csv"})).json()["job_id"]
    tenant_id = await _hold(app, job_id)
    async with app.services.database.tenant_session(tenant_id) as conn:
        for seq in range(3):
            await (await driver(conn)).execute(
                "insert into job_faults (tenant_id, job_id, seq, line, item_id, severity, code, pointer, message) "
                "values ($1, $2, $3, $4, 'a', 'error', 'bad_price', '/price', 'No price.')",
                tenant_id,
                UUID(job_id),
                seq,
                seq + 2,
            )
    answer = await client.get(f"/v1/jobs/{job_id}/errors")
    lines = [msgspec.json.decode(line) for line in answer.text.splitlines()]
    assert [line["line"] for line in lines] == [2, 3, 4]
    assert lines[0]["code"] == "bad_price"
    assert answer.headers["content-type"].startswith("application/x-ndjson")
