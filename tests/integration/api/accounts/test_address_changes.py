"""Changes of address: asked for with the password, made by a link to the new one, ended by whatever ends a thief."""

import asyncio

import httpx
import pytest

from infra.db import driver
from tenants.accounts.outbox import prune_accounts
from tests.integration.api.accounts.conftest import (
    PASSWORD,
    Browser,
    Office,
    form_token,
    heading,
    new_address,
    token_of,
)
from tests.integration.api.accounts.test_second_step import PAGE, App, turned_on

pytestmark = pytest.mark.anyio

ACCOUNT = "/console/account"
NEW = "entirely new words"


async def ask(browser: Browser) -> str:
    """Ask for another address, which is returned."""
    new = new_address()
    sent = await browser.send(ACCOUNT, f"{ACCOUNT}/email", email=new, email_password=PASSWORD)
    assert heading(sent) == "Check your mail"
    return new


async def reset(office: Office, email: str) -> Browser:
    """A browser in which a new password is chosen, by a link."""
    await office.browser().send("/forgot", email=email)
    link, browser = await office.link(email), office.browser()
    assert (await browser.send(link, "/reset", token=token_of(link), password=NEW)).status_code == 200
    return browser


async def _open(office: Office, link: str) -> str:
    return heading(await office.browser().send(link, "/email", token=token_of(link)))


async def _end(office: Office, how: str, email: str, owner: Browser) -> None:
    if how == "reset":
        await reset(office, email)
    elif how == "password":
        await owner.send(ACCOUNT, f"{ACCOUNT}/password", old_password=PASSWORD, new_password=NEW)
    else:
        await owner.send(ACCOUNT, f"{ACCOUNT}/sessions")


@pytest.mark.parametrize("how", ["reset", "password", "sessions"])
async def test_what_ends_a_thief_ends_the_change_they_asked_for(office: Office, how: str) -> None:
    """A new password, by link or by the old one, and the end of all other sessions: the link makes nothing any more."""
    email, owner = await office.account()
    thief = office.browser()
    await thief.send("/signin", email=email, password=PASSWORD)
    link = await office.link(await ask(thief))
    await _end(office, how, email, owner)
    assert await _open(office, link) == "This link has expired"
    password = PASSWORD if how == "sessions" else NEW
    assert (await office.browser().send("/signin", email=email, password=password)).status_code == 200


@pytest.mark.parametrize("how", ["reset", "password", "sessions"])
async def test_a_mail_about_an_ended_change_is_not_sent(office: Office, how: str) -> None:
    """It waited while the change was ended, and has no link that would become good."""
    email, owner = await office.account()
    thief = office.browser()
    await thief.send("/signin", email=email, password=PASSWORD)
    await office.browser().send("/forgot", email=email)
    link = await office.link(email)
    new = await ask(thief)
    if how == "reset":
        await office.browser().send(link, "/reset", token=token_of(link), password=NEW)
    else:
        await _end(office, how, email, owner)
    assert await office.mails(new) == []


async def test_a_second_request_ends_the_first(office: Office) -> None:
    """An address that was mistyped is a stranger's."""
    _, owner = await office.account()
    first = await office.link(await ask(owner))
    second = await office.link(await ask(owner))
    assert await _open(office, first) == "This link has expired"
    assert await _open(office, second) == "Sign in"


async def test_a_change_and_a_new_password_at_once_are_one_of_both(office: Office) -> None:
    """Whichever is first, the other one is over: no half of each, and no error."""
    email, owner = await office.account()
    change = await office.link(new := await ask(owner))
    await office.browser().send("/forgot", email=email)
    link = await office.link(email)
    asked = []
    # Both have the form before either sends it: once a link is over, its page has none.
    for page, fields in ((change, {}), (link, {"password": NEW})):
        browser = office.browser()
        sent = {"form_token": form_token(await browser.get(page)), "token": token_of(page), **fields}
        asked.append(browser.http.post(page.partition("?")[0], data=sent, headers={"Origin": "http://kindred"}))
    changed, chosen = await asyncio.gather(*asked)
    won = new if changed.status_code == 200 else email
    assert [changed.status_code, chosen.status_code].count(200) == 1
    assert 500 not in (changed.status_code, chosen.status_code)
    password = PASSWORD if won == new else NEW
    assert (await office.browser().send("/signin", email=won, password=password)).status_code == 200


async def test_what_was_asked_for_is_forgotten_with_its_link(office: Office) -> None:
    """Upkeep takes the address away; the account keeps its own."""
    _, owner = await office.account()
    new = await ask(owner)
    office.clock.advance(30 * 60)
    async with office.database.system_session(reason="upkeep") as conn:
        await prune_accounts(conn, office.clock())
        assert not await (await driver(conn)).fetchval("select 1 from address_changes where email = $1", new)


async def _changed(office: Office, browser: Browser, email: str) -> tuple[str, str]:
    """Change the address; the new one, and the link that the old one got."""
    link = await office.link(new := await ask(browser))
    await office.browser().send(link, "/email", token=token_of(link))
    return new, await office.link(email)


async def _back(office: Office, link: str) -> httpx.Response:
    return await office.browser().send(link, "/email/back", token=token_of(link))


async def _signs_in(office: Office, email: str, password: str) -> bool:
    return (await office.browser().send("/signin", email=email, password=password)).status_code == 200


async def test_the_present_address_is_told_when_another_is_asked_for(office: Office) -> None:
    """Before anything has changed, and what it is told to do ends the change."""
    email, thief = await office.account()
    link = await office.link(await ask(thief))
    subject, text = (await office.mails(email))[-1]
    assert subject == "Another address for your Kindred account?"
    assert "/forgot" in text
    await reset(office, email)
    assert await _open(office, link) == "This link has expired"


async def test_an_address_is_taken_back(office: Office) -> None:
    """By a button: the account is its owner's again, by a password of their own, and nothing of the thief's is good."""
    email, thief = await office.account()
    new, back = await _changed(office, thief, email)
    await thief.send(ACCOUNT, f"{ACCOUNT}/password", old_password=PASSWORD, new_password="words of the thief")
    app = App(office, await thief.send(PAGE, PAGE, step_password="words of the thief"))
    assert heading(await thief.send(PAGE, f"{PAGE}/confirm", code=app.code())) == "Your recovery codes"
    further = new_address()
    await thief.send(ACCOUNT, f"{ACCOUNT}/email", email=further, email_password="words of the thief")
    pending = await office.link(further)
    await office.browser().send("/forgot", email=new)
    forgot = await office.link(new)
    await office.browser().send("/signin", "/signin/mail", email=new)  # its mail waits
    office.clock.advance(6 * 24 * 3600)
    await office.browser().get(back)
    assert heading(await thief.get("/console")) == "Your shops"

    shown = await _back(office, back)
    assert (shown.status_code, heading(shown), email in shown.text) == (200, "Check your mail", True)
    assert heading(await thief.get("/console")) == "Sign in"
    for address in (email, new):
        assert not await _signs_in(office, address, PASSWORD)
        assert not await _signs_in(office, address, "words of the thief")
    assert await _open(office, pending) == "This link has expired"
    assert heading(await office.browser().get(forgot)) == "This link has expired"
    assert (await office.mails(new))[-1][0] == "Your Kindred address was changed back"
    link, owner = await office.link(email), office.browser()
    assert heading(await owner.send(link, "/reset", token=token_of(link), password=NEW)) == "Your shops"
    assert email in (await owner.get(ACCOUNT)).text
    assert heading(await office.browser().get(back)) == "This link has been used"


async def test_a_second_step_of_before_stays_when_an_address_is_taken_back(office: Office) -> None:
    """It is its owner's."""
    email, browser, app, _ = await turned_on(office)
    _, back = await _changed(office, browser, email)
    await _back(office, back)
    link, owner = await office.link(email), office.browser()
    assert heading(await owner.send(link, "/reset", token=token_of(link), password=NEW)) == "Your code"
    assert heading(await owner.send("/signin/code", code=app.code())) == "Your shops"


async def test_who_changes_the_address_twice_is_not_the_owner(office: Office) -> None:
    """The link of the second change takes nothing from that of the first; that of the first ends the other's."""
    email, thief = await office.account()
    first, owners = await _changed(office, thief, email)
    second, thiefs = await _changed(office, thief, first)
    third, waiting = await _changed(office, thief, second)
    assert (await _back(office, thiefs)).status_code == 200
    assert heading(await office.browser().get(waiting)) == "This link has expired"
    assert not await _signs_in(office, third, PASSWORD)
    assert (await _back(office, owners)).status_code == 200
    assert heading(await office.browser().get(thiefs)) == "This link has been used"
    link = await office.link(email)
    assert heading(await office.browser().send(link, "/reset", token=token_of(link), password=NEW)) == "Your shops"


async def test_an_ended_change_mails_no_link_to_take_it_back(office: Office) -> None:
    """The mail about a second change waited while the first was taken back."""
    email, thief = await office.account()
    first, owners = await _changed(office, thief, email)
    link = await office.link(await ask(thief))
    mails = len(await office.mails(first))
    await office.browser().send(link, "/email", token=token_of(link))
    await _back(office, owners)
    assert len(await office.mails(first)) == mails


async def test_an_address_that_has_an_account_by_now_is_not_taken_back(office: Office) -> None:
    """Both accounts stay as they are, and the link is good once the other one is gone."""
    email, browser = await office.account()
    new, back = await _changed(office, browser, email)
    await office.account(email)
    for _ in range(2):
        refused = await _back(office, back)
        assert (refused.status_code, heading(refused)) == (409, "There is an account with this address")
        assert "Delete the account" in refused.text
    assert await _signs_in(office, new, PASSWORD)
    assert await _signs_in(office, email, PASSWORD)


async def test_an_address_of_before_is_forgotten_after_seven_days(office: Office) -> None:
    """The link is over, and the address is nowhere: not in the change, its token or its mail."""
    email, browser = await office.account()
    _, back = await _changed(office, browser, email)
    office.clock.advance(7 * 24 * 3600 + 1)
    assert heading(await office.browser().get(back)) == "This link has expired"
    async with office.database.system_session(reason="upkeep") as conn:
        await prune_accounts(conn, office.clock())
        raw = await driver(conn)
        for table, column in (("address_changes", "email"), ("one_time_tokens", "email"), ("mails", "address")):
            kept = await raw.fetchval(f"select count(*) from {table} where {column} = $1", email)
            assert (table, kept) == (table, 0)
