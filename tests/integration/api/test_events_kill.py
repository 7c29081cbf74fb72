"""kill -9 of the API in the middle of events: what was acknowledged is stored, once."""

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from infra.db import Database, driver
from tenants.keys import KeyRequest, create_key
from tenants.lifecycle import create_tenant
from tests.integration.api.server import SECRET, Server, running

pytestmark = pytest.mark.anyio
_LANES = 6


async def _send(server: Server, key: str, acknowledged: set[str], *, kill_after: int) -> None:
    """Events from several clients until the process is dead; it dies when so many were acknowledged."""
    headers = {"authorization": f"Bearer {key}"}

    async def lane() -> None:
        async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as client:
            while True:
                events = [{"event_id": uuid4().hex, "type": "view", "item_id": "i"} for _ in range(5)]
                try:
                    answer = await client.post("/v1/events", json={"events": events})
                except httpx.TransportError:
                    return
                assert answer.json()["accepted"] == 5
                acknowledged.update(event["event_id"] for event in events)
                if len(acknowledged) >= kill_after:
                    server.process.send_signal(signal.SIGKILL)

    await asyncio.gather(*(lane() for _ in range(_LANES)))


async def test_acknowledged_events_survive_the_death_of_the_api(
    fresh_database_url: str, tmp_path: Path, anyio_backend: str
) -> None:
    """Every one is there, and one that is sent again is a duplicate."""
    database = Database(fresh_database_url, hot=1, sessions=2)
    await database.open()
    tenant_id = await create_tenant(database, "shop")
    async with database.tenant_session(tenant_id) as conn:
        made = await create_key(
            conn, tenant_id, KeyRequest(name="test"), secret=SECRET.encode(), cell="00", now=datetime.now(UTC)
        )
    acknowledged: set[str] = set()
    with running(fresh_database_url, tmp_path) as server:
        await _send(server, made.key, acknowledged, kill_after=200)
        assert server.process.wait() == -signal.SIGKILL
    async with database.tenant_session(tenant_id) as conn:
        records = await (await driver(conn)).fetch("select event_id from events where tenant_id = $1", tenant_id)
    await database.close()
    stored = [record["event_id"] for record in records]
    assert acknowledged <= set(stored)
    assert len(stored) == len(set(stored))
    assert len(acknowledged) >= 200
