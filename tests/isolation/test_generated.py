"""Every route that there is, with every id that the victim has, as everybody who must not: made from ROUTES.

test_routes.py aims each route by hand; here nothing is aimed, so that a route which is added is in by itself.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
import pytest
from msgspec import Struct
from prometheus_client import generate_latest

from api.app import ROUTES, Application
from api.contract import KEY, Contract
from infra.db import driver
from infra.ids import uuid7
from infra.telemetry import REGISTRY
from tenants.keys import PUBLISHABLE_SCOPES, SCOPES, make_key
from tests.integration.api.conftest import Shop
from tests.isolation.conftest import MARK, Victim, assert_nothing_leaked, rows_of

pytestmark = pytest.mark.anyio

READING: Final = frozenset({"recommend", "search"})
"""Scopes of which a POST changes nothing."""

# What no two answers share, whoever asks.
_OWN_OF_AN_ANSWER: Final = frozenset(
    {"request_id", "recommendation_id", "took_ms", "created_at", "updated_at", "encoding", "cursor", "etag", "job_id"}
)


_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Route(Struct, frozen=True, kw_only=True):
    """A method and path that needs a key, and what its contract says."""

    method: str
    path: str
    scope: str
    contract: Contract

    @property
    def parameters(self) -> list[str]:
        """Names in the path, in order."""
        return re.findall(r"{(\w+)", self.path)

    def address(self, name: str) -> str:
        """The path with this id wherever it takes one; a position is a number."""

        def fill(found: re.Match[str]) -> str:
            return "0" if found[1] == "position" else quote(name, safe="")

        return re.sub(r"{(\w+)(?::\w+)?}", fill, self.path)

    def sent(self) -> dict[str, Any]:
        """A body and a query that the route takes, as its contract documents them."""
        said = self.contract
        sent: dict[str, Any] = {}
        if said.body_example is not None:
            sent["content"] = msgspec.json.encode(said.body_example)
            sent["headers"] = {"content-type": "application/json"}
        elif said.body_types:
            kind, example = next(iter(said.body_types.items()))
            sent["content"] = example if isinstance(example, str) else b"\xff\xd8\xff x"
            sent["headers"] = {"content-type": kind}
        if said.query is not None:
            required = [field for field in msgspec.structs.fields(said.query) if field.required]
            sent["params"] = {
                field.encode_name: ("2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z")[place % 2]
                for place, field in enumerate(required)
            }
        return sent


def routes() -> Iterator[Route]:
    """All routes that need a key, those that read before those that write, deletions last."""
    found = [
        Route(method=method, path=path, scope=handler.opt["scope"], contract=handler.opt[KEY])
        for handler in ROUTES
        if handler.opt.get("scope") in SCOPES
        for path in handler.paths
        for method in handler.http_methods
    ]
    order = ("GET", "POST", "PUT", "PATCH", "DELETE")
    yield from sorted(found, key=lambda route: (order.index(route.method), route.path))


ALL: Final = tuple(routes())


def names_of(victim: Victim) -> dict[str, tuple[str, str]]:
    """Each id of the victim, and one like it that nobody has."""
    return {
        "item": (victim.item_id, f"only-{uuid4()}"),
        "job": (victim.job_id, str(uuid7())),
        "key": (victim.key_id, make_key("secret", cell="00")[1]),
        "answer": (victim.answer_id, str(uuid7())),
        "event": (victim.event_id, f"event-{uuid4()}"),
        "user": (victim.user_id, f"user-{uuid4()}"),
        "segment": (victim.segment_id, f"segment-{uuid4()}"),
        "placement": (MARK, "ofthenobody"),
        "tenant": (str(victim.shop.tenant_id), str(uuid7())),
    }


def told(answer: httpx.Response, name: str) -> tuple[int, object]:
    """Status and body of an answer, without the id that was asked about and what is of this answer alone."""
    try:
        body = answer.json()
    except ValueError:
        body = answer.text

    def mask(node: object) -> object:
        if isinstance(node, dict):
            return {key: mask(value) for key, value in node.items() if key not in _OWN_OF_AN_ANSWER}
        if isinstance(node, list):
            return [mask(each) for each in node]
        if isinstance(node, str):
            node = node.replace(quote(name, safe=""), "<id>").replace(name, "<id>")
            return _UUID.sub("<uuid>", node)
        return node

    return answer.status_code, mask(body)


def test_every_route_that_needs_a_key_is_here() -> None:
    """Those of a scope; the others are public, and test_routes.py lists them."""
    assert len(ALL) >= 50
    others = {handler.opt.get("scope") for handler in ROUTES} - set(SCOPES)
    assert others <= {"public", "session"}, "a new kind of caller needs its own tests of isolation"


async def test_what_is_not_yours_is_as_what_is_not(
    app: Application, attacker: Shop, twin: Shop, victim: Victim
) -> None:
    """For every route and every id: a shop that asks for the victim's is answered as one of the same past that asks for
    ids that nobody has; nothing of the victim is told, and nothing of it changed."""
    before = await rows_of(app, victim.shop.tenant_id)
    different = []
    names = names_of(victim)
    for route in ALL:
        if not route.parameters:
            continue
        for kind, (theirs, nobodys) in names.items():
            answers = []
            for client, name in ((attacker.client, theirs), (twin.client, nobodys)):
                answer = await client.request(route.method, route.address(name), **route.sent())
                assert answer.status_code < 500, (route.method, route.path, answer.text)
                assert_nothing_leaked(answer, victim)
                answers.append(told(answer, name))
            if answers[0] != answers[1]:
                different.append(f"{route.method} {route.path} {kind}: {answers[0]} {answers[1]}")
    assert not different, "\n".join(different)
    assert await rows_of(app, victim.shop.tenant_id) == before


async def test_no_route_without_an_id_tells_of_another(app: Application, attacker: Shop, victim: Victim) -> None:
    """With what its documentation shows as an example, as the owner of another shop; asked by the victim just before,
    so that it is in every cache."""
    before = await rows_of(app, victim.shop.tenant_id)
    for route in ALL:
        if route.parameters:
            continue
        if route.method == "GET" or route.scope in READING:
            (await victim.shop.client.request(route.method, route.path, **route.sent())).raise_for_status()
        answer = await attacker.client.request(route.method, route.path, **route.sent())
        assert answer.status_code < 500, (route.method, route.path, answer.text)
        assert_nothing_leaked(answer, victim)
    await app.services.answering.close()
    await app.services.answer_log.close()
    mine = {name: rows for name, rows in (await rows_of(app, victim.shop.tenant_id)).items() if name != "answers"}
    assert mine == {name: rows for name, rows in before.items() if name != "answers"}


@pytest.mark.parametrize("shared", ["same", "nobody has this"])
async def test_no_cache_gives_one_what_another_asked(
    app: Application, attacker: Shop, victim: Victim, shared: str
) -> None:
    """The victim asks, then the attacker the very same, for an id that both have or neither; twice, so that both are
    answered from what was kept."""
    for _ in range(2):
        for route in ALL:
            if route.method != "GET" and route.scope not in READING:
                continue
            for client in (victim.shop.client, attacker.client):
                answer = await client.request(route.method, route.address(shared), **route.sent())
                assert answer.status_code < 500, (route.method, route.path, answer.text)
                if client is attacker.client:
                    assert_nothing_leaked(answer, victim)


async def _keys(app: Application, victim: Victim) -> dict[str, tuple[dict[str, str], set[int]]]:
    """Headers that open nothing, and the statuses that answer them; most are of keys of the victim itself."""
    client = victim.shop.client

    async def make(**wanted: Any) -> tuple[str, str]:
        made = (await client.post("/v1/keys", json={"name": "spoilt", **wanted})).raise_for_status().json()
        return made["key"], made["info"]["key_id"]

    revoked, revoked_id = await make()
    assert (await client.delete(f"/v1/keys/{revoked_id}")).status_code == 204
    expired, expired_id = await make()
    async with app.services.database.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute(
            "update api_keys set expires_at = $3 where tenant_id = $1 and key_id = $2",
            victim.shop.tenant_id,
            expired_id,
            app.services.clock() - timedelta(seconds=1),
        )
    page, _ = await make(kind="publishable", allowed_origins=["https://shop.example"])
    whole = victim.shop.secret_key
    return {
        "no key": ({}, {401}),
        "unknown": ({"x-api-key": make_key("secret", cell="00")[0]}, {401}),
        "mistyped": ({"x-api-key": whole[:-1] + ("0" if whole[-1] != "0" else "1")}, {401}),
        "cut": ({"x-api-key": whole[:-1]}, {401}),
        "revoked": ({"x-api-key": revoked}, {401}),
        "expired": ({"x-api-key": expired}, {401}),
        "of another page": ({"x-api-key": page, "origin": "https://evil.example"}, {403}),
        "of no page": ({"x-api-key": page}, {403}),
        "two keys": ({"x-api-key": whole, "authorization": f"Bearer {page}"}, {401}),
        "a made up token": ({"x-api-key": whole, "x-visitor-token": "a.b.c"}, {401}),
    }


async def test_a_key_that_is_not_good_opens_nothing(
    app: Application, anonymous: httpx.AsyncClient, victim: Victim
) -> None:
    """Of every route, for ids that are there and that are not, with one answer for both; nothing is told or changed."""
    spoilt = await _keys(app, victim)
    before = await rows_of(app, victim.shop.tenant_id)
    for case, (headers, statuses) in spoilt.items():
        for route in ALL:
            sent = route.sent()
            sent["headers"] = {**sent.get("headers", {}), **headers}
            answers = []
            for name in (victim.item_id, f"only-{uuid4()}"):
                answer = await anonymous.request(route.method, route.address(name), **sent)
                assert answer.status_code in statuses, (case, route.method, route.path, answer.text)
                assert_nothing_leaked(answer, victim)
                answers.append(told(answer, name))
            assert answers[0] == answers[1]
    assert await rows_of(app, victim.shop.tenant_id) == before


async def test_a_key_without_the_scope_does_nothing(
    app: Application, anonymous: httpx.AsyncClient, victim: Victim
) -> None:
    """A key of each single scope opens the routes of that scope, and 403 answers everywhere else."""
    client = victim.shop.client
    before = None
    for scope in SCOPES:
        made = (await client.post("/v1/keys", json={"name": scope, "scopes": [scope]})).raise_for_status().json()
        headers = {"x-api-key": made["key"]}
        before = await rows_of(app, victim.shop.tenant_id)
        for route in ALL:
            if route.scope == scope:
                continue
            sent = route.sent()
            sent["headers"] = {**sent.get("headers", {}), **headers}
            answer = await anonymous.request(route.method, route.address(victim.item_id), **sent)
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), (scope, route.path)
        assert await rows_of(app, victim.shop.tenant_id) == before


async def test_a_publishable_key_writes_events_and_no_more(
    app: Application, anonymous: httpx.AsyncClient, victim: Victim
) -> None:
    """Whatever the page tries by it."""
    made = await victim.shop.client.post("/v1/keys", json={"name": "page", "kind": "publishable"})
    for route in ALL:
        if route.scope in PUBLISHABLE_SCOPES:
            continue
        sent = route.sent()
        sent["headers"] = {**sent.get("headers", {}), "x-api-key": made.json()["key"]}
        answer = await anonymous.request(route.method, route.address(victim.item_id), **sent)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), route.path


async def test_the_metrics_name_nothing_of_a_shop(app: Application, attacker: Shop, victim: Victim) -> None:
    """After every route was asked with every id: no id, no text, no tenant, no key is a label."""
    for route in ALL:
        for theirs, _ in names_of(victim).values():
            client = victim.shop.client if route.method == "GET" else attacker.client
            await client.request(route.method, route.address(theirs), **route.sent())
    exposed = generate_latest(REGISTRY).decode()
    assert "http_requests_total" in exposed
    for theirs, _ in names_of(victim).values():
        assert theirs not in exposed
    assert victim.shop.secret_key not in exposed
    assert not re.search(r"[sp]k_[0-9A-Za-z]{10}", exposed)


async def test_ids_that_nobody_has_look_like_those_that_there_are(victim: Victim) -> None:
    """Else a different answer would prove nothing."""
    for theirs, nobodys in names_of(victim).values():
        assert len(theirs) == len(nobodys)
        assert theirs != nobodys


def test_the_times_of_a_query_are_times() -> None:
    """What `sent` fills in."""
    for route in ALL:
        for value in route.sent().get("params", {}).values():
            datetime.fromisoformat(value)
