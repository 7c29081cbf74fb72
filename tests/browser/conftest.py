"""A Chromium, and a server of the demo page whose API is a small fake over the drawn catalogue."""

import hashlib
import itertools
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from api.console.pages import demo
from infra.demo.catalogue import demo_items
from infra.demo.shop import DemoShop, write_demo

KEY = "pk_test_demo"
PRODUCTS = 120
"""Enough for two pages of the list; drawing them takes a few seconds."""


class FakeShop:
    """The two calls that the page makes, answered from words and colours alone."""

    def __init__(self) -> None:
        self.photos: dict[str, bytes] = {}
        self.items: dict[str, dict[str, Any]] = {}
        for product in itertools.islice(demo_items(), PRODUCTS):
            item = dict(product.item)
            names = [f"{hashlib.sha256(photo).hexdigest()}.jpg" for photo in product.photos]
            self.photos.update(zip(names, product.photos, strict=True))
            item["images"] = [f"/demo/photos/{name}" for name in names]
            self.items[item["id"]] = item

    def _keeps(self, tree: dict[str, Any] | None, item: dict[str, Any]) -> bool:
        if not tree:
            return True
        ((op, body),) = tree.items()
        if op == "and":
            return all(self._keeps(part, item) for part in body)
        field, wanted = body
        values = wanted if op == "in" else [wanted]
        own = item.get(field)
        return any(value in values for value in (own if isinstance(own, list) else [own]))

    def _answer(self, ranked: list[tuple[float, float, str]], body: dict[str, Any], start: int = 0) -> dict[str, Any]:
        count = body.get("count", 10)
        shown = ranked[start : start + count]
        items = []
        for rank, (text, image, item_id) in enumerate(shown, start + 1):
            fields = {name: self.items[item_id].get(name) for name in body.get("fields", [])}
            item = {
                "id": item_id,
                "score": round(text + image, 4),
                "rank": rank,
                "source": "similar",
                "fallback": False,
            }
            explain = {"text": text, "image": image, "text_similarity": 0.7, "image_similarity": 0.6}
            items.append({**item, "fields": fields, **({"explain": explain} if body.get("explain") else {})})
        more = start + count < len(ranked)
        cursor = {"cursor": str(start + count)} if more else {}
        return {"recommendation_id": "r1", "items": items, "fallback_used": False, "took_ms": 1.25, **cursor}

    def _likeness(self, a: dict[str, Any], b: dict[str, Any]) -> tuple[float, float]:
        same = lambda name: a["attributes"].get(name) == b["attributes"].get(name)  # noqa: E731
        kind = a["categories"] == b["categories"]
        text = 0.45 * kind + 0.2 * same("material") + 0.2 * (a["language"] == b["language"]) + 0.05 * same("style")
        image = 0.5 * kind + 0.25 * same("colour") + 0.1 * same("pattern") + 0.1 * same("style")
        return text, image

    def recommend(self, body: dict[str, Any]) -> dict[str, Any]:
        kept = [item for item in self.items.values() if self._keeps(body.get("filter"), item)]
        if body.get("strategy") == "new":
            return self._answer([(0.0, 0.0, item["id"]) for item in kept], body, int(body.get("cursor") or 0))
        seed = self.items[body["item_ids"][0]]
        weights = body.get("weights", {"text": 0.0, "image": 1.0})
        total = sum(weights.values()) or 1
        ranked = []
        for item in kept:
            text, image = self._likeness(seed, item)
            if item["id"] != seed["id"]:
                ranked.append((text * weights["text"] / total, image * weights["image"] / total, item["id"]))
        ranked.sort(key=lambda entry: (-entry[0] - entry[1], entry[2]))
        return self._answer(ranked, {**body, "cursor": None})

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        words = body["query"].lower().split()
        ranked = []
        for item in self.items.values():
            text = f"{item['title']} {item['description']}".lower()
            hits = sum(word in text for word in words)
            if hits and self._keeps(body.get("filter"), item):
                ranked.append((0.5 * hits / len(words), 0.0, item["id"]))
        ranked.sort(key=lambda entry: (-entry[0], entry[2]))
        return self._answer(ranked, body)


def build_app(fake: FakeShop, folder: Path) -> Litestar:
    """The page on the fake API; `folder` may hold the file that names the shop."""

    @post("/v1/recommend", status_code=200)
    async def recommend(data: JSONBody[dict[str, Any]], request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return Response({"title": "No such key", "detail": "Check the key."}, status_code=401)
        return Response(fake.recommend(data))

    @post("/v1/search", status_code=200)
    async def search(data: JSONBody[dict[str, Any]]) -> dict[str, Any]:
        return fake.search(data)

    @get("/demo/photos/{name:str}", sync_to_thread=False)
    def photo(name: FromPath[str]) -> Response[bytes]:
        return Response(fake.photos[name], media_type="image/jpeg")

    services = SimpleNamespace(settings=SimpleNamespace(data_dir=folder))
    handlers = [*demo.ROUTES, recommend, search, photo]
    return Litestar(handlers, state=State({"services": services}), openapi_config=None)


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """A thread cannot have them."""


def serve(app: Litestar) -> Iterator[str]:
    """Run an app on a free loopback port until the generator is closed; yields its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server that has the demo page and its shop."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, DemoShop(name="Kindred demo shop", publishable_key=KEY))
    yield from serve(build_app(FakeShop(), folder))


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
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce", locale="en-GB")
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
    assert faults == []
