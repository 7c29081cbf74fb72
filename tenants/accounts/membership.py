"""Membership: who is invited to an organisation and joins it, whose role changes, and who leaves."""

from datetime import datetime
from functools import partial
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.clock import Clock
from infra.db import Database
from infra.ids import uuid7
from infra.secret import Secret
from tenants.accounts.attempts import Knock
from tenants.accounts.doors import Doors
from tenants.accounts.email import hash_email, normalise
from tenants.accounts.holdings import CheckRoom, load_holdings, lock_organisation
from tenants.accounts.invitations import (
    Invitation,
    InvitationNotFound,
    close_invitation,
    find_invitation,
    get_invitation,
    store_invitation,
    take_back,
    withdrawn,
)
from tenants.accounts.members import (
    add_member,
    check_may_grant,
    lock_roles,
    may_grant,
    remove_member,
    role_in,
    set_role,
)
from tenants.accounts.organisations import name_of_organisation
from tenants.accounts.outbox import About, queue_mail
from tenants.accounts.passwords import check_password
from tenants.accounts.people import add_person, find_person
from tenants.accounts.roles import ROLES, Role
from tenants.accounts.sessions import SignedIn
from tenants.accounts.tokens import Token, get_token, spend_token
from tenants.accounts.trail import note_membership


class Invited(Struct, frozen=True, kw_only=True):
    """An invitation, as its link shows it."""

    email: str
    organisation: str
    role: Role
    has_account: bool


class Memberships:
    """One per process."""

    def __init__(self, database: Database, doors: Doors, *, secret: Secret, clock: Clock, room: CheckRoom) -> None:
        """`room`: whether one more member fits the plan."""
        self._database = database
        self._doors = doors
        self._secret = secret
        self._clock = clock
        self._room = room
        self._note = partial(note_membership, secret=secret)

    async def invite(self, person_id: UUID, org_id: UUID, email: str, role: Role, knock: Knock) -> None:
        """Mail an invitation; one to the same address that is open already is renewed, with this role.

        Raises RoleTooLow, MemberNotFound, InvalidEmail, TooManyAttempts, ProofNeeded, BadProof, and what `room` does.
        """
        address = normalise(email)
        now = await self._admit(address, knock)
        async with self._database.person_session(person_id, org_id=org_id) as conn:
            roles = await lock_roles(conn, org_id)
            before = await find_invitation(conn, org_id, address, now=now)
            check_may_grant(role_in(roles, person_id), role, *([] if before is None else [before.role]))
            if before is None:
                held = await load_holdings(conn, org_id, now=now)
                self._room(held.plans, "members", held.invited)
            await self._mail(conn, person_id, org_id, address, role, knock, now=now, before=before)

    async def send_again(self, person_id: UUID, org_id: UUID, invitation_id: UUID, knock: Knock) -> None:
        """Mail an open invitation once more; it holds for seven days from now.

        Raises RoleTooLow, MemberNotFound, InvitationNotFound, TooManyAttempts, ProofNeeded, BadProof.
        """
        async with self._database.person_session(person_id, org_id=org_id) as conn:
            address = (await get_invitation(conn, org_id, invitation_id, now=self._clock())).email
        now = await self._admit(address, knock)
        async with self._database.person_session(person_id, org_id=org_id) as conn:
            roles = await lock_roles(conn, org_id)
            before = await get_invitation(conn, org_id, invitation_id, now=now)
            check_may_grant(role_in(roles, person_id), before.role)
            await self._mail(conn, person_id, org_id, before.email, before.role, knock, now=now, before=before)

    async def withdraw(self, person_id: UUID, org_id: UUID, invitation_id: UUID, knock: Knock) -> None:
        """Take an open invitation back; its links are good for nothing from now on.

        Raises RoleTooLow, MemberNotFound, InvitationNotFound.
        """
        now = self._clock()
        async with self._database.person_session(person_id, org_id=org_id) as conn:
            roles = await lock_roles(conn, org_id)
            before = await get_invitation(conn, org_id, invitation_id, now=now)
            check_may_grant(role_in(roles, person_id), before.role)
            role = await close_invitation(conn, org_id, invitation_id)
            await self._note(conn, person_id, "member.withdraw", invitation_id, {"role": role}, knock, now)

    async def look_at(self, token: str) -> Invited:
        """What an invitation is to. Raises LinkUnknown, LinkUsed, LinkExpired, InvitationWithdrawn."""
        now = self._clock()
        async with self._database.person_session() as conn:
            good, email, org_id = await self._good(conn, token, now)
            person = await find_person(conn, *self._doors.hashes_of(email))
        async with self._database.person_session(org_id=org_id) as conn:
            name = await name_of_organisation(conn, org_id)
            role = good.role
            if good.invitation_id is not None:
                try:
                    role = (await get_invitation(conn, org_id, good.invitation_id, now=now)).role
                except InvitationNotFound as error:
                    raise withdrawn() from error
        assert role is not None  # the table has one of every invitation
        return Invited(email=email, organisation=name or "", role=role, has_account=person is not None)

    async def accept(self, token: str, person_id: UUID, knock: Knock) -> None:
        """Join the organisation that the token invites to.

        Raises LinkUnknown, LinkUsed, LinkExpired, InvitationWithdrawn, AlreadyMember, TooManyAttempts, and
        what `room` does.
        """
        now = self._clock()
        await self._doors.attempts.admit("link", network=knock.network, now=now)
        async with self._database.person_session() as conn:
            good, _, org_id = await self._good(conn, token, now)
        async with self._database.person_session(person_id, org_id=org_id) as conn:
            await self._join(conn, good, org_id, person_id, knock, now)

    async def join(self, token: str, password: str, knock: Knock) -> SignedIn:
        """Make an account for the address that was invited, and join: the link has proved that it is theirs.

        Raises LinkUnknown, LinkUsed, LinkExpired, InvitationWithdrawn, WeakPassword, EmailTaken, SignupClosed,
        SsoRequired, TooManyAttempts, PasswordsBusy, and what `room` does.
        """
        if self._doors.signup == "closed":
            self._doors.check_open()
        now = self._clock()
        await self._doors.attempts.admit("link", network=knock.network, now=now)
        async with self._database.person_session() as conn:
            good, email, org_id = await self._good(conn, token, now)
        self._doors.check_way(email)
        check_password(password, email=email)
        password_hash = await self._doors.passwords.hash(password)
        person_id = uuid7()
        async with self._database.person_session(person_id, org_id=org_id) as conn:
            await self._doors.check_free(conn, email)
            await add_person(conn, person_id, email, hash_email(self._secret.current, email), password_hash, now=now)
            await self._join(conn, good, org_id, person_id, knock, now)
        return SignedIn(person_id=person_id, method="invitation", credentials=0)

    async def change_role(self, by: UUID, org_id: UUID, person_id: UUID, role: Role, knock: Knock) -> None:
        """Change a member's role; it holds with their next request, and takes back what they may invite to no more.

        Raises RoleTooLow, MemberNotFound, LastOwner.
        """
        async with self._database.person_session(by, org_id=org_id) as conn:
            before = await set_role(conn, org_id, person_id, role, by=by)
            details = {"role": role, "before": before}
            details |= await take_back(conn, org_id, person_id, [each for each in ROLES if not may_grant(role, each)])
            await self._note(conn, by, "member.change", person_id, details, knock, self._clock())

    async def remove(self, by: UUID, org_id: UUID, person_id: UUID, knock: Knock) -> None:
        """Remove a member, or leave; the invitations that they sent go with them, lest one is their way back.

        Raises RoleTooLow, MemberNotFound, LastOwner.
        """
        async with self._database.person_session(by, org_id=org_id) as conn:
            role = await remove_member(conn, org_id, person_id, by=by)
            details = {"role": role, **await take_back(conn, org_id, person_id, ROLES)}
            action = "member.leave" if by == person_id else "member.remove"
            await self._note(conn, by, action, person_id, details, knock, self._clock())

    async def _admit(self, address: str, knock: Knock) -> datetime:
        now = self._clock()
        email_hash = hash_email(self._secret.current, address)
        await self._doors.attempts.admit("mail", email_hash, network=knock.network, now=now, proof=knock.proof)
        return now

    async def _good(self, conn: AsyncConnection, token: str, now: datetime) -> tuple[Token, str, UUID]:
        """The token of an invitation's link, its address and its organisation."""
        good = await get_token(conn, token, "invitation", now=now)
        assert good.email is not None
        assert good.org_id is not None
        return good, good.email, UUID(int=good.org_id.int)

    async def _mail(
        self,
        conn: AsyncConnection,
        person_id: UUID,
        org_id: UUID,
        address: str,
        role: Role,
        knock: Knock,
        *,
        now: datetime,
        before: Invitation | None,
    ) -> None:
        """Store the invitation, ask for its mail, and note it. The organisation is locked."""
        invitation_id = await store_invitation(conn, org_id, address, role, by=person_id, now=now, before=before)
        about = About(org_id=org_id, role=role, invitation_id=invitation_id)
        await queue_mail(conn, "invitation", address, now=now, about=about)
        details = {"role": role, "again": before is not None}
        await self._note(conn, person_id, "member.invite", invitation_id, details, knock, now)

    async def _join(
        self, conn: AsyncConnection, good: Token, org_id: UUID, person_id: UUID, knock: Knock, now: datetime
    ) -> None:
        """Make a person a member. The organisation is locked first, as whoever changes its members does."""
        await lock_organisation(conn, org_id)
        await spend_token(conn, good, now=now)
        role = good.role
        if good.invitation_id is not None:
            role = await close_invitation(conn, org_id, UUID(int=good.invitation_id.int))
        assert role is not None  # the table has one of every invitation
        # The place was counted when the invitation was sent; the plan may have become smaller since.
        held = await load_holdings(conn, org_id, now=now)
        self._room(held.plans, "members", held.members)
        await add_member(conn, org_id, person_id, role, now=now)
        by = None if good.invitation_id is None else str(good.invitation_id)
        await self._note(conn, person_id, "member.join", person_id, {"role": role, "invitation": by}, knock, now)
