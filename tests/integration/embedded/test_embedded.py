"""The embedded PostgreSQL: set up, found again, recovered, ended."""

import asyncio
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from infra.embedded import EmbeddedPostgres, EmbeddedPostgresFailed, Major
from infra.placement import place
from infra.roles import APP, DATABASE, OWNER, ROLES, bootstrap_roles, url_password

REPOSITORY = Path(__file__).parents[3]
QUICK = {"fsync": "off"}


@pytest.fixture(scope="session")
def prepared(pg_major: Major) -> Iterator[Path]:
    """A cluster that is set up and stopped, in each version, to be copied: initdb takes most of a start."""
    with tempfile.TemporaryDirectory(prefix="kindred-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedPostgres(folder, major=pg_major, settings=QUICK):
            pass
        yield folder


@pytest.fixture
def server(open_folder: Path, prepared: Path, pg_major: Major) -> Iterator[EmbeddedPostgres]:
    """A running server of the test's own, in each version."""
    subprocess.run(["cp", "-a", str(prepared / f"pg{pg_major}"), str(open_folder)], check=True)
    with EmbeddedPostgres(open_folder, major=pg_major, settings=QUICK) as started:
        yield started


def ask(url: str, query: str, *args: object) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query, *args)
        finally:
            await connection.close()

    return asyncio.run(run())


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


OWNER_PROGRAM = """
import sys
from pathlib import Path
from infra.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), major=int(sys.argv[2]), settings={"fsync": "off"})
server.start()
print("pid", server.pid, flush=True)
sys.stdin.read()
server.stop()
"""


def start_owner(folder: Path, major: Major) -> tuple[subprocess.Popen[str], int]:
    """Another process that owns a server; it stops it when its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER_PROGRAM, str(folder), str(major)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("pid "):
            return process, int(line.split()[1])
    raise AssertionError("the owner did not start")


def test_each_role_signs_in_and_none_is_privileged(cluster: EmbeddedPostgres) -> None:
    """The four roles sign in to a database that kindred_owner owns; none may bypass row-level security."""
    for role in ROLES:
        assert ask(cluster.url(role), "SELECT current_user") == role
        assert not ask(
            cluster.url(role),
            "SELECT rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole FROM pg_roles"
            " WHERE rolname = current_user",
        )
    assert (
        ask(cluster.url(APP), "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", DATABASE) == OWNER
    )


def test_only_the_owner_creates_tables(cluster: EmbeddedPostgres) -> None:
    """The owner may create tables in the schema, the application role may not."""
    assert ask(cluster.url(OWNER), "SELECT has_schema_privilege('public', 'CREATE')")
    assert not ask(cluster.url(APP), "SELECT has_schema_privilege('public', 'CREATE')")


def test_pgvector_answers_with_half_vectors(cluster: EmbeddedPostgres) -> None:
    """The extension is there in a version that has halfvec."""
    assert ask(cluster.url(APP), "SELECT '[1,2]'::halfvec <=> '[1,2]'::halfvec") == pytest.approx(0)


def test_text_is_utf8_and_sorted_by_code_point(cluster: EmbeddedPostgres) -> None:
    """Every version uses UTF-8 and C.UTF-8, so lower() knows all letters and order is the same everywhere."""
    assert ask(cluster.url(APP), "SHOW server_encoding") == "UTF8"
    assert ask(cluster.url(APP), "SELECT lower('ÄЖ') || (('a' COLLATE \"default\") > 'B')::text") == "äжtrue"


def test_nothing_is_open_but_a_private_socket(cluster: EmbeddedPostgres) -> None:
    """No TCP port, a 0700 socket folder, 0600 secrets, and a password is asked for."""
    assert ask(cluster.superuser_url, "SHOW listen_addresses") == ""
    data = cluster.home / f"pg{cluster.major}"
    assert stat.S_IMODE((data / "kindred.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((cluster.home / f"pg{cluster.major}.run").stat().st_mode) == 0o700
    methods = {line.split()[-1] for line in (data / "pg_hba.conf").read_text().splitlines() if line[:1] not in "#"}
    assert methods == {"scram-sha-256"}
    password = json.loads((data / "kindred.json").read_text())["roles"]
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(cluster.url(APP).replace(password, "guess"), "SELECT 1")


def test_sqlalchemy_takes_the_same_address(cluster: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address works as postgresql+asyncpg as well, whatever PGPORT says."""
    monkeypatch.setenv("PGPORT", "1")

    async def run() -> Any:
        engine = create_async_engine(cluster.url(APP).replace("postgresql:", "postgresql+asyncpg:"))
        async with engine.connect() as connection:
            found = await connection.scalar(text("SELECT current_user"))
        await engine.dispose()
        return found

    assert asyncio.run(run()) == APP


def test_roles_are_mended_by_a_second_bootstrap(server: EmbeddedPostgres) -> None:
    """Bootstrapping again takes privileges away that somebody gave, and sets the password."""
    ask(server.superuser_url, f"ALTER ROLE {APP} SUPERUSER BYPASSRLS PASSWORD 'other'")
    secret = url_password(server.url(APP))
    assert secret is not None
    asyncio.run(bootstrap_roles(server.superuser_url, secret))
    assert not ask(server.url(APP), "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")


def test_two_bootstraps_at_once_converge(server: EmbeddedPostgres) -> None:
    """Concurrent bootstraps wait for each other rather than fail."""
    secret = url_password(server.url(APP))
    assert secret is not None

    async def run() -> None:
        await asyncio.gather(*(bootstrap_roles(server.superuser_url, secret, database="second") for _ in range(3)))

    asyncio.run(run())
    assert ask(server.url(APP, "second"), "SELECT current_database()") == "second"


def test_rows_outlive_a_restart(server: EmbeddedPostgres) -> None:
    """Stop and start keep the data, the passwords and the addresses."""
    url = server.url(OWNER)
    ask(url, "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    assert not server.running
    server.start()
    assert server.url(OWNER) == url
    assert ask(url, "SELECT n FROM kept") == 7


def test_start_twice_is_one_server(server: EmbeddedPostgres) -> None:
    """A second start() of the same object does nothing."""
    pid = server.pid
    server.start()
    assert server.pid == pid


def test_start_inside_an_event_loop(open_folder: Path) -> None:
    """A coroutine may start the server: no second event loop is run in its thread."""

    async def run() -> Any:
        with EmbeddedPostgres(open_folder, settings=QUICK) as server:
            connection = await asyncpg.connect(server.url(APP))
            try:
                return await connection.fetchval("SELECT current_user")
            finally:
                await connection.close()

    assert asyncio.run(run()) == APP


def test_server_killed_is_recovered(server: EmbeddedPostgres) -> None:
    """kill -9 of the server loses no committed row: the next start recovers."""
    ask(server.url(OWNER), "CREATE TABLE kept AS SELECT 7 AS n")
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    server.start()
    assert server.pid != pid
    assert ask(server.url(OWNER), "SELECT n FROM kept") == 7


def test_stale_pid_file_of_another_process_is_ignored(server: EmbeddedPostgres) -> None:
    """After a reboot the recorded pid may belong to any process; the server starts all the same."""
    server.stop()
    pid_file = server.home / f"pg{server.major}" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n0\n5432\n\n\n\nready   \n")
    server.start()
    assert ask(server.url(APP), "SELECT 1") == 1


def test_interrupted_initdb_is_repaired(open_folder: Path) -> None:
    """What an interrupted set-up left behind is cleared, and the set-up is done anew."""
    half = open_folder / "pg18.new" / "data"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    with EmbeddedPostgres(open_folder, settings=QUICK) as server:
        assert ask(server.url(APP), "SELECT 1") == 1
    assert not half.parent.exists()


def test_folder_of_something_else_is_left_alone(open_folder: Path) -> None:
    """A folder in the cluster's place that is no cluster is named, never overwritten."""
    (open_folder / "pg18").mkdir()
    (open_folder / "pg18" / "precious").write_text("x")
    with pytest.raises(EmbeddedPostgresFailed, match="holds files but no PostgreSQL cluster"):
        EmbeddedPostgres(open_folder).start()
    assert (open_folder / "pg18" / "precious").read_text() == "x"


def test_bad_setting_is_reported_with_the_log(open_folder: Path) -> None:
    """A server that refuses to start says why, in the server's own words."""
    with pytest.raises(EmbeddedPostgresFailed, match="unrecognized configuration parameter"):
        EmbeddedPostgres(open_folder, settings={**QUICK, "no_such_setting": "1"}).start()


def test_deep_folder_gets_a_short_socket(open_folder: Path) -> None:
    """A data folder too deep for a socket's path still works."""
    deep = open_folder / ("d" * 60) / ("e" * 60)
    with EmbeddedPostgres(deep, settings=QUICK) as server:
        assert ask(server.url(APP), "SELECT 1") == 1
    assert server.home == deep


def test_second_process_uses_the_first_ones_server(open_folder: Path) -> None:
    """A server that another live process owns is used, and not ended by the user's stop()."""
    owner, pid = start_owner(open_folder, 18)
    with EmbeddedPostgres(open_folder, settings=QUICK) as guest:
        assert guest.pid == pid
        assert ask(guest.url(APP), "SELECT 1") == 1
    assert ask(guest.url(APP), "SELECT 1") == 1
    owner.communicate("")
    assert owner.returncode == 0
    assert not guest.running


def test_server_ends_when_its_owner_is_killed(open_folder: Path, pg_major: Major) -> None:
    """kill -9 of the owner leaves no server behind, and the next start finds the data."""
    owner, pid = start_owner(open_folder, pg_major)
    owner.kill()
    owner.communicate()
    wait_until_gone(pid)
    with EmbeddedPostgres(open_folder, major=pg_major, settings=QUICK) as server:
        assert ask(server.url(APP), "SELECT 1") == 1


def test_start_right_after_the_owner_was_killed(open_folder: Path) -> None:
    """A supervisor that is restarted at once does not build on the server that is about to end."""
    owner, pid = start_owner(open_folder, 18)
    owner.kill()
    owner.communicate()
    with EmbeddedPostgres(open_folder, settings=QUICK) as server:
        assert server.pid != pid
        assert ask(server.url(APP), "SELECT 1") == 1


def test_shared_server_is_ended_by_anybody(open_folder: Path) -> None:
    """A shared server outlives the object that started it; another one finds and ends it."""
    first = EmbeddedPostgres(open_folder, settings=QUICK, shared=True)
    first.start()
    second = EmbeddedPostgres(open_folder, settings=QUICK, shared=True)
    second.stop()
    assert not first.running


def test_address_before_start_is_an_error(open_folder: Path) -> None:
    """There is no address of a server that was never started."""
    with pytest.raises(EmbeddedPostgresFailed, match="was not started"):
        EmbeddedPostgres(open_folder).url(APP)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


@as_root
def test_root_runs_the_server_as_an_ordinary_user(server: EmbeddedPostgres) -> None:
    """PostgreSQL refuses to run as root, so the process belongs to somebody else."""
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0


@as_root
def test_root_below_a_private_folder_moves_the_cluster(tmp_path: Path) -> None:
    """Where the server's user cannot pass, cluster and binaries lie under the system folder."""
    with EmbeddedPostgres(tmp_path / "data", settings=QUICK) as probe:  # pytest's own folder is private
        moved = probe.home
    assert moved.parent == Path("/var/lib/kindred")
    try:
        with EmbeddedPostgres(tmp_path / "data", settings=QUICK) as server:
            assert server.home == moved
            assert ask(server.url(APP), "SELECT 1") == 1
    finally:
        shutil.rmtree(moved)


@as_root
def test_root_copies_binaries_that_its_user_cannot_run(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binaries below a private folder are copied once, libraries included, and the copy runs."""
    tree = place(open_folder, 18).tree
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in (tree.parent.name, f"{tree.parent.name}.libs"):
        (packages / name).symlink_to(tree.parent.parent / name)
    system = open_folder / "system"
    monkeypatch.setattr("infra.placement.SYSTEM_HOME", system)
    monkeypatch.setattr("infra.placement._wheel_tree", lambda _: packages / tree.parent.name / tree.name)
    with EmbeddedPostgres(open_folder / "data", settings=QUICK) as server:
        assert ask(server.url(APP), "SELECT 1") == 1
    copies = [path for path in system.iterdir() if path.name.startswith("pgsql-")]
    assert len(copies) == 1
    assert subprocess.run([copies[0] / tree.parent.name / tree.name / "bin" / "psql", "--version"], check=True)


def as_nobody() -> list[str]:
    """A command that runs this Python without root; where it lies below a private folder, with the right to pass."""
    demote = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for extra in ([], ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]):
        command = [*demote, *extra, sys.executable]
        if subprocess.run([*command, "-c", "import asyncpg"], cwd=REPOSITORY, check=False).returncode == 0:
            return command
    pytest.skip("nobody cannot run this Python")


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_ordinary_user_runs_the_server_itself(open_folder: Path, pg_major: Major) -> None:
    """The same program works for a user without privileges."""
    folder = open_folder / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    program = OWNER_PROGRAM.replace("sys.stdin.read()", "import os; print(os.stat(f'/proc/{server.pid}').st_uid)")
    done = subprocess.run(
        [*as_nobody(), "-c", program, str(folder), str(pg_major)],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "65534" in done.stdout.split()


@as_root
def test_cluster_of_an_ordinary_user_is_run_as_that_user(open_folder: Path) -> None:
    """Root that starts a cluster of somebody else runs it as its owner, so that both can go on using it."""
    with EmbeddedPostgres(open_folder, settings=QUICK) as server:
        data = server.home / "pg18"
    for path in (data, *data.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    shutil.rmtree(open_folder / "pg18.run")
    with EmbeddedPostgres(open_folder, settings=QUICK) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
