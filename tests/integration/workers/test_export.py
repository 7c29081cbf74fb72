"""An export asked for over HTTP, made by a worker, and fetched whole, in parts, or not at all."""

import asyncio
import tarfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import Application
from infra.blob import BlobStore, BlobsUnavailable
from infra.db import Database
from infra.settings import Settings
from tenants.portability import exports as stored
from tenants.retention import files_in_use
from tests.integration.api.conftest import MakeShop, Shop, anonymous, app, make_shop, shop
from workers import __main__ as worker
from workers.jobs import export as export_job
from workers.jobs.export import Exports
from workers.runner import JobLoop

__all__ = ["anonymous", "app", "make_shop", "shop"]

pytestmark = pytest.mark.anyio

Run = Callable[[], Awaitable[None]]


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """A database of the test's own: a worker takes any shop's job."""
    return fresh_database_url


@pytest.fixture
def loop(app: Application, tmp_path: Path) -> JobLoop:
    """A worker for exports alone."""
    handler = Exports(app.services.database, app.services.blobs, folder=tmp_path / "scratch")
    return JobLoop(app.services.database, {stored.EXPORT_JOB: handler})


async def _ask(shop: Shop) -> str:
    answer = await shop.client.post("/v1/exports")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/exports/{answer.json()['export_id']}"
    export_id: str = answer.json()["export_id"]
    return export_id


async def _made(shop: Shop, loop: JobLoop) -> dict[str, Any]:
    await shop.client.put("/v1/items/a", json={"title": "Lamp"})
    await shop.client.put("/v1/users/u", json={"attributes": {"city": "Riga"}})
    export_id = await _ask(shop)
    assert await loop.step()
    shown: dict[str, Any] = (await shop.client.get(f"/v1/exports/{export_id}")).json()
    assert shown["status"] == "done", shown
    return shown


async def test_an_export_is_fetched(shop: Shop, loop: JobLoop, tmp_path: Path) -> None:
    """With its size and sha256, as a tar; nothing is left in the scratch folder."""
    shown = await _made(shop, loop)
    file = await shop.client.get(shown["url"])
    assert (file.status_code, file.headers["content-type"]) == (200, "application/x-tar")
    assert (len(file.content), sha256(file.content).hexdigest()) == (shown["bytes"], shown["sha256"])
    assert file.headers["content-disposition"].startswith("attachment")
    with tarfile.open(fileobj=BytesIO(file.content)) as tar:
        names = tar.getnames()
    assert names[-1] == "manifest.json"
    assert {"items.ndjson.gz", "users.ndjson.gz", "shop.json"} <= set(names)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (await shop.client.get("/v1/exports")).json()["exports"] == [shown]


async def test_a_download_goes_on_where_it_broke_off(shop: Shop, loop: JobLoop) -> None:
    """Two parts make the whole; behind the end there is nothing, and another version is sent whole."""
    url = (await _made(shop, loop))["url"]
    whole = await shop.client.get(url)
    first = await shop.client.get(url, headers={"range": "bytes=0-999"})
    rest = await shop.client.get(url, headers={"range": "bytes=1000-", "if-range": whole.headers["etag"]})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert first.headers["content-range"] == f"bytes 0-999/{len(whole.content)}"
    assert first.content + rest.content == whole.content
    behind = await shop.client.get(url, headers={"range": "bytes=99999999-"})
    assert (behind.status_code, behind.json()["code"]) == (416, "range_not_satisfiable")
    other = await shop.client.get(url, headers={"range": "bytes=1000-", "if-range": '"other"'})
    assert (other.status_code, other.content) == (200, whole.content)


async def test_an_export_that_waits_is_not_asked_for_twice(shop: Shop) -> None:
    """The second call names the first, and there is nothing to fetch yet."""
    export_id = await _ask(shop)
    assert await _ask(shop) == export_id
    refused = await shop.client.get(f"/v1/exports/{export_id}/file")
    assert (refused.status_code, refused.json()["code"]) == (409, "export_not_ready")


async def test_an_export_that_is_made_is_not_asked_for_twice(
    shop: Shop, loop: JobLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a shop that asks without end would keep a worker busy without end."""
    whole = export_job.dump
    asked = []

    async def asking(*args: Any, **named: Any) -> Any:
        asked.append(await _ask(shop))
        return await whole(*args, **named)

    monkeypatch.setattr(export_job, "dump", asking)
    assert await _ask(shop) == (await _made(shop, loop))["export_id"]
    assert len(set(asked)) == 1
    assert not await loop.step()


async def test_the_latest_two_bundles_are_kept(app: Application, shop: Shop, loop: JobLoop) -> None:
    """Of each shop; the export before them says that its file is gone."""
    shown = [await _made(shop, loop) for _ in range(3)]
    blobs: BlobStore = app.services.blobs
    assert len([key async for key in blobs.iter_keys(f"tenants/{shop.tenant_id}/exports/")]) == 2
    refused = await shop.client.get(shown[0]["url"])
    assert (refused.status_code, refused.json()["code"]) == (404, "export_gone")
    listed = (await shop.client.get("/v1/exports")).json()["exports"]
    assert [each["url"] for each in listed] == [shown[2]["url"], shown[1]["url"], None]
    for each in shown[1:]:
        assert (await shop.client.get(each["url"])).status_code == 200


async def test_one_export_is_made_at_a_time_and_imports_go_on(
    fresh_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has one loop for exports, as it has one connection for them: another shop's waits, and costs no try."""
    loops: list[set[str]] = []
    stop = asyncio.Event()

    class Noted(JobLoop):
        def __init__(self, database: Database, handlers: Any, **options: Any) -> None:
            self._kinds = set(handlers)
            super().__init__(database, handlers, **options)

        async def run(self, stop: asyncio.Event) -> None:
            loops.append(self._kinds)
            if len(loops) > worker.IMPORTS_AT_ONCE:
                stop.set()
            await stop.wait()

    monkeypatch.setattr(worker, "JobLoop", Noted)
    settings = Settings.from_env(
        {
            "DATABASE_URL": fresh_database_url,
            "KINDRED_DATA_DIR": str(tmp_path),
            "KINDRED_SECRET_KEY": "s" * 32,
            "KINDRED_METRICS_PORT": "0",
        }
    )
    await worker.serve(settings, ["imports"], stop)
    assert [kinds for kinds in loops if stored.EXPORT_JOB in kinds] == [{stored.EXPORT_JOB}]


@pytest.mark.parametrize("export_id", ["x", "0198c0de-0000-7000-8000-000000000000", "%00", "a" * 300])
async def test_what_is_no_export_is_not_found(shop: Shop, export_id: str) -> None:
    """404, by its own code; a job of another kind is no export either."""
    for path in (f"/v1/exports/{export_id}", f"/v1/exports/{export_id}/file"):
        assert (await shop.client.get(path)).json()["code"] == "export_not_found"
    body = {"url": "https://shop.example/f.csv"}
    job_id = (await shop.client.post("/v1/imports", json=body)).json()["job_id"]
    assert (await shop.client.get(f"/v1/exports/{job_id}")).json()["code"] == "export_not_found"


async def test_another_shops_export_is_not_found(make_shop: MakeShop, loop: JobLoop) -> None:
    """Nor with the right id, and its bundle has not one word of the other."""
    one, other = await make_shop(), await make_shop()
    await other.client.put("/v1/items/ofthevictim", json={"title": "ofthevictim"})
    shown = await _made(one, loop)
    for path in (f"/v1/exports/{shown['export_id']}", shown["url"]):
        assert (await other.client.get(path)).status_code == 404
    file = (await one.client.get(shown["url"])).content
    assert str(other.tenant_id).encode() not in file


async def test_only_an_admin_exports(shop: Shop, loop: JobLoop, anonymous: httpx.AsyncClient) -> None:
    """A bundle holds what people did: a key without the scope gets none."""
    shown = await _made(shop, loop)
    key = (await shop.client.post("/v1/keys", json={"name": "k"})).json()["key"]
    for method, path in (("POST", "/v1/exports"), ("GET", "/v1/exports"), ("GET", shown["url"])):
        refused = await anonymous.request(method, path, headers={"x-api-key": key})
        assert refused.json()["code"] == "scope_missing"


async def test_an_export_ends(app: Application, shop: Shop, loop: JobLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """After seven days it says so, whether upkeep has been or not."""
    shown = await _made(shop, loop)
    monkeypatch.setattr(stored, "KEPT", timedelta(seconds=-1))
    refused = await shop.client.get(shown["url"])
    assert (refused.status_code, refused.json()["code"]) == (404, "export_gone")
    assert (await shop.client.get(f"/v1/exports/{shown['export_id']}")).json()["url"] is None


async def test_who_is_erased_is_in_no_export(shop: Shop, loop: JobLoop) -> None:
    """Those that were made go with the person."""
    shown = await _made(shop, loop)
    assert (await shop.client.delete("/v1/users/u")).status_code == 204
    refused = await shop.client.get(shown["url"])
    assert (refused.status_code, refused.json()["code"]) == (404, "export_gone")


async def test_a_file_that_could_not_be_deleted_is_not_given_out(
    app: Application, shop: Shop, loop: JobLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person was erased, and then the object store was away: the bytes are there, until upkeep finds them."""

    async def away(prefix: str) -> int:
        raise BlobsUnavailable("The object store does not answer.")

    shown = await _made(shop, loop)
    with monkeypatch.context() as patch:
        patch.setattr(app.services.blobs, "delete_prefix", away)
        assert (await shop.client.delete("/v1/users/u")).status_code == 503
    assert (await shop.client.get("/v1/users/u")).status_code == 404
    refused = await shop.client.get(shown["url"])
    assert (refused.status_code, refused.json()["code"]) == (404, "export_gone")
    assert (await shop.client.get(f"/v1/exports/{shown['export_id']}")).json()["url"] is None
    assert await app.services.blobs.exists(f"tenants/{shop.tenant_id}/exports/{shown['export_id']}")


async def test_a_person_erased_meanwhile_is_not_in_the_export(
    app: Application, shop: Shop, loop: JobLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is thrown away and made anew."""
    whole = export_job.dump
    left = [True]

    async def overtaken(database: Database, *args: Any, **named: Any) -> Any:
        dumped = await whole(database, *args, **named)
        if left.pop() if left else False:
            assert (await shop.client.delete("/v1/users/u")).status_code == 204
        return dumped

    monkeypatch.setattr(export_job, "dump", overtaken)
    await shop.client.put("/v1/users/u", json={})
    export_id = await _ask(shop)
    assert await loop.step()
    shown = (await shop.client.get(f"/v1/exports/{export_id}")).json()
    assert (shown["status"], shown["url"]) == ("queued", None)
    blobs: BlobStore = app.services.blobs
    assert [key async for key in blobs.iter_keys(f"tenants/{shop.tenant_id}/exports/")] == []
    async with app.services.database.system_session(reason="it is due at once") as conn:
        await conn.exec_driver_sql("update jobs set due = now() where status = 'queued'")
    assert await loop.step()
    again = (await shop.client.get(f"/v1/exports/{export_id}")).json()
    assert (await shop.client.get(again["url"])).status_code == 200
    async with app.services.database.system_session(reason="test look") as conn:
        assert len(await files_in_use(conn, now=app.services.clock())) == 1
