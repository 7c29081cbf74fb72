"""What every test may use: a database of its own, a clock that stands still, and no network but loopback.

The embedded PostgreSQL is started by the first test that asks for one, once per run and major version, shared by
all xdist workers; the schema is migrated once and cloned. Unit tests never start it.
"""

import asyncio
import ipaddress
import os
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import hypothesis
import pytest
from structlog.testing import capture_logs

from infra import migrate
from infra.db import Database
from infra.embedded import EmbeddedPostgres, Major
from infra.filelock import exclusive, try_exclusive
from infra.partitions import ensure_partitions
from infra.roles import APP, DATABASE, OWNER, SYSTEM

pytest_plugins = ["tests.installation"]

# Derandomised: a red run is red for everybody. No deadline: a busy machine is no defect.
hypothesis.settings.register_profile("kindred", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("kindred")

# One folder per run, made by the process that the user started; xdist workers inherit the variable.
_ROOT: Final = "PYTEST_CLUSTERS"
_PREFIX: Final = "kindred-tests-"
START: Final = datetime(2026, 1, 15, 12, tzinfo=UTC)
"""Where the frozen clock stands."""
_MAJORS: Final[tuple[Major, ...]] = (18, 16)
_held: Final[list[int]] = []

# Nothing here needs to survive a power failure.
_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}


def pytest_configure(config: pytest.Config) -> None:
    """Make the run's folder, and clear away those of runs that were killed."""
    if hasattr(config, "workerinput"):
        return
    temp = Path(tempfile.gettempdir())
    for left in temp.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's folder
            _sweep(left)
    root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    root.chmod(0o755)  # as root, the server runs as another user
    lock = try_exclusive(root / "run")
    assert lock is not None
    _held.append(lock)
    os.environ[_ROOT] = str(root)


@pytest.hookimpl(trylast=True)  # after xdist has ended its workers, before the closing line is printed
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the servers of this run."""
    _end_run(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers of a run that had no regular end."""
    _end_run(config)


def _end_run(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not _held:
        return
    os.close(_held.pop())
    with capture_logs():
        _sweep(Path(os.environ.pop(_ROOT)))


def _sweep(root: Path) -> None:
    """Stop the servers of a run and remove its folder, unless the run still lives."""
    lock = try_exclusive(root / "run")
    if lock is None:
        return
    try:
        for major in _MAJORS:
            if (root / f"pg{major}").exists():
                _server(root, major).stop()
        shutil.rmtree(root)
    finally:
        os.close(lock)


def _server(root: Path, major: Major) -> EmbeddedPostgres:
    return EmbeddedPostgres(root, major=major, settings=_SETTINGS, shared=True)


# The database


def _cluster(major: Major) -> EmbeddedPostgres:
    """Start, or find, this run's server; its database `kindred` is migrated and serves as the template."""
    root = Path(os.environ[_ROOT])
    server = _server(root, major)
    with exclusive(root / f"template{major}.lock"):
        server.start()
        migrated = root / f"template{major}.migrated"
        if not migrated.exists():
            asyncio.run(migrate.upgrade(server.url(OWNER)))
            asyncio.run(_partitions_of_the_clock(server.url(SYSTEM)))
            migrated.touch()
    return server


@pytest.fixture(scope="session", params=_MAJORS, ids=[f"pg{major}" for major in _MAJORS])
def pg_major(request: pytest.FixtureRequest) -> Major:
    """The PostgreSQL version; a test that uses it, directly or not, runs on each."""
    major: Major = request.param
    return major


@pytest.fixture(scope="session")
def cluster(pg_major: Major) -> EmbeddedPostgres:
    """The server of this run, in each version."""
    return _cluster(pg_major)


@pytest.fixture(scope="session")
def pg18() -> EmbeddedPostgres:
    """The server of this run, in the version that Kindred ships, for tests that need no other."""
    return _cluster(18)


@pytest.fixture(scope="session")
def pg16() -> EmbeddedPostgres:
    """The server of this run in the oldest version that is supported."""
    return _cluster(16)


async def _partitions_of_the_clock(url: str) -> None:
    """Events of the frozen clock's time need their partitions, as those of now do."""
    connection = await asyncpg.connect(url)
    try:
        await ensure_partitions(connection, START)
    finally:
        await connection.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class Clones:
    """Makes databases that are copies of the migrated template, and drops them."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._made: list[tuple[EmbeddedPostgres, str]] = []

    def make(self, server: EmbeddedPostgres) -> str:
        """A new migrated, empty database; its address signs in as the application role."""
        name = f"{DATABASE}_{self._worker}_{len(self._made)}"
        asyncio.run(_execute(server.superuser_url, f"CREATE DATABASE {name} TEMPLATE {DATABASE} OWNER {OWNER}"))
        self._made.append((server, name))
        return server.url(APP, name)

    def drop(self) -> None:
        """Drop all that were made, whoever is still connected."""
        for server, name in self._made:
            asyncio.run(_execute(server.superuser_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        self._made.clear()


@pytest.fixture(scope="session")
def _worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.fixture(scope="session")
def database_url(cluster: EmbeddedPostgres, _worker: str) -> Iterator[str]:
    """A migrated database of this test worker's own, in each version; tests tell themselves apart by tenant."""
    clones = Clones(f"{_worker}_shared")
    yield clones.make(cluster)
    clones.drop()


@pytest.fixture
def fresh_database_url(cluster: EmbeddedPostgres, _worker: str) -> Iterator[str]:
    """A migrated database for one test alone, in each version, for tests that count or break things."""
    clones = Clones(f"{_worker}_fresh")
    yield clones.make(cluster)
    clones.drop()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests, marked `anyio`, run on asyncio."""
    return "asyncio"


@pytest.fixture
async def database(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """An open Database on this test worker's own database."""
    opened = Database(database_url, hot=2, sessions=3)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that any user may enter; `tmp_path` lies below a private one."""
    folder = Path(tempfile.mkdtemp(prefix="kindred-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium for Playwright's `executable_path`; in CI its absence is a failure, elsewhere a skip."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI"):
        pytest.fail("CI drives a browser: apt-get install chromium fonts-dejavu-core")
    pytest.skip("needs Chromium on the PATH")


# Time and chance


class FrozenClock:
    """A clock that moves only when told: call it for the time, `advance()` it."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Move on and return the new time."""
        self._now += timedelta(seconds=seconds)
        return self._now


@pytest.fixture
def clock() -> FrozenClock:
    """Noon of 15 January 2026, UTC."""
    return FrozenClock(START)


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(20260115)


# No network but loopback


class BlockedSocket(RuntimeError):
    """A test tried to leave this machine."""


def _refuse(address: Any) -> None:
    if not isinstance(address, tuple):  # a Unix socket
        return
    host = str(address[0]).split("%", maxsplit=1)[0]
    if host in {"", "localhost"}:
        return
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        raise BlockedSocket(f"tests reach loopback only, not {host}")


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            _refuse(address)
            return real(self, address)

        return connect

    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse((host.decode() if isinstance(host, bytes) else host or "", 0))
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect), raising=False)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex), raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
