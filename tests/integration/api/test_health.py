"""/health and the documentation."""

from typing import NoReturn

import httpx
import pytest
from sqlalchemy import text

from api.app import Application
from infra.changes import ChangeFeed
from infra.db import Database

pytestmark = pytest.mark.anyio


async def test_a_process_that_answers_is_alive(anonymous: httpx.AsyncClient) -> None:
    """Whatever else is missing."""
    assert (await anonymous.get("/health/live")).json() == {"status": "ok"}


async def test_ready_when_nothing_is_missing(anonymous: httpx.AsyncClient, app: Application) -> None:
    """200, after the hot statements were run on every hot connection."""
    answer = await anonymous.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "missing": []})
    assert app.services.database.hot.opened == app.services.database.hot.size


async def test_a_stale_feed_is_named(anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with what is missing."""
    monkeypatch.setattr(ChangeFeed, "fresh", False)
    answer = await anonymous.get("/health/ready")
    assert answer.status_code == 503
    assert [missing["what"] for missing in answer.json()["missing"]] == ["change_feed"]


async def test_a_database_that_is_behind_is_named(
    anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migration that is missing, and how to run it."""
    monkeypatch.setattr("infra.migrate.head", lambda: "9999")
    (missing,) = (await anonymous.get("/health/ready")).json()["missing"]
    assert missing["what"] == "migrations"
    assert "kindred migrate" in missing["why"]


def _refuse(*_: object) -> NoReturn:
    raise ConnectionRefusedError("127.0.0.1 refuses")


async def test_a_database_that_is_away_is_named(anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a 500, and not a wait."""
    monkeypatch.setattr(Database, "anonymous_session", _refuse)
    answer = await anonymous.get("/health/ready")
    assert answer.status_code == 503
    assert [missing["what"] for missing in answer.json()["missing"]] == ["database"]


async def test_missing_encoders_are_named(
    anonymous: httpx.AsyncClient, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a worker has said what its encoders are."""
    monkeypatch.setattr("api.readiness._MODELS_KNOWN", text("select false"))
    (missing,) = (await anonymous.get("/health/ready")).json()["missing"]
    assert missing["what"] == "models"


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/docs/errors",
        "/docs/assets/start.js",
        "/docs/assets/swagger-ui-bundle.js",
        "/docs/assets/swagger-ui.css",
    ],
)
async def test_the_documentation_needs_nothing_from_outside(anonymous: httpx.AsyncClient, path: str) -> None:
    """Every file is here, no script is inline, and no other host may be asked."""
    answer = await anonymous.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "http" not in policy
    if path == "/docs":
        assert "<script>" not in answer.text
        assert "//" not in answer.text.replace("</", "")


async def test_the_document_names_every_resource(anonymous: httpx.AsyncClient) -> None:
    """/openapi.json is the contract."""
    paths = (await anonymous.get("/openapi.json")).json()["paths"]
    assert {
        "/v1/items/{item_id}",
        "/v1/items/bulk",
        "/v1/imports",
        "/v1/jobs/{job_id}",
        "/v1/recommend",
    } <= paths.keys()


async def test_other_files_of_the_package_are_not_served(anonymous: httpx.AsyncClient) -> None:
    """Only those that the page needs."""
    for name in ("index.html", "..%2F..%2F__init__.py", "oauth2-redirect.html"):
        assert (await anonymous.get(f"/docs/assets/{name}")).status_code == 404


async def test_the_type_of_a_problem_leads_to_its_meaning(anonymous: httpx.AsyncClient) -> None:
    """`/docs/errors#code` has that anchor."""
    kind = (await anonymous.get("/v1/items")).json()["type"]
    path, _, code = kind.partition("#")
    assert f'id="{code}"' in (await anonymous.get(path)).text


async def test_a_database_that_goes_away_is_a_503(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Retry-After, and without a word of the inside."""
    monkeypatch.setattr(Database, "tenant_session", _refuse)
    answer = await client.get("/v1/items")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "127.0.0.1" not in answer.text
