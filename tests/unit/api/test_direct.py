"""Routes that the edge answers itself, over a small application of the test's own."""

from typing import Any, cast
from uuid import UUID

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, post

from api.app import ROUTES
from api.auth import Caller, requires
from api.contract import contract
from api.deps import Services
from api.direct import PLAIN_BODY, direct_routes
from api.edge import MAX_BODY, Edge
from api.problems import answer_problem
from infra.db import TenantId
from infra.errors import Invalid

pytestmark = pytest.mark.anyio

_CALLER = Caller(
    tenant_id=TenantId(UUID(int=7)),
    key_id="k",
    kind="secret",
    scopes=frozenset({"recommend"}),
    placements=None,
    rate_per_min=None,
)


class _Authenticator:
    """Every key is good."""

    async def authenticate(self, *_: object) -> Caller:
        return _CALLER


class _Said(msgspec.Struct):
    body: str
    by: str = "edge"


async def echo(_: Services, caller: Caller, body: bytes) -> bytes:
    """What came; "bad" is refused."""
    assert caller is _CALLER
    if body == b'"bad"':
        raise Invalid("No.")
    return msgspec.json.encode(_Said(body.decode()))


def _route(path: str, scope: Any) -> Any:
    @post(path, status_code=200, opt=contract(scope=scope, tag="t", summary="s", direct=echo))
    async def route(request: Request[Any, Any, Any]) -> Response[bytes]:
        """By the framework."""
        return Response(msgspec.json.encode(_Said((await request.body()).decode(), by="framework")))

    return route


@pytest.fixture
def client() -> httpx.AsyncClient:
    """A client of the application."""
    routes = [_route("/v1/echo", "recommend"), _route("/v1/admin", "admin")]
    framework = Litestar(
        route_handlers=routes, guards=[requires], exception_handlers={Exception: answer_problem}, openapi_config=None
    )
    edge = Edge(framework, cast(Any, _Authenticator()), direct_routes(routes, cast(Services, None)))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(cast(Any, edge)),
        base_url="http://shop",
        headers={"authorization": "Bearer k", "content-type": "application/json"},
    )


async def test_a_plain_request_is_answered_by_the_edge(client: httpx.AsyncClient) -> None:
    """As JSON, with the headers that every answer has."""
    answer = await client.post("/v1/echo", content=b"{}")
    assert answer.json() == {"body": "{}", "by": "edge"}
    assert answer.headers["content-type"] == "application/json"
    assert {"x-request-id", "x-content-type-options", "content-length"} <= set(answer.headers)


async def test_a_body_in_pieces_is_put_together(client: httpx.AsyncClient) -> None:
    """Its length is known, its pieces come one by one."""

    async def pieces() -> Any:
        for _ in range(3):
            yield b"12"

    answer = await client.post("/v1/echo", content=pieces(), headers={"content-length": "6"})
    assert answer.json() == {"body": "121212", "by": "edge"}


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json; charset=utf-8"},
        {"content-encoding": "gzip"},
        {"accept": "text/html, application/json;q=0.5"},
        {"expect": "100-continue"},
        {"content-length": str(PLAIN_BODY + 1)},
    ],
)
async def test_an_unusual_request_is_left_to_the_framework(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """It knows what to refuse, and answers the rest alike."""
    answer = await client.post("/v1/echo", content=b"{}", headers=headers)
    assert answer.json()["by"] == "framework"


async def test_a_body_of_unknown_length_is_left_to_the_framework(client: httpx.AsyncClient) -> None:
    """Its limit is the route's."""

    async def pieces() -> Any:
        yield b"{}"

    assert (await client.post("/v1/echo", content=pieces())).json()["by"] == "framework"


async def test_a_missing_scope_is_refused_as_everywhere(client: httpx.AsyncClient) -> None:
    """By the guard of the route."""
    answer = await client.post("/v1/admin", content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_an_error_is_told_as_everywhere(client: httpx.AsyncClient) -> None:
    """As problem+json with the request's id."""
    answer = await client.post("/v1/echo", content=b'"bad"')
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["instance"] == "/v1/echo"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_direct_routes_of_the_api() -> None:
    """Their paths have no parameters and their answers no other status than 200."""
    routes = direct_routes(ROUTES, cast(Services, None))
    assert set(routes) == {("POST", "/v1/recommend"), ("POST", "/v1/search")}
    for handler in ROUTES:
        if "direct" in handler.opt:
            assert handler.status_code == handler.opt["contract"].status == 200
            assert handler.opt.get("max_body", MAX_BODY) >= PLAIN_BODY
