"""One foreground process that runs the database, the API and the workers of one machine.

Start: database, then whatever `roles` does (migrate), then every role at once. Stop: the roles in their order, each
given time to drain, then the database. A role that ends by itself is reported and started again, ever later.

Children live in process groups of their own, so that Ctrl-C reaches the supervisor alone and the order of the drain
is kept. Should the supervisor be killed (kill -9), a guard ends them: a shell of a few hundred kilobytes that is
told their process ids over a pipe, and acts when the pipe ends. Against the alternatives: PR_SET_PDEATHSIG is Linux
only, bound to the thread that forked, and sends one signal without a second one for a child that hangs; a pipe
that each child watches asks for the cooperation of every program.
"""

import contextlib
import http.client
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from msgspec import Struct

log = structlog.get_logger(__name__)

EXIT_CONFIG: Final = 78  # EX_CONFIG of sysexits.h: this role can never start, so do not try again
EXIT_KILLED: Final = 130  # the second Ctrl-C

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READY_EVERY_S: Final = 0.1
_LOOK_EVERY_S: Final = 1.0

# Keeps the last line of process groups that it was told, and ends them when its standard input does.
_GUARD: Final = """
while read -r line; do groups=$line; done
for group in $groups; do kill -TERM "-$group"; done
for _ in 1 2 3 4 5 6 7 8 9 10; do
  alive=
  for group in $groups; do kill -0 "-$group" && alive=1; done
  [ -z "$alive" ] && exit
  sleep 1
done
for group in $groups; do kill -KILL "-$group"; done
"""


class Role(Struct, frozen=True, kw_only=True):
    """One child program. `ready` is asked until it first says True; None counts as ready once started."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool] | None = None


class Server(Protocol):
    """What the supervisor needs of a database that it runs; `infra.embedded.EmbeddedPostgres` is one."""

    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Backoff:
    """How long to wait before a program that ended is started again: doubling, forgotten after a long life."""

    def __init__(self, *, first_s: float = 0.5, most_s: float = 30.0, forget_s: float = 60.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._forget_s = forget_s
        self._failures = 0

    def after(self, lived_s: float) -> float:
        """Seconds to wait after a life of `lived_s` seconds."""
        self._failures = 1 if lived_s >= self._forget_s else self._failures + 1
        return min(self._most_s, self._first_s * 2.0 ** min(self._failures - 1, 30))


def http_ready(url: str, *, timeout_s: float = 1.0) -> Callable[[], bool]:
    """A `Role.ready` that asks `url` over HTTP and is satisfied by status 200."""
    parts = urlsplit(url)

    def ready() -> bool:
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout_s)
        try:
            connection.request("GET", parts.path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


def run_supervised(
    roles: Sequence[Role] | Callable[[], Sequence[Role]],
    *,
    database: Server | None = None,
    on_ready: Callable[[], None] | None = None,
    drain_s: float = 30.0,
    backoff: Callable[[], Backoff] = Backoff,
) -> int:
    """Run the roles until SIGTERM, SIGINT or SIGHUP, and return the exit status.

    A callable `roles` is called when the database runs: it migrates, and knows the address by then. `on_ready` is
    called once, in a thread of its own, when every role is ready. Roles drain in the order given, each for at most
    `drain_s` seconds. 0 after a drain, 130 when a further SIGINT cut it short, 78 when a role said by that status
    that it can never start. Must be called in the main thread.
    """
    with _Signals() as signals:
        try:
            if database is not None:
                database.start()
            made = roles() if callable(roles) else roles
        except _Interrupted:
            _stop(database)
            return 0
        except BaseException:
            _stop(database)
            raise
        signals.interrupting = False
        return _Supervisor(made, signals, database, on_ready, drain_s, backoff).run()


def _stop(database: Server | None) -> None:
    if database is not None:
        database.stop()


class _Interrupted(BaseException):
    """A signal came while the database was started; BaseException, so that no clean-up code swallows it."""


class _Signals:
    """Signals as flags and a readable socket. While `interrupting`, the first one raises _Interrupted.

    `stopping` after any of them, `hurry` after a SIGINT that followed.
    """

    def __init__(self) -> None:
        self.interrupting = True
        self.stopping = False
        self.hurry = False
        self.wake, self._write = socket.socketpair()

    def __enter__(self) -> "_Signals":
        self.wake.setblocking(False)
        self._write.setblocking(False)
        self._before = {
            number: signal.signal(number, self._stop)
            for number in _SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN  # nohup
        }
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake
        self._before_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.wake.close()
        self._write.close()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.stopping and number == signal.SIGINT:  # not SIGTERM: service managers repeat theirs
            self.hurry = True
        first, self.stopping = not self.stopping, True
        if self.interrupting and first:
            raise _Interrupted

    def wait(self, selector: selectors.BaseSelector, timeout_s: float) -> None:
        """Return when a signal came (the end of a child is one) or the time is over."""
        selector.select(max(0.0, timeout_s))
        with contextlib.suppress(BlockingIOError):
            while self.wake.recv(4096):
                pass


class _Child:
    """One role: its process, or the time at which it is started again."""

    def __init__(self, role: Role, backoff: Backoff) -> None:
        self.role = role
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.start_at = 0.0
        self._backoff = backoff
        self._started = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.role.argv, env=dict(self.role.env), stdin=subprocess.DEVNULL, process_group=0
            )
        except OSError as error:
            self.start_at = self._started + self._backoff.after(0.0)
            log.error("role.not_started", role=self.role.name, error=str(error))
        else:
            log.debug("role.started", role=self.role.name, pid=self.process.pid)

    def reap(self) -> int | None:
        """The exit status when the process has just ended; the time of the next start is set then."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self._kill_group()  # whatever it left behind
        self.process = None
        now = time.monotonic()
        wait_s = self._backoff.after(now - self._started)
        self.start_at = now + wait_s
        if status != EXIT_CONFIG:
            log.error("role.ended", role=self.role.name, status=_meaning(status), restart_in_s=wait_s)
        return status

    def look_ready(self) -> bool:
        if not self.ready and self.process is not None:
            self.ready = self.role.ready is None or self.role.ready()
        return self.ready

    def terminate(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process is not None:
            self._kill_group()
            self.process.wait()
            self.process = None

    def _kill_group(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
                os.killpg(self.process.pid, signal.SIGKILL)


class _Guard:
    """The shell that ends the children when we cannot."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, groups: Sequence[int]) -> None:
        line = " ".join(str(group) for group in groups).encode() + b"\n"
        for _ in range(2):
            if self._process is None:
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _GUARD],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    bufsize=0,
                )
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(line)
            except BrokenPipeError:  # somebody ended the guard: take another
                self.dismiss()
            else:
                return

    def dismiss(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class _Supervisor:
    def __init__(
        self,
        roles: Sequence[Role],
        signals: _Signals,
        database: Server | None,
        on_ready: Callable[[], None] | None,
        drain_s: float,
        backoff: Callable[[], Backoff],
    ) -> None:
        self._children = [_Child(role, backoff()) for role in roles]
        self._signals = signals
        self._database = database
        self._database_backoff = backoff()
        self._database_start_at = 0.0
        self._database_since = time.monotonic()
        self._on_ready = on_ready
        self._drain_s = drain_s
        self._guard = _Guard()
        self._told: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals.wake, selectors.EVENT_READ)

    def run(self) -> int:
        outcome = 0
        try:
            while not self._signals.stopping and outcome == 0:
                outcome = self._step()
                if not self._signals.stopping and outcome == 0:
                    self._signals.wait(self._selector, self._patience_s())
            drained = self._drain()
            return outcome or drained
        finally:
            for child in self._children:
                child.kill()
            self._guard.dismiss()
            self._selector.close()
            _stop(self._database)

    def _step(self) -> int:
        """Start what is due, report what ended; a status other than 0 ends the supervisor."""
        self._keep_database()
        for child in self._children:
            if child.reap() == EXIT_CONFIG:
                log.error("role.cannot_start", role=child.role.name)
                return EXIT_CONFIG
            if child.process is None and time.monotonic() >= child.start_at:
                child.start()
        self._tell_guard()
        if self._on_ready is None:
            return 0
        ready = [child.look_ready() for child in self._children]
        if all(ready):
            threading.Thread(target=self._on_ready, name="on_ready", daemon=True).start()
            self._on_ready = None
        return 0

    def _keep_database(self) -> None:
        if self._database is None or self._database.running:
            return
        now = time.monotonic()
        if not self._database_start_at:
            wait_s = self._database_backoff.after(now - self._database_since)
            self._database_start_at = now + wait_s
            log.error("database.ended", restart_in_s=wait_s)
        if now >= self._database_start_at:
            self._database_start_at = 0.0
            self._database_since = now
            try:
                self._database.start()
            except Exception as error:  # disk full, for one: tried again, as everything else here
                log.error("database.not_started", error=str(error))

    def _patience_s(self) -> float:
        """How long nothing is due."""
        now = time.monotonic()
        due = [child.start_at - now for child in self._children if child.process is None]
        if self._database_start_at:
            due.append(self._database_start_at - now)
        if self._on_ready is not None:
            due.append(_READY_EVERY_S)
        return min([_LOOK_EVERY_S, *due])

    def _tell_guard(self) -> None:
        groups = [child.process.pid for child in self._children if child.process is not None]
        if groups != self._told:
            self._guard.tell(groups)
            self._told = groups

    def _drain(self) -> int:
        """End the roles in order; a further SIGINT ends the patience."""
        log.info("supervisor.draining", roles=[child.role.name for child in self._children])
        for child in self._children:
            child.terminate()
            deadline = time.monotonic() + self._drain_s
            while child.process is not None and child.process.poll() is None:
                if self._signals.hurry:
                    log.error("supervisor.killed", role=child.role.name)
                    return EXIT_KILLED
                if time.monotonic() >= deadline:
                    log.error("role.killed", role=child.role.name, after_s=self._drain_s)
                    break
                self._signals.wait(self._selector, min(_LOOK_EVERY_S, deadline - time.monotonic()))
            child.kill()
        return 0


def _meaning(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit {status}"
