"""The second step: set up on the account page, asked for after the first one, and what ends it."""

import asyncio
import re
from argparse import Namespace

import httpx
import pyotp
import pytest

from api.console.carried import AtProvider, seal_carried
from infra.commands.people import second_step_off
from infra.crypt import Undecipherable
from infra.db import driver
from infra.oidc import Flow
from infra.secret import Secret, mark_of
from tenants.accounts.attempts import LIMITS, Knock
from tenants.accounts.email import hash_email
from tenants.accounts.outbox import prune_accounts
from tenants.accounts.people import find_person
from tenants.accounts.proof import Challenge, solve
from tenants.accounts.second_step import (
    PersonNotFound,
    SecondStepIsOff,
    SecondSteps,
    count_second_steps,
    reseal_second_steps,
)
from tests.integration.api.accounts.conftest import PASSWORD, Browser, Office, heading, new_address, token_of

pytestmark = pytest.mark.anyio

PAGE = "/console/account/second-step"
_RECOVERY = re.compile(r"\b[0-9a-z]{5}-[0-9a-z]{5}\b")


class App:
    """A phone's authenticator, by the text of the enrolment page."""

    def __init__(self, office: Office, page: httpx.Response) -> None:
        found = re.search(r"<code>((?:[A-Z2-7]{4} ?){8})</code>", page.text)
        assert found is not None, page.text
        self._office = office
        self.totp = pyotp.TOTP(found[1].replace(" ", ""))

    def code(self, steps: int = 0) -> str:
        """Of the present step, or one so many after it."""
        return self.totp.generate_otp(int(self._office.clock().timestamp()) // 30 + steps)

    def wrong(self) -> str:
        """One that is none of these."""
        return next(code for code in map("{:06}".format, range(4)) if code not in map(self.code, (-1, 0, 1)))


async def turned_on(office: Office) -> tuple[str, Browser, App, list[str]]:
    """An account with a second step: its address, a browser that is signed in, the app, the recovery codes."""
    email, browser = await office.account()
    shown = await browser.send(PAGE, PAGE, step_password=PASSWORD)
    app = App(office, shown)
    assert heading(shown) == "Scan this with your app"
    done = await browser.send(PAGE, f"{PAGE}/confirm", code=app.code())
    assert heading(done) == "Your recovery codes"
    codes = _RECOVERY.findall(done.text)
    office.clock.advance(30)
    return email, browser, app, codes


async def first_step(office: Office, email: str) -> Browser:
    """A browser that has given the password and is asked for a code."""
    browser = office.browser()
    shown = await browser.send("/signin", email=email, password=PASSWORD, next="/console/account")
    assert (str(shown.url), heading(shown)) == ("http://kindred/signin/code", "Your code")
    return browser


async def test_it_is_set_up_by_a_code_and_asked_for_from_then_on(office: Office) -> None:
    """QR code and text; nothing is on before a right code; then the code is asked for, and leads on to the page."""
    email, browser = await office.account()
    other = office.browser()
    await other.send("/signin", email=email, password=PASSWORD)
    refused = await browser.send(PAGE, PAGE, step_password="not the password")
    assert (refused.status_code, heading(refused)) == (401, "A second step to sign in")
    shown = await browser.send(PAGE, PAGE, step_password=PASSWORD)
    assert "<svg" in shown.text
    app = App(office, shown)
    wrong = await browser.send(PAGE, f"{PAGE}/confirm", code=app.wrong())
    assert (wrong.status_code, heading(wrong)) == (401, "The next code of your app")
    assert heading(await office.browser().send("/signin", email=email, password=PASSWORD)) == "Your shops"
    done = await browser.send(PAGE, f"{PAGE}/confirm", code=app.code())
    assert len(set(_RECOVERY.findall(done.text))) == 10
    assert heading(await browser.get("/console")) == "Your shops"
    assert heading(await other.get("/console")) == "Sign in"
    assert (await office.mails(email))[-1][0] == "The second step of your Kindred account is on"
    office.clock.advance(30)
    third = await first_step(office, email)
    assert heading(await third.get("/console")) == "Sign in"
    code = app.code()
    entered = await third.send("/signin/code", code=f"{code[:3]} {code[3:]}")
    assert (str(entered.url), heading(entered)) == ("http://kindred/console/account", "Account")
    assert "kindred-step" not in third.http.cookies


async def test_what_the_app_is_told_is_told_once(office: Office) -> None:
    """After a wrong code, or none, the form alone: a session that was left open shows nobody the secret."""
    _, browser = await office.account()
    app = App(office, await browser.send(PAGE, PAGE, step_password=PASSWORD))
    for code in (app.wrong(), "x"):
        shown = await browser.send(PAGE, f"{PAGE}/confirm", code=code)
        assert heading(shown) == "The next code of your app"
        assert ("<svg class" in shown.text, "otpauth" in shown.text, app.totp.secret[:4] in shown.text) == (False,) * 3
    assert heading(await browser.get(PAGE)) == "A second step to sign in"


async def test_what_is_begun_ends_after_ten_minutes(office: Office) -> None:
    """The right code confirms nothing then, and upkeep forgets the secret."""
    email, browser = await office.account()
    app = App(office, await browser.send(PAGE, PAGE, step_password=PASSWORD))
    office.clock.advance(600)
    late = await browser.send(PAGE, f"{PAGE}/confirm", code=app.code())
    assert (late.status_code, heading(late)) == (409, "A second step to sign in")
    async with office.database.system_session(reason="upkeep") as conn:
        await prune_accounts(conn, office.clock())
        left = await (await driver(conn)).fetchval(
            "select count(*) from second_steps s join people p using (person_id) where p.email = $1", email
        )
    assert left == 0


async def test_what_is_begun_is_of_the_session_that_gave_the_password(office: Office) -> None:
    """Another one of the same person confirms nothing; nor does it once it has ended, though it was under way."""
    email, browser = await office.account()
    app = App(office, await browser.send(PAGE, PAGE, step_password=PASSWORD))
    other = office.browser()
    await other.send("/signin", email=email, password=PASSWORD)
    assert (await other.send(PAGE, f"{PAGE}/confirm", code=app.code())).status_code == 409
    session = await office.app.services.sessions.of_secret(browser.http.cookies["kindred"])
    assert session is not None
    await other.send("/console/account", "/console/account/sessions")
    with pytest.raises(SecondStepIsOff):
        await office.app.services.second_steps.confirm(session, app.code(), Knock(network="198.51.100.0/24"))
    assert heading(await office.browser().send("/signin", email=email, password=PASSWORD)) == "Your shops"


async def test_it_is_asked_for_after_a_link_and_a_new_password(office: Office) -> None:
    """Whoever reads the mail alone is not in."""
    email, _, app, _ = await turned_on(office)
    await office.browser().send("/signin", "/signin/mail", email=email)
    link = await office.link(email)
    browser = office.browser()
    assert heading(await browser.send(link, "/signin/link", token=token_of(link))) == "Your code"
    assert heading(await browser.send("/signin/code", code=app.code())) == "Your shops"
    await office.browser().send("/forgot", email=email)
    link = await office.link(email)
    browser = office.browser()
    asked = await browser.send(link, "/reset", token=token_of(link), password="entirely new words")
    assert heading(asked) == "Your code"
    assert heading(await browser.get("/console")) == "Sign in"


async def test_a_first_step_ends_with_the_password_it_was_taken_by(office: Office) -> None:
    """The page to sign in says so; the new password, and a code of it, open the session."""
    email, _, app, _ = await turned_on(office)
    thief = await first_step(office, email)
    await office.browser().send("/forgot", email=email)
    link = await office.link(email)
    await office.browser().send(link, "/reset", token=token_of(link), password="entirely new words")
    shown = await thief.send("/signin/code", code=app.code())
    assert (shown.status_code, heading(shown), "Sign in again" in shown.text) == (401, "Sign in", True)
    assert "kindred-step" not in thief.http.cookies
    assert heading(await thief.get("/console")) == "Sign in"
    office.clock.advance(30)
    await thief.send("/signin", email=email, password="entirely new words")
    assert heading(await thief.send("/signin/code", code=app.code())) == "Your shops"


async def test_a_code_is_taken_once_and_none_before_it(office: Office) -> None:
    """By whomever; those of the step before and after are good while no newer one was used."""
    email, _, app, _ = await turned_on(office)
    office.clock.advance(60)
    for code, status in ((app.code(-1), 200), (app.code(-1), 401), (app.code(1), 200), (app.code(), 401)):
        shown = await (await first_step(office, email)).send("/signin/code", code=code)
        assert shown.status_code == status
    assert "The code is not right" in shown.text


@pytest.mark.parametrize("steps", [-2, 2, 120])
async def test_a_code_of_another_time_is_wrong(office: Office, steps: int) -> None:
    """A clock may be off by one step, and no more."""
    email, _, app, _ = await turned_on(office)
    office.clock.advance(90)
    shown = await (await first_step(office, email)).send("/signin/code", code=app.code(steps))
    assert (shown.status_code, heading(shown)) == (401, "Your code")


async def test_a_recovery_code_works_once(office: Office) -> None:
    """However it is typed; its owner is told, and new ones end the old."""
    email, _, app, codes = await turned_on(office)
    typed = codes[0].upper().replace("-", " ").replace("0", "O")
    assert heading(await (await first_step(office, email)).send("/signin/code", code=typed)) == "Account"
    assert (await office.mails(email))[-1][0] == "A recovery code of your Kindred account was used"
    again = await first_step(office, email)
    assert (await again.send("/signin/code", code=codes[0])).status_code == 401
    await again.send("/signin/code", code=codes[1])
    assert "8 recovery codes are left" in (await again.get("/console/account")).text
    office.clock.advance(3600)  # else it is as much as guessing
    renewed = await again.send(PAGE, f"{PAGE}/codes", code=app.code())
    fresh = _RECOVERY.findall(renewed.text)
    assert len(fresh) == 10
    last = await first_step(office, email)
    assert (await last.send("/signin/code", code=codes[2])).status_code == 401
    assert heading(await last.send("/signin/code", code=fresh[0])) == "Account"


async def test_it_is_turned_off_by_a_code_alone(office: Office) -> None:
    """Then the password is enough again, and another can be set up, of another secret."""
    email, browser, app, _ = await turned_on(office)
    refused = await browser.send(PAGE, f"{PAGE}/off", code="12345x")
    assert (refused.status_code, heading(refused)) == (401, "Your second step is on")
    begun = await browser.send(PAGE, PAGE, step_password=PASSWORD)
    assert "The second step is on already" in begun.text
    off = await browser.send(PAGE, f"{PAGE}/off", code=app.code())
    assert "The second step is off." in off.text
    assert (await office.mails(email))[-1][0] == "The second step of your Kindred account is off"
    assert heading(await office.browser().send("/signin", email=email, password=PASSWORD)) == "Your shops"
    anew = App(office, await browser.send(PAGE, PAGE, step_password=PASSWORD))
    assert anew.totp.secret != app.totp.secret


async def test_guessing_ends(office: Office) -> None:
    """At one person: soon each guess costs a proof of work, and then all are refused, the right one too."""
    email, _, app, _ = await turned_on(office)
    told = []
    browser = await first_step(office, email)
    proof: dict[str, str] = {}
    for _ in range(30):  # each that is paid for is asked to be paid for first
        shown = await browser.send("/signin/code", code="12345x", **proof)
        found = re.search(r'data-challenge="([^"]+)" data-bits="(\d+)"', shown.text)
        told.append("proof" if found else heading(shown) and shown.status_code)
        proof = {} if found is None else {"proof": solve(Challenge(challenge=found[1], bits=int(found[2])))}
    assert told[:4] == [401, 401, 401, 401]
    assert "proof" in told
    assert told.count(401) < LIMITS["second_step"]["address"].most
    assert told[-1] == 429
    other = await first_step(office, email)
    refused = await other.send("/signin/code", code=app.code())
    assert (refused.status_code, "Too many attempts" in refused.text) == (429, True)
    office.clock.advance(3600)
    later = await first_step(office, email)
    assert heading(await later.send("/signin/code", code=app.code())) == "Account"


async def test_who_has_not_taken_the_first_step_is_sent_to_it(office: Office) -> None:
    """Without the cookie, with a forged one, with one of another step, or after ten minutes."""
    email, _, app, _ = await turned_on(office)
    browser = office.browser()
    assert heading(await browser.get("/signin/code")) == "Sign in"
    services = office.app.services
    flow = Flow(state="s", nonce="n", verifier="v")
    other_form = seal_carried(services.secret, "kindred-step", AtProvider(flow=flow, then="/"), now=office.clock())
    for forged in ("", "x", "A" * 200, "é".encode().hex(), other_form):
        browser.http.cookies.set("kindred-step", forged)
        assert heading(await browser.get("/signin/code")) == "Sign in"
    late = await first_step(office, email)
    cookie = late.http.cookies["kindred-step"]
    other = office.browser()
    other.http.cookies.set("kindred", cookie)
    assert heading(await other.get("/console")) == "Sign in"
    office.clock.advance(600)
    page = await late.get("/signin")
    token = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert token is not None
    sent = await late.http.post("/signin/code", data={"form_token": token[1], "code": app.code()})
    assert heading(sent) == "Sign in"


@pytest.mark.parametrize("code", ["", "1", "12345", "x" * 41, "12345\u0666", "123456\x00", "<b>123456"])
async def test_what_is_no_code_is_said(office: Office, code: str) -> None:
    """422, and nothing is counted against the person."""
    email, _, app, _ = await turned_on(office)
    browser = await first_step(office, email)
    shown = await browser.send("/signin/code", code=code)
    assert (shown.status_code, heading(shown)) == (422, "Your code")
    assert heading(await browser.send("/signin/code", code=app.code())) == "Account"


async def test_who_runs_the_installation_takes_it_off(office: Office) -> None:
    """For who has lost phone and codes: the password is enough again; an address without account is said."""
    email, _, _, _ = await turned_on(office)
    settings = office.app.services.settings
    for status in (0, "second_step_is_off"):
        try:
            done: int | str = await asyncio.to_thread(second_step_off, settings, Namespace(email=email.upper()))
        except SecondStepIsOff as error:
            done = error.code
        assert done == status
    assert heading(await office.browser().send("/signin", email=email, password=PASSWORD)) == "Your shops"
    with pytest.raises(PersonNotFound):
        await asyncio.to_thread(second_step_off, settings, Namespace(email=new_address()))


async def test_it_goes_along_when_the_installations_secret_is_changed(office: Office) -> None:
    """Codes and recovery codes are taken under both secrets and, once the worker was there, under the new one alone."""
    email, _, app, codes = await turned_on(office)
    old = office.app.services.secret
    changing = Secret(current=b"n" * 32, others=old.every)
    new = Secret(current=changing.current)
    async with office.database.anonymous_session() as conn:
        person = await find_person(conn, hash_email(old.current, email))
    assert person is not None
    knock = Knock(network="198.51.100.0/24")

    def steps(secret: Secret) -> SecondSteps:
        attempts = office.app.services.doors.attempts
        return SecondSteps(office.database, attempts, secret=secret, clock=office.clock)

    with pytest.raises(Undecipherable):
        await steps(new).check(person.person_id, app.code(), knock)
    await steps(changing).check(person.person_id, app.code(), knock)
    try:
        async with office.database.system_session(reason="test") as system:
            assert (await count_second_steps(system, changing))[mark_of(old.current)] >= 1
            assert await reseal_second_steps(system, changing) >= 1
            assert await reseal_second_steps(system, changing) == 0
            assert (await count_second_steps(system, new))[mark_of(new.current)] >= 1
        await steps(new).check(person.person_id, app.code(1), knock)
        await steps(new).check(person.person_id, codes[0], knock)
    finally:
        async with office.database.system_session(reason="as the other tests know it") as system:
            await reseal_second_steps(system, Secret(current=old.current, others=new.every))


async def test_nothing_lies_in_clear(office: Office) -> None:
    """Neither the secret nor a recovery code is in the database."""
    _, _, app, codes = await turned_on(office)
    async with office.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        rows = [
            bytes(record["value"])
            for table, column in (("second_steps", "sealed"), ("recovery_codes", "code_hash"))
            for record in await raw.fetch(f"select {column} as value from {table}")
        ]
    assert rows
    for value in rows:
        for secret in (
            app.totp.secret,
            app.totp.byte_secret().hex(),
            *codes,
            *(code.replace("-", "") for code in codes),
        ):
            assert secret.encode() not in value
        assert app.totp.byte_secret() not in value
