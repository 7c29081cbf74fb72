"""Which Accept headers a route can answer."""

from typing import Any

import httpx
import pytest
from litestar import Litestar, get

from api.contract import contract
from api.negotiation import acceptable
from api.problems import answer_problem

pytestmark = pytest.mark.anyio


@get("/json", opt=contract(scope="public", tag="t", summary="s"))
async def as_json() -> dict[str, Any]:
    """Answers JSON."""
    return {}


@get("/photo", opt=contract(scope="public", tag="t", summary="s", answer_types=["image/jpeg", "image/png"]))
async def as_photo() -> str:
    """Says that it answers a photo."""
    return ""


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/json", None, 200),
        ("/json", "*/*", 200),
        ("/json", "application/json", 200),
        ("/json", "text/html, application/*;q=0.5", 200),
        ("/json", "APPLICATION/JSON; charset=utf-8", 200),
        ("/json", "text/html", 406),
        ("/json", "application/json;q=0", 406),
        ("/photo", "image/*", 200),
        ("/photo", "image/png", 200),
        ("/photo", "application/json", 406),
    ],
)
async def test_an_answer_that_the_client_does_not_take_is_refused(path: str, accept: str | None, status: int) -> None:
    """406 says what there is."""
    app = Litestar(
        [as_json, as_photo],
        guards=[acceptable],
        exception_handlers={Exception: answer_problem},
        openapi_config=None,
        logging_config=None,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://kindred") as client:
        del client.headers["accept"]
        answer = await client.get(path, headers={} if accept is None else {"accept": accept})
    assert answer.status_code == status
    if status == 406:
        assert answer.json()["code"] == "not_acceptable"
