"""What `kindred doctor` looks at, and how each thing is mended.

A check never changes anything but for a probe that it takes back, and never raises: what it did not expect is a
failed check as well.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import asyncpg
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from infra.errors import KindredError
from infra.roles import APP, ROLES, role_url

State = Literal["ok", "warn", "fail"]

LEAST_SERVER: Final = 16
LEAST_PGVECTOR: Final = (0, 8)
CLOCK_MOST_S: Final = 1.0
DISK_WARN: Final = 5 << 30
DISK_FAIL: Final = 1 << 30

_PATIENCE_S: Final = 15.0
_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


class Finding(Struct, frozen=True, kw_only=True):
    """The outcome of a check: `what` was found, and how to `mend` it unless it is ok."""

    state: State
    what: str
    mend: str = ""


class Check(Struct, frozen=True, kw_only=True):
    """One thing to look at."""

    name: str
    run: Callable[[], Awaitable[Finding]]


def ok(what: str) -> Finding:
    """A finding that needs nothing."""
    return Finding(state="ok", what=what)


def warn(what: str, mend: str) -> Finding:
    """A finding that works, but should be mended."""
    return Finding(state="warn", what=what, mend=mend)


def fail(what: str, mend: str) -> Finding:
    """A finding that must be mended."""
    return Finding(state="fail", what=what, mend=mend)


async def examine(checks: Sequence[Check], *, patience_s: float = _PATIENCE_S) -> list[tuple[str, Finding]]:
    """Run the checks one after the other; an error or a check without an end becomes a failed finding."""
    found = []
    for check in checks:
        try:
            async with asyncio.timeout(patience_s):
                finding = await check.run()
        except TimeoutError:
            finding = fail(
                f"no answer within {patience_s:g} s", "See whether what it asks is overloaded or unreachable."
            )
        except KindredError as error:
            finding = fail(error.title, error.detail)
        except Exception as error:  # a check that breaks is a finding, not a traceback
            finding = fail(f"{type(error).__name__}: {error}", "This check could not be made.")
        found.append((check.name, finding))
    return found


def report(found: Sequence[tuple[str, Finding]], console: Console) -> int:
    """Print a table of the findings and return the exit status: 1 when any failed."""
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "", "found", "how to mend it"):
        table.add_column(heading, overflow="fold")
    for name, finding in found:
        colour = _COLOURS[finding.state]
        table.add_row(name, f"[{colour}]{finding.state}[/{colour}]", _plain(finding.what), _plain(finding.mend))
    console.print(table)
    return int(any(finding.state == "fail" for _, finding in found))


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # rich would take it for markup


# The database


def database_checks(url: str, *, revision: Callable[[], Awaitable[str | None]], head: str) -> list[Check]:
    """Checks of the database at `url` (any of Kindred's roles).

    `revision` tells the schema's present revision, None when it was never migrated; `head` is the newest.
    """
    app = role_url(url, APP)

    def asking(look: Callable[["asyncpg.Connection[Any]"], Awaitable[Finding]]) -> Callable[[], Awaitable[Finding]]:
        async def run() -> Finding:
            try:
                connection = await asyncpg.connect(app, timeout=5)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return warn("not looked at: the database is away", "Mend the database first.")
            try:
                return await look(connection)
            finally:
                await connection.close()

        return run

    async def migrated() -> Finding:
        return _revision(await revision(), head)

    return [
        Check(name="database", run=lambda: _reachable(app)),
        Check(name="server version", run=asking(_server_version)),
        Check(name="pgvector", run=asking(_pgvector)),
        Check(name="roles", run=asking(_roles)),
        Check(name="sign-in", run=lambda: _sign_in(url)),
        Check(name="schema", run=migrated),
        Check(name="clock", run=asking(_clock)),
    ]


async def _reachable(app: str) -> Finding:
    began = time.perf_counter()
    try:
        async with _connected(app) as connection:
            await connection.fetchval("SELECT 1")
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        return fail(f"refused: {error}", "Correct the password in DATABASE_URL, or run `kindred migrate` as admin.")
    except asyncpg.InvalidCatalogNameError as error:
        return fail(str(error), "Create it: `kindred migrate --admin-url` with an administrator's address.")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return fail(
            f"not reachable: {error or type(error).__name__}",
            "Start it (`kindred up` starts the embedded one) or correct DATABASE_URL.",
        )
    return ok(f"answers after {(time.perf_counter() - began) * 1000:.0f} ms, sign-in included")


@contextlib.asynccontextmanager
async def _connected(url: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(url, timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


async def _server_version(connection: "asyncpg.Connection[Any]") -> Finding:
    number = int(await connection.fetchval("SHOW server_version_num"))
    shown = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number // 10000 < LEAST_SERVER:
        return fail(shown, f"Kindred needs PostgreSQL {LEAST_SERVER} or newer: upgrade with pg_upgrade or a dump.")
    return ok(shown)


async def _pgvector(connection: "asyncpg.Connection[Any]") -> Finding:
    version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    least = ".".join(map(str, LEAST_PGVECTOR))
    if version is None:
        return fail("not installed", "As an administrator, in this database: CREATE EXTENSION vector;")
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_PGVECTOR:
        return fail(
            f"version {version}",
            f"Install pgvector {least} or newer on the server, then: ALTER EXTENSION vector UPDATE;",
        )
    return ok(f"version {version}")


async def _roles(connection: "asyncpg.Connection[Any]") -> Finding:
    rows = await connection.fetch(
        "SELECT rolname, rolsuper OR rolbypassrls AS unbound, rolcreatedb OR rolcreaterole AS creates"
        " FROM pg_roles WHERE rolname = ANY($1)",
        list(ROLES),
    )
    missing = sorted(set(ROLES) - {row["rolname"] for row in rows})
    unbound = sorted(row["rolname"] for row in rows if row["unbound"])
    creates = sorted(row["rolname"] for row in rows if row["creates"])
    if missing:
        return fail(
            f"missing: {', '.join(missing)}", "Run `kindred migrate --admin-url` with an administrator's address."
        )
    if unbound:
        names = ", ".join(unbound)
        return fail(
            f"above row-level security: {names}; one shop could see another's rows",
            f"As an administrator: ALTER ROLE … NOSUPERUSER NOBYPASSRLS; for {names}.",
        )
    if creates:
        names = ", ".join(creates)
        return warn(f"more rights than needed: {names}", "As an administrator: ALTER ROLE … NOCREATEDB NOCREATEROLE;")
    return ok(f"{len(ROLES)} roles, none privileged")


async def _sign_in(url: str) -> Finding:
    refused = []
    for role in ROLES:
        try:
            async with _connected(role_url(url, role)):
                pass
        except asyncpg.InvalidAuthorizationSpecificationError:
            refused.append(role)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return warn("not looked at: the database is away", "Mend the database first.")
    if refused:
        return fail(
            f"refused: {', '.join(refused)}",
            "All share the password of DATABASE_URL: ALTER ROLE … PASSWORD …; and allow them in pg_hba.conf.",
        )
    return ok("every role signs in")


def _revision(current: str | None, head: str) -> Finding:
    if current is None:
        return fail("never migrated", "Run `kindred migrate`.")
    if current != head:
        return fail(
            f"at revision {current}, the code knows {head}",
            "Run `kindred migrate`, or run the newer code that migrated it.",
        )
    return ok(f"at revision {current}")


async def _clock(connection: "asyncpg.Connection[Any]") -> Finding:
    before = time.time()
    there = (await connection.fetchval("SELECT clock_timestamp()")).timestamp()
    offset_s = there - (before + time.time()) / 2
    shown = f"{offset_s:+.3f} s between this machine and the database"
    if abs(offset_s) >= CLOCK_MOST_S:
        return fail(shown, "Let both machines follow a time server (NTP).")
    return ok(shown)


# This machine


def disk_check(folder: Path) -> Check:
    """Whether the disk of `folder`, or of its nearest existing parent, has room."""

    async def run() -> Finding:
        place = _nearest(folder)
        free = shutil.disk_usage(place).free
        shown = f"{free / (1 << 30):.1f} GiB free at {place}"
        mend = "Make room, or move KINDRED_DATA_DIR to a larger disk."
        if free < DISK_FAIL:
            return fail(shown, mend)
        return warn(shown, mend) if free < DISK_WARN else ok(shown)

    return Check(name="disk", run=run)


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def probe_check(name: str, probe: Callable[[], Awaitable[str]], *, mend: str) -> Check:
    """A check that is ok when `probe` returns what it found; any error of it is a failure that `mend` mends."""

    async def run() -> Finding:
        try:
            return ok(await probe())
        except KindredError as error:
            return fail(error.title, f"{error.detail} {mend}")
        except Exception as error:  # whatever a store or a file system may raise
            return fail(f"{type(error).__name__}: {error}", mend)

    return Check(name=name, run=run)
