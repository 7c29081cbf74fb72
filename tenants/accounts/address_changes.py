"""Changes of a person's address: asked for, made by the link in the mail to the new one, and taken back from the old.

A change is a row. What ends one takes the row away, and with it what its mail is worth, sent or still waiting. One that
is made holds the address of before, which nothing else knows any more, until it can be taken back no longer.
"""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.ids import uuid7
from tenants.accounts.outbox import LIFE
from tenants.accounts.tokens import LinkExpired


class Former(Struct, frozen=True, kw_only=True):
    """What a change replaced. `asked_at`: when the change was asked for; `made`: the credentials since it was made."""

    email: str
    asked_at: datetime
    made: int


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


async def get_asked(conn: AsyncConnection, person_id: UUID, change_id: UUID | None) -> str:
    """The address that a change asks for. `conn` is a session of that person, who is held.

    Raises LinkExpired where the change has ended.
    """
    email: str | None = await (await driver(conn)).fetchval(
        "select email from address_changes where person_id = $1 and change_id = $2 and made is null",
        person_id,
        change_id,
    )
    if email is None:
        raise LinkExpired("A new password, the end of all sessions or a newer request has ended this change.")
    return email


async def keep_former(
    conn: AsyncConnection, person_id: UUID, change_id: UUID | None, email: str, made: int, *, now: datetime
) -> None:
    """Note that a change is made, and which address it replaced. `made`: the person's credentials since."""
    await (await driver(conn)).execute(
        "update address_changes set email = $3, made = $4, expires_at = $5 where person_id = $1 and change_id = $2",
        person_id,
        change_id,
        email,
        made,
        now + LIFE["take_back"],
    )


async def get_former(conn: AsyncConnection, person_id: UUID, change_id: UUID | None) -> Former:
    """What a change replaced. `conn` is a session of that person. Raises LinkExpired where it was taken back."""
    record = await (await driver(conn)).fetchrow(
        "select email, asked_at, made from address_changes "
        "where person_id = $1 and change_id = $2 and made is not null",
        person_id,
        change_id,
    )
    if record is None:
        raise LinkExpired("The change was taken back already, or one before it was. Sign in, or choose a new password.")
    return Former(**record)


async def end_since(conn: AsyncConnection, person_id: UUID, former: Former) -> None:
    """End that change and all after it, made or asked for. One before it can still be taken back.

    Else who made two of them could take back the second one, and with it what its owner has against the first.
    """
    await (await driver(conn)).execute(
        "delete from address_changes where person_id = $1 and (made is null or made >= $2)", person_id, former.made
    )


async def is_open_change(conn: AsyncConnection, change_id: UUID | None) -> bool:
    """Whether a mail about the change is still to be sent; `conn` is a system session."""
    return bool(await (await driver(conn)).fetchval("select 1 from address_changes where change_id = $1", change_id))
