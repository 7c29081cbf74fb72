"""Two API processes on machines whose clocks are ten minutes apart act as one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from api.app import Application
from infra.clock import utc_now
from tests.integration.api.conftest import Shop, started

pytestmark = pytest.mark.anyio


@pytest.fixture
async def apart(app: Application, database_url: str, tmp_path: Path) -> AsyncIterator[list[Application]]:
    """One process is five minutes behind, the other five ahead."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                started(database_url, tmp_path / name, machine=lambda off=off: utc_now() + off)
            )
            for name, off in (("behind", timedelta(minutes=-5)), ("ahead", timedelta(minutes=5)))
        ]


@pytest.fixture
async def replicas(apart: list[Application], shop: Shop) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of each, with the shop's key."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(each, raise_app_exceptions=False),
                    base_url="http://kindred",
                    headers={"Authorization": f"Bearer {shop.secret_key}"},
                )
            )
            for each in apart
        ]


async def test_what_a_shopper_did_stays_in_order(replicas: list[httpx.AsyncClient]) -> None:
    """Whichever process took the event."""
    ids = [f"i{number}" for number in range(6)]
    await replicas[0].post("/v1/items/bulk", json=[{"id": each, "title": f"lamp {each}"} for each in ids])
    for number, each in enumerate(ids):
        event = {"type": "view", "user_id": "ann", "item_id": each}
        answer = await replicas[1 - number % 2].post("/v1/events", json={"events": [event]})
        assert answer.json()["accepted"] == 1
    body = {"strategy": "recently_viewed", "user_id": "ann", "count": 6, "fallback": "none"}
    for replica in replicas:
        listed = (await replica.post("/v1/recommend", json=body)).json()["items"]
        assert [item["id"] for item in listed] == ids[::-1]


async def test_a_key_ends_everywhere_at_once(replicas: list[httpx.AsyncClient]) -> None:
    """One that lives for two minutes more is good at the process that is ahead, too."""
    soon = (utc_now() + timedelta(minutes=2)).isoformat()
    made = (await replicas[0].post("/v1/keys", json={"name": "short", "expires_at": soon})).json()
    for replica in replicas:
        assert (await replica.get("/v1/items", headers={"Authorization": f"Bearer {made['key']}"})).status_code == 200


async def test_a_repeat_is_known_by_the_other(replicas: list[httpx.AsyncClient]) -> None:
    """Its key is neither of the future nor too old."""
    for first, second in (replicas, replicas[::-1]):
        given = {"Idempotency-Key": f"once-{id(first)}"}
        made = await first.post("/v1/keys", json={"name": "one"}, headers=given)
        again = await second.post("/v1/keys", json={"name": "one"}, headers=given)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (made.status_code, "true")
        assert again.json() == made.json()


async def test_the_audit_log_is_in_the_order_of_what_was_done(replicas: list[httpx.AsyncClient]) -> None:
    """The newest first, whoever wrote it."""
    for number in range(4):
        await replicas[1 - number % 2].put(f"/v1/placements/p{number}", json={"defaults": {"count": 3}})
    entries = (await replicas[0].get("/v1/audit?limit=4")).json()["entries"]
    assert [entry["subject"] for entry in entries] == ["p3", "p2", "p1", "p0"]
