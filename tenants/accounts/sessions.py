"""Sessions of people: 256 random bits in a cookie, of which only a hash is stored.

A session is read from the database with every request, so that its end holds at once in every process. Its secret
changes with every sign-in and every few hours; the one before is good for a minute longer, for requests that were
under way.
"""

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.errors import NotFound
from infra.ids import uuid7
from tenants.accounts.people import hold_person

IDLE: Final = timedelta(days=7)
"""A session that was not used for so long is over."""

LIFE: Final = timedelta(days=30)
"""After so long one signs in again."""

ROTATED_AFTER: Final = timedelta(hours=6)
OVERLAP: Final = timedelta(minutes=1)

_SEEN_EVERY: Final = timedelta(minutes=1)
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)

Method = Literal["signup", "password", "magic_link", "reset", "invitation", "oidc"]
"""How a person proved who they are; other ways add theirs."""


class SessionNotFound(NotFound):
    """The person has no such session."""

    code = "session_not_found"
    title = "There is no such session"


class SignedIn(Struct, frozen=True, kw_only=True):
    """Somebody proved who they are. What may ask for a second step stands between this and a session.

    `credentials`: the person's when it was proved; once they are others, no session begins.
    """

    person_id: UUID
    method: Method
    credentials: int


class Session(Struct, frozen=True, kw_only=True):
    """A session that is good, as one request sees it. `secret`: set when the cookie must change to it."""

    session_id: UUID
    person_id: UUID
    email: str
    method: str
    created_at: datetime
    secret: str | None = None


class SessionInfo(Struct, frozen=True, kw_only=True):
    """A session in its owner's list."""

    session_id: UUID
    method: str
    browser: str
    created_at: datetime
    seen_at: datetime


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def looks_like_secret(secret: str) -> bool:
    """Whether it is worth asking the database."""
    return _FORM.fullmatch(secret) is not None


async def begin_session(conn: AsyncConnection, signed_in: SignedIn, *, browser: str, now: datetime) -> str:
    """Open a session; the secret for its cookie. `conn` is a session of that person.

    Raises SignInFailed where the password or the address was changed since they proved who they are.
    """
    # Until it commits: who changes them ends the sessions that there are, this one too.
    await hold_person(conn, signed_in.person_id, signed_in.credentials)
    secret = secrets.token_urlsafe(32)
    await (await driver(conn)).execute(
        "insert into sessions (session_id, person_id, token_hash, method, browser, created_at, seen_at, rotated_at, "
        "expires_at) values ($1, $2, $3, $4, $5, $6, $6, $6, $7)",
        uuid7(),
        signed_in.person_id,
        _hash(secret),
        signed_in.method,
        browser,
        now,
        now + LIFE,
    )
    return secret


class Seen(Struct, frozen=True, kw_only=True):
    """A found session, and whether its row should be touched."""

    session: Session
    rotate: bool
    touch: bool


async def find_session(conn: AsyncConnection, secret: str, *, now: datetime) -> Seen | None:
    """The session of that secret, unless it has ended. `conn` may be anybody's."""
    if not looks_like_secret(secret):
        return None
    record = await (await driver(conn)).fetchrow("select * from find_session($1, $2)", _hash(secret), now)
    if record is None or record["expires_at"] <= now or record["seen_at"] + IDLE <= now:
        return None
    return Seen(
        session=Session(
            session_id=UUID(int=record["session_id"].int),
            person_id=UUID(int=record["person_id"].int),
            email=record["email"],
            method=record["method"],
            created_at=record["created_at"],
        ),
        rotate=record["newest"] and record["rotated_at"] + ROTATED_AFTER <= now,
        touch=record["seen_at"] + _SEEN_EVERY <= now,
    )


async def rotate_session(conn: AsyncConnection, session: Session, secret: str, *, now: datetime) -> str | None:
    """Give the session a new secret; None where another request just did. `conn` is a session of that person."""
    fresh = secrets.token_urlsafe(32)
    done = await (await driver(conn)).fetchval(
        "update sessions set token_hash = $4, previous_hash = $3, previous_until = $5, rotated_at = $6, seen_at = $6 "
        "where person_id = $1 and session_id = $2 and token_hash = $3 returning 1",
        session.person_id,
        session.session_id,
        _hash(secret),
        _hash(fresh),
        now + OVERLAP,
        now,
    )
    return fresh if done else None


async def touch_session(conn: AsyncConnection, session: Session, *, now: datetime) -> None:
    """Note that the session is used. `conn` is a session of that person."""
    await (await driver(conn)).execute(
        "update sessions set seen_at = greatest(seen_at, $3) where person_id = $1 and session_id = $2",
        session.person_id,
        session.session_id,
        now,
    )


async def list_sessions(conn: AsyncConnection, person_id: UUID, *, now: datetime) -> list[SessionInfo]:
    """The person's open sessions, the one used last first."""
    records = await (await driver(conn)).fetch(
        "select session_id, method, browser, created_at, seen_at from sessions "
        "where person_id = $1 and expires_at > $2 and seen_at > $3 order by seen_at desc, session_id",
        person_id,
        now,
        now - IDLE,
    )
    return [SessionInfo(**{**dict(record), "session_id": UUID(int=record["session_id"].int)}) for record in records]


async def end_session(conn: AsyncConnection, person_id: UUID, session_id: UUID) -> None:
    """End one. Raises SessionNotFound."""
    done = await (await driver(conn)).fetchval(
        "delete from sessions where person_id = $1 and session_id = $2 returning 1", person_id, session_id
    )
    if not done:
        raise SessionNotFound("It has ended already. The list shows those that are open.")


async def end_sessions(
    conn: AsyncConnection, person_id: UUID, *, but: UUID | None = None, only: UUID | None = None
) -> int:
    """End all of a person's sessions, all `but` one, or `only` one; how many. That there are none is no error."""
    done: str = await (await driver(conn)).execute(
        "delete from sessions where person_id = $1 and session_id is distinct from $2 "
        "and ($3::uuid is null or session_id = $3)",
        person_id,
        but,
        only,
    )
    return int(done.rpartition(" ")[2])
