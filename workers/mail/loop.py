"""Sends the mails of the outbox: one after the other, each until it is taken or its link would be dead."""

import asyncio
import random
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, Literal, assert_never

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.clock import Clock, utc_now
from infra.db import Database
from infra.errors import KindredError
from infra.mail import Mail, Mailer, MailRefused
from infra.secret import Secret
from infra.telemetry import Children, counter
from tenants.accounts.address_changes import is_open_change
from tenants.accounts.email import hash_email
from tenants.accounts.invitations import is_open
from tenants.accounts.organisations import name_of_organisation
from tenants.accounts.outbox import KEPT, LIFE, QueuedMail, claim_mail, finish_mail, forget_mail, postpone_mail
from tenants.accounts.people import Person, find_owner
from tenants.accounts.signup import shop_of_signup
from tenants.accounts.tokens import TokenKind, derive_token, hash_token, store_token
from workers.mail import letters
from workers.mail.letters import Letter

log = structlog.get_logger(__name__)

_IDLE_S: Final = 0.5
_FIRST_S: Final = 2.0
_LONGEST_S: Final = 300.0
_FORGOTTEN: Final = frozenset({"farewell", "take_back"})
"""Mails to an address that is nobody's any more: each goes as soon as it has ended."""

mails_sent: Final = Children(counter("mails_total", "Mails by how they ended.", ["kind", "status"]))


class MailLoop:
    """One mail at a time; several loops may run at once. A mail may be sent twice, after a crash: with one link."""

    def __init__(
        self,
        database: Database,
        mailer: Mailer,
        *,
        secret: Secret,
        origin: str,
        clock: Clock = utc_now,
    ) -> None:
        """`origin`: where people reach the installation, as `https://kindred.example`."""
        self._database = database
        self._mailer = mailer
        self._secret = secret
        self._origin = origin
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; the mail in hand is finished."""
        while not stop.is_set():
            if not await self.step():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _IDLE_S)

    async def step(self) -> bool:
        """One mail; False when none was due."""
        now = self._clock()
        async with self._database.system_session(reason="claim a mail") as conn:
            mail = await claim_mail(conn, now)
            if mail is None:
                return False
            # A kind that is not known here is of a newer release, whose worker is about to come.
            if mail.created_at + LIFE.get(mail.kind, KEPT) <= now:
                await self._end(conn, mail, "failed")
                return True
            try:
                async with conn.begin_nested():
                    written = await self._write(conn, mail, now)
            except Exception as error:
                # Were the claim rolled back with it, this mail would be the next one for ever.
                log.error("mail.unwritten", mail_id=str(mail.mail_id), kind=mail.kind, error=type(error).__name__)
                await self._postpone(conn, mail)
                return True
            if written is None:
                await self._end(conn, mail, "dropped")
                return True
        await self._send(mail, *written)
        return True

    async def _send(self, mail: QueuedMail, to: str, letter: Letter) -> None:
        made = Mail(mail_id=str(mail.mail_id), to=to, subject=letter.subject, text=letter.text, html=letter.html)
        try:
            await self._mailer.send(made)
        except Exception as error:
            told = error.code if isinstance(error, KindredError) else type(error).__name__
            dead = isinstance(error, MailRefused)
            # What the server answered may name the address: the code alone is logged.
            log.warning(
                "mail.refused" if dead else "mail.postponed", mail_id=str(mail.mail_id), kind=mail.kind, error=told
            )
            async with self._database.system_session(reason="postpone a mail") as conn:
                if dead:
                    await self._end(conn, mail, "failed")
                else:
                    await self._postpone(conn, mail)
            return
        async with self._database.system_session(reason="end a mail") as conn:
            await self._end(conn, mail, "sent")

    async def _postpone(self, conn: AsyncConnection, mail: QueuedMail) -> None:
        """Try it again later, ever less often, until its link would be dead."""
        pause = min(_FIRST_S * 2.0 ** min(mail.attempts, 20), _LONGEST_S)
        due = self._clock() + timedelta(seconds=pause * (0.75 + random.random() / 2))  # noqa: S311 - no secret
        await postpone_mail(conn, mail.mail_id, due=due)

    async def _end(self, conn: AsyncConnection, mail: QueuedMail, status: Literal["sent", "dropped", "failed"]) -> None:
        if mail.kind in _FORGOTTEN:
            await forget_mail(conn, mail.mail_id)
        else:
            await finish_mail(conn, mail.mail_id, status, now=self._clock())
        mails_sent(mail.kind, status).inc()

    async def _write(self, conn: AsyncConnection, mail: QueuedMail, now: datetime) -> tuple[str, Letter] | None:
        """To whom, and what; its token is good from now on. None where there is nobody to write to."""
        about = mail.about
        forgot = f"{self._origin}/forgot"
        match mail.kind:
            case "verify":
                if await self._owner(conn, mail.address) is not None:
                    return mail.address, letters.exists(f"{self._origin}/signin", forgot)
                assert about.signup_id is not None
                shop = await shop_of_signup(conn, about.signup_id)
                if shop is None:
                    return None
                link = await self._link(conn, mail, "verify", "verify", now)
                return mail.address, letters.verify(link, shop)
            case "magic_link" | "reset":
                person = await self._owner(conn, mail.address)
                if person is None:
                    return None
                page, letter = (
                    ("signin/link", letters.magic_link) if mail.kind == "magic_link" else ("reset", letters.reset)
                )
                # To the address as its owner gave it, not as somebody typed it now.
                return person.email, letter(
                    await self._link(conn, mail, mail.kind, page, now, person_id=person.person_id)
                )
            case "email_change" | "take_back":
                if not await is_open_change(conn, about.change_id):
                    return None
                page, letter = (
                    ("email", letters.email_change)
                    if mail.kind == "email_change"
                    else ("email/back", letters.take_back)
                )
                return mail.address, letter(
                    await self._link(
                        conn, mail, mail.kind, page, now, person_id=about.person_id, change_id=about.change_id
                    )
                )
            case "invitation":
                assert about.org_id is not None
                name = await name_of_organisation(conn, about.org_id)
                if name is None or not await is_open(conn, about.invitation_id, now=now):
                    return None
                link = await self._link(
                    conn,
                    mail,
                    "invitation",
                    "invitation",
                    now,
                    org_id=about.org_id,
                    role=about.role,
                    invitation_id=about.invitation_id,
                    email=mail.address,
                )
                return mail.address, letters.invitation(link, name)
            case "notice":
                assert about.note is not None
                return mail.address, letters.notice(about.note, forgot)
            case "quota":
                assert about.reached is not None
                link = f"{self._origin}/console/shops/{about.reached.tenant_id}"
                return mail.address, letters.quota(about.reached, link)
            case "webhook_disabled":
                assert about.disabled is not None
                return mail.address, letters.webhook_disabled(about.disabled, f"{self._origin}/docs#/Webhooks")
            case "farewell":
                return mail.address, letters.farewell()
            case _:
                assert_never(mail.kind)

    async def _owner(self, conn: AsyncConnection, address: str) -> Person | None:
        return await find_owner(conn, *(hash_email(each, address) for each in self._secret.every))

    async def _link(
        self, conn: AsyncConnection, mail: QueuedMail, kind: TokenKind, page: str, now: datetime, **stands_for: Any
    ) -> str:
        """The address with the token, which is good from now on for what it stands for."""
        token = derive_token(self._secret.current, mail.mail_id)
        expires_at = mail.created_at + LIFE[mail.kind]
        await store_token(
            conn, hash_token(token), kind, now=now, expires_at=expires_at, signup_id=mail.about.signup_id, **stands_for
        )
        # Our log names no query, and our pages send no referrer.
        return f"{self._origin}/{page}?token={token}"
