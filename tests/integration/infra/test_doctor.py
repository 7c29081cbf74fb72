"""The doctor's look at a real database: healthy, and with each thing that can be wrong."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from infra import migrate
from infra.doctor import Finding, database_checks, examine
from infra.embedded import EmbeddedPostgres
from infra.roles import APP, INGEST, OWNER, SYSTEM, bootstrap_roles, database_url, url_password


async def migrated() -> str | None:
    return migrate.head()


def findings(url: str, revision: Any = migrated) -> dict[str, Finding]:
    return dict(asyncio.run(examine(database_checks(url, revision=revision, head=migrate.head()))))


@pytest.fixture
def admin_url(cluster: EmbeddedPostgres, fresh_database_url: str) -> str:
    """An administrator's address of the test's own database."""
    return database_url(cluster.superuser_url, urlsplit(fresh_database_url).path.strip("/"))


def execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def test_healthy_database_has_nothing_to_mend(database_url: str) -> None:
    """Every check of a migrated embedded database is ok."""
    found = findings(database_url)
    assert {name: finding for name, finding in found.items() if finding.state != "ok"} == {}


def test_absent_database_is_said_once(database_url: str) -> None:
    """Without a server, one check fails; those that depend on it say that they did not look."""
    found = findings(database_url.replace("port=5432", "port=1"))
    assert found["database"].state == "fail"
    assert {finding.state for name, finding in found.items() if name not in {"database", "schema"}} == {"warn"}


def test_wrong_password_is_named(database_url: str) -> None:
    """A refused sign-in is told apart from an absent server."""
    found = findings(database_url.replace(str(url_password(database_url)), "guess"))
    assert "refused" in found["database"].what
    assert "password" in found["database"].mend


def test_missing_database_is_named(cluster: EmbeddedPostgres) -> None:
    """A server without our database says so."""
    assert "does not exist" in findings(cluster.url(APP, "nowhere"))["database"].what


def test_missing_extension_is_named(fresh_database_url: str, admin_url: str) -> None:
    """Without pgvector the way to install it is given."""
    execute(admin_url, "DROP EXTENSION vector CASCADE")
    found = findings(fresh_database_url)["pgvector"]
    assert found.state == "fail"
    assert "CREATE EXTENSION vector" in found.mend


@pytest.fixture
def own_server(open_folder: Any) -> Iterator[EmbeddedPostgres]:
    """A server whose roles the test may spoil."""
    with EmbeddedPostgres(open_folder, settings={"fsync": "off"}) as server:
        yield server


def test_spoiled_roles_are_named(own_server: EmbeddedPostgres) -> None:
    """A missing role, one above row-level security, one with another password: each is said, with its mend."""
    url, admin = own_server.url(APP), own_server.superuser_url
    execute(admin, f"ALTER ROLE {SYSTEM} CREATEDB")
    assert (findings(url)["roles"].state, SYSTEM in findings(url)["roles"].what) == ("warn", True)
    execute(admin, f"ALTER ROLE {APP} BYPASSRLS")
    assert findings(url)["roles"].state == "fail"
    assert APP in findings(url)["roles"].what
    execute(admin, f"ALTER ROLE {OWNER} PASSWORD 'other'")
    assert OWNER in findings(url)["sign-in"].what
    execute(database_url(admin, "kindred"), f"DROP OWNED BY {INGEST}")
    execute(admin, f"DROP ROLE {INGEST}")
    assert INGEST in findings(url)["roles"].what
    asyncio.run(bootstrap_roles(admin, str(url_password(url))))
    assert {findings(url)[name].state for name in ("roles", "sign-in")} == {"ok"}


@pytest.mark.parametrize(("revision", "word"), [(None, "never migrated"), ("0000", "0000")])
def test_schema_that_is_behind_is_named(database_url: str, revision: str | None, word: str) -> None:
    """A database that was never migrated, or not to the newest revision, is a failure."""

    async def old() -> str | None:
        return revision

    found = findings(database_url, old)["schema"]
    assert found.state == "fail"
    assert word in found.what
    assert "kindred migrate" in found.mend


def test_clock_that_is_off_is_named(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second between this machine and the database is a failure: leases count on the database's clock."""
    real = time.time
    monkeypatch.setattr("infra.doctor.time.time", lambda: real() - 5)
    found = findings(database_url)["clock"]
    assert found.state == "fail"
    assert found.what.startswith("+")
