"""A Chromium, and a real installation that shows a part of the demo shop."""

import itertools
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from infra.demo.catalogue import demo_items
from infra.demo.load import demo_visitors
from infra.demo.shop import DemoShop, read_demo, write_demo
from infra.demo.shoppers import demo_events
from infra.filelock import exclusive
from tests.installation import Installation, Shop, until

SHOPPERS: Final = 400
PRODUCTS: Final = 90
"""Enough for two pages of the list; drawing and encoding them takes a few seconds."""


AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


@pytest.fixture(scope="session")
def demo_server(installation: Installation) -> str:
    """Base URL of a server that has the demo page and its shop, loaded once per run."""
    with exclusive(Path(os.environ["PYTEST_CLUSTERS"]) / "demo.lock"):
        if read_demo(installation.data_dir) is None:
            shop = installation.make_shop("Kindred demo shop")
            _load(shop)
            _teach(shop)
            write_demo(
                installation.data_dir,
                DemoShop(name=shop.name, publishable_key=shop.publishable_key, visitors=demo_visitors()),
            )
            shop.client.close()
    return installation.url


def _load(shop: Shop) -> None:
    products = list(itertools.islice(demo_items(), PRODUCTS))
    shop.client.post("/v1/items/bulk", json=[product.item for product in products]).raise_for_status()

    def upload(photo: tuple[str, int, bytes]) -> None:
        item_id, position, data = photo
        address = f"/v1/items/{quote(item_id, safe='')}/images/{position}"
        shop.client.put(address, content=data, headers={"Content-Type": "image/jpeg"}).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        photos = [(str(p.item["id"]), position, data) for p in products for position, data in enumerate(p.photos)]
        list(pool.map(upload, photos))
    counts = shop.wait_until_encoded()
    assert counts["text"]["done"] == counts["image"]["done"] == PRODUCTS


def _teach(shop: Shop) -> None:
    events = list(demo_events(datetime.now(UTC), shoppers=SHOPPERS))
    for start in range(0, len(events), 1000):
        answer = shop.client.post("/v1/events", json={"events": events[start : start + 1000]}).raise_for_status()
        assert answer.json()["rejected"] == 0
    address = f"/v1/jobs/{shop.client.post('/v1/models/train').raise_for_status().json()['job_id']}"
    until(lambda: shop.client.get(address).json()["status"] == "done" or None, "the training")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The machine's Chromium; the tests are skipped where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium fonts-dejavu-core")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A fresh profile with a desktop window and no motion."""
    # A headless browser says so, and what it does would be a bot's.
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, reduced_motion="reduce", locale="en-GB", user_agent=AGENT
    )
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that fails its test when a script breaks or the security policy blocks something."""
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    page.unroute_all(behavior="ignoreErrors")  # a request may still be on its way through a test's route
    assert faults == []
