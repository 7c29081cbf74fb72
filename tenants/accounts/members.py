"""Members of an organisation: who they are, who may be invited, whose role changes, and that an owner is left."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver, fetch
from infra.errors import Conflict, NotFound
from tenants.accounts.holdings import lock_organisation
from tenants.accounts.organisations import RoleTooLow
from tenants.accounts.roles import MANAGES_MEMBERS, Role


class LastOwner(Conflict):
    """An organisation has an owner at all times."""

    code = "last_owner"
    title = "Somebody must own the organisation"


class MemberNotFound(NotFound):
    """The organisation has no such member."""

    code = "member_not_found"
    title = "There is no such member"


class AlreadyMember(Conflict):
    """The person belongs to the organisation already."""

    code = "already_member"
    title = "You belong to this organisation already"


class Member(Struct, frozen=True, kw_only=True):
    """A person in the list of an organisation's members."""

    person_id: UUID
    email: str
    role: Role
    created_at: datetime


def may_grant(own: Role, *roles: Role) -> bool:
    """Whether one with the role `own` may give, change or take away these: only owners deal with owners."""
    return own in MANAGES_MEMBERS and (own == "owner" or "owner" not in roles)


def check_may_grant(own: Role, *roles: Role) -> None:
    """Raises RoleTooLow, which says whom to ask."""
    if own not in MANAGES_MEMBERS:
        raise RoleTooLow(f"As {own} you may not change who belongs to it; ask an owner or admin.")
    if not may_grant(own, *roles):
        raise RoleTooLow("Only an owner makes somebody an owner, or changes or removes one; ask an owner.")


async def list_members(conn: AsyncConnection) -> list[Member]:
    """The members of the organisation that `conn` is a session in, the oldest first."""
    records = await fetch(conn, "select * from people_of_organisation() order by created_at, person_id")
    return [Member(**{**dict(record), "person_id": UUID(int=record["person_id"].int)}) for record in records]


async def get_role(conn: AsyncConnection, org_id: UUID, person_id: UUID) -> Role:
    """The role of a person in the organisation that `conn` is a session in. Raises MemberNotFound."""
    role: Role | None = await (await driver(conn)).fetchval(
        "select role from members where org_id = $1 and person_id = $2", org_id, person_id
    )
    if role is None:
        raise MemberNotFound("Nobody like that belongs to the organisation any more. Load the list again.")
    return role


async def set_role(conn: AsyncConnection, org_id: UUID, person_id: UUID, role: Role, *, by: UUID) -> Role:
    """Change a member's role; what it was. `conn` is a session in that organisation.

    Raises RoleTooLow, MemberNotFound, LastOwner.
    """
    roles = await lock_roles(conn, org_id)
    before = role_in(roles, person_id)
    check_may_grant(role_in(roles, by), before, role)
    if role != "owner":
        _keep_an_owner(roles, person_id)
    await (await driver(conn)).execute(
        "update members set role = $3 where org_id = $1 and person_id = $2", org_id, person_id, role
    )
    return before


async def remove_member(conn: AsyncConnection, org_id: UUID, person_id: UUID, *, by: UUID) -> Role:
    """Remove a member; everybody may leave. The role that it was. `conn` is a session in that organisation.

    Raises RoleTooLow, MemberNotFound, LastOwner.
    """
    roles = await lock_roles(conn, org_id)
    role = role_in(roles, person_id)
    if by != person_id:
        check_may_grant(role_in(roles, by), role)
    _keep_an_owner(roles, person_id)
    await (await driver(conn)).execute("delete from members where org_id = $1 and person_id = $2", org_id, person_id)
    return role


async def add_member(conn: AsyncConnection, org_id: UUID, person_id: UUID, role: Role, *, now: datetime) -> None:
    """Make a person a member. `conn` is a session of theirs in that organisation.

    Raises AlreadyMember.
    """
    added = await (await driver(conn)).fetchval(
        "insert into members (org_id, person_id, role, created_at) values ($1, $2, $3, $4) "
        "on conflict (org_id, person_id) do nothing returning 1",
        org_id,
        person_id,
        role,
        now,
    )
    if not added:
        raise AlreadyMember("An owner or admin changes your role, where it should be another one.")


async def lock_roles(conn: AsyncConnection, org_id: UUID) -> dict[UUID, Role]:
    """Every member's role, unchanged until the transaction ends: of two owners who leave at once, one stays.

    `conn` is a session in that organisation.
    """
    await lock_organisation(conn, org_id)
    records = await fetch(conn, "select person_id, role from members where org_id = $1", org_id)
    return {UUID(int=record["person_id"].int): record["role"] for record in records}


def role_in(roles: dict[UUID, Role], person_id: UUID) -> Role:
    """The role of a member among those. Raises MemberNotFound."""
    if person_id not in roles:
        raise MemberNotFound("Nobody like that belongs to the organisation any more. Load the list again.")
    return roles[person_id]


def _keep_an_owner(roles: dict[UUID, Role], person_id: UUID) -> None:
    if not [other for other, role in roles.items() if role == "owner" and other != person_id]:
        raise LastOwner("Make somebody else an owner first.")
