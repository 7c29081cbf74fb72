"""The wrapper around the framework, over a small application of the test's own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from litestar import Litestar, Request, Response, get, post, put
from litestar.params import FromPath
from structlog.testing import capture_logs

from api.auth import Caller, KeyMissing, requires
from api.contract import contract
from api.edge import MAX_BODY, Edge
from api.problems import answer_problem
from api.wire import decode_id
from infra.db import TenantId

pytestmark = pytest.mark.anyio

CALLER = Caller(
    tenant_id=TenantId(UUID(int=7)),
    key_id="k",
    kind="secret",
    scopes=frozenset({"catalog:read"}),
    placements=None,
    rate_per_min=None,
)


class _Authenticator:
    """Knows one key."""

    def __init__(self) -> None:
        self.origins: list[str | None] = []

    async def authenticate(self, key: str | None, origin: str | None, *_: object) -> Caller:
        self.origins.append(origin)
        if key == "broken":
            raise RuntimeError("secret inside")
        if key != "good":
            raise KeyMissing("Send a key.")
        return CALLER


_PUBLIC = contract(scope="public", tag="t", summary="s")


@get("/v1/read/{item_id:str}", opt=contract(scope="catalog:read", tag="t", summary="s"))
async def read(item_id: FromPath[str]) -> str:
    """Echoes the id."""
    return decode_id(item_id)


@get("/v1/admin", opt=contract(scope="admin", tag="t", summary="s"))
async def admin() -> str:
    """Needs more than the caller has."""
    return "never"


@post("/take", status_code=200, opt=_PUBLIC)
async def take(request: Request[Any, Any, Any]) -> str:
    """Says how long the body was."""
    return str(len(await request.body()))


@post("/small", status_code=200, opt=contract(scope="public", tag="t", summary="s", max_body=10))
async def small(request: Request[Any, Any, Any]) -> str:
    """Takes ten bytes."""
    return str(len(await request.body()))


@post("/any", status_code=200, opt=contract(scope="public", tag="t", summary="s", max_body=None))
async def any_size(request: Request[Any, Any, Any]) -> str:
    """Takes anything."""
    return str(sum([len(piece) async for piece in request.stream()]))


@get("/defect", opt=_PUBLIC)
async def defect() -> str:
    """Fails."""
    raise RuntimeError("the password is hunter2")


@put("/v1/items/{item_id:str}", status_code=200, opt=_PUBLIC)
async def put_item(item_id: FromPath[str]) -> str:
    """Stands for the route of an item."""
    return decode_id(item_id)


@post("/v1/items/bulk", status_code=200, opt=_PUBLIC)
async def bulk() -> Response[str]:
    """Stands for the bulk route."""
    return Response("bulk")


@pytest.fixture
def authenticator() -> _Authenticator:
    return _Authenticator()


@pytest.fixture
async def client(authenticator: _Authenticator) -> AsyncIterator[httpx.AsyncClient]:
    framework = Litestar(
        [read, admin, take, small, any_size, defect, put_item, bulk],
        guards=[requires],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )
    edge = Edge(framework, authenticator)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(edge, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://kindred") as made:
        yield made


def _pieces(*sizes: int) -> Callable[[], AsyncIterator[bytes]]:
    async def pieces() -> AsyncIterator[bytes]:
        for size in sizes:
            yield b"x" * size

    return pieces


async def test_every_answer_has_a_request_id(client: httpx.AsyncClient) -> None:
    """A UUIDv7, where the client gave none; in a problem's body too."""
    answer = await client.get("/nowhere")
    assert UUID(answer.headers["x-request-id"]).version == 7
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(("given", "kept"), [("order-4711.a", True), ("short", False), ("bad id with spaces", False)])
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, given: str, kept: bool) -> None:
    """Another one is replaced: it goes into logs."""
    answer = await client.post("/take", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is kept


async def test_a_route_of_v1_needs_a_key(client: httpx.AsyncClient) -> None:
    """401, with the challenge."""
    answer = await client.get("/v1/read/a")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "key_missing"


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer good"}, {"authorization": "bearer good"}, {"X-API-Key": "good"}]
)
async def test_the_key_is_found_in_either_header(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """`Authorization: Bearer` or `X-API-Key`."""
    assert (await client.get("/v1/read/a", headers=headers)).text == "a"


async def test_a_missing_scope_is_forbidden(client: httpx.AsyncClient) -> None:
    """403 names the scope that is needed and those that the key has."""
    answer = await client.get("/v1/admin", headers={"x-api-key": "good"})
    assert answer.status_code == 403
    assert "`admin`" in answer.json()["detail"]
    assert "catalog:read" in answer.json()["detail"]


async def test_a_failing_look_up_is_our_defect(client: httpx.AsyncClient) -> None:
    """500 rather than 401: the key may well be good. Nothing of the inside is told."""
    with capture_logs():
        answer = await client.get("/v1/read/a", headers={"x-api-key": "broken"})
    assert answer.status_code == 500
    assert "secret inside" not in answer.text


async def test_an_escaped_slash_stays_inside_the_id(client: httpx.AsyncClient) -> None:
    """`a%2Fb` is one id, in both spellings, and `%252F` is another."""
    headers = {"x-api-key": "good"}
    assert (await client.get("/v1/read/a%2Fb", headers=headers)).text == "a/b"
    assert (await client.get("/v1/read/a%2fb", headers=headers)).text == "a/b"
    assert (await client.get("/v1/read/a%252Fb", headers=headers)).text == "a%2Fb"
    assert (await client.get("/v1/read/%C3%A4%20%25", headers=headers)).text == "ä %"


async def test_an_id_that_is_not_utf_8_is_a_bad_request(client: httpx.AsyncClient) -> None:
    """400, not a replaced character."""
    answer = await client.get("/v1/read/%E4", headers={"x-api-key": "good"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_an_item_may_be_called_bulk(client: httpx.AsyncClient) -> None:
    """Only POST means the bulk route."""
    assert (await client.put("/v1/items/bulk")).text == "bulk"
    assert (await client.put("/v1/items/delete")).text == "delete"
    assert (await client.post("/v1/items/bulk")).text == "bulk"


async def test_a_body_at_the_limit_is_taken(client: httpx.AsyncClient) -> None:
    """10,000,000 bytes."""
    assert (await client.post("/take", content=b"x" * MAX_BODY)).text == str(MAX_BODY)


async def test_a_body_over_the_limit_is_refused_by_its_length(client: httpx.AsyncClient) -> None:
    """One byte more, told before any of it is read; the connection is not kept."""
    answer = await client.post("/take", content=b"x" * (MAX_BODY + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["connection"] == "close"


async def test_a_body_of_unknown_length_is_refused_while_it_streams(client: httpx.AsyncClient) -> None:
    """Whatever the client says, or does not say, of its length."""
    answer = await client.post("/small", content=_pieces(6, 6)())
    assert answer.status_code == 413
    assert (await client.post("/small", content=_pieces(5, 5)())).text == "10"


async def test_a_route_may_take_any_size(client: httpx.AsyncClient) -> None:
    """`max_body=None`."""
    assert (await client.post("/any", content=_pieces(*[1_000_000] * 12)())).text == "12000000"


async def test_a_client_that_hangs_up_is_no_defect(authenticator: _Authenticator) -> None:
    """A body that stops half-way is answered 400 to nobody, and logged as such."""
    framework = Litestar(
        [take],
        guards=[requires],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
    )
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    with capture_logs() as logs:
        await Edge(framework, authenticator)(_scope("/take"), receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
    assert [line["log_level"] for line in logs] == ["info"]
    assert logs[0]["error"] == "client_gone"


def _scope(path: str, query: bytes = b"") -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


async def test_a_defect_tells_nothing_of_its_inside(client: httpx.AsyncClient) -> None:
    """500 as a problem; the log has the rest, under the same request id."""
    with capture_logs() as logs:
        answer = await client.get("/defect")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert logs[0]["event"] == "http.failed"


async def test_an_error_of_the_framework_itself_is_answered(authenticator: _Authenticator) -> None:
    """The last resort: the framework raises, and the client still gets a problem with its id."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("inside")

    transport = httpx.ASGITransport(Edge(broken, authenticator), raise_app_exceptions=False)  # type: ignore[arg-type]
    with capture_logs():
        async with httpx.AsyncClient(transport=transport, base_url="http://kindred") as client:
            answer = await client.get("/x")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_an_answer_that_broke_half_way_is_cut(authenticator: _Authenticator) -> None:
    """Its status is sent already: the server must see the error and close the connection."""

    async def broken(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("inside")

    async def send(message: Any) -> None:
        pass

    with capture_logs(), pytest.raises(RuntimeError, match="inside"):
        await Edge(broken, authenticator)(_scope("/x"), send, send)  # type: ignore[arg-type]


async def test_one_line_is_logged_without_the_address(client: httpx.AsyncClient) -> None:
    """Method, route, status, time, tenant and key id; never what stands in the address: a key, or a person's id."""
    with capture_logs() as logs:
        await client.get("/v1/read/maria?key=pk_secret", headers={"x-api-key": "good"})
        await client.get("/v1/nowhere/maria?key=pk_secret", headers={"x-api-key": "good"})
    line, lost = logs
    assert line["event"] == "http.request"
    told = (line["method"], line["route"], line["status"], line["key_id"])
    assert told == ("GET", "/v1/read/{item_id}", 200, "k")
    assert line["tenant_id"] == str(CALLER.tenant_id)
    assert lost["route"] == "unknown"
    for word in ("pk_secret", "maria"):
        assert word not in str(logs)


async def test_a_page_may_ask_first(client: httpx.AsyncClient, authenticator: _Authenticator) -> None:
    """A browser's preflight is answered without a key."""
    answer = await client.options(
        "/v1/read/a", headers={"origin": "https://shop.example", "access-control-request-method": "POST"}
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "x-visitor-token" in answer.headers["access-control-allow-headers"]
    assert "Origin" in answer.headers["vary"]
    assert authenticator.origins == []


async def test_a_page_may_read_why_its_key_is_refused(client: httpx.AsyncClient) -> None:
    """By its own origin, never by any; and nothing is said without one."""
    answer = await client.get("/v1/read/a", headers={"origin": "https://shop.example"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in (await client.get("/v1/read/a")).headers


async def test_a_page_may_not_read_by_a_secret_key(client: httpx.AsyncClient) -> None:
    """A secret key on a page is a leak, which shall not work by accident."""
    answer = await client.get("/v1/read/a", headers={"origin": "https://shop.example", "x-api-key": "good"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_what_is_no_api_is_not_opened_to_other_pages(client: httpx.AsyncClient) -> None:
    """Neither by a preflight nor by a request."""
    headers = {"origin": "https://shop.example"}
    asked = await client.options("/take", headers={**headers, "access-control-request-method": "POST"})
    sent = await client.post("/take", headers=headers, content=b"x")
    for answer in (asked, sent):
        assert "access-control-allow-origin" not in answer.headers


@given(
    st.lists(
        st.sampled_from(
            [
                (b"authorization", b"Bearer good"),
                (b"authorization", b"bearer  good "),
                (b"authorization", b"Bearer other"),
                (b"authorization", b"Basic Z29vZA=="),
                (b"x-api-key", b"good"),
                (b"x-api-key", b"other"),
            ]
        ),
        max_size=4,
    )
)
async def test_two_keys_that_differ_are_no_key(headers: list[tuple[bytes, bytes]]) -> None:
    """Whichever headers they stand in, in whichever order; a scheme that is none of ours holds none."""
    keys = {value.split()[-1] for _, value in headers if not value.startswith(b"Basic")}
    answer = await _get("/v1/read/a", headers)
    expected = {frozenset({b"good"}): None}.get(frozenset(keys), "key_missing")
    if len(keys) > 1:
        expected = "ambiguous_key"
    assert answer.get("code") == expected


@given(st.binary(max_size=60).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"")))
@example(b"Bearer")
@example(b"Bearer ")
@example(b"Bearer \xff\xfe")
@example(b"Bearer " + b"x" * 10_000)
async def test_no_authorization_header_breaks_anything(value: bytes) -> None:
    """Whatever bytes it holds, who sends it is told that no key was found."""
    assert (await _get("/v1/read/a", [(b"authorization", value)]))["code"] == "key_missing"


async def test_two_origins_are_none(authenticator: _Authenticator) -> None:
    """A proxy and we shall not believe different ones."""
    await _get("/v1/read/a", [(b"origin", b"https://a.example"), (b"origin", b"https://b.example")], authenticator)
    assert authenticator.origins == ["https://a.example, https://b.example"]


@pytest.mark.parametrize("path", ["/v1/read/a", "/v1/admin", "/take", "/defect", "/nowhere"])
async def test_every_answer_has_the_headers_of_safety(client: httpx.AsyncClient, path: str) -> None:
    """Good or bad; over HTTPS also that it stays HTTPS."""
    answer = await client.get(path, headers={"x-api-key": "good"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert ("cache-control" in answer.headers) is path.startswith("/v1/")
    assert "strict-transport-security" not in answer.headers
    secured = await client.get(path, headers={"x-forwarded-proto": "https"})
    assert secured.headers["strict-transport-security"].startswith("max-age=63072000")


async def _get(
    path: str, headers: list[tuple[bytes, bytes]], authenticator: _Authenticator | None = None
) -> dict[str, Any]:
    """The body of an answer to exactly these header lines, as a struct where it is a problem."""
    framework = Litestar(
        [read],
        guards=[requires],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
    )
    edge = Edge(framework, authenticator or _Authenticator())  # type: ignore[arg-type]
    transport = httpx.ASGITransport(edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://kindred", headers={}) as client:
        answer = await client.get(path, headers=headers)
    return answer.json() if answer.headers["content-type"].startswith("application/problem") else {}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "route_not_found"), ("DELETE", "/take", 405, "method_not_allowed")],
)
async def test_the_frameworks_errors_are_problems(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    """404 and 405 in our form; 405 with the Allow header."""
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ("POST" in answer.headers.get("allow", "")) is (status == 405)


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH"])
async def test_a_path_that_is_an_id_too_allows_what_both_do(client: httpx.AsyncClient, method: str) -> None:
    """`Allow` of an item's route, and POST."""
    allowed = (await client.request(method, "/v1/items/bulk")).headers["allow"]
    assert {"PUT", "POST"} <= set(allowed.split(", "))
    assert "POST" not in (await client.request(method, "/v1/items/other")).headers["allow"]


@pytest.mark.parametrize("path", ["/v1/items/bulk/", "/v1//items/bulk", "//v1/items///bulk//", "/v1/items//%62ulk/"])
async def test_a_slash_more_is_the_same_path(client: httpx.AsyncClient, path: str) -> None:
    """For all that looks at it: what a call costs, whose it is, and which route it is."""
    answer = await client.post(f"http://kindred{path}")
    assert (answer.status_code, answer.text) == (200, "bulk")
    assert (await client.put(f"http://kindred{path}")).text == "bulk"
    refused = await client.get("http://kindred//v1//admin/")
    assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
    known = await client.get("http://kindred//v1/read//a/", headers={"x-api-key": "good"})
    assert (known.status_code, known.text) == (200, "a")


async def _from_a_socket(
    authenticator: _Authenticator, drops: list[bytes], *, body_timeout_s: float, headers: bytes = b""
) -> bytes:
    """All that a real server answers on a connection that sends these pieces of a body and then keeps silent."""
    framework = Litestar(
        [take],
        guards=[requires],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
    )
    edge = Edge(framework, authenticator, body_timeout_s=body_timeout_s)  # type: ignore[arg-type]
    config = uvicorn.Config(edge, http="httptools", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.startup(sockets=[listening])
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"POST /take HTTP/1.1\r\nhost: kindred\r\ncontent-length: 1000\r\n" + headers + b"\r\n")
        for drop in drops:
            writer.write(drop)
            await writer.drain()
        answer = await reader.read()
        writer.close()
        await server.shutdown(sockets=[listening])
    return answer


@pytest.mark.parametrize("drops", [[], [b"x"], [b"x"] * 20], ids=["nothing", "one byte", "some"])
async def test_a_body_that_stands_still_is_answered_and_cut(authenticator: _Authenticator, drops: list[bytes]) -> None:
    """408 and a closed connection, so that nobody holds all there are by sending nothing."""
    answer = await _from_a_socket(authenticator, drops, body_timeout_s=0.02)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in head.lower()
    assert b"slow_body" in body


async def test_a_whole_body_arrives_in_any_number_of_pieces(authenticator: _Authenticator) -> None:
    """Each of them is in time."""
    drops = [b"x" * 250] * 4
    answer = await _from_a_socket(authenticator, drops, body_timeout_s=30, headers=b"connection: close\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_that_drips_is_given_up(authenticator: _Authenticator) -> None:
    """A byte now and then keeps no connection: the time for all of it grows with what came."""
    framework = Litestar(
        [take],
        guards=[requires],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
    )
    taken = 0
    sent: list[Any] = []

    async def receive() -> Any:
        nonlocal taken
        taken += 1
        await asyncio.sleep(0.002)
        return {"type": "http.request", "body": b"x", "more_body": taken < 1000}

    async def send(message: Any) -> None:
        sent.append(message)

    edge = Edge(framework, authenticator, body_timeout_s=0.02)  # type: ignore[arg-type]
    await edge(_scope("/take"), receive, send)
    assert sent[0]["status"] == 408
    assert taken < 100
