"""The database goes away for a while: kept lists answer, nothing acknowledged is lost, and all comes back by itself."""

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
from tests.installation import until
from tests.integration.api.server import make_shop_key, running

VISITOR = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, as others would suffer; it keeps what it acknowledged."""
    folder = Path(os.environ["PYTEST_CLUSTERS"]) / f"away{os.getpid()}"
    with EmbeddedPostgres(folder) as server:
        asyncio.run(migrate.upgrade(server.url(OWNER)))
        yield server


def test_the_database_goes_away_and_comes_back(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Kept lists answer with their cause, others and events are 503; then every acknowledged event is there."""
    url = postgres.url(APP)
    key = asyncio.run(make_shop_key(url))
    with (
        running(url, tmp_path) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client,
    ):
        items = [{"id": f"i{n}", "title": f"lamp {n}"} for n in range(5)]
        assert client.post("/v1/items/bulk", json=items).json()["accepted"] == 5
        acknowledged: list[str] = []

        def send() -> int:
            name = str(uuid4())
            event = {"event_id": name, "type": "view", "visitor_id": VISITOR, "item_id": "i1"}
            status = client.post("/v1/events", json={"events": [event]}).status_code
            if status == 200:
                acknowledged.append(name)
            return status

        def ask(**body: Any) -> httpx.Response:
            return client.post("/v1/recommend", json=body)

        kept = ask(strategy="popular", count=3).json()
        assert send() == 200
        postgres.stop()

        def stale() -> bool:
            answer = ask(strategy="popular", count=3)
            assert answer.status_code == 200
            assert [item["id"] for item in answer.json()["items"]] == [item["id"] for item in kept["items"]]
            return bool(answer.json()["fallback_used"] and "database" in str(answer.json().get("warnings")))

        until(stale, "the list that stands in")
        for _ in range(20):
            assert send() == 503
            personal = ask(visitor_id=VISITOR, count=3)
            assert (personal.status_code, personal.json()["fallback_used"]) == (200, True)
            refused = ask(visitor_id=VISITOR, exclude={"seen": True})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert client.get("/health/ready").status_code == 503
            assert client.get("/health/live").status_code == 200
        postgres.start()
        until(lambda: send() == 200, "an event that is taken")
        until(lambda: client.get("/health/ready").status_code == 200, "readiness")
        fresh = ask(strategy="recently_viewed", visitor_id=VISITOR, fallback="none").json()
        assert [item["id"] for item in fresh["items"]] == ["i1"]
        assert not fresh["fallback_used"]
        for name in acknowledged:
            assert len(client.get("/v1/events", params={"event_id": name}).json()["events"]) == 1
        # Answers that were given meanwhile are in the log.
        assert until(
            lambda: client.get(f"/v1/recommendations/{personal.json()['recommendation_id']}").status_code == 200,
            "the logged answer",
        )
