"""The second step: what a person shows beside their password, or beside a link of their mail.

It is optional. While it is on, no session begins without a code: one of an authenticator app, which is taken once, or
a recovery code. Whom a provider vouches for is asked for it there, not here.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.clock import Clock
from infra.crypt import decrypt, encrypt, sealed_under
from infra.db import Database, driver
from infra.errors import Conflict, NotFound, Unauthenticated
from infra.secret import Secret, mark_of
from infra.telemetry import Children, counter
from tenants.accounts.attempts import Attempts, Knock
from tenants.accounts.email import hash_email, normalise
from tenants.accounts.outbox import ENROLMENT, About, queue_mail
from tenants.accounts.people import find_person, get_person
from tenants.accounts.sessions import Session, SignedIn, end_sessions
from tenants.accounts.totp import (
    enrolment_uri,
    hash_recovery_code,
    is_totp_code,
    matched_step,
    new_recovery_codes,
    new_totp_secret,
    plain_code,
)

_log = structlog.get_logger(__name__)

_PURPOSE: Final = "second step"
_ASKED_AFTER: Final = frozenset({"password", "magic_link", "reset"})

_codes: Final = Children(counter("second_step_codes_total", "Codes of second steps by outcome.", ["outcome"]))


class WrongCode(Unauthenticated):
    """The code is not of this moment, was used before, or is none of the recovery codes."""

    code = "wrong_code"
    title = "The code is not right"


class SecondStepIsOn(Conflict):
    """The person has a second step already."""

    code = "second_step_is_on"
    title = "The second step is on already"


class SecondStepIsOff(Conflict):
    """The person has no second step, or has not begun to set one up."""

    code = "second_step_is_off"
    title = "There is no second step"


class PersonNotFound(NotFound):
    """No account has that e-mail address. Nobody is told so but whoever runs the installation."""

    code = "person_not_found"
    title = "There is no such account"


class Enrolment(Struct, frozen=True, kw_only=True):
    """What an authenticator app is told: by a QR code of `uri`, or `secret` typed in. It is shown once."""

    secret: str
    uri: str


class State(Struct, frozen=True, kw_only=True):
    """Whether a person has a second step, since when, and how many recovery codes are left."""

    since: datetime | None
    codes_left: int


class SecondSteps:
    """One per process."""

    def __init__(self, database: Database, attempts: Attempts, *, secret: Secret, clock: Clock) -> None:
        self._database = database
        self._attempts = attempts
        self._secret = secret
        self._clock = clock

    async def is_asked_of(self, signed_in: SignedIn) -> bool:
        """Whether a code is needed before the session begins."""
        if signed_in.method not in _ASKED_AFTER:
            return False
        return (await self.state_of(signed_in.person_id)).since is not None

    async def state_of(self, person_id: UUID) -> State:
        """What the account page shows."""
        async with self._database.person_session(person_id) as conn:
            record = await (await driver(conn)).fetchrow(
                "select s.confirmed_at, (select count(*) from recovery_codes c where c.person_id = $1 "
                "and c.used_at is null) as left from second_steps s where s.person_id = $1",
                person_id,
            )
        if record is None:
            return State(since=None, codes_left=0)
        return State(since=record["confirmed_at"], codes_left=record["left"])

    async def start(self, session: Session) -> Enrolment:
        """A new secret, told this once; nothing is asked for before that session confirms it. Raises SecondStepIsOn.

        The caller has checked the person's password: a session that was left open must not lock its owner out.
        """
        totp_secret = new_totp_secret()
        sealed = encrypt(self._secret.current, totp_secret.encode(), purpose=_PURPOSE, about=session.person_id.bytes)
        async with self._database.person_session(session.person_id) as conn:
            made = await (await driver(conn)).fetchval(
                "insert into second_steps as s (person_id, sealed, created_at, session_id) values ($1, $2, $3, $4) "
                "on conflict (person_id) do update set sealed = $2, last_step = 0, created_at = $3, session_id = $4 "
                "where s.confirmed_at is null returning 1",
                session.person_id,
                sealed,
                self._clock(),
                session.session_id,
            )
        if not made:
            raise SecondStepIsOn("Turn it off first, with a code; then set it up anew.")
        return Enrolment(secret=totp_secret, uri=enrolment_uri(totp_secret, session.email))

    async def confirm(self, session: Session, code: str, knock: Knock) -> Sequence[str]:
        """Turn it on by the first code; the recovery codes, which are shown this once. Every other session ends.

        Raises WrongCode, SecondStepIsOff, SecondStepIsOn, TooManyAttempts, ProofNeeded.
        """
        person_id = session.person_id
        now = await self._admit(person_id, knock)
        async with self._database.person_session(person_id) as conn:
            totp_secret = await self._unconfirmed(conn, session, now)
            step = matched_step(totp_secret, plain_code(code), now=now)
            if step is None:
                raise _wrong()
            await (await driver(conn)).execute(
                "update second_steps set confirmed_at = $2, last_step = $3, session_id = null where person_id = $1",
                person_id,
                now,
                step,
            )
            codes = await _replace_codes(conn, person_id, totp_secret)
            await end_sessions(conn, person_id, but=session.session_id)
            await self._tell(conn, person_id, "second_step_on", now)
        _log.info("second_step.on", person_id=str(person_id))
        return codes

    async def check(self, person_id: UUID, code: str, knock: Knock) -> None:
        """Take a code, once. Raises WrongCode, SecondStepIsOff, TooManyAttempts, ProofNeeded."""
        now = await self._admit(person_id, knock)
        async with self._database.person_session(person_id) as conn:
            await self._take(conn, person_id, plain_code(code), now)

    async def turn_off(self, person_id: UUID, code: str, knock: Knock) -> None:
        """Forget the secret and the recovery codes, by a code. Raises what `check` raises."""
        now = await self._admit(person_id, knock)
        async with self._database.person_session(person_id) as conn:
            await self._take(conn, person_id, plain_code(code), now)
            await (await driver(conn)).execute("delete from second_steps where person_id = $1", person_id)
            await self._tell(conn, person_id, "second_step_off", now)
        _log.info("second_step.off", person_id=str(person_id))

    async def renew_codes(self, person_id: UUID, code: str, knock: Knock) -> Sequence[str]:
        """Ten new recovery codes, by a code; those before end. Raises what `check` raises."""
        now = await self._admit(person_id, knock)
        async with self._database.person_session(person_id) as conn:
            totp_secret = await self._take(conn, person_id, plain_code(code), now)
            return await _replace_codes(conn, person_id, totp_secret)

    async def _admit(self, person_id: UUID, knock: Knock) -> datetime:
        now = self._clock()
        await self._attempts.admit("second_step", person_id.bytes, network=knock.network, now=now, proof=knock.proof)
        return now

    async def _take(self, conn: AsyncConnection, person_id: UUID, plain: str, now: datetime) -> str:
        """The app's secret, once the code is taken."""
        raw = await driver(conn)
        # The lock makes two requests with one code take turns.
        record = await raw.fetchrow(
            "select sealed, last_step from second_steps where person_id = $1 and confirmed_at is not null for update",
            person_id,
        )
        if record is None:
            raise SecondStepIsOff("Set it up on the account page first.")
        totp_secret = self._unseal(person_id, record["sealed"])
        if is_totp_code(plain):
            step = matched_step(totp_secret, plain, now=now)
            if step is None or step <= record["last_step"]:
                raise _wrong()
            await raw.execute("update second_steps set last_step = $2 where person_id = $1", person_id, step)
            _codes("app").inc()
            return totp_secret
        spent = await raw.fetchval(
            "update recovery_codes set used_at = $3 where person_id = $1 and code_hash = $2 and used_at is null "
            "returning 1",
            person_id,
            hash_recovery_code(totp_secret, plain),
            now,
        )
        if not spent:
            raise _wrong()
        await self._tell(conn, person_id, "recovery_code_used", now)
        _codes("recovery").inc()
        return totp_secret

    async def _unconfirmed(self, conn: AsyncConnection, session: Session, now: datetime) -> str:
        raw = await driver(conn)
        # Who ends the session waits, or has ended it: then what it began is over as well.
        lives = await raw.fetchval(
            "select 1 from sessions where person_id = $1 and session_id = $2 for share",
            session.person_id,
            session.session_id,
        )
        record = await raw.fetchrow(
            "select sealed, confirmed_at, session_id, created_at from second_steps where person_id = $1 for update",
            session.person_id,
        )
        if record is not None and record["confirmed_at"] is not None:
            raise SecondStepIsOn("It has been confirmed; sign in with its codes.")
        began = record is not None and record["session_id"] == session.session_id
        if not (lives and began and record["created_at"] + ENROLMENT > now):
            raise SecondStepIsOff(
                "Type your password to begin again: it has to be done within ten minutes, in one session."
            )
        return self._unseal(session.person_id, record["sealed"])

    async def _tell(self, conn: AsyncConnection, person_id: UUID, note: str, now: datetime) -> None:
        person = await get_person(conn, person_id)
        assert person is not None  # the session is of a person
        await queue_mail(conn, "notice", person.email, now=now, about=About(note=note))

    def _unseal(self, person_id: UUID, sealed: bytes) -> str:
        return decrypt(self._secret.every, sealed, purpose=_PURPOSE, about=person_id.bytes).decode()


async def _replace_codes(conn: AsyncConnection, person_id: UUID, totp_secret: str) -> Sequence[str]:
    codes = new_recovery_codes()
    raw = await driver(conn)
    await raw.execute("delete from recovery_codes where person_id = $1", person_id)
    await raw.execute(
        "insert into recovery_codes (person_id, code_hash) select $1, unnest($2::bytea[])",
        person_id,
        [hash_recovery_code(totp_secret, plain_code(code)) for code in codes],
    )
    return codes


async def count_second_steps(system: AsyncConnection, secret: Secret) -> Counter[str]:
    """Second steps by the mark of the secret that they are encrypted under; "unknown" for none that is believed."""
    counts: Counter[str] = Counter()
    for record in await (await driver(system)).fetch("select person_id, sealed from second_steps"):
        under = _under(record, secret)
        counts["unknown" if under is None else mark_of(under)] += 1
    return counts


async def reseal_second_steps(system: AsyncConnection, secret: Secret) -> int:
    """Have every second step encrypted under the current secret; how many were not."""
    raw = await driver(system)
    changed = 0
    for record in await raw.fetch("select person_id, sealed from second_steps order by person_id"):
        under = _under(record, secret)
        if under is not None and under != secret.current:
            opened = decrypt([under], record["sealed"], purpose=_PURPOSE, about=record["person_id"].bytes)
            done: str = await raw.execute(
                # One that was set up anew meanwhile is encrypted so.
                "update second_steps set sealed = $2 where person_id = $1 and sealed = $3",
                record["person_id"],
                encrypt(secret.current, opened, purpose=_PURPOSE, about=record["person_id"].bytes),
                record["sealed"],
            )
            changed += int(done.rpartition(" ")[2])
    return changed


def _under(record: Any, secret: Secret) -> bytes | None:
    return sealed_under(secret.every, record["sealed"], purpose=_PURPOSE, about=record["person_id"].bytes)


async def drop_second_step(conn: AsyncConnection, person_id: UUID, *, since: datetime) -> None:
    """Forget a second step that was turned on `since` then. `conn` is a session of that person."""
    await (await driver(conn)).execute(
        "delete from second_steps where person_id = $1 and confirmed_at >= $2", person_id, since
    )


async def remove_second_step(database: Database, email: str, *, secret: Secret, now: datetime) -> None:
    """Forget the second step of who has lost everything it needs; they are told. For whoever runs the installation.

    Raises InvalidEmail, PersonNotFound, SecondStepIsOff.
    """
    async with database.person_session() as conn:
        person = await find_person(conn, *(hash_email(each, normalise(email)) for each in secret.every))
    if person is None:
        raise PersonNotFound("No account has this address. Type it as it stands on the account page.")
    async with database.person_session(person.person_id) as conn:
        gone = await (await driver(conn)).fetchval(
            "delete from second_steps where person_id = $1 returning 1", person.person_id
        )
        if not gone:
            raise SecondStepIsOff("The account asks for no code; there is nothing to take off.")
        await queue_mail(conn, "notice", person.email, now=now, about=About(note="second_step_off"))
    _log.info("second_step.removed", person_id=str(person.person_id))


def _wrong() -> WrongCode:
    _codes("wrong").inc()
    return WrongCode(
        "Type the newest code of the app: each works once. If the phone's clock is off by a minute, set it right. "
        "Without the phone, type one of the recovery codes."
    )
