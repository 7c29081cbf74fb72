"""The application with its doors, browsers of people who come from networks of their own, and the mails they get."""

import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from api.app import Application, create_app
from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId
from infra.embedded import Major
from infra.mail import FileMailer
from infra.settings import Settings
from tests.conftest import FrozenClock
from tests.integration.api.conftest import SECRET
from workers.mail.loop import MailLoop

PASSWORD = "three words and more"
_FORM_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


def heading(page: httpx.Response) -> str:
    """The page's first heading."""
    found = re.search(r"<h1>(.*?)</h1>", page.text, re.DOTALL)
    assert found is not None, page.text
    return found[1]


def form_token(page: httpx.Response) -> str:
    """What the forms of the page are to be sent with."""
    found = _FORM_TOKEN.search(page.text)
    assert found is not None, page.text
    return found[1]


class Browser:
    """A browser: it follows redirects, keeps cookies, and sends forms as a page has them."""

    def __init__(self, app: Application, address: str) -> None:
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 40_000)),
            base_url="http://kindred",
            follow_redirects=True,
            headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0 Safari/537.36"},
        )

    async def get(self, path: str) -> httpx.Response:
        """Open a page."""
        return await self.http.get(path)

    async def send(self, page: str, path: str | None = None, **fields: str) -> httpx.Response:
        """Open `page` and send its form, to `path` where that is another address."""
        shown = await self.http.get(page)
        sent = {"form_token": form_token(shown), **fields}
        return await self.http.post(path or page.partition("?")[0], data=sent, headers={"Origin": "http://kindred"})


class Office:
    """The installation as people meet it: its pages, its API, and their mail."""

    def __init__(self, app: Application, clock: FrozenClock, mails: Path) -> None:
        self.app = app
        self.clock = clock
        self.database = app.services.database
        self._mails = mails
        self.loop = MailLoop(
            self.database,
            FileMailer(mails, sender="Kindred <kindred@localhost>"),
            secret=app.services.secret,
            origin=app.services.settings.public_origin,
            clock=clock,
        )
        self._browsers: list[Browser] = []

    def browser(self, address: str | None = None) -> Browser:
        """A fresh one, from a network that nobody else comes from."""
        made = Browser(self.app, address or ".".join(str(random.SystemRandom().randrange(1, 255)) for _ in range(4)))
        self._browsers.append(made)
        return made

    async def deliver(self) -> None:
        """Send all mails that are due."""
        while await self.loop.step():
            pass

    async def mails(self, address: str) -> list[tuple[str, str]]:
        """Subject and text of the mails to an address, in the order of sending."""
        await self.deliver()
        found = []
        for path in sorted(self._mails.glob("*.eml")):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            if message["To"] == address:
                body = message.get_body(("plain",))
                assert body is not None
                found.append((message["Subject"], body.get_content()))
        return found

    async def link(self, address: str) -> str:
        """Path and query of the link in the newest mail to an address."""
        _, text = (await self.mails(address))[-1]
        found = re.search(r"http://127\.0\.0\.1:8000(/\S+)", text)
        assert found is not None, text
        return found[1]

    async def account(self, email: str | None = None, *, browser: Browser | None = None) -> tuple[str, Browser]:
        """A new account with a shop; its address, and the browser that is signed in."""
        email = email or new_address()
        browser = browser or self.browser()
        await browser.send("/signup", email=email, password=PASSWORD, shop_name="Lumen")
        link = await self.link(email)
        shown = await browser.send(link, "/verify", token=token_of(link))
        assert shown.status_code == 200, shown.text
        return email, browser

    async def close(self) -> None:
        """Close the browsers."""
        for each in self._browsers:
            await each.http.aclose()


def new_address() -> str:
    """An address that nobody has."""
    return f"ada.{uuid4().hex[:12]}@shop.example"


async def shop_of(browser: Browser) -> TenantId:
    """The first shop that the browser's person has."""
    return TenantId(UUID((await browser.get("/console")).text.partition("/console/shops/")[2][:36]))


def token_of(link: str) -> str:
    """The token that a mail's link carries."""
    return link.partition("token=")[2]


@pytest.fixture(scope="session", params=[18], ids=["pg18"])
def pg_major(request: pytest.FixtureRequest) -> Major:
    """What pages show is the same on every PostgreSQL; tests/isolation asks both what they keep apart."""
    major: Major = request.param
    return major


@pytest.fixture
async def office(database_url: str, tmp_path: Path, clock: FrozenClock, anyio_backend: str) -> AsyncIterator[Office]:
    """An installation where anybody may sign up, over http."""
    settings = Settings(data_dir=tmp_path, secret_key=SECRET, database_url=database_url)
    async with running(settings, clock, tmp_path / "mail") as made:
        yield made


@pytest.fixture
async def hosted(database_url: str, tmp_path: Path, clock: FrozenClock, anyio_backend: str) -> AsyncIterator[Office]:
    """An installation whose shops have plans."""
    settings = Settings(data_dir=tmp_path, secret_key=SECRET, database_url=database_url, entitlements="plans")
    async with running(settings, clock, tmp_path / "mail") as made:
        yield made


@asynccontextmanager
async def running(settings: Settings, clock: FrozenClock, mails: Path) -> AsyncIterator[Office]:
    """An installation with those settings."""
    assert settings.database_url is not None
    database = Database(settings.database_url, hot=2, sessions=3, ingest=1)
    app = create_app(settings, database, FolderBlobs(settings.data_dir / "blobs"), clock=clock)
    services = app.services
    await database.open()
    await services.feed.poll()
    await services.feed.start()
    services.answer_log.start()
    office = Office(app, clock, mails)
    yield office
    await office.close()
    await services.answering.close()
    await services.answer_log.close()
    await services.feed.close()
    await database.close()
