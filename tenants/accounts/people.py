"""People: who they are, their passwords and addresses."""

from collections import Counter
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.errors import Conflict, Unauthenticated
from infra.secret import Secret, mark_of
from tenants.accounts.email import InvalidEmail, hash_email, normalise


class SignInFailed(Unauthenticated):
    """No account has this address and this password, or they were changed while somebody signed in."""

    code = "sign_in_failed"
    title = "The address or the password is wrong"


class EmailTaken(Conflict):
    """Another account has this address."""

    code = "email_taken"
    title = "There is an account with this address"


class Person(Struct, frozen=True, kw_only=True):
    """A person whose address is proved. `email` is the address as it was given: mail goes there.

    `credentials`: how often the password or the address was replaced. What was proved under another number is over.
    """

    person_id: UUID
    email: str
    password_hash: str | None
    credentials: int


_COLUMNS: Final = "person_id, email, password_hash, credentials"


async def find_person(conn: AsyncConnection, *email_hashes: bytes) -> Person | None:
    """Who has the address of these hashes, one for each secret that is believed; `conn` may be anybody's."""
    raw = await driver(conn)
    for email_hash in email_hashes:
        record = await raw.fetchrow("select * from find_person($1)", email_hash)
        if record is not None:
            return _person(record)
    return None


async def find_owner(conn: AsyncConnection, *email_hashes: bytes) -> Person | None:
    """The same for a worker: `conn` is a system session.

    Nobody changes password or address before its transaction ends: a link that is made in it is ended by who does.
    """
    record = await (await driver(conn)).fetchrow(
        f"select {_COLUMNS} from people where email_hash = any($1::bytea[]) for share", email_hashes
    )
    return None if record is None else _person(record)


async def count_emails(system: AsyncConnection, secret: Secret) -> Counter[str]:
    """People by the mark of the secret that their address is found under; "unknown" for none that is believed."""
    counts: Counter[str] = Counter()
    for record in await (await driver(system)).fetch("select email, email_hash from people"):
        marks = [mark_of(each) for each in secret.every if hash_email(each, record["email"]) == record["email_hash"]]
        counts[marks[0] if marks else "unknown"] += 1
    return counts


async def rehash_emails(system: AsyncConnection, secret: bytes) -> int:
    """Let every address be found under this secret, in the form that addresses are kept in now; how many were not."""
    raw = await driver(system)
    changed = 0
    for record in await raw.fetch("select person_id, email, email_hash from people order by person_id"):
        email = _kept(record["email"])
        email_hash = hash_email(secret, email)
        if email_hash != record["email_hash"]:
            done: str = await raw.execute(
                # An address that was changed meanwhile has its hash.
                "update people set email_hash = $2, email = $4 where person_id = $1 and email_hash = $3 "
                "and not exists (select 1 from people p where p.email_hash = $2)",
                record["person_id"],
                email_hash,
                record["email_hash"],
                email,
            )
            changed += int(done.rpartition(" ")[2])
    return changed


def _kept(email: str) -> str:
    """An earlier version kept domains as they were typed, in whatever letters."""
    try:
        return normalise(email)
    except InvalidEmail:
        return email


async def get_person(conn: AsyncConnection, person_id: UUID) -> Person | None:
    """The person themselves; `conn` is a session of theirs."""
    record = await (await driver(conn)).fetchrow(f"select {_COLUMNS} from people where person_id = $1", person_id)
    return None if record is None else _person(record)


async def hold_person(conn: AsyncConnection, person_id: UUID, credentials: int | None) -> Person:
    """The person, whom nobody else changes before the transaction ends. `conn` is a session of theirs.

    `credentials`: of when it was proved who they are; None for what no change of them ends. Raises SignInFailed where
    they are others by now.
    """
    record = await (await driver(conn)).fetchrow(
        f"select {_COLUMNS} from people where person_id = $1 and credentials = coalesce($2, credentials) "
        "for no key update",
        person_id,
        credentials,
    )
    if record is None:
        raise SignInFailed("The password or the address of the account was changed meanwhile. Sign in again.")
    return _person(record)


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
        raise email_taken()


async def set_password(conn: AsyncConnection, person: Person, password_hash: str) -> int:
    """Replace the password of a person who is held; their credentials from now on."""
    credentials: int = await (await driver(conn)).fetchval(
        "update people set password_hash = $2, credentials = credentials + 1 where person_id = $1 "
        "returning credentials",
        person.person_id,
        password_hash,
    )
    return credentials


async def rehash_password(conn: AsyncConnection, person: Person, password_hash: str) -> None:
    """Store the same password by other parameters, unless it was replaced meanwhile. `conn` is a session of theirs."""
    await (await driver(conn)).execute(
        "update people set password_hash = $3 where person_id = $1 and password_hash = $2",
        person.person_id,
        person.password_hash,
        password_hash,
    )


async def drop_password(conn: AsyncConnection, person_id: UUID) -> None:
    """Have a person who is held sign in with none, until they choose one."""
    await (await driver(conn)).execute(
        "update people set password_hash = null, credentials = credentials + 1 where person_id = $1", person_id
    )


async def set_email(conn: AsyncConnection, person_id: UUID, email: str, email_hash: bytes) -> int:
    """Replace the address of a person who is held by one that is proved; their credentials from now on.

    Raises EmailTaken.
    """
    try:
        credentials: int = await (await driver(conn)).fetchval(
            "update people set email = $2, email_hash = $3, credentials = credentials + 1 where person_id = $1 "
            "returning credentials",
            person_id,
            email,
            email_hash,
        )
    except asyncpg.UniqueViolationError as error:
        raise email_taken() from error
    return credentials


def _person(record: Any) -> Person:
    return Person(**{**dict(record), "person_id": UUID(int=record["person_id"].int)})


def email_taken() -> EmailTaken:
    """What is said to who would be the second with an address."""
    return EmailTaken("Sign in with it; where the password is forgotten, ask for a link to sign in without one.")
