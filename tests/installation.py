"""A real installation: `kindred up` with its own database, API and workers, driven by its own commands.

Started by the first test that asks for it, once per run, and shared by all xdist workers; a test tells its shops
from others' by their names.
"""

import fcntl
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from msgspec import Struct

from infra.filelock import exclusive
from tests.logs import check_logs

REPOSITORY: Final = Path(__file__).parents[1]
KINDRED: Final = (sys.executable, "-m", "infra")
_PATIENCE_S: Final = 120
_NO_CERTIFICATES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without it every new client reads the certificates of half the world."""
# Asks the installation to end when the test process is gone without a word; it waits for the end of its input.
_GUARD: Final = 'read -r _; kill -TERM "$0"'


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def until(reached: Callable[[], Any], what: str) -> Any:
    """Ask again and again; returns the first answer that is true, and fails when there is none for minutes."""
    end = time.monotonic() + _PATIENCE_S
    while not (answer := reached()):
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {_PATIENCE_S} s")
        time.sleep(0.05)  # not a wait for something to have happened, but a pause between two questions
    return answer


class Shop(Struct, frozen=True, kw_only=True):
    """A tenant that `kindred tenants create` made, and a client for each of its keys."""

    name: str
    tenant_id: str
    secret_key: str
    publishable_key: str
    client: httpx.Client

    def recommend(self, **body: Any) -> dict[str, Any]:
        """The answer of `POST /v1/recommend`, which must succeed."""
        return _good(self.client.post("/v1/recommend", json=body))

    def search(self, **body: Any) -> dict[str, Any]:
        """The answer of `POST /v1/search`, which must succeed."""
        return _good(self.client.post("/v1/search", json=body))

    def item(self, item_id: str) -> dict[str, Any]:
        """The item as `GET /v1/items/{id}` shows it."""
        return _good(self.client.get(f"/v1/items/{item_id}"))

    def wait_until_encoded(self) -> dict[str, Any]:
        """Wait until nothing is pending; returns the counts by modality and state."""

        def settled() -> dict[str, Any] | None:
            counts = _good(self.client.get("/v1/encoding"))
            return None if counts["text"]["pending"] or counts["image"]["pending"] else counts

        counts: dict[str, Any] = until(settled, f"encoding of {self.name}")
        return counts


def ids(answer: Mapping[str, Any]) -> list[str]:
    """The ids of an answer's items, in order."""
    return [item["id"] for item in answer["items"]]


def _good(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text}"
    body: dict[str, Any] = answer.json()
    return body


class Installation:
    """One data folder and the address that `kindred up` serves there."""

    def __init__(self, data_dir: Path, port: int, environ: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("KINDRED_", "DATABASE_URL"))}
        self.environ = {
            **ours,
            "KINDRED_DATA_DIR": str(data_dir),
            "KINDRED_PORT": str(port),
            "KINDRED_LOG_LEVEL": "warning",
            "KINDRED_LOG": "json",
            "COLUMNS": "200",
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of `kindred up`."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What `kindred up` and its children wrote."""
        return self._log_file.read_text(errors="replace")

    @property
    def logs(self) -> list[Path]:
        """Those of `kindred up` with its children, and of the PostgreSQL server."""
        return [self._log_file, *self.data_dir.rglob("*.log"), *self.data_dir.rglob("*.log.1")]

    @property
    def _log_file(self) -> Path:
        return self.data_dir.with_suffix(".log")

    def kindred(self, *arguments: str, status: int | None = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command against this installation; `status` is what it must exit with (None: anything)."""
        done = subprocess.run(
            [*KINDRED, *arguments],
            cwd=REPOSITORY,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert status is None or done.returncode == status, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def start(self) -> None:
        """Run `kindred up`; returns when it is ready."""
        with self._log_file.open("ab") as log:
            process = subprocess.Popen(
                [*KINDRED, "up"], cwd=REPOSITORY, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._process = process
        self._guard = subprocess.Popen(["/bin/sh", "-c", _GUARD, str(process.pid)], stdin=subprocess.PIPE)

        with httpx.Client(base_url=self.url, trust_env=False, verify=_NO_CERTIFICATES, timeout=10) as client:

            def ready() -> bool:
                if process.poll() is not None:
                    pytest.fail(f"kindred up ended with {process.returncode}:\n{self.log}")
                with suppress(httpx.TransportError):
                    return client.get("/health/ready").status_code == 200
                return False

            until(ready, "kindred up")

    def stop(self) -> int:
        """Ask it to end by SIGTERM; returns its exit status."""
        assert self._process is not None
        assert self._guard is not None
        self._guard.kill()
        self._guard.communicate()
        self._process.terminate()
        status = self._process.wait(timeout=_PATIENCE_S)
        check_logs(*self.logs)
        return status

    @contextmanager
    def running(self) -> Iterator["Installation"]:
        """Start it, and stop it in order after the body: a drain exits with 0."""
        try:
            self.start()
            yield self
        finally:
            status = self.stop()
        assert status == 0, f"kindred up ended with {status}:\n{self.log}"

    def make_shop(self, what: str = "shop", *options: str) -> Shop:
        """A new, empty shop, made by the command; its name begins with `what`."""
        name = f"{what} {uuid4().hex[:8]}"
        made = json.loads(self.kindred("tenants", "create", name, "--json", *options).stdout)
        client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {made['secret_key']}"},
            timeout=_PATIENCE_S,
            trust_env=False,
            verify=_NO_CERTIFICATES,
        )
        return Shop(name=name, client=client, **made)


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The installation of this run."""
    root = Path(os.environ["PYTEST_CLUSTERS"])
    address = root / "up.port"
    with exclusive(root / "up.lock"):
        if address.exists():
            own = None
            port = int(address.read_text())
        else:
            port = free_port()
            own = Installation(root / f"up{port}", port)
            try:
                own.start()
            except BaseException:
                own.stop()
                raise
            address.write_text(str(port))
        # Taken before the lock goes, so that the process that started it cannot miss this one.
        users = (root / f"up{port}.users").open("w")
        fcntl.flock(users, fcntl.LOCK_SH)
    if own is None:
        with users:
            yield Installation(root / f"up{port}", port)
        return
    yield own
    with exclusive(root / "up.lock"):
        address.unlink()  # whoever comes from now on starts another
    users.close()
    with exclusive(root / f"up{port}.users"):  # waits for the other test processes
        status = own.stop()
    assert status == 0, f"kindred up ended with {status}:\n{own.log}"
