"""A person of whom there is something everywhere is erased, and then looked for everywhere."""

import gzip
import json
import os
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from api.app import Application
from infra import roles
from infra.db import driver
from infra.embedded import EmbeddedPostgres
from tenants.catalog.imports import HISTORY_JOB
from tenants.portability.exports import EXPORT_JOB
from tests.integration.api.conftest import Shop, app, make_shop, shop
from workers.jobs.export import Exports
from workers.jobs.history import HistoryImports
from workers.jobs.upkeep import Upkeep
from workers.runner import JobLoop

__all__ = ["app", "make_shop", "shop"]

pytestmark = pytest.mark.anyio

PERSON = "maria.ünser@shop.example/7"
VISITOR = "visitor0f00d0f00d0f00d0f00d0f00d"
MARKS = ("ünser", VISITOR, "secretcity", "secretsession", "secretorder", "secretnote")
"""The ids, and a word of everything that was said of the person."""


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """A database of the test's own: all of it is searched."""
    return fresh_database_url


@pytest.fixture
def look(cluster: EmbeddedPostgres, database_url: str, app: Application, tmp_path: Path) -> Any:
    """Where the marks are: in a row of any table or partition, in a file of the data folder, in the server's log."""
    log_from = cluster.log_file.stat().st_size

    async def look() -> set[str]:
        found = set()
        # The superuser's address: no policy hides a row, and partitions are read as well.
        connection = await asyncpg.connect(roles.database_url(cluster.superuser_url, roles.database_name(database_url)))
        try:
            relations = await connection.fetch(
                "select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n "
                "on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'm') and n.nspname = 'public'"
            )
            assert len(relations) > 40
            for relation in relations:
                for row in await connection.fetch(f"select t::text as row from {relation['name']} t"):
                    found |= {f"{relation['name']}: {mark}" for mark in _marks_in(row["row"])}
        finally:
            await connection.close()
        for path in _files(tmp_path):
            text = (str(path).encode() + _unpacked(path)).decode(errors="replace")
            found |= {f"{path.relative_to(tmp_path)}: {mark}" for mark in _marks_in(text)}
        with cluster.log_file.open("rb") as log:
            log.seek(log_from)
            found |= {f"the server's log: {mark}" for mark in _marks_in(log.read().decode(errors="replace"))}
        return found

    return look


def _marks_in(text: str) -> Iterator[str]:
    for mark in MARKS:
        spelled = (mark, mark.encode().hex(), json.dumps(mark)[1:-1])
        if any(each in text for each in spelled):
            yield mark


def _unpacked(path: Path) -> bytes:
    """The bytes of a file, and of what is packed in it."""
    data = path.read_bytes()
    members = [data]
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            members += [tar.extractfile(info).read() for info in tar]  # type: ignore[union-attr]
    return b"".join(each + (gzip.decompress(each) if each[:2] == b"\x1f\x8b" else b"") for each in members)


def _files(folder: Path) -> Iterator[Path]:
    for inner, _, names in os.walk(folder):
        for name in names:
            yield Path(inner, name)


Run = Callable[[], Awaitable[None]]


@pytest.fixture
def run(app: Application, tmp_path: Path) -> Run:
    """A worker that does what there is to do."""
    services = app.services
    history = HistoryImports(services.database, services.blobs, secret=services.secret)
    exports = Exports(services.database, services.blobs, folder=tmp_path / "scratch")
    loop = JobLoop(services.database, {HISTORY_JOB: history, EXPORT_JOB: exports})

    async def run() -> None:
        while await loop.step():
            pass
        await history.close()

    return run


async def _good(answer: Any) -> Any:
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def _old(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


HEADLESS = f"view,{PERSON},a,2026-01-01\nclick,{PERSON},b,not a time\n"


@cache
def _history(note: str) -> str:
    lines = [
        {"type": "view", "user_id": PERSON, "item_id": "a", "ts": _old(60), "context": {"note": note}},
        {"type": "view", "visitor_id": VISITOR, "item_id": "a", "ts": _old(61)},
        {"type": "view", "user_id": "other", "item_id": "a", "ts": _old(62)},
        {"type": "view", "user_id": PERSON, "item_id": "a", "ts": "never"},
    ]
    return "\n".join(map(json.dumps, lines))


async def _live(app: Application, shop: Shop, run: Run) -> str:
    """Everything that a person can leave behind, by the routes; the id of an answer."""
    client = shop.client
    for item in ("a", "b", "c"):
        await _good(await client.put(f"/v1/items/{item}", json={"title": f"Lamp {item}"}))
    path = "/v1/users/" + PERSON.replace("/", "%2F").replace("@", "%40")
    body = {"segments": ["vip"], "attributes": {"city": "secretcity"}, "seller_id": PERSON}
    await _good(await client.put(path, json=body))
    events = [
        {"type": "view", "visitor_id": VISITOR, "item_id": "a", "session_id": "secretsession"},
        {"type": "view", "user_id": PERSON, "item_id": "a", "event_id": f"{PERSON}-1", "context": {"n": "secretnote"}},
        {"type": "purchase", "user_id": PERSON, "item_id": "b", "order_id": "secretorder", "value": 5},
        {"type": "view", "user_id": "other", "item_id": "a"},
    ]
    assert (await _good(await client.post("/v1/events", json={"events": events})))["accepted"] == 4
    await _good(await client.post(f"{path}/merge", json={"visitor_id": VISITOR}))
    await _good(await client.post("/v1/events", json={"events": [{**events[0], "item_id": "c"}]}))
    tree = {"or": [{"in": ["id", [PERSON, "other"]]}, {"not": {"eq": ["id", PERSON]}}, {"exists": "seller_id"}]}
    await _good(await client.put("/v1/segments/named", json={"filter": tree}))
    asked = {"user_id": PERSON, "explain": True, "context": {"who": PERSON, "note": "secretnote"}}
    answer = await _good(await client.post("/v1/recommend", json=asked))
    await _good(await client.post("/v1/recommend", json={"visitor_id": VISITOR, "session": {"recent_items": ["a"]}}))
    await _good(await client.post("/v1/rerank", json={"item_ids": ["a", "b"], "user_id": PERSON}))
    for file in (_history("secretnote"), HEADLESS, f"user_id,ts,type\n{PERSON},yesterday's {PERSON},view\n"):
        await _good(await client.post("/v1/events/import", content=file.encode()))
    await _good(await client.post("/v1/exports"))
    await run()
    async with app.services.database.tenant_session(shop.tenant_id) as conn:
        raw = await driver(conn)
        # What versions that quoted what they could not read have written.
        await raw.execute(
            "insert into job_faults (tenant_id, job_id, seq, severity, code, pointer, message) "
            "select $1, job_id, 77, 'error', 'bad_ts', $2, '\"' || $2 || '\" is not a time.' "
            "from jobs where tenant_id = $1 and kind = $3 limit 1",
            shop.tenant_id,
            PERSON,
            HISTORY_JOB,
        )
        # What a training writes.
        await raw.execute(
            "insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores) "
            "select $1, 1, shopper_no, array[shopper_no], '{1}' from shopper_ids where tenant_id = $1",
            shop.tenant_id,
        )
    answer_id: str = answer["recommendation_id"]
    return answer_id


async def test_nothing_of_an_erased_person_is_left(app: Application, shop: Shop, run: Run, look: Any) -> None:
    """Of the ids and of all that was said of the person nothing is found but keyed hashes; what others did stays."""
    answer_id = await _live(app, shop, run)
    await app.services.answer_log.close()
    before = await look()
    for place in ("shopper_ids", "users", "events", "event_seen", "answers", "segments", "job_faults", "jobs", "blobs"):
        assert any(place in each for each in before), (place, before)
    # Files that were sent before, and are read afterwards: one as it should be, one that nobody comes to read.
    client = shop.client
    await _good(await client.post("/v1/events/import", content=gzip.compress(_history("secretnote").encode())))
    await app.services.blobs.put(
        f"tenants/{shop.tenant_id}/imports/0198c0de-0000-7000-8000-000000000000", b"secretnote"
    )
    assert (await client.delete("/v1/users/" + PERSON.replace("/", "%2F"))).status_code == 204
    await run()
    later = datetime.now(UTC) + timedelta(hours=2)
    upkeep = Upkeep(app.services.database, app.services.blobs, clock=lambda: later, secret=app.services.secret)
    for task in (upkeep.settle, upkeep.prune, upkeep.sweep_files, upkeep.sweep, upkeep.replay):
        await task()
    assert await look() == set()
    # What is kept is of use still.
    assert (await client.get("/v1/users/other")).status_code == 200
    shown = await _good(await client.get("/v1/segments/named"))
    assert shown["filter"]["or"][0] == {"in": ["id", ["other"]]}
    again = await _good(await client.get(f"/v1/recommendations/{answer_id}"))
    assert len(again["items"]) == 3
    stored = await _good(await client.get("/v1/events", params={"user_id": "other"}))
    assert len(stored["events"]) == 2
    (last,) = [job for job in (await _good(await client.get("/v1/jobs")))["jobs"] if job["report"].get("erased")]
    assert (last["report"]["erased"], last["report"]["duplicate"]) == (2, 1)


async def test_who_comes_back_is_another_person(app: Application, shop: Shop, run: Run) -> None:
    """Events and files that are sent after the erasure are taken."""
    client = shop.client
    event = {"type": "view", "user_id": "u", "item_id": "a", "event_id": "e"}
    await _good(await client.post("/v1/events", json={"events": [event]}))
    assert (await client.delete("/v1/users/u")).status_code == 204
    result = await _good(await client.post("/v1/events", json={"events": [event]}))
    assert (result["accepted"], result["duplicate"]) == (1, 0)
    line = json.dumps({"type": "view", "user_id": "u", "item_id": "a", "ts": _old(30)})
    await _good(await client.post("/v1/events/import", content=line.encode()))
    await run()
    (job,) = [job for job in (await _good(await client.get("/v1/jobs")))["jobs"] if job["kind"] == HISTORY_JOB]
    assert (job["status"], job["report"]["stored"]) == ("done", 1)
    assert len((await _good(await client.get("/v1/events", params={"user_id": "u"})))["events"]) == 2
