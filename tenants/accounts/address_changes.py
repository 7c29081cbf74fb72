"""Changes of a person's address: asked for, and made by the link in the mail to the new one.

A change is a row. What ends one takes the row away, and with it what its mail is worth, sent or still waiting.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.ids import uuid7
from tenants.accounts.outbox import LIFE
from tenants.accounts.tokens import LinkExpired


async def ask_change(conn: AsyncConnection, person_id: UUID, email: str, *, now: datetime) -> UUID:
    """Begin a change, in place of one that was asked for before; its id. `conn` is a session of that person."""
    await end_asked(conn, person_id)
    change_id = uuid7()
    await (await driver(conn)).execute(
        "insert into address_changes (change_id, person_id, email, asked_at, expires_at) values ($1, $2, $3, $4, $5)",
        change_id,
        person_id,
        email,
        now,
        now + LIFE["email_change"],
    )
    return change_id


async def end_asked(conn: AsyncConnection, person_id: UUID) -> None:
    """End what was asked for and is not made; its link is good for nothing. `conn` is a session of that person."""
    await (await driver(conn)).execute("delete from address_changes where person_id = $1 and made is null", person_id)


async def close_change(conn: AsyncConnection, person_id: UUID, change_id: UUID | None) -> str:
    """End a change by making it; the address that was asked for. `conn` is a session of that person.

    Raises LinkExpired where it has ended.
    """
    email: str | None = await (await driver(conn)).fetchval(
        "delete from address_changes where person_id = $1 and change_id = $2 and made is null returning email",
        person_id,
        change_id,
    )
    if email is None:
        raise LinkExpired("A new password, the end of all sessions or a newer request has ended this change.")
    return email


async def is_open_change(conn: AsyncConnection, change_id: UUID | None) -> bool:
    """Whether a mail about the change is still to be sent; `conn` is a system session."""
    return bool(await (await driver(conn)).fetchval("select 1 from address_changes where change_id = $1", change_id))
