"""Sessions: their cookie, their secret that changes, their ends, and who may see them."""

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from infra.settings import Settings
from tenants.accounts.sessions import IDLE, LIFE, OVERLAP, ROTATED_AFTER
from tests.conftest import FrozenClock
from tests.integration.api.accounts.conftest import PASSWORD, Browser, Office, heading, new_address, running, token_of
from tests.integration.api.conftest import SECRET

pytestmark = pytest.mark.anyio


async def _is_in(browser: Browser) -> bool:
    return heading(await browser.get("/console")) == "Your shops"


def _cookie(browser: Browser) -> str:
    return browser.http.cookies["kindred"]


async def test_the_cookie_is_for_us_alone(database_url: str, tmp_path: Path, clock: FrozenClock) -> None:
    """Over https it is bound to the host, and no script, other site or plain connection gets it."""
    settings = Settings(data_dir=tmp_path, secret_key=SECRET, database_url=database_url)
    for origin, name, secure in (("https://kindred", "__Host-kindred", True), ("http://kindred", "kindred", False)):
        async with running(replace(settings, public_url=origin), clock, tmp_path / "mail") as office:
            browser = office.browser()
            browser.http.base_url = origin
            email = new_address()
            shown = await browser.send("/signup", email=email, password=PASSWORD)
            assert shown.status_code == 200 or secure
            cookies = office.app.services.sessions.cookie("secret").to_header(header="")
            assert cookies.startswith(f"{name}=secret;")
            assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookies.split("; "))
            assert ("Secure" in cookies.split("; ")) == secure
            assert "Domain" not in cookies


async def test_every_sign_in_has_a_new_secret(office: Office) -> None:
    """A cookie that somebody planted before is not the session's after, and the session before has ended."""
    email, browser = await office.account()
    before = office.browser()
    before.http.cookies.set("kindred", _cookie(browser))
    await browser.send("/console", "/signin", email=email, password=PASSWORD)
    assert _cookie(browser) != before.http.cookies["kindred"]
    assert await _is_in(browser)
    assert not await _is_in(before)


async def test_the_secret_changes_and_the_old_one_lives_a_minute(office: Office) -> None:
    """Requests that were under way keep the session; a copy of the old cookie does not live on."""
    _, browser = await office.account()
    old = _cookie(browser)
    office.clock.advance(ROTATED_AFTER.total_seconds())
    assert await _is_in(browser)
    assert _cookie(browser) != old
    late = office.browser()
    late.http.cookies.set("kindred", old)
    assert await _is_in(late)
    assert _cookie(late) == old
    office.clock.advance(OVERLAP.total_seconds())
    assert not await _is_in(late)
    assert await _is_in(browser)


async def test_requests_at_the_moment_of_the_change_all_keep_the_session(office: Office) -> None:
    """One of them changes the cookie, and it is the one that goes on."""
    _, browser = await office.account()
    tabs = [office.browser() for _ in range(4)]
    for tab in tabs:
        # As if it had come from the server, which replaces it.
        tab.http.cookies.set("kindred", _cookie(browser), domain="kindred.local")
    office.clock.advance(ROTATED_AFTER.total_seconds())
    assert await asyncio.gather(*(_is_in(tab) for tab in tabs)) == [True] * 4
    office.clock.advance(OVERLAP.total_seconds())
    assert sorted([await _is_in(tab) for tab in tabs]) == [False] * 3 + [True]


@pytest.mark.parametrize(("pause", "times", "lives"), [(IDLE, 1, False), (IDLE - timedelta(seconds=61), 4, True)])
async def test_a_session_that_is_not_used_ends(office: Office, pause: timedelta, times: int, lives: bool) -> None:
    """After a week; one that is used goes on."""
    _, browser = await office.account()
    for _ in range(times):
        office.clock.advance(pause.total_seconds())
        assert await _is_in(browser) == lives


async def test_no_session_lives_for_ever(office: Office) -> None:
    """After 30 days one signs in again, however busy one was."""
    _, browser = await office.account()
    for _ in range(6):
        office.clock.advance(LIFE.total_seconds() / 6 - 1)
        assert await _is_in(browser)
    office.clock.advance(6)
    assert not await _is_in(browser)


async def test_sessions_are_listed_and_ended(office: Office) -> None:
    """One, then all others; what ends is out with its next request."""
    email, first = await office.account()
    others = [office.browser() for _ in range(3)]
    for browser in others:
        office.clock.advance(61)
        await browser.send("/signin", email=email, password=PASSWORD)
    listed = await first.get("/console/account")
    assert listed.text.count("Chrome on Linux") == 4
    assert listed.text.count("this one") == 1
    (newest, *_) = re.findall(r'name="session_id" value="([0-9a-f-]{36})"', listed.text)
    await first.send("/console/account", "/console/account/sessions", session_id=newest)
    assert [await _is_in(browser) for browser in others] == [True, True, False]
    gone = await first.send("/console/account", "/console/account/sessions", session_id=newest)
    assert (gone.status_code, heading(gone)) == (404, "There is no such session")
    await first.send("/console/account", "/console/account/sessions")
    assert [await _is_in(browser) for browser in (first, *others)] == [True, False, False, False]


async def test_nobody_ends_the_session_of_another(office: Office) -> None:
    """Knowing its id is not enough."""
    _, ada = await office.account()
    email, eve = await office.account()
    await office.browser().send("/signin", email=email, password=PASSWORD)
    (of_eve,) = re.findall(r'name="session_id" value="([0-9a-f-]{36})"', (await eve.get("/console/account")).text)
    refused = await ada.send("/console/account", "/console/account/sessions", session_id=of_eve)
    assert refused.status_code == 404


async def test_signing_out_ends_the_session_itself(office: Office) -> None:
    """Not only the cookie: a copy of it is worth nothing."""
    _, browser = await office.account()
    copy = office.browser()
    copy.http.cookies.set("kindred", _cookie(browser))
    assert await _is_in(copy)
    shown = await browser.send("/console", "/signout")
    assert heading(shown) == "Sign in"
    assert not await _is_in(copy)


@pytest.mark.parametrize("cookie", ["", "x", "A" * 43, "é", "a" * 5000, "; kindred=", '"quoted"'])
async def test_a_made_up_cookie_is_nobody(office: Office, cookie: str) -> None:
    """The page to sign in, never an error."""
    shown = await office.browser().http.get("/console", headers={"Cookie": f"kindred={cookie}".encode()})
    assert (shown.status_code, heading(shown)) == (200, "Sign in")


async def test_the_password_is_changed_by_the_old_one(office: Office) -> None:
    """Every other session ends, this one goes on; the owner is told."""
    email, browser = await office.account()
    other = office.browser()
    await other.send("/signin", email=email, password=PASSWORD)
    account, path = "/console/account", "/console/account/password"
    wrong = await browser.send(account, path, old_password="not the password", new_password="entirely new words")
    assert (wrong.status_code, "not your password" in wrong.text) == (401, True)
    weak = await browser.send(account, path, old_password=PASSWORD, new_password="password123")
    assert (weak.status_code, "everybody tries first" in weak.text) == (422, True)
    assert await _is_in(other)
    done = await browser.send(account, path, old_password=PASSWORD, new_password="entirely new words")
    assert "The password is changed" in done.text
    assert [await _is_in(each) for each in (browser, other)] == [True, False]
    assert (await office.mails(email))[-1][0] == "Your Kindred password was changed"


async def test_an_address_is_changed_by_a_link_to_the_new_one(office: Office) -> None:
    """Until then nothing changes; then the old address is told, and signs in no more."""
    email, browser = await office.account()
    new = new_address()
    account, path = "/console/account", "/console/account/email"
    wrong = await browser.send(account, path, email=new, email_password="not the password")
    assert wrong.status_code == 401
    sent = await browser.send(account, path, email=new, email_password=PASSWORD)
    assert heading(sent) == "Check your mail"
    link = await office.link(new)
    assert (await office.browser().send("/signin", email=new, password=PASSWORD)).status_code == 401
    done = await browser.send(link, "/email", token=token_of(link))
    assert "The address is changed" in done.text
    assert new in done.text
    assert (await office.mails(email))[-1][0] == "Your Kindred address was changed"
    for address, status in ((email, 401), (new, 200)):
        assert (await office.browser().send("/signin", email=address, password=PASSWORD)).status_code == status
    again = await browser.send(link, "/email", token=token_of(link))
    assert heading(again) == "This link has been used"


async def test_an_address_of_another_account_is_not_taken_over(office: Office) -> None:
    """Its owner would have to confirm it, and even then there are two accounts."""
    ada, _ = await office.account()
    _, eve = await office.account()
    await eve.send("/console/account", "/console/account/email", email=ada, email_password=PASSWORD)
    link = await office.link(ada)
    refused = await office.browser().send(link, "/email", token=token_of(link))
    assert (refused.status_code, heading(refused)) == (409, "There is an account with this address")
    assert (await office.browser().send("/signin", email=ada, password=PASSWORD)).status_code == 200
