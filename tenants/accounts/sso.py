"""People whom an OpenID Connect provider vouches for: who may come, who must, and where they belong.

A person is known by issuer and subject. An address links the two only once, if the provider says that it is proved:
to the account that has it, or to a new one.
"""

from collections.abc import Set
from datetime import datetime
from uuid import UUID

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import Database, driver
from infra.errors import Conflict, Forbidden
from infra.ids import uuid7
from infra.oidc import Vouched
from infra.secret import Secret
from tenants.accounts.attempts import Knock
from tenants.accounts.departures import returning
from tenants.accounts.email import InvalidEmail, hash_email, normalise
from tenants.accounts.holdings import CheckRoom, load_holdings, lock_organisation
from tenants.accounts.invitations import find_invitation
from tenants.accounts.members import add_member
from tenants.accounts.organisations import add_organisation, name_of_organisation
from tenants.accounts.people import Person, add_person, find_person, get_person
from tenants.accounts.roles import Role
from tenants.accounts.sessions import SignedIn
from tenants.accounts.trail import note_membership

_log = structlog.get_logger(__name__)


class SsoRequired(Forbidden):
    """People of this domain sign in with their organisation's provider, and in no other way."""

    code = "sso_required"
    title = "Sign in with your organisation"


class SsoNotAllowed(Forbidden):
    """The provider vouches for somebody who has no proved address of a domain that may sign in here."""

    code = "sso_not_allowed"
    title = "You may not sign in here"


class SsoIdentityTaken(Conflict):
    """The account with this address belongs to somebody else at the provider, or was made at this very moment."""

    code = "sso_identity_taken"
    title = "The address belongs to another account"


class SsoOrganisationMissing(Conflict):
    """KINDRED_OIDC_ORGANISATION names no organisation of this installation."""

    code = "sso_organisation_missing"
    title = "The organisation to join does not exist"


class SsoLeft(Forbidden):
    """Whoever was removed from the organisation, or left it, does not come back by making the account anew."""

    code = "sso_left"
    title = "You do not belong to the organisation any more"


class SsoRules(Struct, frozen=True, kw_only=True):
    """What the operator decided. `organisation`: that newcomers join; None: the provider's own."""

    name: str
    domains: Set[str]
    role: Role
    organisation: UUID | None = None

    def covers(self, address: str) -> bool:
        """Whether the owner of the address signs in with the provider."""
        return address.rpartition("@")[2].lower() in self.domains

    def refuse(self, address: str) -> None:
        """Raises SsoRequired for an address that no other way is open to, whether it has an account or not."""
        if self.covers(address):
            raise SsoRequired(f"People of this domain sign in with {self.name}: use its button at /signin.")


async def arrive(
    database: Database,
    rules: SsoRules,
    vouched: Vouched,
    knock: Knock,
    *,
    secret: Secret,
    now: datetime,
    room: CheckRoom | None = None,
) -> SignedIn:
    """Who that is here; somebody who comes for the first time is linked, or made.

    `room`: whether one more member fits the plan. Whoever has left the organisation joins it by an invitation alone.
    Raises SsoNotAllowed, SsoIdentityTaken, SsoOrganisationMissing, SsoLeft, and what `room` does.
    """
    address = _allowed(rules, vouched)
    async with database.person_session() as conn:
        raw = await driver(conn)
        known = await raw.fetchval("select person_id from find_identity($1, $2)", vouched.issuer, vouched.subject)
        person = await find_person(conn, *(hash_email(each, address) for each in secret.every))
        own_org = await raw.fetchval("select organisation_of_issuer($1)", vouched.issuer)
    if known is not None:
        person_id = UUID(int=known.int)
        async with database.person_session(person_id) as conn:
            person = await get_person(conn, person_id)
        assert person is not None  # an identity goes with its person
        return _signed_in(person)
    if person is not None and not rules.covers(person.email):
        raise _taken()
    if person is not None:
        async with database.person_session(person.person_id) as conn:
            await _link(conn, vouched, person.person_id, now)
        _log.info("person.linked", person_id=str(person.person_id))
        return _signed_in(person)
    joined = rules.organisation or (None if own_org is None else UUID(int=own_org.int))
    person_id, org_id = uuid7(), joined or uuid7()
    async with database.person_session(person_id, org_id=org_id) as conn:
        await add_person(conn, person_id, address, hash_email(secret.current, address), None, now=now)
        await _link(conn, vouched, person_id, now)
        if joined is None:
            await _found(conn, vouched.issuer, org_id, address.rpartition("@")[2], person_id, now)
        else:
            role = await returning(conn, org_id, vouched.issuer, vouched.subject, rules.role, secret=secret)
            if role is not None:
                await _join(conn, org_id, person_id, role, now, room)
                details = {"role": role, "invitation": None}
                await note_membership(conn, person_id, "member.join", person_id, details, knock, now, secret=secret)
            elif await find_invitation(conn, org_id, address, now=now) is None:
                name = await name_of_organisation(conn, org_id)
                raise SsoLeft(f"You left “{name}”, or somebody removed you from it; ask an owner to invite you.")
    _log.info("person.arrived", person_id=str(person_id), org_id=str(org_id))
    return SignedIn(person_id=person_id, method="oidc", credentials=0)


def _signed_in(person: Person) -> SignedIn:
    return SignedIn(person_id=person.person_id, method="oidc", credentials=person.credentials)


def _allowed(rules: SsoRules, vouched: Vouched) -> str:
    if vouched.email is None:
        raise SsoNotAllowed(
            "The provider told no e-mail address of yours. Whoever runs the provider has to let this installation have "
            "the scope “email”."
        )
    if not vouched.email_verified:
        raise SsoNotAllowed(
            "The provider does not say that your e-mail address is proved (`email_verified`). Prove it there, or ask "
            "who runs the provider; then sign in again."
        )
    try:
        address = normalise(vouched.email)
    except InvalidEmail as error:
        raise SsoNotAllowed("The provider told something else than an e-mail address. Ask who runs it.") from error
    if not rules.covers(address):
        raise SsoNotAllowed(
            "Your e-mail address is of no domain that may sign in here. Sign in at the provider with another account, "
            "or ask whoever runs this installation."
        )
    return address


async def _link(conn: AsyncConnection, vouched: Vouched, person_id: UUID, now: datetime) -> None:
    """An address that moved on to somebody else at the provider does not bring its account along."""
    linked = await (await driver(conn)).fetchval(
        "insert into identities (issuer, subject, person_id, created_at) values ($1, $2, $3, $4) "
        "on conflict do nothing returning 1",
        vouched.issuer,
        vouched.subject,
        person_id,
        now,
    )
    if not linked:
        raise _taken()


def _taken() -> SsoIdentityTaken:
    return SsoIdentityTaken(
        "The account with your e-mail address is of somebody else at the provider. Ask whoever runs this "
        "installation; if you have only just signed in for the first time, in another window, sign in again."
    )


async def _found(conn: AsyncConnection, issuer: str, org_id: UUID, name: str, person_id: UUID, now: datetime) -> None:
    await add_organisation(conn, org_id, name, person_id, now=now)
    first = await (await driver(conn)).fetchval(
        "insert into sso_organisations (issuer, org_id, created_at) values ($1, $2, $3) "
        "on conflict do nothing returning 1",
        issuer,
        org_id,
        now,
    )
    if not first:
        raise SsoIdentityTaken("Somebody else of your organisation signed in at the same moment. Sign in again.")


async def _join(
    conn: AsyncConnection, org_id: UUID, person_id: UUID, role: Role, now: datetime, room: CheckRoom | None
) -> None:
    if not await lock_organisation(conn, org_id):
        raise SsoOrganisationMissing(
            "Whoever runs this installation has to set KINDRED_OIDC_ORGANISATION to an organisation that there is."
        )
    if room is not None:
        held = await load_holdings(conn, org_id, now=now)
        room(held.plans, "members", held.invited)
    await add_member(conn, org_id, person_id, role, now=now)
