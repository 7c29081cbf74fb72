"""The doors of who has an account: password, link by mail, a new password."""

import asyncio

import pytest

from tenants.accounts.attempts import Knock
from tenants.accounts.people import SignInFailed
from tests.integration.api.accounts.conftest import PASSWORD, Office, form_token, heading, new_address, token_of

pytestmark = pytest.mark.anyio


async def test_a_password_opens_the_door(office: Office) -> None:
    """In whatever case the address is typed; on to the page that was asked for."""
    email, _ = await office.account()
    browser = office.browser()
    led = await browser.get("/console/account")
    assert (str(led.url), heading(led)) == ("http://kindred/signin?next=/console/account", "Sign in")
    shown = await browser.send("/signin", email=f"  {email.upper()}", password=PASSWORD, next="/console/account")
    assert (shown.status_code, heading(shown)) == (200, "Account")
    assert email in shown.text


async def test_no_answer_says_who_has_an_account(office: Office) -> None:
    """Wrong password, unknown address, link asked for, password forgotten: the same status and body for everybody."""
    taken, _ = await office.account()
    told = []
    for email in (taken, new_address()):
        browser = office.browser()
        answers = []
        for page, path in (("/signin", "/signin"), ("/signin", "/signin/mail"), ("/forgot", "/forgot")):
            shown = await browser.send(page, path, email=email, password="not the password")
            answers.append((shown.status_code, shown.text.replace(email, "…")))
        token = form_token(await browser.get("/signin"))
        told.append([(status, text.replace(token, "…")) for status, text in answers])
    assert told[0] == told[1]
    assert [status for status, _ in told[0]] == [401, 200, 200]


async def test_who_is_unknown_costs_a_hash_too(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same work for every address: one check of a password, whether there is one or not."""
    email, _ = await office.account()
    checked = []
    passwords = office.app.services.doors.passwords
    real = passwords.matches

    async def counted(stored: str | None, password: str) -> bool:
        checked.append(stored is not None)
        return await real(stored, password)

    monkeypatch.setattr(passwords, "matches", counted)
    for address in (email, new_address()):
        await office.browser().send("/signin", email=address, password="not the password")
    assert checked == [True, False]


async def test_unknown_addresses_get_no_mail(office: Office) -> None:
    """Else anybody could have us write to strangers."""
    unknown = new_address()
    for page in ("/signin", "/forgot"):
        await office.browser().send(page, "/signin/mail" if page == "/signin" else page, email=unknown)
    assert await office.mails(unknown) == []


async def test_a_link_signs_in_once(office: Office) -> None:
    """By a button: opening the link alone does nothing, however often a program does it."""
    email, _ = await office.account()
    browser = office.browser()
    sent = await browser.send("/signin", "/signin/mail", email=email)
    assert heading(sent) == "Check your mail"
    link = await office.link(email)
    for _ in range(3):
        assert "One click" in (await office.browser().get(link)).text
    shown = await browser.send(link, "/signin/link", token=token_of(link))
    assert (str(shown.url), heading(shown)) == ("http://kindred/console", "Your shops")
    again = await browser.get(link)
    assert (again.status_code, heading(again)) == (422, "This link has been used")
    other = office.browser()
    token = form_token(await other.get("/signin"))
    replayed = await other.http.post("/signin/link", data={"form_token": token, "token": token_of(link)})
    assert (replayed.status_code, heading(replayed)) == (422, "This link has been used")


async def test_two_clicks_on_one_link_are_one_sign_in(office: Office) -> None:
    """At the same moment: one of them is told that it was used."""
    email, _ = await office.account()
    await office.browser().send("/signin", "/signin/mail", email=email)
    link = await office.link(email)
    browsers = [office.browser() for _ in range(3)]
    # All have the form before any sends it: once the link is used, its page has none.
    forms = [form_token(await browser.get(link)) for browser in browsers]
    answers = await asyncio.gather(
        *(
            browser.http.post(
                "/signin/link",
                data={"form_token": form, "token": token_of(link)},
                headers={"Origin": "http://kindred"},
            )
            for browser, form in zip(browsers, forms, strict=True)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 422, 422]


async def test_a_link_ends_after_half_an_hour(office: Office) -> None:
    """Counted from when it was asked for."""
    email, _ = await office.account()
    await office.browser().send("/forgot", email=email)
    link = await office.link(email)
    office.clock.advance(30 * 60)
    assert heading(await office.browser().get(link)) == "This link has expired"


async def test_a_link_is_good_for_its_own_door_alone(office: Office) -> None:
    """A link to sign in chooses no password."""
    email, _ = await office.account()
    await office.browser().send("/signin", "/signin/mail", email=email)
    token = token_of(await office.link(email))
    browser = office.browser()
    assert heading(await browser.get(f"/reset?token={token}")) == "This link is not known"
    sent = await browser.send("/signin", "/reset", token=token, password="entirely new words")
    assert (sent.status_code, heading(sent)) == (422, "This link is not known")


async def test_a_new_password_ends_every_session(office: Office) -> None:
    """And every other link; the browser that chose it is signed in, and the owner is told."""
    email, first = await office.account()
    second = office.browser()
    await second.send("/signin", email=email, password=PASSWORD)
    await office.browser().send("/signin", "/signin/mail", email=email)
    magic = await office.link(email)
    await office.browser().send("/forgot", email=email)
    link = await office.link(email)
    chooser = office.browser()
    weak = await chooser.send(link, "/reset", token=token_of(link), password="short")
    assert "at least 10 characters" in weak.text
    same = await chooser.send(link, "/reset", token=token_of(link), password=email.upper())
    assert (same.status_code, "must not be the e-mail address" in same.text) == (422, True)
    shown = await chooser.send(link, "/reset", token=token_of(link), password="entirely new words")
    assert heading(shown) == "Your shops"
    for browser in (first, second):
        assert heading(await browser.get("/console")) == "Sign in"
    assert heading(await office.browser().get(magic)) == "This link has expired"
    assert heading(await office.browser().get(link)) == "This link has been used"
    assert (await office.mails(email))[-1][0] == "Your Kindred password was changed"
    for password, status in ((PASSWORD, 401), ("entirely new words", 200)):
        assert (await office.browser().send("/signin", email=email, password=password)).status_code == status


@pytest.mark.parametrize("by", ["password", "magic_link"])
@pytest.mark.parametrize("change", ["password", "email"])
async def test_what_was_proved_before_a_change_opens_nothing_after_it(office: Office, by: str, change: str) -> None:
    """A password that matched, a link that was used: of before a new password, or a new address."""
    email, owner = await office.account()
    doors, knock = office.app.services.doors, Knock(network="198.51.100.0/24")
    if by == "password":
        signed_in = await doors.sign_in(email, PASSWORD, knock)
    else:
        await office.browser().send("/signin", "/signin/mail", email=email)
        signed_in = await doors.open_magic_link(token_of(await office.link(email)), knock)
    if change == "password":
        fields = {"old_password": PASSWORD, "new_password": "entirely new words"}
        await owner.send("/console/account", "/console/account/password", **fields)
    else:
        new = new_address()
        await owner.send("/console/account", "/console/account/email", email=new, email_password=PASSWORD)
        link = await office.link(new)
        await owner.send(link, "/email", token=token_of(link))
    with pytest.raises(SignInFailed, match="Sign in again"):
        await doors.begin(signed_in, browser="")


@pytest.mark.parametrize("rehashed", [False, True])
async def test_a_password_under_way_replaces_none_that_was_chosen_meanwhile(
    office: Office, monkeypatch: pytest.MonkeyPatch, rehashed: bool
) -> None:
    """Neither one that is changed by the old one, nor the old one itself in its newer form."""
    email, owner = await office.account()
    await office.browser().send("/forgot", email=email)
    link, chosen = await office.link(email), "entirely new words"
    passwords = office.app.services.doors.passwords
    real, paused, go_on = passwords.hash, asyncio.Event(), asyncio.Event()

    async def slow(password: str) -> str:
        if password != chosen:
            paused.set()
            await go_on.wait()
        return await real(password)

    monkeypatch.setattr(passwords, "hash", slow)
    monkeypatch.setattr(passwords, "is_stale", lambda _: rehashed)
    if rehashed:
        sent = office.browser().send("/signin", email=email, password=PASSWORD)
    else:
        fields = {"old_password": PASSWORD, "new_password": "words of the thief"}
        sent = owner.send("/console/account", "/console/account/password", **fields)
    under_way = asyncio.create_task(sent)
    await paused.wait()
    await office.browser().send(link, "/reset", token=token_of(link), password=chosen)
    go_on.set()
    shown = await under_way
    assert "Sign in again" in shown.text
    assert (await office.browser().send("/signin", email=email, password=chosen)).status_code == 200


@pytest.mark.parametrize(
    "path", ["https://evil.example", "//evil.example", "/\\evil", "/console/../../x", "/consolexy"]
)
async def test_nobody_is_led_away_after_signing_in(office: Office, path: str) -> None:
    """Only to pages of the console."""
    email, _ = await office.account()
    shown = await office.browser().send("/signin", email=email, password=PASSWORD, next=path)
    assert (shown.status_code, shown.url.host) == (422, "kindred")
