"""PostgreSQL is restarted while requests with an Idempotency-Key come: each is done once, and none is lost."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from infra import migrate
from infra.embedded import EmbeddedPostgres
from infra.roles import APP, OWNER
from tests.integration.api.server import Server, make_shop_key, running

_LANES = 4
_EACH = 12
_RESTARTS = 2


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, which keeps what it acknowledged."""
    folder = Path(os.environ["PYTEST_CLUSTERS"]) / f"restart{os.getpid()}"
    with EmbeddedPostgres(folder) as server:
        asyncio.run(migrate.upgrade(server.url(OWNER)))
        yield server


async def _until_done(client: httpx.AsyncClient, path: str, body: Any, key: str) -> httpx.Response:
    """Send it as a good client does, again and again with one key, until it is answered for good."""
    for _ in range(600):
        try:
            answer = await client.post(path, json=body, headers={"idempotency-key": key})
        except httpx.TransportError:
            continue
        if answer.status_code not in (409, 503):
            return answer
        assert answer.headers["retry-after"] == "1"
        await asyncio.sleep(0.05)  # a pause between two tries, as the client was told
    raise AssertionError(f"{path} was never answered")


async def _load(postgres: EmbeddedPostgres, server: Server, api_key: str) -> list[str]:
    """Restart the server while several clients write; the items whose events were acknowledged."""
    headers = {"authorization": f"Bearer {api_key}"}
    done: list[str] = []
    progress: asyncio.Queue[str] = asyncio.Queue()
    restarted = asyncio.Event()

    async def lane(number: int) -> None:
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60, trust_env=False) as client:
            at = 0
            # Until the restarts are over, and some more.
            while at < _EACH or not restarted.is_set():
                item = f"i{number}-{at}"
                body = {"events": [{"type": "view", "item_id": item}, {"type": "click", "item_id": item}]}
                answer = await _until_done(client, "/v1/events", body, str(uuid4()))
                assert answer.json()["accepted"] == 2, answer.text
                stored = await _until_done(client, "/v1/items/bulk", [{"id": item}], str(uuid4()))
                assert stored.json()["results"][0]["status"] == "created", stored.text
                done.append(item)
                progress.put_nowait(item)
                at += 1

    async def restart() -> None:
        for _ in range(_RESTARTS):
            for _ in range(_LANES):
                await progress.get()
            await asyncio.to_thread(postgres.stop)
            await asyncio.to_thread(postgres.start)
        restarted.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(restart())
        for number in range(_LANES):
            group.create_task(lane(number))
    return done


def test_a_restart_doubles_nothing_and_loses_nothing(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Each acknowledged call has exactly its two events; an item is `created` by the answer that was kept."""
    url = postgres.url(APP)
    api_key = asyncio.run(make_shop_key(url))
    with running(url, tmp_path) as server:
        done = asyncio.run(_load(postgres, server, api_key))
        assert len(done) >= _LANES * _EACH
        with httpx.Client(
            base_url=server.url, headers={"authorization": f"Bearer {api_key}"}, timeout=60, trust_env=False
        ) as client:
            for item in done:
                events = client.get("/v1/events", params={"item_id": item}).json()["events"]
                assert sorted(event["type"] for event in events) == ["click", "view"], item
                assert client.get(f"/v1/items/{item}").status_code == 200
