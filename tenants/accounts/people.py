"""People: who they are, their passwords and addresses."""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.errors import Conflict, Unauthenticated


class SignInFailed(Unauthenticated):
    """No account has this address and this password."""

    code = "sign_in_failed"
    title = "The address or the password is wrong"


class EmailTaken(Conflict):
    """Another account has this address."""

    code = "email_taken"
    title = "There is an account with this address"


class Person(Struct, frozen=True, kw_only=True):
    """A person whose address is proved. `email` is the address as it was given: mail goes there."""

    person_id: UUID
    email: str
    password_hash: str | None


async def find_person(conn: AsyncConnection, email_hash: bytes) -> Person | None:
    """Who has the address of that hash; `conn` may be anybody's."""
    record = await (await driver(conn)).fetchrow("select * from find_person($1)", email_hash)
    return None if record is None else _person(record)


async def find_owner(conn: AsyncConnection, email_hash: bytes) -> Person | None:
    """The same for a worker: `conn` is a system session."""
    record = await (await driver(conn)).fetchrow(
        "select person_id, email, password_hash from people where email_hash = $1", email_hash
    )
    return None if record is None else _person(record)


async def get_person(conn: AsyncConnection, person_id: UUID) -> Person | None:
    """The person themselves; `conn` is a session of theirs."""
    record = await (await driver(conn)).fetchrow(
        "select person_id, email, password_hash from people where person_id = $1", person_id
    )
    return None if record is None else _person(record)


async def add_person(
    conn: AsyncConnection, person_id: UUID, email: str, email_hash: bytes, password_hash: str | None, *, now: datetime
) -> None:
    """Store a person whose address is proved. `conn` is a session of theirs. Raises EmailTaken."""
    added = await (await driver(conn)).fetchval(
        "insert into people (person_id, email, email_hash, password_hash, created_at) values ($1, $2, $3, $4, $5) "
        "on conflict (email_hash) do nothing returning 1",
        person_id,
        email,
        email_hash,
        password_hash,
        now,
    )
    if not added:
        raise _taken()


async def set_password(conn: AsyncConnection, person_id: UUID, password_hash: str) -> None:
    """Replace the password; `conn` is a session of theirs."""
    await (await driver(conn)).execute(
        "update people set password_hash = $2 where person_id = $1", person_id, password_hash
    )


async def set_email(conn: AsyncConnection, person_id: UUID, email: str, email_hash: bytes) -> None:
    """Replace the address by one that is proved. `conn` is a session of theirs. Raises EmailTaken."""
    raw = await driver(conn)
    other = await raw.fetchval("select person_id from find_person($1)", email_hash)
    if other is not None and other != person_id:
        raise _taken()
    await raw.execute(
        "update people set email = $2, email_hash = $3 where person_id = $1", person_id, email, email_hash
    )


def _person(record: Any) -> Person:
    return Person(
        person_id=UUID(int=record["person_id"].int), email=record["email"], password_hash=record["password_hash"]
    )


def _taken() -> EmailTaken:
    return EmailTaken("Sign in with it; where the password is forgotten, ask for a link to sign in without one.")
