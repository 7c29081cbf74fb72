"""The four database roles, and how a server is prepared for them.

`kindred_owner` holds the schema, `kindred_app` serves requests and jobs under row-level security,
`kindred_ingest` only inserts events and the answer log, `kindred_system` works across tenants. None is a
superuser and none may bypass row-level security. They share one password, so that one address names server,
database and password, and Kindred signs in as each role by `role_url`.
"""

import base64
import hashlib
import hmac
import os
import unicodedata
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

from infra.errors import Invalid

OWNER: Final = "kindred_owner"
APP: Final = "kindred_app"
INGEST: Final = "kindred_ingest"
SYSTEM: Final = "kindred_system"
ROLES: Final = (OWNER, APP, INGEST, SYSTEM)
DATABASE: Final = "kindred"

_BOOTSTRAP_LOCK: Final = 0x6B696E6472656400  # "kindred\0": serialises two bootstraps of one server
_SCRAM_ROUNDS: Final = 4096


def role_url(url: str, role: str) -> str:
    """Return `url` with the user name replaced by `role`; the password, server and options stay."""
    parts = urlsplit(url)
    userinfo, _, hostport = parts.netloc.rpartition("@")
    _, colon, password = userinfo.partition(":")
    # Not parts.geturl(): urlunsplit must keep the empty host of "postgresql://user:pw@/db?host=/socket".
    return urlunsplit(parts._replace(netloc=f"{quote(role, safe='')}{colon}{password}@{hostport}"))


def database_url(url: str, database: str) -> str:
    """Return `url` with the database replaced."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(database, safe='')}"))


def database_name(url: str) -> str:
    """Return the database that `url` names, Kindred's own where it names none."""
    return unquote(urlsplit(url).path.lstrip("/")) or DATABASE


def url_password(url: str) -> str | None:
    """Return the password that `url` carries, decoded, or None."""
    password = urlsplit(url).password
    return None if password is None else unquote(password)


def scram_verifier(password: str, *, salt: bytes | None = None) -> str:
    """Return the SCRAM-SHA-256 verifier that PostgreSQL stores for `password` (RFC 5803, RFC 7677).

    The verifier is sent instead of the password, so that no server log ever holds it. Non-ASCII passwords are
    NFKC-normalised, which is what SASLprep (RFC 4013) does to every character that a person would type.
    """
    salt = os.urandom(16) if salt is None else salt
    secret = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", secret, salt, _SCRAM_ROUNDS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encode = base64.b64encode
    return (
        f"SCRAM-SHA-256${_SCRAM_ROUNDS}:{encode(salt).decode()}"
        f"${encode(stored_key).decode()}:{encode(server_key).decode()}"
    )


class PgvectorMissing(Invalid):
    """The server lacks the extension, or the administrator may not create it."""

    code: ClassVar[str] = "pgvector_missing"
    title: ClassVar[str] = "The database has no pgvector"


async def bootstrap_roles(superuser_dsn: str, password: str, *, database: str = DATABASE) -> None:
    """Prepare a server: the four roles with `password`, `database` owned by `kindred_owner`, pgvector, grants.

    Idempotent: running it again mends what is missing or wrong and sets the password again. `superuser_dsn` names
    an administrator and any existing database of the server. An administrator who is no superuser (CREATEROLE,
    CREATEDB) is enough where the extension exists or may be created by it; else PgvectorMissing is raised.
    """
    admin = await asyncpg.connect(superuser_dsn)
    try:
        await admin.execute("SELECT pg_advisory_lock($1)", _BOOTSTRAP_LOCK)
        for role in ROLES:
            await _ensure_role(admin, role, password)
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
            # template0: whatever someone left in template1 does not become part of the database.
            await admin.execute(f"CREATE DATABASE {_name(database)} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8'")
        inside = await asyncpg.connect(database_url(superuser_dsn, database))
        try:
            await _prepare_database(inside, database)
        finally:
            await inside.close()
    finally:
        await admin.close()  # ends the session, and with it the advisory lock


async def ensure_roles(url: str) -> None:
    """Prepare the server when `url` signs in as an administrator; nothing when it already names one of the roles."""
    parts = urlsplit(url)
    if parts.username in ROLES:
        return
    await bootstrap_roles(url, url_password(url) or "", database=database_name(url))


async def _ensure_role(admin: "asyncpg.Connection[Any]", role: str, password: str) -> None:
    verifier = scram_verifier(password)
    row = await admin.fetchrow(
        "SELECT rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole OR rolreplication AS excess"
        " FROM pg_roles WHERE rolname = $1",
        role,
    )
    if row is None:
        await admin.execute(
            f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD '{verifier}'"
        )
    else:
        if row["excess"]:  # only then: a managed administrator may not even say NOSUPERUSER
            await admin.execute(f"ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION")
        await admin.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{verifier}'")
    if role == OWNER and not await admin.fetchval("SELECT pg_has_role(current_user, $1, 'SET')", OWNER):
        # An administrator who is no superuser may give a database only to a role that it can become.
        await admin.execute(f"GRANT {OWNER} TO CURRENT_USER")


async def _prepare_database(inside: "asyncpg.Connection[Any]", database: str) -> None:
    name, roles = _name(database), ", ".join(ROLES)
    others = ", ".join(role for role in ROLES if role != OWNER)
    try:
        await inside.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFileError) as error:
        raise PgvectorMissing(
            f"{error}. Install pgvector 0.8 or newer on the server, then as its superuser in the database {database}: "
            "CREATE EXTENSION vector; and run this again."
        ) from error
    await inside.execute(
        f"""
        ALTER DATABASE {name} OWNER TO {OWNER};
        REVOKE ALL ON DATABASE {name} FROM PUBLIC;
        GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {roles};
        REVOKE ALL ON SCHEMA public FROM PUBLIC;
        GRANT USAGE, CREATE ON SCHEMA public TO {OWNER};
        GRANT USAGE ON SCHEMA public TO {others};
        """
    )


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
