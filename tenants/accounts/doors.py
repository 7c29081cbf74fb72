"""The doors: signing up, proving an address, signing in, and what a person changes of their account.

Each door counts who knocks, does the same work whoever it is, and leaves to the mail what only the owner of an address
may learn. What comes out of one is a `SignedIn`; `begin` makes it a session.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.clock import Clock
from infra.db import Database, TenantId
from infra.errors import Forbidden, Invalid
from infra.ids import uuid7
from infra.oidc import Vouched
from infra.secret import Secret
from tenants.accounts.address_changes import (
    ask_change,
    end_asked,
    end_since,
    get_asked,
    get_former,
    keep_former,
)
from tenants.accounts.attempts import Attempts, Deed, Knock
from tenants.accounts.email import hash_email, normalise
from tenants.accounts.holdings import CheckRoom
from tenants.accounts.outbox import About, queue_mail
from tenants.accounts.passwords import Passwords, check_password
from tenants.accounts.people import (
    EmailTaken,
    Person,
    SignInFailed,
    drop_password,
    email_taken,
    find_person,
    get_person,
    hold_person,
    rehash_password,
    set_email,
    set_password,
)
from tenants.accounts.second_step import drop_second_step
from tenants.accounts.sessions import Session, SignedIn, begin_session, end_sessions
from tenants.accounts.signup import (
    DEFAULT_SHOP,
    Welcome,
    ask_for_account,
    get_signup,
    is_same_browser,
    make_account,
)
from tenants.accounts.sso import SsoRules, arrive
from tenants.accounts.tokens import Token, TokenKind, get_token, owner_of, spend_token, void_tokens
from tenants.lifecycle import check_name, tidy_name

_log = structlog.get_logger(__name__)


class SignupClosed(Forbidden):
    """This installation takes no new accounts, or only of people who are invited."""

    code = "signup_closed"
    title = "Nobody can sign up here"


class PasswordNeeded(Invalid):
    """The address was proved in another browser than the one that signed up, so the password is chosen now."""

    code = "password_needed"
    title = "Choose a password"


class Asked(Struct, frozen=True, kw_only=True):
    """An account that waits to be verified, as the page shows it."""

    email: str
    shop_name: str
    needs_password: bool


_SAME: Final = "The address, or the password, is not right. Type both again, or ask for a link to sign in without it."


class Doors:
    """One per process."""

    def __init__(
        self,
        database: Database,
        *,
        secret: Secret,
        cell: str,
        signup: str,
        clock: Clock,
        passwords: Passwords | None = None,
        sso: SsoRules | None = None,
        room: CheckRoom | None = None,
    ) -> None:
        """`signup`: open, invite or closed. `sso`: who signs in with a provider, and so not by these doors.

        `room`: whether the plan has room for who joins by the provider; None where nothing is limited.
        """
        self._database = database
        self._secret = secret
        self._cell = cell
        self._clock = clock
        self.signup = signup
        self.sso = sso
        self._room = room
        self.attempts = Attempts(database, secret=secret)
        self.passwords = passwords or Passwords()

    def check_open(self) -> None:
        """Raises SignupClosed."""
        if self.signup == "invite":
            raise SignupClosed("Accounts are by invitation here: ask somebody who has one to invite you.")
        if self.signup != "open":
            raise SignupClosed("Ask whoever runs this installation for an account.")

    async def sign_up(
        self,
        email: str,
        password: str,
        shop_name: str | None,
        knock: Knock,
        *,
        currency: str,
        browser: str | None,
    ) -> None:
        """Ask for an account; the mail says the rest. `browser`: what its cookie holds.

        Raises SignupClosed, InvalidEmail, WeakPassword, InvalidTenant, TooManyAttempts, ProofNeeded, BadProof,
        PasswordsBusy.
        """
        self.check_open()
        address = normalise(email)
        self.check_way(address)
        check_password(password, email=address)
        name = tidy_name(shop_name or "") or DEFAULT_SHOP
        check_name(name, currency, field="shop_name")  # here, since the link makes the shop and can only fail
        now = self._clock()
        email_hash = hash_email(self._secret.current, address)
        await self.attempts.admit("signup", email_hash, network=knock.network, now=now, proof=knock.proof)
        password_hash = await self.passwords.hash(password)
        async with self._database.person_session() as conn:
            await ask_for_account(
                conn,
                address,
                email_hash,
                password_hash,
                name,
                currency=currency,
                browser=browser,
                now=now,
            )

    async def look_at_signup(self, token: str, *, browser: str | None) -> Asked:
        """What the token would verify. Raises LinkUnknown, LinkUsed, LinkExpired."""
        async with self._database.person_session() as conn:
            signup = await get_signup(conn, await get_token(conn, token, "verify", now=self._clock()))
        return Asked(
            email=signup.email,
            shop_name=signup.shop_name,
            needs_password=browser is None or not is_same_browser(signup, browser),
        )

    async def verify(self, token: str, knock: Knock, *, password: str | None, browser: str | None) -> Welcome:
        """Make the account: the person, their organisation and its first shop, whose keys are told this once.

        Raises LinkUnknown, LinkUsed, LinkExpired, PasswordNeeded, WeakPassword, EmailTaken, TooManyAttempts.
        """
        good, now = await self._open_link(token, "verify", knock)
        async with self._database.person_session() as conn:
            signup = await get_signup(conn, good)
        self.check_way(signup.email)
        if password is not None:
            check_password(password, email=signup.email)
            password_hash = await self.passwords.hash(password)
        elif browser is not None and is_same_browser(signup, browser):
            password_hash = signup.password_hash
        else:
            raise PasswordNeeded("This is another browser than the one that signed up: choose the password here.")
        person_id, org_id, tenant_id = uuid7(), uuid7(), TenantId(uuid7())
        async with self._database.person_session(person_id, org_id=org_id, tenant_id=tenant_id) as conn:
            await self.check_free(conn, signup.email)
            welcome = await make_account(
                conn,
                good,
                signup,
                password_hash,
                person_id=person_id,
                org_id=org_id,
                tenant_id=tenant_id,
                secret=self._secret.current,
                cell=self._cell,
                now=now,
                knock=knock,
            )
        _log.info("account.made", person_id=str(person_id), tenant_id=str(tenant_id))
        return welcome

    async def sign_in(self, email: str, password: str, knock: Knock) -> SignedIn:
        """Raises SignInFailed, InvalidEmail, TooManyAttempts, ProofNeeded, BadProof, PasswordsBusy."""
        address = normalise(email)
        self.check_way(address)
        email_hash = hash_email(self._secret.current, address)
        await self.attempts.admit("sign_in", email_hash, network=knock.network, now=self._clock(), proof=knock.proof)
        async with self._database.person_session() as conn:
            person = await find_person(conn, *self.hashes_of(address))
        stored = None if person is None else person.password_hash
        if not await self.passwords.matches(stored, password) or person is None or stored is None:
            raise SignInFailed(_SAME)
        if self.passwords.is_stale(stored):
            fresh = await self.passwords.hash(password)
            async with self._database.person_session(person.person_id) as conn:
                await rehash_password(conn, person, fresh)
        return SignedIn(person_id=person.person_id, method="password", credentials=person.credentials)

    async def mail_link(self, email: str, knock: Knock, *, to_reset: bool) -> None:
        """Ask for a link to sign in without a password, or to choose a new one; the mail comes if there is an account.

        Raises InvalidEmail, TooManyAttempts, ProofNeeded, BadProof.
        """
        address = normalise(email)
        self.check_way(address)
        now = self._clock()
        email_hash = hash_email(self._secret.current, address)
        await self.attempts.admit("mail", email_hash, network=knock.network, now=now, proof=knock.proof)
        async with self._database.person_session() as conn:
            await queue_mail(conn, "reset" if to_reset else "magic_link", address, now=now)

    async def open_magic_link(self, token: str, knock: Knock) -> SignedIn:
        """Raises LinkUnknown, LinkUsed, LinkExpired, TooManyAttempts."""
        good, now = await self._open_link(token, "magic_link", knock)
        async with self._database.person_session() as conn:
            await spend_token(conn, good, now=now)
        person_id, credentials = owner_of(good)
        return SignedIn(person_id=person_id, method="magic_link", credentials=credentials)

    async def check_link(self, token: str, *, to_reset: bool) -> None:
        """Whether a link is good, without using it. Raises LinkUnknown, LinkUsed, LinkExpired."""
        async with self._database.person_session() as conn:
            await get_token(conn, token, "reset" if to_reset else "magic_link", now=self._clock())

    async def reset_password(self, token: str, password: str, knock: Knock) -> SignedIn:
        """Choose a new password by a link; every session of the person ends.

        Raises LinkUnknown, LinkUsed, LinkExpired, WeakPassword, TooManyAttempts, PasswordsBusy.
        """
        good, now = await self._open_link(token, "reset", knock)
        person_id, credentials = owner_of(good)
        async with self._database.person_session(person_id) as conn:
            person = await hold_person(conn, person_id, credentials)
        check_password(password, email=person.email)
        password_hash = await self.passwords.hash(password)
        async with self._database.person_session(person_id) as conn:
            person = await hold_person(conn, person_id, credentials)
            await spend_token(conn, good, now=now)
            self.check_way(person.email)
            credentials = await self._replace_password(conn, person, password_hash, now)
        return SignedIn(person_id=person_id, method="reset", credentials=credentials)

    async def change_password(self, person_id: UUID, old: str, new: str, knock: Knock, *, session_id: UUID) -> None:
        """Change the password by the old one; every other session ends.

        Raises SignInFailed, WeakPassword, TooManyAttempts, ProofNeeded, PasswordsBusy.
        """
        now = self._clock()
        person = await self.confirm_password(person_id, old, knock)
        check_password(new, email=person.email)
        password_hash = await self.passwords.hash(new)
        async with self._database.person_session(person_id) as conn:
            person = await hold_person(conn, person_id, person.credentials)
            await self._replace_password(conn, person, password_hash, now, but=session_id)

    async def _replace_password(
        self, conn: AsyncConnection, person: Person, password_hash: str, now: datetime, *, but: UUID | None = None
    ) -> int:
        """Whatever the old one opened ends: sessions `but` one, links, a change of address. The new credentials."""
        credentials = await set_password(conn, person, password_hash)
        await end_sessions(conn, person.person_id, but=but)
        await void_tokens(conn, "reset", "magic_link", now=now)
        await end_asked(conn, person.person_id)
        await queue_mail(conn, "notice", person.email, now=now, about=About(note="password_changed"))
        return credentials

    async def change_email(self, person_id: UUID, password: str, email: str, knock: Knock) -> None:
        """Ask for another address: the mail to it has a link that confirms it. The present one is told.

        Raises SignInFailed, InvalidEmail, TooManyAttempts, ProofNeeded, BadProof, PasswordsBusy.
        """
        address = normalise(email)
        self.check_way(address)
        now = self._clock()
        # One deed, since one form can pay for one.
        person = await self.confirm_password(
            person_id, password, knock, "change_email", hash_email(self._secret.current, address)
        )
        async with self._database.person_session(person_id) as conn:
            await hold_person(conn, person_id, person.credentials)
            about = About(person_id=person_id, change_id=await ask_change(conn, person_id, address, now=now))
            await queue_mail(conn, "email_change", address, now=now, about=about)
            about = About(person_id=person_id, note="email_asked")
            await queue_mail(conn, "notice", person.email, now=now, about=about)

    async def confirm_email(self, token: str, knock: Knock) -> str:
        """Make the address of the link the account's; returns it. The old one is told, and can take it back.

        Raises LinkUnknown, LinkUsed, LinkExpired, EmailTaken, TooManyAttempts.
        """
        good, now = await self._open_link(token, "email_change", knock)
        person_id, credentials = owner_of(good)
        async with self._database.person_session(person_id) as conn:
            person = await hold_person(conn, person_id, credentials)
            await spend_token(conn, good, now=now)
            email = await get_asked(conn, person_id, good.change_id)
            await self.check_free(conn, email, but=person_id)
            made = await set_email(conn, person_id, email, hash_email(self._secret.current, email))
            await keep_former(conn, person_id, good.change_id, person.email, made, now=now)
            await void_tokens(conn, "reset", "magic_link", now=now)
            about = About(person_id=person_id, change_id=good.change_id)
            await queue_mail(conn, "take_back", person.email, now=now, about=about)
        return email

    async def look_at_former(self, token: str) -> str:
        """The address that a link makes the account's again. Raises LinkUnknown, LinkUsed, LinkExpired."""
        async with self._database.person_session() as conn:
            good = await get_token(conn, token, "take_back", now=self._clock())
        person_id, _ = owner_of(good)
        async with self._database.person_session(person_id) as conn:
            return (await get_former(conn, person_id, good.change_id)).email

    async def take_back(self, token: str, knock: Knock) -> tuple[UUID, str]:
        """Make the address of before a change the account's again; whose account, and the address.

        Whatever else somebody may have done to keep the account ends: the password, every session, a second step that
        was turned on since the change was asked for, all other links. The mail to choose a new password is on its way.
        Raises LinkUnknown, LinkUsed, LinkExpired, EmailTaken, TooManyAttempts.
        """
        good, now = await self._open_link(token, "take_back", knock)
        person_id, _ = owner_of(good)
        async with self._database.person_session(person_id) as conn:
            # Their present credentials may be of whoever this is against.
            person = await hold_person(conn, person_id, None)
            await spend_token(conn, good, now=now)
            former = await get_former(conn, person_id, good.change_id)
            try:
                await self.check_free(conn, former.email, but=person_id)
            except EmailTaken as error:
                said = "Delete the account that this address has by now, then open the link of the mail again."
                raise EmailTaken(said) from error
            await set_email(conn, person_id, former.email, hash_email(self._secret.current, former.email))
            await drop_password(conn, person_id)
            # Sessions first: one that turns a second step on at this moment is waited for.
            await end_sessions(conn, person_id)
            await drop_second_step(conn, person_id, since=former.asked_at)
            await void_tokens(conn, "reset", "magic_link", now=now)
            await end_since(conn, person_id, former)
            about = About(person_id=person_id, note="email_changed")
            await queue_mail(conn, "notice", person.email, now=now, about=about)
            await queue_mail(conn, "reset", former.email, now=now)
        _log.info("account.taken_back", person_id=str(person_id))
        return person_id, former.email

    async def arrive(self, vouched: Vouched, knock: Knock) -> SignedIn:
        """Come in with the provider's word. Raises what `sso.arrive` and `room` raise, TooManyAttempts."""
        assert self.sso is not None  # a provider is configured with its rules
        now = self._clock()
        await self.attempts.admit("link", network=knock.network, now=now)
        return await arrive(self._database, self.sso, vouched, knock, secret=self._secret, now=now, room=self._room)

    async def _open_link(self, token: str, kind: TokenKind, knock: Knock) -> tuple[Token, datetime]:
        """What a link stands for, and now; it is spent with what it is for."""
        now = self._clock()
        await self.attempts.admit("link", network=knock.network, now=now)
        async with self._database.person_session() as conn:
            return await get_token(conn, token, kind, now=now), now

    def hashes_of(self, address: str) -> tuple[bytes, ...]:
        """What the address may be known under: while the secret is changed, under another than the current one."""
        return tuple(hash_email(each, address) for each in self._secret.every)

    async def check_free(self, conn: AsyncConnection, address: str, *, but: UUID | None = None) -> None:
        """No account has the address, under no secret that is believed. Raises EmailTaken."""
        other = await find_person(conn, *self.hashes_of(address))
        if other is not None and other.person_id != but:
            raise email_taken()

    async def begin(self, signed_in: SignedIn, *, browser: str) -> str:
        """The secret of a new session. Who asks for a second step does so before. Raises SsoRequired, SignInFailed."""
        async with self._database.person_session(signed_in.person_id) as conn:
            if self.sso is not None and signed_in.method != "oidc":
                person = await get_person(conn, signed_in.person_id)
                if person is not None:
                    self.check_way(person.email)
            return await begin_session(conn, signed_in, browser=browser, now=self._clock())

    async def end(self, session: Session) -> None:
        """Sign out."""
        async with self._database.person_session(session.person_id) as conn:
            await end_sessions(conn, session.person_id, only=session.session_id)

    def check_way(self, address: str) -> None:
        """Whether the owner of this address may use these doors at all. Raises SsoRequired."""
        if self.sso is not None:
            self.sso.refuse(address)

    async def confirm_password(
        self, person_id: UUID, password: str, knock: Knock, deed: Deed = "sign_in", *addresses: bytes
    ) -> Person:
        """The person, once their password is checked again, for a deed that is about these others too.

        Raises SignInFailed, SsoRequired, TooManyAttempts, ProofNeeded, BadProof, PasswordsBusy.
        """
        async with self._database.person_session(person_id) as conn:
            person = await get_person(conn, person_id)
        assert person is not None  # there is a session
        self.check_way(person.email)
        await self.attempts.admit(
            deed,
            hash_email(self._secret.current, person.email),
            *addresses,
            network=knock.network,
            now=self._clock(),
            proof=knock.proof,
        )
        if not await self.passwords.matches(person.password_hash, password):
            raise SignInFailed("This is not your password. Type it again; where it is forgotten, choose a new one.")
        return person
