"""One-time tokens: what the links of mails carry.

A token is derived from the id of its mail under the installation's secret, so that a mail that is sent twice carries
one link, and so that it lies nowhere in clear; its hash is stored. It works once.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.errors import Invalid
from tenants.accounts.roles import Role

TokenKind = Literal["verify", "magic_link", "reset", "email_change", "invitation", "take_back"]

_FORM: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class LinkUnknown(Invalid):
    """The link is not one of ours, or is of another kind."""

    code = "link_unknown"
    title = "This link is not known"


class LinkUsed(Invalid):
    """The link has been used; each works once."""

    code = "link_used"
    title = "This link has been used"


class LinkExpired(Invalid):
    """The link's time is over."""

    code = "link_expired"
    title = "This link has expired"


class Token(Struct, frozen=True, kw_only=True):
    """A token that is good: what it stands for, and its person's credentials at that time."""

    token_hash: bytes
    kind: TokenKind
    person_id: UUID | None
    signup_id: UUID | None
    org_id: UUID | None
    role: Role | None
    email: str | None
    invitation_id: UUID | None
    change_id: UUID | None
    credentials: int | None


def derive_token(secret: bytes, mail_id: UUID) -> str:
    """256 bits in base64url: HMAC-SHA256 of the mail's id."""
    return urlsafe_b64encode(hmac.digest(secret, b"one-time token\0" + mail_id.bytes, "sha256")).rstrip(b"=").decode()


def hash_token(token: str) -> bytes:
    """What is stored: a plain hash is enough for 256 bits that nobody can guess."""
    return hashlib.sha256(token.encode()).digest()


async def store_token(
    conn: AsyncConnection,
    token_hash: bytes,
    kind: TokenKind,
    *,
    now: datetime,
    expires_at: datetime,
    person_id: UUID | None = None,
    signup_id: UUID | None = None,
    org_id: UUID | None = None,
    role: str | None = None,
    email: str | None = None,
    invitation_id: UUID | None = None,
    change_id: UUID | None = None,
) -> None:
    """Make a token good; again is no error. `conn` is a system session."""
    await (await driver(conn)).execute(
        "insert into one_time_tokens (token_hash, kind, person_id, signup_id, org_id, role, email, created_at, "
        "expires_at, invitation_id, change_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) "
        "on conflict (token_hash) do nothing",
        token_hash,
        kind,
        person_id,
        signup_id,
        org_id,
        role,
        email,
        now,
        expires_at,
        invitation_id,
        change_id,
    )


async def get_token(conn: AsyncConnection, token: str, *kinds: TokenKind, now: datetime) -> Token:
    """What the token stands for, without using it. Raises LinkUnknown, LinkUsed, LinkExpired."""
    record = None
    if _FORM.fullmatch(token):
        record = await (await driver(conn)).fetchrow("select * from find_token($1)", hash_token(token))
    if record is None or record["kind"] not in kinds:
        raise LinkUnknown("Copy the link from the mail whole, up to its last character; or ask for a new one.")
    if record["used_at"] is not None:
        raise LinkUsed(f"It was used at {record['used_at']:%H:%M} UTC, and works once. Sign in, or ask for a new link.")
    if record["expires_at"] <= now:
        raise LinkExpired("Ask for a new one; its mail takes a few seconds.")
    return Token(
        token_hash=hash_token(token),
        **{name: record[name] for name in Token.__struct_fields__ if name != "token_hash"},
    )


def owner_of(token: Token) -> tuple[UUID, int]:
    """Whose account the token is about, and their credentials while it was good; of kinds that are of a person."""
    assert token.person_id is not None
    assert token.credentials is not None  # a token goes with its person
    return UUID(int=token.person_id.int), token.credentials


async def spend_token(conn: AsyncConnection, token: Token, *, now: datetime) -> None:
    """Use it up, in the transaction of what it is for; an invitation's other links go with it.

    Raises LinkUsed where another request was quicker.
    """
    if not await (await driver(conn)).fetchval("select spend_token($1, $2)", token.token_hash, now):
        raise LinkUsed("It has just been used, and works once. Sign in, or ask for a new link.")


async def void_tokens(conn: AsyncConnection, *kinds: TokenKind, now: datetime) -> None:
    """End the person's unused tokens of these kinds. `conn` is a session of that person."""
    await (await driver(conn)).execute("select void_tokens($1, $2)", list(kinds), now)
