"""The second step and the provider's button in a real Chromium, against a real API process and a real provider."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

import pyotp
import pytest
from playwright.sync_api import Page, expect

from infra.db import Database
from infra.embedded import EmbeddedPostgres
from infra.ids import uuid7
from tenants.accounts.email import hash_email
from tenants.accounts.organisations import add_organisation
from tenants.accounts.passwords import Passwords
from tenants.accounts.people import add_person
from tests.conftest import Clones
from tests.integration.api.accounts.conftest import PASSWORD, new_address
from tests.integration.api.accounts.provider import CLIENT_ID, CLIENT_SECRET, Provider, serving
from tests.integration.api.server import SECRET, Server, running

pytestmark = pytest.mark.browser


@pytest.fixture
def provider() -> Iterator[Provider]:
    """With the real clock, as the process has it."""
    with serving(Provider(lambda: datetime.now(UTC), f"{token_hex(6)}.example")) as made:
        yield made


@pytest.fixture
def database(pg18: EmbeddedPostgres) -> Iterator[str]:
    """A database for one process of the API."""
    clones = Clones(f"browser_{token_hex(4)}")
    with ThreadPoolExecutor(1) as elsewhere:  # Playwright's loop runs in this thread
        yield elsewhere.submit(clones.make, pg18).result()
        elsewhere.submit(clones.drop).result()


@pytest.fixture
def server(database: str, provider: Provider, tmp_path: Path) -> Iterator[Server]:
    """The API, whose people of the provider's domain sign in there."""
    with running(
        database,
        tmp_path,
        KINDRED_OIDC_ISSUER=provider.issuer,
        KINDRED_OIDC_CLIENT_ID=CLIENT_ID,
        KINDRED_OIDC_CLIENT_SECRET=CLIENT_SECRET,
        KINDRED_OIDC_DOMAINS=provider.domain,
        KINDRED_OIDC_NAME="Corp",
    ) as made:
        yield made
        made.end()


async def _add_account(url: str, email: str) -> None:
    database = Database(url, hot=0, sessions=1)
    person_id, org_id, now = uuid7(), uuid7(), datetime.now(UTC)
    password_hash = await Passwords().hash(PASSWORD)
    async with database.person_session(person_id, org_id=org_id) as conn:
        await add_person(conn, person_id, email, hash_email(SECRET.encode(), email), password_hash, now=now)
        await add_organisation(conn, org_id, "Lumen", person_id, now=now)
    await database.close()


def _sign_in(page: Page, server: Server, email: str) -> None:
    page.goto(f"{server.url}/signin")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_a_second_step_is_set_up_and_taken(page: Page, server: Server, database: str) -> None:
    """The QR code is drawn within the page, which loads nothing from elsewhere; a recovery code opens the door, too."""
    email = new_address()
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(asyncio.run, _add_account(database, email)).result()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    _sign_in(page, server, email)
    page.get_by_role("link", name="Account").click()
    page.get_by_role("link", name="Set it up").click()
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Go on").click()
    code = page.get_by_role("img", name="QR code").locator("svg")
    expect(code).to_be_visible()
    size = code.bounding_box()
    assert size is not None
    assert 150 < size["width"] == size["height"]
    secret = page.locator(".key-value code").inner_text().replace(" ", "")
    page.get_by_label("The code that it shows now").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    codes = page.locator("pre code").inner_text().split()
    assert len(codes) == 10
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_text("10 recovery codes are left")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    _sign_in(page, server, email)
    expect(page.get_by_role("heading", name="Your code")).to_be_visible()
    page.get_by_label("The code of your app").fill("000000")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("The code is not right")
    page.get_by_label("The code of your app").fill(codes[0])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Your shops")).to_be_visible()
    assert {re.sub(r"^(\w+://[^/]+).*", r"\1", url) for url in asked if not url.startswith("data:")} == {server.url}


def test_the_providers_button_leads_there_and_back(page: Page, server: Server, provider: Provider) -> None:
    """On to the page that was asked for; a provider that lets nobody in is a page with a way on."""
    page.goto(f"{server.url}/console/account")
    page.get_by_role("link", name="Sign in with Corp").click()
    expect(page).to_have_url(f"{server.url}/console/account")
    expect(page.get_by_text(f"ada@{provider.domain}")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    provider.callback = {"error": "access_denied"}
    page.get_by_role("link", name="Sign in with Corp").click()
    expect(page.get_by_role("heading", name="The sign-in was not finished")).to_be_visible()
    page.get_by_role("link", name="Sign in").last.click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
