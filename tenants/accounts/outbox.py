"""The outbox: mails are asked for in the transaction of what they are about, and sent by a worker.

What is asked for is the same whether the address has an account or not; the worker finds out. So neither the answer
nor its time says who has one, and a slow mail server slows no request.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.ids import uuid7
from tenants.accounts import departures

MailKind = Literal[
    "verify",
    "magic_link",
    "reset",
    "email_change",
    "take_back",
    "invitation",
    "notice",
    "quota",
    "webhook_disabled",
    "farewell",
]

LIFE: Final[Mapping[MailKind, timedelta]] = {
    "verify": timedelta(hours=24),
    "magic_link": timedelta(minutes=30),
    "reset": timedelta(minutes=30),
    "email_change": timedelta(minutes=30),
    "take_back": timedelta(days=7),
    "invitation": timedelta(days=7),
    "notice": timedelta(hours=24),
    "quota": timedelta(days=3),
    "webhook_disabled": timedelta(days=3),
    "farewell": timedelta(days=3),
}
"""How long the link of a mail is good, from when it was asked for; a mail that is not sent by then is given up."""

KEPT: Final = timedelta(days=7)
"""A mail that was sent or given up, and a token that is used or over, is remembered for so long."""

ENROLMENT: Final = timedelta(minutes=10)
"""A second step that is begun is confirmed within so long."""

_LEASE: Final = timedelta(seconds=60)


class QuotaReached(Struct, frozen=True, kw_only=True):
    """So many per cent of what a shop's plan includes in a month are used."""

    tenant_id: UUID
    shop: str
    meter: str
    percent: int
    used: int
    quota: int


class DisabledWebhook(Struct, frozen=True, kw_only=True):
    """A webhook to which nothing more is sent: it is `gone` (410), or `failing` for days."""

    shop: str
    webhook_id: UUID
    host: str
    reason: Literal["gone", "failing"]


class About(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a mail is about; each kind uses some of it. `note` is the text of a notice: a constant of ours."""

    signup_id: UUID | None = None
    person_id: UUID | None = None
    org_id: UUID | None = None
    role: str | None = None
    invitation_id: UUID | None = None
    change_id: UUID | None = None
    note: str | None = None
    reached: QuotaReached | None = None
    disabled: DisabledWebhook | None = None


NOTHING: Final = About()


class QueuedMail(Struct, frozen=True, kw_only=True):
    """A mail in a worker's hands. `about_json` is read when it is written; `attempts` counts those that failed."""

    mail_id: UUID
    kind: MailKind
    address: str
    about_json: str
    attempts: int
    created_at: datetime

    @property
    def about(self) -> About:
        """What it is about. Raises ValidationError where a release that says it otherwise has asked for it."""
        return msgspec.json.decode(self.about_json, type=About)


async def queue_mail(
    conn: AsyncConnection, kind: MailKind, address: str, *, now: datetime, about: About = NOTHING
) -> UUID:
    """Ask for a mail; it is sent if and when the transaction commits."""
    mail_id = uuid7()
    await (await driver(conn)).execute(
        "insert into mails (mail_id, kind, address, about, due, created_at) "
        "values ($1, $2, $3, $4::text::jsonb, $5, $5)",
        mail_id,
        kind,
        address,
        msgspec.json.encode(about).decode(),
        now,
    )
    return mail_id


_CLAIM: Final = """
with next as materialized (
    select m.mail_id from mails m where m.status = 'queued' and m.due <= $1
    order by m.due, m.mail_id limit 1 for update skip locked
)
update mails m set due = $1 + $2::interval from next where m.mail_id = next.mail_id
returning m.mail_id, m.kind, m.address, m.about::text as about, m.attempts, m.created_at
"""


async def claim_mail(conn: AsyncConnection, now: datetime) -> QueuedMail | None:
    """The mail that has waited longest, or whose worker is dead. `conn` is a system session."""
    record: Any = await (await driver(conn)).fetchrow(_CLAIM, now, _LEASE)
    if record is None:
        return None
    return QueuedMail(
        mail_id=UUID(int=record["mail_id"].int),
        kind=record["kind"],
        address=record["address"],
        about_json=record["about"],
        attempts=record["attempts"],
        created_at=record["created_at"],
    )


async def finish_mail(
    conn: AsyncConnection, mail_id: UUID, status: Literal["sent", "dropped", "failed"], *, now: datetime
) -> None:
    """End a mail: it was sent, there was nobody to send it to, or it was given up."""
    await (await driver(conn)).execute(
        "update mails set status = $2, finished_at = $3 where mail_id = $1", mail_id, status, now
    )


async def forget_mail(conn: AsyncConnection, mail_id: UUID) -> None:
    """Leave no trace of a mail that has ended: of those whose address is nobody's here any more."""
    await (await driver(conn)).execute("delete from mails where mail_id = $1", mail_id)


async def postpone_mail(conn: AsyncConnection, mail_id: UUID, *, due: datetime) -> None:
    """Try a mail again later."""
    await (await driver(conn)).execute(
        "update mails set due = $2, attempts = attempts + 1 where mail_id = $1 and status = 'queued'", mail_id, due
    )


async def prune_accounts(conn: AsyncConnection, now: datetime) -> int:
    """Forget old mails, tokens, invitations, addresses, counts, ended sessions, accounts never verified; how many rows.

    `conn` is a system session. Nothing else is of such an account: its shop is made when its address is proved.
    """
    raw = await driver(conn)
    gone = 0
    for statement, before in (
        ("delete from mails where status <> 'queued' and finished_at < $1", now - KEPT),
        ("delete from signups where expires_at < $1", now - KEPT),
        ("delete from one_time_tokens where expires_at < $1", now - KEPT),
        ("delete from invitations where expires_at <= $1", now),
        ("delete from address_changes where expires_at <= $1", now),
        ("delete from second_steps where confirmed_at is null and created_at <= $1", now - ENROLMENT),
        ("delete from sessions where expires_at < $1", now),
        ("delete from attempts where since < $1", now - timedelta(days=1)),
        ("delete from sso_departures where left_at < $1", now - departures.KEPT),
    ):
        done: str = await raw.execute(statement, before)
        gone += int(done.rpartition(" ")[2])
    return gone
