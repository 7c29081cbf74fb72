"""Open invitations to an organisation. A row goes when somebody joins by it, or when it is withdrawn."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver, fetch
from infra.errors import Invalid, NotFound
from infra.ids import uuid7
from tenants.accounts.email import is_same_address
from tenants.accounts.outbox import LIFE
from tenants.accounts.roles import Role


class InvitationNotFound(NotFound):
    """The organisation has no such open invitation."""

    code = "invitation_not_found"
    title = "There is no such invitation"


class InvitationWithdrawn(Invalid):
    """The link is of an invitation that was withdrawn."""

    code = "invitation_withdrawn"
    title = "This invitation was withdrawn"


class Invitation(Struct, frozen=True, kw_only=True):
    """An invitation that is open. `invited_by`: the address of who did, None where they belong to it no more."""

    invitation_id: UUID
    email: str
    role: Role
    invited_by: str | None
    created_at: datetime
    expires_at: datetime


_OPEN: Final = """
select i.invitation_id, i.email, i.role, p.email as invited_by, i.created_at, i.expires_at
from invitations i left join people_of_organisation() p on p.person_id = i.invited_by
where i.org_id = $1 and i.expires_at > $2
"""


async def list_invitations(conn: AsyncConnection, org_id: UUID, *, now: datetime) -> list[Invitation]:
    """Those that are open, the oldest first. `conn` is a session in that organisation."""
    records = await fetch(conn, f"{_OPEN} order by i.created_at, i.invitation_id", org_id, now)
    return [Invitation(**{**dict(record), "invitation_id": UUID(int=record[0].int)}) for record in records]


async def get_invitation(conn: AsyncConnection, org_id: UUID, invitation_id: UUID, *, now: datetime) -> Invitation:
    """One that is open. `conn` is a session in that organisation. Raises InvitationNotFound."""
    for record in await fetch(conn, f"{_OPEN} and i.invitation_id = $3", org_id, now, invitation_id):
        return Invitation(**{**dict(record), "invitation_id": invitation_id})
    raise InvitationNotFound("It was accepted, was withdrawn or has ended. Load the list again.")


async def find_invitation(conn: AsyncConnection, org_id: UUID, address: str, *, now: datetime) -> Invitation | None:
    """The open one to that address, in whatever case it was typed. `conn` is a session in that organisation."""
    open_ones = await list_invitations(conn, org_id, now=now)
    return next((each for each in open_ones if is_same_address(each.email, address)), None)


async def store_invitation(
    conn: AsyncConnection,
    org_id: UUID,
    email: str,
    role: Role,
    *,
    by: UUID,
    now: datetime,
    before: Invitation | None = None,
) -> UUID:
    """Open an invitation, or let the one `before` it hold from now on with this role; its id.

    `conn` is a session in that organisation.
    """
    invitation_id = uuid7() if before is None else before.invitation_id
    await (await driver(conn)).execute(
        "insert into invitations (invitation_id, org_id, email, role, invited_by, created_at, expires_at) "
        "values ($1, $2, $3, $4, $5, $6, $7) on conflict (invitation_id) do update set role = excluded.role, "
        "invited_by = excluded.invited_by, created_at = excluded.created_at, expires_at = excluded.expires_at",
        invitation_id,
        org_id,
        email,
        role,
        by,
        now,
        now + LIFE["invitation"],
    )
    return invitation_id


async def close_invitation(conn: AsyncConnection, org_id: UUID, invitation_id: UUID) -> Role:
    """Take one away, joined by or withdrawn; the role that it was for. `conn` is a session in that organisation.

    Raises InvitationWithdrawn.
    """
    role: Role | None = await (await driver(conn)).fetchval(
        "delete from invitations where org_id = $1 and invitation_id = $2 returning role", org_id, invitation_id
    )
    if role is None:
        raise withdrawn()
    return role


async def take_back(conn: AsyncConnection, org_id: UUID, person_id: UUID, roles: Sequence[Role]) -> dict[str, Any]:
    """Withdraw what a person invited to with these roles; how many, as the audit log tells it.

    `conn` is a session in that organisation, or of the system.
    """
    done: str = await (await driver(conn)).execute(
        "delete from invitations where org_id = $1 and invited_by = $2 and role = any($3)",
        org_id,
        person_id,
        list(roles),
    )
    count = int(done.rpartition(" ")[2])
    return {"withdrawn": count} if count else {}


async def is_open(conn: AsyncConnection, invitation_id: UUID | None, *, now: datetime) -> bool:
    """Whether its mail is still to be sent; `conn` is a system session. One without an id is of an earlier version."""
    if invitation_id is None:
        return True
    return bool(
        await (await driver(conn)).fetchval(
            "select 1 from invitations where invitation_id = $1 and expires_at > $2", invitation_id, now
        )
    )


def withdrawn() -> InvitationWithdrawn:
    """What is said to who opens the link of an invitation that is no more."""
    return InvitationWithdrawn("Its link is good for nothing any more. Ask who invited you for a new one.")
