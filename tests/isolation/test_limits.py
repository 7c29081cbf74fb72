"""Every answer says how much of its rate limits is left, in the form of the draft; and nothing of another tenant's."""

from typing import Any

import http_sfv
import httpx
import pytest

from api.app import Application
from tests.isolation.conftest import Shop, Victim
from tests.isolation.test_routes import PROBES

pytestmark = pytest.mark.anyio


def fields(answer: httpx.Response) -> dict[str, dict[str, int]]:
    """The parameters of each limit, out of both headers. Fails where either is no structured field (RFC 9651)."""
    found: dict[str, dict[str, int]] = {}
    for name, needed in (("ratelimit-policy", {"q", "w"}), ("ratelimit", {"r", "t"})):
        assert name in answer.headers, (name, answer.status_code, answer.headers)
        parsed = http_sfv.List()
        parsed.parse(answer.headers[name].encode())
        assert len(parsed) >= 1
        for item in parsed:
            assert isinstance(item.value, str)
            assert set(item.params) == needed
            assert all(isinstance(value, int) and 0 <= value < 10**15 for value in item.params.values())
            found.setdefault(item.value, {}).update(item.params)
    for limit in found.values():
        assert set(limit) == {"q", "w", "r", "t"}
        assert limit["w"] >= 1
        assert limit["q"] >= 1
    return found


async def test_every_route_tells_them(app: Application, attacker: Shop, victim: Victim) -> None:
    """Good answers and bad ones, with a key and without."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://kindred") as stranger:
        for (method, _), probes in PROBES.items():
            for path, sent in probes(victim):
                with_key = await attacker.client.request(method, path, **sent)
                assert set(fields(with_key)) == {"unlimited"}
                assert set(fields(await stranger.request(method, path, **sent))) == {"network"}


PAGES: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/health/live", {}, 200),
    ("GET", "/docs", {}, 200),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/demo", {}, 404),
    ("GET", "/photos/none", {}, 404),
    ("GET", "/nothing", {}, 404),
    ("GET", "/v1/nothing", {}, 404),
    ("POST", "/health/live", {}, 405),
    ("GET", "/v1/items", {"headers": {"origin": "https://a"}}, 401),
    ("OPTIONS", "/v1/recommend", {"headers": {"origin": "https://a", "access-control-request-method": "POST"}}, 204),
    ("POST", "/v1/recommend", {"content": b"{", "headers": {"content-type": "application/json"}}, 401),
]


@pytest.mark.parametrize(("method", "path", "sent", "status"), PAGES, ids=lambda value: str(value)[:24])
async def test_pages_and_errors_tell_them(
    anonymous: httpx.AsyncClient, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    """Those of the client's network."""
    answer = await anonymous.request(method, path, **sent)
    assert answer.status_code == status or path == "/demo"
    limit = fields(answer)["network"]
    assert 0 <= limit["r"] <= 5_000
    if sent.get("headers", {}).get("origin") and method != "OPTIONS":  # a preflight only asks what may be sent
        assert "ratelimit" in answer.headers["access-control-expose-headers"]
