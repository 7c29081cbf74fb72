"""The installation's secret is changed while two API processes serve: nothing that was given out stops working."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import jwt
import pytest
from msgspec import Struct

from infra.blob_folder import FolderBlobs
from infra.db import Database
from infra.secret import Secret, mark_of
from tenants.audience.tombstones import replay
from tenants.keys import count_keys
from tests.integration.api.server import Server, make_shop_key, running

OLD: Final = "old-" * 8
NEW: Final = "new-" * 8
JPEG: Final = b"\xff\xd8\xff x"


class Given(Struct, kw_only=True):
    """What a shop was given: a key; then, by it, a page's rest, an address of a photo, a token; an event it sent."""

    key: str
    cursor: str = ""
    photo: str = ""
    token: str = ""
    event: str = ""


class Pair:
    """Two API processes of one installation, restarted one at a time."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self._database_url = database_url
        self._folder = folder
        self._running: dict[int, tuple[ExitStack, Server]] = {}
        self._clients: dict[int, httpx.Client] = {}

    def restart(self, place: int, secret: str, old: str) -> None:
        """Run one of them with these secrets from now on."""
        self.stop(place)
        folder = self._folder / str(place)
        folder.mkdir(exist_ok=True)
        stack = ExitStack()
        server = stack.enter_context(
            running(
                self._database_url,
                folder,
                KINDRED_SECRET_KEY=secret,
                KINDRED_SECRET_KEY_OLD=old,
                KINDRED_BLOB=(self._folder / "blobs").as_uri(),
            )
        )
        self._running[place] = stack, server
        client = httpx.Client(base_url=server.url, timeout=60, trust_env=False)
        self._clients[place] = stack.enter_context(client)

    def stop(self, place: int) -> None:
        """End one of them in order, if it runs."""
        if place in self._running:
            stack, server = self._running.pop(place)
            del self._clients[place]
            assert server.end() == 0
            stack.close()

    @property
    def clients(self) -> list[httpx.Client]:
        """One for each that runs."""
        return list(self._clients.values())


@pytest.fixture
def pair(database_url: str, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(database_url, tmp_path)
    yield made
    for place in (0, 1):
        made.stop(place)


def _good(answer: httpx.Response) -> Any:
    assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content and "json" in answer.headers["content-type"] else None


def _give(client: httpx.Client, key: str, signing: dict[str, Any]) -> Given:
    """Everything that a process signs, by this process."""
    headers = {"x-api-key": key}
    given = Given(key=_good(client.post("/v1/keys", json={"name": "made"}, headers=headers))["key"])
    body = {"strategy": "new", "count": 1, "fields": ["images"]}
    answer = _good(client.post("/v1/recommend", json=body, headers=headers))
    given.cursor = answer["cursor"]
    given.photo = answer["items"][0]["fields"]["images"][0]
    exp = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
    claims = {"aud": "kindred", "tenant": signing["tenant"], "exp": exp, "user": "u"}
    given.token = jwt.encode(claims, signing["secret"], algorithm="HS256", headers={"kid": signing["kid"]})
    given.event = str(uuid4())
    sent = _good(client.post("/v1/events", json=_event(given), headers=headers))
    assert sent["accepted"] == 1
    _good(client.put(f"/v1/users/{given.event}", json={}, headers=headers))
    assert client.delete(f"/v1/users/{given.event}", headers=headers).status_code == 204
    return given


def _event(given: Given) -> dict[str, Any]:
    return {"events": [{"event_id": given.event, "type": "view", "item_id": "a", "user_id": "u"}]}


def _use(client: httpx.Client, given: Given) -> None:
    """Everything that was given works with this process."""
    headers = {"x-api-key": given.key}
    _good(client.get("/v1/items", headers=headers))
    page = _good(client.post("/v1/recommend", json={"strategy": "new", "cursor": given.cursor}, headers=headers))
    assert [item["id"] for item in page["items"]] == ["a"]
    assert client.get(given.photo).content == JPEG
    _good(client.post("/v1/recommend", json={}, headers={**headers, "x-visitor-token": given.token}))
    (again,) = _good(client.post("/v1/events", json=_event(given), headers=headers))["results"]
    assert again == {"index": 0, "id": given.event, "status": "duplicate"}  # and not: with another body


# Eight starts of a process are enough in one version: the statements of it run in both elsewhere.
@pytest.mark.parametrize("pg_major", [18], indirect=True)
def test_nothing_stops_working_while_the_secret_is_changed(pair: Pair, database_url: str, tmp_path: Path) -> None:
    """Each process is restarted three times, one at a time: what either of them gave out at any time works with both,
    until at last the old secret is gone, and then all that is still of use has moved to the new one."""
    first = asyncio.run(make_shop_key(database_url, secret=OLD))
    for place in (0, 1):
        pair.restart(place, OLD, "")
    headers = {"x-api-key": first}
    client = pair.clients[0]
    for name in ("a", "b"):
        _good(client.put(f"/v1/items/{name}", json={"title": name}, headers=headers))
    jpeg = {**headers, "content-type": "image/jpeg"}
    _good(client.put("/v1/items/b/images/0", content=JPEG, headers=jpeg))
    signing = _good(client.post("/v1/visitor-secrets", headers=headers))
    all_given: list[Given] = []

    def check() -> None:
        all_given.extend(_give(each, first, signing) for each in pair.clients)
        for each in pair.clients:
            for given in all_given:
                _use(each, given)

    check()
    for secret, old in ((OLD, NEW), (NEW, OLD)):  # announced, then adopted
        for place in (0, 1):
            pair.restart(place, secret, old)
            check()
    under = asyncio.run(_keys_under(database_url))
    assert under[mark_of(NEW.encode())] > 0
    assert under[mark_of(OLD.encode())] == 0
    for each in pair.clients:
        renewed = _good(each.post("/v1/visitor-secrets", headers=headers))
        assert each.delete(f"/v1/visitor-secrets/{signing['kid']}", headers=headers).status_code == 204
        signing = renewed
    latest = _give(pair.clients[0], first, signing)
    for place in (0, 1):  # forgotten
        pair.restart(place, NEW, "")
        for each in pair.clients:
            _use(each, latest)
            for given in all_given:
                _good(each.get("/v1/items", headers={"x-api-key": given.key}))
    asyncio.run(_tombstones_are_all_readable(database_url, tmp_path / "blobs"))


async def _keys_under(database_url: str) -> dict[str, int]:
    database = Database(database_url, hot=0)
    async with database.system_session(reason="test look") as conn:
        counts = await count_keys(conn)
    await database.close()
    return counts


async def _tombstones_are_all_readable(database_url: str, folder: Path) -> None:
    """Those of both secrets, by whoever still has both."""
    database, blobs = Database(database_url, hot=0), FolderBlobs(folder)
    async with database.system_session(reason="as a restored backup has it") as conn:
        await conn.exec_driver_sql("delete from erasures")
    assert (await replay(database, blobs, Secret(current=NEW.encode()))).foreign > 0
    both = Secret(current=NEW.encode(), others=(OLD.encode(),))
    assert (await replay(database, blobs, both)).foreign == 0
    await database.close()
