"""Visitor tokens: a browser speaks for one shopper, in one part of the catalogue, and for nobody else."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from api.app import Application
from api.auth import Authenticator
from infra.changes import ChangeFeed
from infra.db import Database
from infra.secret import Secret
from tests.docs.test_keys import python_snippet
from tests.installation import REPOSITORY
from tests.integration.api.conftest import MakeShop, Shop

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[httpx.Response]]
BRANDS = ("lumo", "terra")
USER, OTHER = "user-1", "user-2"


class Signer:
    """The shop's server: makes tokens with a signing secret."""

    def __init__(self, made: dict[str, Any]) -> None:
        self.kid, self.secret, self.tenant = made["kid"], made["secret"], made["tenant"]

    def __call__(self, user: str | None = USER, **claims: Any) -> str:
        exp = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
        said = {"aud": "kindred", "tenant": self.tenant, "exp": exp, **claims}
        if user is not None:
            said["user"] = user
        return jwt.encode(said, self.secret, algorithm="HS256", headers={"kid": self.kid})


async def _signer(client: httpx.AsyncClient) -> Signer:
    made = await client.post("/v1/visitor-secrets")
    assert made.status_code == 201, made.text
    return Signer(made.json())


@pytest.fixture
async def signer(client: httpx.AsyncClient) -> Signer:
    """The server of a shop with items of two brands, and a placement for each."""
    items = [
        {"id": f"{brand}-{number}", "title": f"{brand} lamp {number}", "brand": brand, "price": 100 + number}
        for brand in BRANDS
        for number in range(4)
    ]
    assert (await client.post("/v1/items/bulk", json=items)).json()["accepted"] == 8
    for name in ("home", "cart"):
        assert (await client.put(f"/v1/placements/{name}", json={"defaults": {"strategy": "new"}})).status_code == 201
    return await _signer(client)


@pytest.fixture
async def send(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> Send:
    """Sends a body as a page does: with a publishable key, and a token."""
    made = await client.post("/v1/keys", json={"kind": "publishable", "name": "page"})
    key = made.json()["key"]

    async def post(token: str | None, path: str, body: Any = None, **headers: str) -> httpx.Response:
        said = {"x-api-key": key, **headers}
        if token is not None:
            said["x-visitor-token"] = token
        if body is None:
            return await anonymous.get(path, headers=said)
        return await anonymous.post(path, json=body, headers=said)

    return post


def _brands(answer: dict[str, Any]) -> set[str]:
    assert answer["items"]
    return {item["id"].split("-")[0] for item in answer["items"]}


def _code(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


async def test_the_page_speaks_for_the_user_of_its_token(signer: Signer, send: Send) -> None:
    """Named or not; without the token the same name is refused, and another name is refused with it."""
    body = {"strategy": "for_you", "user_id": USER}
    assert _code(await send(None, "/v1/recommend", body)) == (403, "user_id_refused")
    for good in (body, {"strategy": "for_you"}):
        assert _code(await send(signer(), "/v1/recommend", good)) == (200, None)
    for bad in ({"user_id": OTHER}, {"visitor_id": USER}, {"user_id": USER, "visitor_id": "v" * 32}):
        assert _code(await send(signer(), "/v1/recommend", bad)) == (403, "shopper_refused")
        assert _code(await send(signer(), "/v1/rerank", {"item_ids": ["lumo-1"], **bad})) == (403, "shopper_refused")
        page = await send(signer(), "/v1/recommend/batch", {"requests": [bad]})
        assert [each["code"] for each in page.json()["results"]] == ["shopper_refused"]
    assert _code(await send(signer(), f"/v1/users/{USER}/recommendations")) == (200, None)
    assert _code(await send(signer(), f"/v1/users/{OTHER}/recommendations")) == (403, "shopper_refused")
    assert _code(await send(signer(None, visitor="short"), "/v1/recommend", {"visitor_id": "short"})) == (200, None)


async def test_events_of_the_page_are_the_users(signer: Signer, send: Send, client: httpx.AsyncClient) -> None:
    """Whether they name the user or nobody; one that names another loses the call, and nothing of it is stored."""
    token = signer(placements=["home"])
    events = [
        {"event_id": "1", "type": "view", "item_id": "lumo-1"},
        {"event_id": "2", "type": "view", "item_id": "lumo-2", "user_id": USER, "placement": "home"},
        {"event_id": "3", "type": "view", "item_id": "lumo-3", "placement": "cart"},
    ]
    counted = (await send(token, "/v1/events", {"events": events})).json()
    assert (counted["accepted"], counted["rejected"]) == (2, 1)
    for other in ({"user_id": OTHER}, {"visitor_id": "v" * 32}):
        refused = await send(token, "/v1/events", {"events": [{"type": "view", "item_id": "lumo-1", **other}]})
        assert _code(refused) == (403, "shopper_refused")
    stored = (await client.get("/v1/events", params={"user_id": USER})).json()
    assert {each["event_id"] for each in stored["events"]} == {"1", "2"}
    assert (await client.get("/v1/events", params={"user_id": OTHER})).json()["events"] == []


async def test_a_beacon_carries_its_token_in_the_address(
    signer: Signer, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    """It can set no header; two tokens, or a secret key, are believed as little as ever."""
    made = await client.post("/v1/keys", json={"kind": "publishable", "name": "page"})
    event = '{"type": "view", "item_id": "lumo-1", "event_id": "b"}'
    query = {"key": made.json()["key"], "visitor_token": signer()}
    sent = await anonymous.post("/v1/events", params=query, content=event, headers={"content-type": "text/plain"})
    assert sent.json()["accepted"] == 1
    assert [
        each["event_id"] for each in (await client.get("/v1/events", params={"user_id": USER})).json()["events"]
    ] == ["b"]
    twice = [*query.items(), ("visitor_token", signer(OTHER))]
    assert _code(await anonymous.post("/v1/events", params=twice, content=event)) == (401, "key_missing")


async def test_no_list_shows_what_the_tokens_filter_keeps_out(signer: Signer, send: Send) -> None:
    """Lists, pages of lists, reranks, searches, conveniences, the next page: whatever filter the request has itself."""
    token = signer(filter={"eq": ["brand", "lumo"]})
    for own in (None, {"eq": ["brand", "terra"]}, {"or": [{"exists": "brand"}, {"eq": ["brand", "terra"]}]}):
        more = {} if own is None else {"filter": own}
        for body in (
            {"strategy": "new", **more},
            {"strategy": "popular", **more},
            {"strategy": "trending", **more},
            {"strategy": "for_you", **more},
            {"strategy": "similar", "item_ids": ["terra-1"], **more},
            {"strategy": "recently_viewed", **more},
            {"placement": "home", **more},
        ):
            answers = [(await send(token, "/v1/recommend", body)).json()]
            answers += (await send(token, "/v1/recommend/batch", {"requests": [body, body]})).json()["results"]
            for answer in answers:
                assert {item["id"].split("-")[0] for item in answer["items"]} <= {"lumo"}, body
        found = (await send(token, "/v1/search", {"query": "lamp", **more})).json()
        assert {item["id"].split("-")[0] for item in found["items"]} <= {"lumo"}
    reranked = (await send(token, "/v1/rerank", {"item_ids": ["terra-1", "lumo-1", "terra-2"]})).json()
    assert [item["id"] for item in reranked["items"]] == ["lumo-1"]
    for path in ("/v1/trending", "/v1/items/terra-1/similar", f"/v1/users/{USER}/recommendations"):
        assert _brands((await send(token, path)).json()) == {"lumo"}, path
    first = (await send(None, "/v1/recommend", {"strategy": "new", "count": 1})).json()
    page = {"strategy": "new", "count": 8, "cursor": first["cursor"]}
    assert _brands((await send(token, "/v1/recommend", page)).json()) == {"lumo"}


async def test_a_bad_filter_of_the_request_is_told_by_its_own_place(signer: Signer, send: Send) -> None:
    """Not by its place inside of what we made of it."""
    refused = await send(signer(filter={"eq": ["brand", "lumo"]}), "/v1/recommend", {"filter": {"eq": ["nope", 1]}})
    assert _code(refused) == (422, "invalid_filter")
    assert refused.json()["errors"][0]["pointer"].startswith("/filter/eq")


async def test_two_tokens_never_share_an_answer(signer: Signer, send: Send, app: Application) -> None:
    """Asked in turn for the same lists, which are kept; and again, from what was kept."""
    bodies = [{"strategy": "new"}, {"strategy": "popular"}, {"strategy": "for_you"}, {"placement": "home"}]
    for _ in range(2):
        for body in bodies:
            everything = (await send(None, "/v1/recommend", body)).json()
            assert _brands(everything) == set(BRANDS)
            for brand in BRANDS:
                for user in (USER, OTHER):
                    token = signer(user, filter={"eq": ["brand", brand]})
                    assert _brands((await send(token, "/v1/recommend", body)).json()) == {brand}
    assert len(app.services.answering._cache) > 0


async def test_a_token_asks_for_its_placements_alone(
    signer: Signer, send: Send, client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    """Of a key that is narrowed, too, those of both."""
    token = signer(placements=["home"])
    refused = (403, "placement_refused")
    assert _code(await send(token, "/v1/recommend", {"placement": "home"})) == (200, None)
    for body in ({"placement": "cart"}, {"strategy": "new"}, {}):
        assert _code(await send(token, "/v1/recommend", body)) == refused
    assert _code(await send(token, "/v1/search", {"query": "lamp"})) == refused
    assert _code(await send(token, "/v1/trending")) == refused
    narrow = await client.post("/v1/keys", json={"kind": "publishable", "name": "n", "placements": ["cart"]})
    headers = {"x-api-key": narrow.json()["key"], "x-visitor-token": token}
    for name in ("home", "cart"):
        assert _code(await anonymous.post("/v1/recommend", json={"placement": name}, headers=headers)) == refused


async def test_a_token_is_of_its_shop(
    signer: Signer, send: Send, make_shop: MakeShop, client: httpx.AsyncClient
) -> None:
    """Another shop's server signs nothing here, not even with the same claims and the same kid."""
    theirs = await _signer((await make_shop()).client)
    assert theirs.kid == signer.kid
    assert _code(await send(theirs(), "/v1/recommend", {})) == (401, "visitor_token_refused")
    theirs.tenant = signer.tenant
    assert _code(await send(theirs(), "/v1/recommend", {})) == (401, "visitor_token_refused")
    assert _code(await send("", "/v1/recommend", {})) == (401, "visitor_token_refused")
    assert _code(await send("x" * 10_000, "/v1/recommend", {})) == (401, "visitor_token_refused")


async def test_a_token_that_expires_is_refused_though_it_was_checked(
    signer: Signer, app: Application, client: httpx.AsyncClient, database: Database
) -> None:
    """What was checked is kept no longer than it is good for."""
    key = (await client.post("/v1/keys", json={"name": "k"})).json()["key"]
    moment = [datetime.now(UTC)]
    authenticator = Authenticator(database, app.services.feed, secret=app.services.secret, clock=lambda: moment[0])
    token = signer()
    for _ in range(2):
        caller = await authenticator.authenticate(key, None, token)
        assert caller.visitor is not None
        assert caller.visitor.id == USER
    moment[0] += timedelta(hours=1, minutes=6)
    with pytest.raises(Exception, match="has expired"):
        await authenticator.authenticate(key, None, token)


async def test_two_signing_secrets_live_at_once(client: httpx.AsyncClient, signer: Signer, send: Send) -> None:
    """No third; one that is deleted ends every token of it with the next request, and its number never comes back."""
    second = await _signer(client)
    assert (second.kid, signer.kid) == ("v2", "v1")
    assert second.secret != signer.secret
    listed = (await client.get("/v1/visitor-secrets")).json()
    assert [each["kid"] for each in listed["visitor_secrets"]] == ["v2", "v1"]
    assert second.secret not in str(listed)
    assert _code(await client.post("/v1/visitor-secrets")) == (409, "too_many_visitor_secrets")
    for each in (signer, second):
        assert _code(await send(each(), "/v1/recommend", {})) == (200, None)
    assert (await client.delete("/v1/visitor-secrets/v1")).status_code == 204
    assert _code(await send(signer(), "/v1/recommend", {})) == (401, "visitor_token_refused")
    assert _code(await send(second(), "/v1/recommend", {})) == (200, None)
    assert _code(await client.delete("/v1/visitor-secrets/v1")) == (404, "visitor_secret_not_found")
    assert _code(await client.delete("/v1/visitor-secrets/none")) == (404, "visitor_secret_not_found")
    assert (await _signer(client)).kid == "v3"


async def test_a_deleted_signing_secret_ends_in_the_other_processes(
    client: httpx.AsyncClient, signer: Signer, app: Application, database: Database
) -> None:
    """By the change feed."""
    key = (await client.post("/v1/keys", json={"name": "k"})).json()["key"]
    feed = ChangeFeed(database)
    await feed.poll()
    other = Authenticator(database, feed, secret=app.services.secret, clock=app.services.clock)
    token = signer()
    await other.authenticate(key, None, token)
    await client.delete(f"/v1/visitor-secrets/{signer.kid}")
    await feed.poll()
    with pytest.raises(Exception, match="no live visitor secret"):
        await other.authenticate(key, None, token)
    await feed.close()


async def test_tokens_outlive_a_change_of_the_installations_secret(
    client: httpx.AsyncClient, signer: Signer, app: Application, database: Database
) -> None:
    """As long as the old one is believed."""
    key = (await client.post("/v1/keys", json={"name": "k"})).json()["key"]
    changed = Secret(current=b"n" * 32, others=app.services.secret.every)
    other = Authenticator(database, app.services.feed, secret=changed, clock=app.services.clock)
    assert (await other.authenticate(key, None, signer())).visitor is not None
    gone = Authenticator(database, app.services.feed, secret=Secret(current=b"n" * 32), clock=app.services.clock)
    with pytest.raises(Exception, match="no live visitor secret"):
        await gone.authenticate(key, None, signer())


async def test_only_admin_manages_signing_secrets(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    """A key without the scope neither sees, makes nor deletes one."""
    key = (await client.post("/v1/keys", json={"name": "k"})).json()["key"]
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/v1")):
        answer = await anonymous.request(method, f"/v1/visitor-secrets{path}", headers={"x-api-key": key})
        assert _code(answer) == (403, "scope_missing")


async def test_the_documented_python_makes_a_token(shop: Shop, signer: Signer, send: Send) -> None:
    """The snippet of docs/visitor-tokens.md, as it stands there."""
    names: dict[str, Any] = {}
    exec(python_snippet(REPOSITORY / "docs" / "visitor-tokens.md"), names)  # noqa: S102 - our own page
    token = names["visitor_token"](signer.secret, signer.kid, signer.tenant, USER)
    for answer in (await send(token, "/v1/recommend", {}), await send(token, "/v1/search", {"query": "lamp"})):
        assert (answer.status_code, answer.json()["items"]) == (200, [])  # none of the items is of the market
