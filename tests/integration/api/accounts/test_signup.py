"""From an address to an account with a shop, by pages and by API."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from infra.db import driver
from infra.settings import Settings
from infra.telemetry import redact
from tenants.accounts.outbox import prune_accounts
from tests.conftest import FrozenClock
from tests.integration.api.accounts.conftest import (
    PASSWORD,
    Office,
    form_token,
    heading,
    new_address,
    running,
    token_of,
)
from tests.integration.api.conftest import SECRET

pytestmark = pytest.mark.anyio


async def test_a_person_gets_from_the_form_to_working_keys(office: Office) -> None:
    """Sign up, open the mail's link, confirm: the page shows two keys that the API takes."""
    browser, email = office.browser(), new_address()
    sent = await browser.send("/signup", email=email, password=PASSWORD, shop_name="Lumen Lamps", currency="EUR")
    assert (sent.status_code, heading(sent)) == (200, "Check your mail")
    ((subject, _),) = await office.mails(email)
    assert subject == "Confirm your e-mail address for Kindred"
    link = await office.link(email)
    asked = await browser.get(link)
    assert "Lumen Lamps" in asked.text
    assert 'name="password"' not in asked.text
    keys = await browser.send(link, "/verify", token=token_of(link))
    assert (keys.status_code, keys.headers["cache-control"]) == (200, "no-store")
    secret, publishable = re.findall(r"<code>([sp]k_\w{45})</code>", keys.text)
    assert (secret[:3], publishable[:3]) == ("sk_", "pk_")
    items = await office.browser().http.get("/v1/items", headers={"Authorization": f"Bearer {secret}"})
    assert items.json() == {"items": [], "next_cursor": None}
    shops = await browser.get("/console")
    assert "Lumen Lamps" in shops.text
    assert secret not in shops.text


async def test_an_account_by_curl(office: Office) -> None:
    """202, the mail, 201 with the keys; the password of the second call is the account's."""
    http, email = office.browser().http, new_address()
    asked = await http.post("/v1/signup", json={"email": email, "password": "another one entirely"})
    assert (asked.status_code, asked.json()) == (202, {"status": "check_mail"})
    token = token_of(await office.link(email))
    made = await http.post("/v1/signup/verify", json={"token": token, "password": PASSWORD})
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    key = made.json()["secret_key"]
    assert (await http.get("/v1/keys", headers={"Authorization": f"Bearer {key}"})).status_code == 200
    for password, status in (("another one entirely", 401), (PASSWORD, 200)):
        browser = office.browser()
        shown = await browser.send("/signin", email=email, password=password)
        assert shown.status_code == status


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("کتاب\u200cفروشی", "کتاب\u200cفروشی"),
        ("\U0001f469\u200d\U0001f33e Farm", "\U0001f469\u200d\U0001f33e Farm"),
        ("\u00a0Cafe\u0301\u00a0 Lamps\u3000", "Caf\u00e9 Lamps"),
    ],
)
async def test_a_shop_may_be_named_in_any_script(office: Office, typed: str, kept: str) -> None:
    """With the joiners of Persian and of emoji; spaces of every kind are plain ones. What was taken is made."""
    browser, email = office.browser(), new_address()
    assert heading(await browser.send("/signup", email=email, password=PASSWORD, shop_name=typed)) == "Check your mail"
    link = await office.link(email)
    shown = await browser.send(link, "/verify", token=token_of(link))
    assert heading(shown) == f"The keys of “{kept}”"
    org_id = (await browser.get("/console")).text.partition('name="org_id" value="')[2][:36]
    again = await browser.send("/console", "/console/shops", name=typed, currency="EUR", org_id=org_id)
    assert (again.status_code, "choose another name" in again.text) == (409, True)


@pytest.mark.parametrize(
    "name", ["Lumen\u200b Lamps", "Lumen\u200d", "Lumen \u200cLamps", "\u202eLumen", "Lumen\ue000"]
)
async def test_a_name_that_no_shop_can_have_is_refused_at_once(office: Office, name: str) -> None:
    """At its field, before anything is stored or mailed: the link could only fail for ever."""
    browser, email = office.browser(), new_address()
    shown = await browser.send("/signup", email=email, password=PASSWORD, shop_name=name)
    assert (shown.status_code, "printable characters" in shown.text) == (422, True)
    told = await browser.http.post("/v1/signup", json={"email": email, "password": PASSWORD, "shop_name": name})
    assert (told.status_code, told.json()["errors"][0]["pointer"]) == (422, "/shop_name")
    assert await office.mails(email) == []


async def test_an_address_with_an_account_is_told_by_mail_alone(office: Office) -> None:
    """The answers are the same to the byte, by page and API; the owner's mail says what is so."""
    taken, _ = await office.account()
    unknown = new_address()
    told = []
    for email in (taken, unknown):
        browser = office.browser()
        page = await browser.send("/signup", email=email, password=PASSWORD)
        api = await browser.http.post("/v1/signup", json={"email": email, "password": PASSWORD})
        told.append((page.status_code, page.text.replace(email, "…"), api.status_code, api.text))
    assert told[0] == told[1]
    assert (await office.mails(taken))[-1][0] == "You have a Kindred account already"
    assert (await office.mails(unknown))[-1][0] == "Confirm your e-mail address for Kindred"


async def test_case_makes_no_second_account(office: Office) -> None:
    """As no mail server does either; the mail goes to the address as it was given."""
    email, _ = await office.account(f"Ada.{new_address()}")
    await office.browser().send("/signup", email=email.upper(), password=PASSWORD)
    local, _, domain = email.upper().partition("@")
    ((subject, _),) = await office.mails(f"{local}@{domain.lower()}")
    assert subject == "You have a Kindred account already"


async def test_a_link_works_once_and_says_so(office: Office) -> None:
    """The second time it leads on: to sign in."""
    email, browser = await office.account()
    link = await office.link(email)
    for shown in (
        await browser.get(link),
        await office.browser().http.post("/v1/signup/verify", json={"token": token_of(link), "password": PASSWORD}),
    ):
        assert shown.status_code == 422
        assert "This link has been used" in shown.text


async def test_two_sign_ups_with_one_address_make_one_account(office: Office) -> None:
    """Both links are good, and the second one to be confirmed finds the account of the first."""
    email = new_address()
    links = []
    for _ in range(2):
        browser = office.browser()
        await browser.send("/signup", email=email, password=PASSWORD)
        links.append((browser, await office.link(email)))
    statuses = [(await browser.send(link, "/verify", token=token_of(link))).status_code for browser, link in links]
    assert statuses == [200, 409]
    async with office.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        assert await raw.fetchval("select count(*) from people where email = $1", email) == 1


async def test_another_browser_chooses_the_password(office: Office) -> None:
    """Who opens the link proves the address; the password of whoever signed up with it is not believed."""
    attacker, email = office.browser(), new_address()
    await attacker.send("/signup", email=email, password="the attacker knows it")
    link = await office.link(email)
    owner = office.browser()
    asked = await owner.get(link)
    assert 'name="password"' in asked.text
    refused = await owner.send(link, "/verify", token=token_of(link))
    assert (refused.status_code, "Choose a password" in refused.text) == (422, True)
    weak = await owner.send(link, "/verify", token=token_of(link), password="short")
    assert "at least 10 characters" in weak.text
    assert (await owner.send(link, "/verify", token=token_of(link), password=PASSWORD)).status_code == 200
    for password, status in (("the attacker knows it", 401), (PASSWORD, 200)):
        assert (await office.browser().send("/signin", email=email, password=password)).status_code == status


async def test_a_link_ends_after_a_day(office: Office) -> None:
    """One second before it is good."""
    email, browser = new_address(), office.browser()
    await browser.send("/signup", email=email, password=PASSWORD)
    link = await office.link(email)
    office.clock.advance(24 * 3600 - 1)
    assert (await browser.get(link)).status_code == 200
    office.clock.advance(1)
    shown = await browser.get(link)
    assert (shown.status_code, heading(shown)) == (422, "This link has expired")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"email": "nobody"}, "Type the whole e-mail address"),
        ({"email": "a@b"}, "Type the whole e-mail address"),
        ({"email": "a@shop.example\r\nBcc: x@y.example"}, "email"),
        ({"email": "x" * 300 + "@shop.example"}, "Type the whole e-mail address"),
        ({"password": "short"}, "at least 10 characters"),
        ({"password": "Password123"}, "everybody tries first"),
        ({"password": "x" * 257}, "password"),
        ({"shop_name": "x" * 101}, "shop name: "),
        ({"shop_name": "a\tb"}, "shop name"),
        ({"currency": "euro"}, "currency"),
        ({"surplus": "field"}, "surplus: "),
        ({"email": ""}, "email"),
    ],
    ids=str,
)
async def test_bad_input_is_named_and_nothing_else_is_lost(office: Office, fields: dict[str, str], said: str) -> None:
    """The page comes again with what was typed, but for the password; the API says 422."""
    email = new_address()
    sent = {"email": email, "password": PASSWORD, "shop_name": "Lumen", **fields}
    shown = await office.browser().send("/signup", **sent)
    assert shown.status_code == 422
    assert said in shown.text
    assert PASSWORD not in shown.text
    told = await office.browser().http.post("/v1/signup", json=sent)
    assert told.status_code == 422
    assert told.json()["errors"]
    assert await office.mails(email) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"email": 1}', b"\xff", b'{"email": null, "password": null}'])
async def test_what_is_no_sign_up_is_refused(office: Office, body: bytes) -> None:
    """400 or 422, never 500."""
    headers = {"Content-Type": "application/json"}
    for path in ("/v1/signup", "/v1/signup/verify"):
        answer = await office.browser().http.post(path, content=body, headers=headers)
        assert answer.status_code in (400, 422)


@pytest.mark.parametrize("token", ["", "x", "é" * 43, "A" * 43, "A" * 99, "../../etc", "%00"])
async def test_a_made_up_token_opens_nothing(office: Office, token: str) -> None:
    """Each door says what to do instead."""
    browser = office.browser()
    for page in ("/verify", "/signin/link", "/reset"):
        shown = await browser.http.get(page, params={"token": token})
        assert (shown.status_code, heading(shown)) == (422, "This link is not known")
    if token:
        body = {"token": token, "password": PASSWORD}
        assert (await browser.http.post("/v1/signup/verify", json=body)).status_code == 422


@pytest.mark.parametrize(("signup", "said"), [("closed", "runs this installation"), ("invite", "by invitation")])
async def test_an_installation_may_be_closed(
    database_url: str, tmp_path: Path, clock: FrozenClock, signup: str, said: str
) -> None:
    """403 with what to do; the page says so before anybody types."""
    settings = Settings(data_dir=tmp_path, secret_key=SECRET, database_url=database_url)
    async with running(replace(settings, signup=signup), clock, tmp_path / "mail") as office:
        browser = office.browser()
        assert said in (await browser.get("/signup")).text
        token = form_token(await browser.get("/signin"))
        shown = await browser.http.post("/signup", data={"form_token": token, "email": "a@b.example", "password": "x"})
        assert said in shown.text
        told = await browser.http.post("/v1/signup", json={"email": new_address(), "password": PASSWORD})
        assert (told.status_code, told.json()["code"]) == (403, "signup_closed")


async def test_logs_tell_no_secret_and_nobody(office: Office) -> None:
    """Neither address, password, token nor key, of people who sign up, in, and fail to."""
    with capture_logs(processors=[merge_contextvars, redact]) as logs:
        email, browser = await office.account()
        await browser.send("/console", "/signout")
        for password in ("not the password", PASSWORD):
            await browser.send("/signin", email=email, password=password)
        await browser.get(await office.link(email))
    told = repr(logs)
    assert len(logs) > 8
    secrets = [email, email.partition("@")[0], PASSWORD, token_of(await office.link(email)), "sk_", "pk_"]
    assert [secret for secret in secrets if secret in told] == []


async def test_only_hashes_of_secrets_are_stored(office: Office) -> None:
    """Neither password nor token nor cookie lies in any row."""
    email, browser = await office.account()
    secrets = [PASSWORD, token_of(await office.link(email)), browser.http.cookies["kindred"]]
    async with office.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        for table in ("people", "signups", "sessions", "one_time_tokens", "mails", "attempts"):
            for record in await raw.fetch(f"select t::text as row from {table} t"):
                assert not [secret for secret in secrets if secret in record["row"]], table


async def test_unverified_accounts_are_forgotten(office: Office) -> None:
    """A week after their link has ended, with everything that they were."""
    email = new_address()
    await office.browser().send("/signup", email=email, password=PASSWORD)
    await office.deliver()

    async def left() -> list[int]:
        async with office.database.system_session(reason="test look") as conn:
            raw = await driver(conn)
            return [
                await raw.fetchval("select count(*) from signups where email = $1", email),
                await raw.fetchval("select count(*) from mails where address = $1", email),
            ]

    for days, expected in ((7, [1, 1]), (9, [0, 0])):
        async with office.database.system_session(reason="test prune") as conn:
            await prune_accounts(conn, office.clock.advance(days * 86_400))
        assert await left() == expected
        office.clock.advance(-days * 86_400)
