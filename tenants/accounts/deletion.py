"""Accounts deleted by their owners: every row of the person goes; nobody's organisation is left without an owner.

What the audit log says that the person did stays, under an id that leads to nobody any more.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.clock import Clock
from infra.db import Database, TenantId, driver
from infra.errors import Conflict, FieldError, Invalid, Unauthenticated
from infra.secret import Secret
from tenants.accounts import departures
from tenants.accounts.attempts import Knock
from tenants.accounts.doors import Doors
from tenants.accounts.email import is_same_address, normalise
from tenants.accounts.invitations import take_back
from tenants.accounts.members import list_members
from tenants.accounts.organisations import list_memberships, list_shops
from tenants.accounts.outbox import queue_mail
from tenants.accounts.people import get_person
from tenants.accounts.roles import ROLES, Role
from tenants.accounts.sessions import Session
from tenants.audit.log import Actor, network_hash, note

_log = structlog.get_logger(__name__)

FRESH: Final = timedelta(minutes=10)
"""Who has no password deletes the account within so long of signing in."""


class AddressDiffers(Invalid):
    """An account is deleted only by whoever types its address."""

    code = "address_differs"
    title = "This is not the address of the account"


class FreshSignInNeeded(Unauthenticated):
    """The account has no password to ask for, and the session is not of the last minutes."""

    code = "fresh_sign_in_needed"
    title = "Sign in again first"


class StillOwner(Conflict):
    """The person is the only owner of an organisation that has other members, or shops."""

    code = "still_owner"
    title = "An organisation would be left without an owner"


class Standing(Struct, frozen=True, kw_only=True):
    """A person in one organisation: whether it needs them, with how many `others`, and how many shops it has."""

    org_id: UUID
    name: str
    only_owner: bool
    others: int
    shops: int

    @property
    def keeps(self) -> bool:
        """Whether the account cannot go before something is done about this organisation."""
        return self.only_owner and bool(self.others or self.shops)

    @property
    def goes(self) -> bool:
        """Whether the organisation goes with the account: nobody else belongs to it, and it has no shop."""
        return self.only_owner and not self.keeps


class Prospect(Struct, frozen=True, kw_only=True):
    """What a person is told before their account is deleted."""

    needs_password: bool
    is_fresh: bool
    organisations: Sequence[Standing]


class AccountDeletion:
    """One per process."""

    def __init__(self, database: Database, doors: Doors, *, secret: Secret, clock: Clock) -> None:
        self._database = database
        self._doors = doors
        self._secret = secret
        self._clock = clock

    async def look(self, session: Session) -> Prospect:
        """What the deletion of the account would ask for, and what stands in its way."""
        standings = []
        async with self._database.person_session(session.person_id) as conn:
            memberships = await list_memberships(conn, session.person_id)
        for each in memberships:
            async with self._database.person_session(session.person_id, org_id=each.org_id) as conn:
                roles = {member.person_id: member.role for member in await list_members(conn)}
                shops = await list_shops(conn)
            standings.append(_standing(each.org_id, each.name, roles, len(shops), session.person_id))
        return Prospect(
            needs_password=await self._needs_password(session),
            is_fresh=self._is_fresh(session),
            organisations=standings,
        )

    async def delete(self, session: Session, email: str, password: str | None, knock: Knock) -> None:
        """Delete the account of a session, whose owner types its address, and the password where there is one.

        Raises InvalidEmail, AddressDiffers, SignInFailed, FreshSignInNeeded, StillOwner, TooManyAttempts, ProofNeeded,
        BadProof, PasswordsBusy.
        """
        if not is_same_address(normalise(email), session.email):
            said = "Type the address of this account, as it stands on this page."
            raise AddressDiffers(said, errors=[FieldError(pointer="/email", code="address_differs", message=said)])
        if await self._needs_password(session):
            await self._doors.confirm_password(session.person_id, password or "", knock)
        elif not self._is_fresh(session):
            raise FreshSignInNeeded("Sign out and in again, then delete the account within ten minutes.")
        now = self._clock()
        # People's rows are kept from each other; what is to go here lies in many hands.
        async with self._database.system_session(reason="delete an account") as conn:
            await self._leave_all(conn, session.person_id, knock, now)
            await _forget(conn, session.person_id, session.email)
            await queue_mail(conn, "farewell", session.email, now=now)
        _log.info("account.deleted", person_id=str(session.person_id))

    async def _needs_password(self, session: Session) -> bool:
        if self._doors.sso is not None and self._doors.sso.covers(session.email):
            return False
        async with self._database.person_session(session.person_id) as conn:
            person = await get_person(conn, session.person_id)
        assert person is not None  # there is a session
        return person.password_hash is not None

    def _is_fresh(self, session: Session) -> bool:
        return session.created_at + FRESH > self._clock()

    async def _leave_all(self, conn: AsyncConnection, person_id: UUID, knock: Knock, now: datetime) -> None:
        """End every membership, and organisations that nobody else needs. Raises StillOwner."""
        raw = await driver(conn)
        # In one order, whoever else locks several; nobody adds a member or a shop meanwhile.
        organisations: Any = await raw.fetch(
            "select o.org_id, o.name from organisations o where o.org_id in "
            "(select m.org_id from members m where m.person_id = $1) order by o.org_id for update",
            person_id,
        )
        standings: list[Standing] = []
        shops_of: dict[UUID, list[TenantId]] = {}
        own: dict[UUID, Role] = {}
        for record in organisations:
            members = await raw.fetch("select person_id, role from members where org_id = $1", record["org_id"])
            shops = await raw.fetch(
                "select tenant_id from tenants where org_id = $1 and deleted_at is null", record["org_id"]
            )
            roles = {UUID(int=each["person_id"].int): each["role"] for each in members}
            standing = _standing(UUID(int=record["org_id"].int), record["name"], roles, len(shops), person_id)
            standings.append(standing)
            own[standing.org_id] = roles[person_id]
            shops_of[standing.org_id] = [TenantId(each["tenant_id"]) for each in shops]
        kept = [each for each in standings if each.keeps]
        if kept:
            raise StillOwner(
                "You are the only owner of " + ", ".join(f"“{each.name}”" for each in kept) + ". Make somebody else an "
                "owner there, or remove the other members and delete the shops."
            )
        sso = self._doors.sso
        await departures.remember(
            conn,
            person_id,
            own,
            joins=None if sso is None else sso.organisation,
            newcomer=None if sso is None else sso.role,
            secret=self._secret.current,
            now=now,
        )
        for standing in standings:
            details = {"role": own[standing.org_id], **await take_back(conn, standing.org_id, person_id, ROLES)}
            for tenant_id in shops_of[standing.org_id]:
                await note(
                    conn,
                    tenant_id,
                    Actor(kind="person", id=str(person_id)),
                    "member.leave",
                    subject=str(person_id),
                    details=details,
                    network=network_hash(self._secret.current, knock.network),
                    request_id=knock.request_id,
                    now=now,
                )
            if standing.goes:
                # Shops in their days of grace can still be had back, by whoever runs the installation.
                await raw.execute("update tenants set org_id = null where org_id = $1", standing.org_id)
                await raw.execute("delete from organisations where org_id = $1", standing.org_id)


def _standing(org_id: UUID, name: str, roles: dict[UUID, Any], shops: int, person_id: UUID) -> Standing:
    owners = [each for each, role in roles.items() if role == "owner"]
    return Standing(org_id=org_id, name=name, only_owner=owners == [person_id], others=len(roles) - 1, shops=shops)


async def _forget(conn: AsyncConnection, person_id: UUID, email: str) -> None:
    """Delete every row that holds the person or the address, which somebody may have typed in another case.

    Mails go first: a worker that has one in hand holds it, and may be about to make a token of the person.
    """
    raw = await driver(conn)
    await raw.execute(
        "delete from mails where lower(address) = lower($1) or about ->> 'person_id' = $2", email, str(person_id)
    )
    for table in ("one_time_tokens", "signups", "invitations", "address_changes"):
        await raw.execute(f"delete from {table} where lower(email) = lower($1)", email)
    # Sessions, the second step, identities, memberships and tokens go with it.
    await raw.execute("delete from people where person_id = $1", person_id)
