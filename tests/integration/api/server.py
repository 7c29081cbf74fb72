"""`python -m api` as a process of its own, on a free port of loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from infra.clock import utc_now
from infra.db import Database, driver
from infra.partitions import ensure_partitions
from tenants.keys import SCOPES, KeyRequest, create_key
from tenants.lifecycle import create_tenant
from tenants.vectors.generations import ensure_layout, ensure_space
from tests.logs import check_logs

SECRET = "0123456789abcdef0123456789abcdef"
_PATIENCE_S = 60.0


class Server:
    """The running process; `url` is where it answers."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def end(self) -> int:
        """Ask it to end, and wait; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_PATIENCE_S)


async def make_shop_key(database_url: str, *, secret: str = SECRET) -> str:
    """A key that may do everything in a new shop, in a database that a server will find itself ready with."""
    database = Database(database_url, hot=0)
    async with database.system_session(reason="test set-up") as conn:
        text = await ensure_space(conn, name="test-text", kind="text", dim=384)
        await ensure_layout(conn, text, await ensure_space(conn, name="test-image", kind="image", dim=256))
        await ensure_partitions(await driver(conn), utc_now())
    tenant_id = await create_tenant(database, f"shop {uuid4()}", currency="EUR")
    async with database.tenant_session(tenant_id) as conn:
        made = await create_key(
            conn,
            tenant_id,
            KeyRequest(name="test"),
            scopes=SCOPES,
            secret=secret.encode(),
            cell="00",
            now=utc_now(),
        )
    await database.close()
    return made.key


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(database_url: str, folder: Path, **environment: str) -> Iterator[Server]:
    """Start the API and wait until it lives; end it afterwards."""
    port = free_port()
    log = folder / "api.log"
    settings = {
        "DATABASE_URL": database_url,
        "KINDRED_DATA_DIR": str(folder),
        "KINDRED_PORT": str(port),
        "KINDRED_SECRET_KEY": SECRET,
        "KINDRED_LOG": "json",
        **environment,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KINDRED_")}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "api"], env={**inherited, **settings}, stderr=out, stdout=out)
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        _wait(server)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    check_logs(log)


def _wait(server: Server) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{server.url}/health/live") as answer:  # noqa: S310
                if json.load(answer) == {"status": "ok"}:
                    return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"the API did not start:\n{server.log.read_text()}")
