"""A real installation for a benchmark: embedded Postgres, one API process and, where wanted, one worker."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

import httpx

from infra import migrate
from infra.db import Database, TenantId
from infra.embedded import EmbeddedPostgres
from infra.roles import APP, OWNER, database_url
from infra.secret import load_secret
from infra.settings import Settings
from tenants.keys import SCOPES, KeyRequest, create_key
from tenants.lifecycle import create_tenant
from workers.encoders.sources import fetch_pack

_READY_S = 120
_PAUSE_S = 0.02

T = TypeVar("T")


class Tenant(NamedTuple):
    """A new tenant and its keys."""

    tenant_id: str
    secret_key: str
    publishable_key: str


class Stage:
    """Starts on entry, ends on exit; everything lies in a temporary folder."""

    def __init__(
        self, *, workers: bool = True, encoder_threads: int = 2, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: further settings of all its processes."""
        self._folder = Path(tempfile.mkdtemp(prefix="kindred-bench-"))
        self._folder.chmod(0o755)
        self._workers = workers
        self._environment = environment or {}
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as also_free:
            port, metrics_port = free.getsockname()[1], also_free.getsockname()[1]
        self.settings = Settings(
            data_dir=self._folder, port=port, metrics_port=metrics_port, encoder_threads=encoder_threads
        )
        self.url = f"http://127.0.0.1:{port}"
        self.server = EmbeddedPostgres(self._folder)
        self._children: list[subprocess.Popen[bytes]] = []
        self._made = 0

    def __enter__(self) -> Self:
        self.server.start()
        _in_thread(migrate.upgrade(self.server.url(OWNER)))
        fetch_pack(self.settings.models_text, self.settings.models_dir)
        self._start("api")
        # The API is ready when some worker has named its encoders; one that is not wanted further ends then.
        self._start("workers")
        self._wait_ready()
        if not self._workers:
            self.stop_worker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.send_signal(signal.SIGTERM)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(30)
            child.kill()
        self.server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self.server.home, ignore_errors=True)

    def _start(self, role: str, *arguments: str, port: int | None = None) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **self._environment,
            "KINDRED_DATA_DIR": str(self._folder),
            "KINDRED_PORT": str(port or self.settings.port),
            # Of the first API process alone.
            "KINDRED_METRICS_PORT": str(self.settings.metrics_port if role == "api" and port is None else 0),
            "KINDRED_LOG_LEVEL": "warning",
            "KINDRED_ENCODER_THREADS": str(self.settings.encoder_threads),
            "DATABASE_URL": self.server.url(APP),
        }
        child = subprocess.Popen([sys.executable, "-m", role, *arguments], env=environment)
        self._children.append(child)
        return child

    def _wait_ready(self, port: int | None = None) -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                url = f"http://127.0.0.1:{port or self.settings.port}/health/ready"
                if httpx.get(url, trust_env=False).is_success:
                    return
            time.sleep(0.1)
        raise RuntimeError("the installation did not become ready")

    def stop_worker(self) -> None:
        """End the worker, so that nothing but the benchmark writes vectors."""
        worker = self._children.pop()
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)

    def start_second_api(self, module: str = "api", *arguments: str) -> int:
        """A further API process over the same database; its port. Returns when it is ready."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        self._start(module, *arguments, port=port)
        self._wait_ready(port)
        return port

    def pid_of(self, started: int) -> int:
        """The process id of what was started, in order; a negative number counts from the last."""
        return self._children[started].pid

    @property
    def postgres_pids(self) -> list[int]:
        """The server and all its backends: those whose parent is the postmaster, and it."""
        postmaster = self.server.pid
        assert postmaster is not None
        return [postmaster, *_children_of(postmaster)]

    @property
    def api_pid(self) -> int:
        """The process id of the API."""
        return self._children[0].pid

    @property
    def worker_pid(self) -> int:
        """The process id of the worker."""
        return self._children[1].pid

    @property
    def superuser_url(self) -> str:
        """Kindred's database as superuser; for set-up and bare comparisons only."""
        return database_url(self.server.superuser_url, "kindred")

    @property
    def owner_url(self) -> str:
        """Kindred's database as its owner."""
        return self.server.url(OWNER)

    def metrics(self, name: str) -> dict[str, float]:
        """The samples of one metric of the first API process, by their labels as they are written."""
        url = f"http://127.0.0.1:{self.settings.metrics_port}/metrics"
        lines = httpx.get(url, trust_env=False).text.splitlines()
        return {
            labels: float(value)
            for line in lines
            if line.startswith(f"{name}{{")
            for labels, _, value in [line.removeprefix(f"{name}{{").partition("} ")]
        }

    def database(self, *, hot: int = 6) -> Database:
        """A Database of the caller's own; the caller opens and closes it."""
        return Database(self.server.url(APP), hot=hot)

    def make_tenant(self) -> Tenant:
        """A new, empty tenant with keys; callable where an event loop already runs."""
        self._made += 1
        return _in_thread(self._make_tenant(f"bench {self._made}"))

    def make_key(self, tenant: Tenant, *, rate_per_min: int | None = None) -> str:
        """A further secret key of a tenant."""
        return _in_thread(
            self._make_key(TenantId(UUID(tenant.tenant_id)), KeyRequest(name="b", rate_per_min=rate_per_min))
        )

    async def _make_key(self, tenant_id: TenantId, wanted: KeyRequest) -> str:
        database = self.database(hot=0)
        try:
            async with database.tenant_session(tenant_id) as conn:
                made = await create_key(
                    conn,
                    tenant_id,
                    wanted,
                    secret=load_secret(self.settings),
                    cell="00",
                    now=datetime.now(UTC),
                    scopes=SCOPES,
                )
        finally:
            await database.close()
        return made.key

    async def _make_tenant(self, name: str) -> Tenant:
        database = self.database(hot=0)
        try:
            tenant_id = await create_tenant(database, name)
            made = []
            for kind in ("secret", "publishable"):
                async with database.tenant_session(tenant_id) as conn:
                    key = await create_key(
                        conn,
                        tenant_id,
                        KeyRequest(name="bench", kind=kind),  # type: ignore[arg-type]
                        secret=load_secret(self.settings).current,
                        cell="00",
                        now=datetime.now(UTC),
                        scopes=SCOPES if kind == "secret" else None,
                    )
                    made.append(key.key)
        finally:
            await database.close()
        return Tenant(str(tenant_id), *made)

    def client(self, tenant: Tenant, *, timeout_s: float = 120) -> httpx.AsyncClient:
        """A client that signs with the tenant's secret key."""
        headers = {"Authorization": f"Bearer {tenant.secret_key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop already runs."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


async def until_encoded(client: httpx.AsyncClient) -> dict[str, Any]:
    """Wait until no item of the client's tenant is pending; the counts by state."""
    while True:
        counts: dict[str, Any] = (await client.get("/v1/encoding")).json()
        if not counts["text"]["pending"] and not counts["image"]["pending"]:
            return counts
        await asyncio.sleep(_PAUSE_S)


def _children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found


def memory_mb(pid: int, field: str = "Pss") -> float:
    """Proportional set size of a process, in MB (Linux)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in smaps_rollup")


def peak_memory_mb(pid: int) -> float:
    """Highest resident set of a process so far, in MB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in status")


def cpu_s(pid: int) -> float:
    """User and system seconds that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
