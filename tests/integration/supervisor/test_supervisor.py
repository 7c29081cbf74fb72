"""The supervisor with real processes and real signals; the children are a line of Python each."""

import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

# argv: folder, then the body that makes `roles` and the options of run_supervised.
PROGRAM = """
import os, signal, sys
from infra.supervisor import Backoff, Role, run_supervised

FOLDER = sys.argv[1]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests, and what they start, are deaf to it

def role(name, body, ready=None):
    program = (
        "import os, signal, sys\\n"
        "def say(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())\\n"
        "def drain(*_): say(NAME, 'drained'); sys.exit(0)\\n"
        "signal.signal(signal.SIGTERM, drain)\\n"
        "woken, waker = os.pipe()\\n"
        "os.set_blocking(waker, False)\\n"
        "signal.set_wakeup_fd(waker)\\n"
    ).replace("NAME", repr(name)) + body
    return Role(name=name, argv=[sys.executable, "-S", "-c", program, FOLDER], env=dict(os.environ), ready=ready)

# Not signal.pause(): a signal just before it is seen by nobody until the next one comes.
WAIT = "say(%r, 'up', os.getpid())\\nwhile True: os.read(woken, 1)\\n"

class Database:
    running = False
    def start(self):
        self.running = True
        print("database up", flush=True)
    def stop(self):
        if self.running:
            self.running = False
            print("database down", flush=True)

def quick():
    return Backoff(first_s=0.01)

database = Database()
on_ready = lambda: print("ready", flush=True)
options = {}
"""
RUN = """
code = run_supervised(roles, database=database, on_ready=on_ready, backoff=quick, **options)
print("exit", code, flush=True)
sys.exit(code)
"""
TWO = "roles = [role('api', WAIT % 'api'), role('workers', WAIT % 'workers')]\n"


class Supervised:
    """A supervisor in a process of its own; its lines and its children's are read from one pipe, in order."""

    def __init__(self, folder: Path, body: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + body + RUN, str(folder)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(90, self.kill)  # a defect ends the test rather than hang it
        self._watchdog.start()
        self.lines: list[str] = []
        self.pids: dict[str, int] = {}

    def read_until(self, *wanted: str) -> None:
        """Read lines until one holds each of `wanted`, in any order.

        Holds, not begins with: the supervisor's log and its children write to one pipe, and where output is
        unbuffered the end of a log line is a write of its own, which a child's line may come before.
        """
        missing = set(wanted)
        assert self.process.stdout is not None
        while missing:
            line = self.process.stdout.readline().rstrip("\n")
            assert line or self.process.poll() is None, f"ended without {missing}: {self.lines}"
            self.lines.append(line)
            for name, pid in re.findall(r"(api|workers|inner) up (\d+)", line):
                self.pids[name] = int(pid)
            missing = {text for text in missing if text not in line}

    def rest(self) -> list[str]:
        """The lines until everybody has closed the pipe."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        self.process.wait()
        return [line for line in self.lines if "[" not in line]  # without the log

    def kill(self) -> None:
        for pid in self.pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


Supervise = Callable[[str], Supervised]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Start a supervisor; whatever is left of it is killed after the test."""
    made: list[Supervised] = []

    def start(body: str) -> Supervised:
        made.append(Supervised(tmp_path, body))
        return made[-1]

    yield start
    for one in made:
        one.kill()


def wait_until_gone(pid: int) -> None:
    """Return when the process has ended; the kernel says so, nothing is polled."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 60)[0], "the process did not end"
    finally:
        os.close(handle)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_drains_in_order(supervise: Supervise, number: signal.Signals) -> None:
    """API, then workers, then the database end; the exit status is 0."""
    run = supervise(TWO)
    run.read_until("api up", "workers up", "ready")
    run.process.send_signal(number)
    lines = run.rest()
    assert lines[-4:] == ["api drained", "workers drained", "database down", "exit 0"]
    assert run.process.returncode == 0


def test_the_database_comes_first(supervise: Supervise) -> None:
    """Roles are made, and started, only when the database runs."""
    run = supervise("def roles():\n    assert database.running\n    return [role('api', WAIT % 'api')]\n")
    run.read_until("api up", "ready")
    assert run.lines[0] == "database up"


def test_ready_waits_for_every_role(supervise: Supervise) -> None:
    """on_ready is called once, when the last role said yes."""
    run = supervise(
        "asked = []\n"
        "def ready():\n    asked.append(1)\n    return len(asked) == 3\n"
        "roles = [role('api', WAIT % 'api', ready), role('workers', WAIT % 'workers')]\n"
        "on_ready = lambda: print('ready after', len(asked), flush=True)\n"
    )
    run.read_until("ready after 3")
    run.process.terminate()
    assert sum(line.startswith("ready") for line in run.rest()) == 1


def test_crashed_role_is_started_again_and_reported(supervise: Supervise) -> None:
    """A role that is killed comes back under a new pid, and the log says what happened."""
    run = supervise(TWO)
    run.read_until("api up", "workers up")
    before = run.pids["workers"]
    os.kill(before, signal.SIGKILL)
    run.read_until("workers up")
    assert run.pids["workers"] != before
    assert any("role.ended" in line and "SIGKILL" in line and "workers" in line for line in run.lines)


def test_role_that_cannot_be_executed_does_not_end_the_others(supervise: Supervise) -> None:
    """A missing program is reported and tried again."""
    run = supervise("roles = [role('api', WAIT % 'api'), Role(name='gone', argv=['/no/such/program'], env={})]\n")
    run.read_until("api up")
    while not any("role.not_started" in line for line in run.lines):
        run.read_until("")
    run.process.terminate()
    assert run.rest()[-1] == "exit 0"


def test_role_that_can_never_start_ends_all(supervise: Supervise) -> None:
    """Exit status 78 says that trying again is useless: the others drain and 78 is passed on."""
    run = supervise("roles = [role('api', WAIT % 'api'), role('workers', 'sys.exit(78)')]\non_ready = None\n")
    lines = run.rest()
    assert run.process.returncode == 78
    assert lines[-2:] == ["database down", "exit 78"]


def test_second_interrupt_kills(supervise: Supervise) -> None:
    """A role that does not drain is killed by the second Ctrl-C; the database still stops in order."""
    stubborn = "signal.signal(signal.SIGTERM, lambda *_: say('api refuses'))\n"
    run = supervise(f"roles = [role('api', {stubborn!r} + WAIT % 'api')]\n")
    run.read_until("api up", "ready")
    run.process.send_signal(signal.SIGINT)
    run.read_until("api refuses")
    run.process.send_signal(signal.SIGINT)
    lines = run.rest()
    assert lines[-2:] == ["database down", "exit 130"]


def test_role_that_does_not_drain_in_time_is_killed(supervise: Supervise) -> None:
    """After the time to drain, the rest of the shut-down goes on and is still a regular one."""
    stubborn = "signal.signal(signal.SIGTERM, lambda *_: None)\n"
    run = supervise(
        f"roles = [role('api', {stubborn!r} + WAIT % 'api'), role('workers', WAIT % 'workers')]\n"
        "options = {'drain_s': 0.05}\n"
    )
    run.read_until("api up", "workers up", "ready")
    run.process.terminate()
    assert run.rest()[-3:] == ["workers drained", "database down", "exit 0"]


def test_children_end_when_the_supervisor_is_killed(supervise: Supervise) -> None:
    """kill -9 of the supervisor leaves no child behind; they are asked to drain first."""
    run = supervise(TWO)
    run.read_until("api up", "workers up", "ready")
    run.process.kill()
    assert {"api drained", "workers drained"} <= set(run.rest())
    for pid in run.pids.values():
        wait_until_gone(pid)


def test_grandchildren_end_with_their_role(supervise: Supervise) -> None:
    """What a role started and left behind is ended when the role is."""
    fork = "pid = os.fork()\nif pid == 0:\n    while True: signal.pause()\nsay('inner', 'up', pid)\nsys.exit(3)\n"
    run = supervise(f"roles = [role('api', WAIT % 'api'), role('workers', {fork!r})]\n")
    run.read_until("inner up")
    wait_until_gone(run.pids["inner"])


def test_database_that_ends_is_started_again(supervise: Supervise) -> None:
    """The database is watched like a role."""
    run = supervise(
        TWO + "import threading\n"
        "def on_ready():\n"
        "    print('ready', flush=True)\n"
        "    database.running = False\n"
        "    os.kill(os.getpid(), signal.SIGCHLD)\n"
    )
    run.read_until("database up")
    run.read_until("ready")
    run.read_until("database up")
    run.process.terminate()
    assert run.rest()[-2:] == ["database down", "exit 0"]


def test_signal_while_the_database_starts(supervise: Supervise) -> None:
    """An interruption during set-up ends at once, database included, with status 0."""
    run = supervise(
        "class Slow(Database):\n"
        "    def start(self):\n"
        "        super().start()\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "database = Slow()\nroles = []\n"
    )
    assert run.rest() == ["database up", "database down", "exit 0"]


def test_failing_setup_stops_the_database(supervise: Supervise) -> None:
    """When the roles cannot be made (a migration fails), the database does not stay behind."""
    run = supervise("def roles():\n    raise SystemExit(5)\n")
    assert run.rest() == ["database up", "database down"]
    assert run.process.returncode == 5
