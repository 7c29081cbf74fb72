"""The outbox: no mail is lost, none is sent for nothing, and its link is good from when it is sent."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from infra.db import Database, driver
from infra.ids import uuid7
from infra.mail import Mail, MailRefused, MailServerAway
from infra.secret import Secret
from tenants.accounts.email import hash_email
from tenants.accounts.outbox import LIFE, About, MailKind, queue_mail
from tenants.accounts.people import add_person
from tenants.accounts.signup import ask_for_account
from tenants.accounts.tokens import derive_token, get_token
from tests.conftest import FrozenClock
from workers.mail.loop import MailLoop

pytestmark = pytest.mark.anyio

SECRET = Secret(current=b"s" * 32)
ORIGIN = "https://kindred.example"


class Outside:
    """A mail server of the test's mind: what it took, and what it says next."""

    def __init__(self) -> None:
        self.taken: list[Mail] = []
        self.fails: list[Exception] = []

    async def send(self, mail: Mail) -> None:
        """Take it, or fail as told."""
        if self.fails:
            raise self.fails.pop(0)
        self.taken.append(mail)


@pytest.fixture
def outside() -> Outside:
    """The mail server."""
    return Outside()


@pytest.fixture
async def own(fresh_database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """A database with an outbox of this test alone."""
    database = Database(fresh_database_url, hot=0, sessions=2)
    yield database
    await database.close()


@pytest.fixture
def loop(own: Database, outside: Outside, clock: FrozenClock) -> MailLoop:
    """The loop over it."""
    return MailLoop(own, outside, secret=SECRET, origin=ORIGIN, clock=clock)


async def _person(database: Database, email: str, clock: FrozenClock) -> UUID:
    person_id = uuid7()
    async with database.person_session(person_id) as conn:
        await add_person(conn, person_id, email, hash_email(SECRET.current, email), None, now=clock())
    return person_id


async def _ask(database: Database, clock: FrozenClock, kind: MailKind, address: str, **about: object) -> UUID:
    async with database.person_session() as conn:
        return await queue_mail(conn, kind, address, now=clock(), about=About(**about))  # type: ignore[arg-type]


async def _state(database: Database, mail_id: UUID) -> tuple[str, int]:
    async with database.system_session(reason="test look") as conn:
        record = await (await driver(conn)).fetchrow("select status, attempts from mails where mail_id = $1", mail_id)
    return record["status"], record["attempts"]


async def _drain(loop: MailLoop) -> int:
    steps = 0
    while await loop.step():
        steps += 1
    return steps


def _token(mail: Mail) -> str:
    found = re.search(r"token=([\w-]{43})", mail.text)
    assert found is not None, mail.text
    assert found[0] in mail.html
    return found[1]


async def test_a_mail_of_a_transaction_that_failed_is_never_sent(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock
) -> None:
    """It is committed with what it is about, or not at all."""

    async def fail() -> None:
        async with own.person_session() as conn:
            await queue_mail(conn, "notice", "ada@shop.example", now=clock(), about=About(note="password_changed"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await _drain(loop) == 0
    assert outside.taken == []


async def test_a_server_that_is_away_delays_a_mail_and_loses_none(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock
) -> None:
    """Tried ever later, with the same link each time; other mails go on meanwhile."""
    email = "ada@shop.example"
    await _person(own, email, clock)
    first = await _ask(own, clock, "reset", email)
    outside.fails = [MailServerAway("away"), OSError("a surprise")]
    assert await _drain(loop) == 1
    assert await _state(own, first) == ("queued", 1)
    clock.advance(3)
    assert await _drain(loop) == 1
    other = await _ask(own, clock, "notice", email, note="password_changed")
    assert await _drain(loop) == 1
    assert await _state(own, other) == ("sent", 0)
    clock.advance(300)
    assert await _drain(loop) == 1
    assert await _state(own, first) == ("sent", 2)
    assert _token(outside.taken[-1]) == derive_token(SECRET.current, first)


async def test_a_worker_that_died_leaves_its_mail_to_another(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute; if it had been sent, it is sent again as the same message with the same link."""
    email = "ada@shop.example"
    await _person(own, email, clock)
    await _ask(own, clock, "magic_link", email)

    async def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_end", die)
        with pytest.raises(KeyboardInterrupt):
            await loop.step()
    assert await _drain(loop) == 0
    clock.advance(60)
    assert await _drain(loop) == 1
    assert len(outside.taken) == 2
    assert len({(mail.mail_id, mail.text) for mail in outside.taken}) == 1


async def test_a_refused_mail_is_given_up_and_the_next_one_sent(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock
) -> None:
    """No address that bounces holds up the others."""
    refused = await _ask(own, clock, "notice", "gone@shop.example", note="email_changed")
    sent = await _ask(own, clock, "notice", "ada@shop.example", note="email_changed")
    outside.fails = [MailRefused("no such user")]
    assert await _drain(loop) == 2
    assert (await _state(own, refused))[0] == "failed"
    assert (await _state(own, sent))[0] == "sent"


@pytest.mark.parametrize(
    ("kind", "about"),
    [
        ("notice", '{"note": "of_a_newer_release"}'),
        ("notice", '{"note": {"of": "a newer release"}}'),
        ("of_a_newer_release", "{}"),
        # Of no sign-up: the database refuses its token.
        ("magic_link", '{"signup_id": "0198c0de-0000-7000-8000-000000000000"}'),
    ],
)
async def test_a_mail_that_cannot_be_written_holds_up_no_other(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock, kind: str, about: str
) -> None:
    """It is tried again ever later, as one that cannot be delivered, and given up when its link would be dead."""
    email = "ada@shop.example"
    await _person(own, email, clock)
    bad = await _ask(own, clock, "notice", email)
    async with own.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute("update mails set kind = $1, about = $2::text::jsonb", kind, about)
    clock.advance(1)
    good = await _ask(own, clock, "notice", email, note="password_changed")
    assert await _drain(loop) == 2
    assert [await _state(own, each) for each in (bad, good)] == [("queued", 1), ("sent", 0)]
    clock.advance(timedelta(days=8).total_seconds())
    assert await _drain(loop) == 1
    assert (await _state(own, bad))[0] == "failed"
    assert len(outside.taken) == 1


@pytest.mark.parametrize("kind", ["magic_link", "reset"])
async def test_a_mail_whose_link_would_be_dead_is_not_sent(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock, kind: MailKind
) -> None:
    """After hours without a mail server nobody wants the links of the morning."""
    await _person(own, "ada@shop.example", clock)
    mail_id = await _ask(own, clock, kind, "ada@shop.example")
    clock.advance(LIFE[kind].total_seconds())
    assert await _drain(loop) == 1
    assert (await _state(own, mail_id))[0] == "failed"
    assert outside.taken == []


async def test_mail_goes_to_the_address_as_its_owner_gave_it(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock
) -> None:
    """Not as somebody typed it: a server that tells cases apart would give it to another."""
    person_id = await _person(own, "Ada@shop.example", clock)
    mail_id = await _ask(own, clock, "magic_link", "aDA@shop.example")
    await _drain(loop)
    (mail,) = outside.taken
    assert (mail.to, mail.mail_id) == ("Ada@shop.example", str(mail_id))
    assert mail.text.count(f"{ORIGIN}/signin/link?token=") == 1
    async with own.anonymous_session() as conn:
        token = await get_token(conn, _token(mail), "magic_link", now=clock())
    assert token.person_id == person_id


async def test_a_sign_up_that_is_gone_has_no_mail(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock
) -> None:
    """Nor has an unknown person, an organisation that is gone."""
    for kind, about in (
        ("verify", {"signup_id": uuid4()}),
        ("reset", {}),
        ("invitation", {"org_id": uuid4(), "role": "admin"}),
    ):
        mail_id = await _ask(own, clock, kind, "nobody@shop.example", **about)  # type: ignore[arg-type]
        await _drain(loop)
        assert (await _state(own, mail_id))[0] == "dropped"
    assert outside.taken == []


async def test_a_link_is_good_from_when_it_was_asked_for(
    loop: MailLoop, own: Database, outside: Outside, clock: FrozenClock
) -> None:
    """A mail that waited does not lengthen it."""
    async with own.person_session() as conn:
        await ask_for_account(
            conn, "ada@shop.example", b"hash", "hash", "Lümen", currency="EUR", browser=None, now=clock()
        )
    clock.advance(3600)
    await _drain(loop)
    (mail,) = outside.taken
    assert "Lümen" in mail.text
    ends = clock() + LIFE["verify"] - timedelta(hours=1)
    async with own.anonymous_session() as conn:
        await get_token(conn, _token(mail), "verify", now=ends - timedelta(seconds=1))
        with pytest.raises(Exception, match="Ask for a new one"):
            await get_token(conn, _token(mail), "verify", now=ends)
