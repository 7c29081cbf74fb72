"""The headers of safety on every route and page that there is, and which pages may read the answers."""

import re
from typing import Any

import httpx
import pytest

from api.app import ROUTES, Application
from tests.integration.api.conftest import Shop

pytestmark = pytest.mark.anyio

_EVERY = sorted({(method, path) for handler in ROUTES for method in handler.http_methods for path in handler.paths})
_ADDRESSES = [path for method, path in _EVERY if method == "GET" and "{" not in path and not path.startswith("/v1/")]
ORIGIN = "https://shop.example"


def _address(path: str) -> str:
    return re.sub(r"{\w+(:\w+)?}", "x", path)


def _policy(answer: httpx.Response) -> dict[str, str]:
    """The Content-Security-Policy by directive; there is one header of it."""
    (policy,) = answer.headers.get_list("content-security-policy")
    return {name: values for name, _, values in (each.strip().partition(" ") for each in policy.split(";"))}


async def test_every_answer_has_them_once(app: Application, shop: Shop, anonymous: httpx.AsyncClient) -> None:
    """Of each route, with a key and without, whatever the status; what needs a key is kept by no cache."""
    for client in (anonymous, shop.client):
        for method, path in (*_EVERY, ("GET", "/nowhere"), ("PATCH", "/docs"), ("GET", "/v1/nowhere")):
            answer = await client.request(method, _address(path))
            assert answer.status_code != 500, (method, path)
            for name in ("x-content-type-options", "referrer-policy", "cross-origin-resource-policy"):
                assert len(answer.headers.get_list(name)) == 1, (method, path, name)
            assert answer.headers["x-content-type-options"] == "nosniff"
            policy = _policy(answer)
            assert policy["default-src"] == "'none'", (method, path)
            assert policy.get("frame-ancestors") == "'none'" or "sandbox" in policy, (method, path)
            if path.startswith("/v1/"):
                assert re.search("no-store|private", answer.headers["cache-control"]), (method, path)
                assert "Origin" in answer.headers["vary"]


async def test_nothing_inline_runs_on_a_page(anonymous: httpx.AsyncClient) -> None:
    """Of whatever answers HTML: scripts come from this server's files alone, and forms lead nowhere else."""
    pages = []
    for path in _ADDRESSES:
        answer = await anonymous.get(path, follow_redirects=False)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        pages.append(path)
        policy = _policy(answer)
        assert set(policy.get("script-src", "'none'").split()) <= {"'self'", "'none'"}, path
        assert policy["base-uri"] == "'none'", path
        assert policy["form-action"] in ("'none'", "'self'"), path
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|javascript:", answer.text), path
        assert answer.headers["cross-origin-opener-policy"] == "same-origin", path
    assert {"/docs", "/docs/errors", "/demo"} <= set(pages)


async def _page_key(client: httpx.AsyncClient, **wanted: Any) -> str:
    made = await client.post("/v1/keys", json={"kind": "publishable", "name": "page", **wanted})
    return str(made.json()["key"])


@pytest.mark.parametrize(
    ("bound", "origin", "readable"),
    [
        ([ORIGIN], ORIGIN, True),
        ([ORIGIN], "https://evil.example", False),
        ([ORIGIN], "null", False),
        ([ORIGIN], "https://shop.example.evil.example", False),
        ([ORIGIN], "http://shop.example", False),
        (None, "https://any.example", True),
        ([], ORIGIN, False),
    ],
)
async def test_the_origins_of_a_key_may_read_its_answers(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, bound: list[str] | None, origin: str, readable: bool
) -> None:
    """The origin is named, never all of them; no cookie is ever allowed."""
    key = await _page_key(client, **({} if bound is None else {"allowed_origins": bound}))
    headers = {"x-api-key": key, "origin": origin}
    for path, body in (("/v1/recommend", {}), ("/v1/search", {"query": "x"}), ("/v1/events", {"events": []})):
        answer = await anonymous.post(path, json=body, headers=headers)
        assert answer.status_code == (200 if readable else 403), answer.text
        assert answer.headers.get("access-control-allow-origin") == (origin if readable else None)
        assert "access-control-allow-credentials" not in answer.headers


async def test_a_preflight_says_nothing_of_any_key(anonymous: httpx.AsyncClient) -> None:
    """It carries none: every origin may ask, by the methods and headers of publishable keys."""
    asked = {
        "origin": "https://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key, x-visitor-token",
    }
    answer = await anonymous.options("/v1/recommend", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://evil.example"
    assert answer.headers["access-control-allow-methods"] == "GET, POST"


async def test_what_needs_no_key_may_be_read_by_all(anonymous: httpx.AsyncClient) -> None:
    """The OpenAPI document, and photos by their signed address; no page of ours."""
    headers = {"origin": "https://any.example"}
    open_to_all = ("/openapi.json", "/photos/x")
    for path in open_to_all:
        assert (await anonymous.get(path, headers=headers)).headers["access-control-allow-origin"] == "*"
    for path in set(_ADDRESSES) - set(open_to_all):
        assert "access-control-allow-origin" not in (await anonymous.get(path, headers=headers)).headers
