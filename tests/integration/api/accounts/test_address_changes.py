"""Changes of address: asked for with the password, made by a link to the new one, ended by whatever ends a thief."""

import asyncio

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
