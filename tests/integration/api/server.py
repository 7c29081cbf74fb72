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
