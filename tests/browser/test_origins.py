"""Pages of two origins in a real Chromium, with a publishable key that is bound to one of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.installation import Installation, Shop, until

pytestmark = pytest.mark.browser

_ASK = """async ([address, key, body]) => {
  try {
    const answer = await fetch(address, {
      method: "POST", body: JSON.stringify(body),
      headers: {"Authorization": `Bearer ${key}`, "Content-Type": "application/json"},
    });
    return {status: answer.status, id: answer.headers.get("x-request-id"), body: await answer.json()};
  } catch (error) {
    return {refused: String(error)};
  }
}"""
_BEACON = "([address, body]) => navigator.sendBeacon(address, JSON.stringify(body))"


class _Storefront(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        """Answers every path with it."""
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>shop</title>")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def _storefront() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Storefront)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def shop(installation: Installation) -> Iterator[Shop]:
    """A shop with an item."""
    made = installation.make_shop("origins")
    made.client.put("/v1/items/lamp", json={"title": "Lamp"}).raise_for_status()
    yield made
    made.client.close()


def test_a_page_of_an_allowed_origin_asks_and_no_other(page: Page, installation: Installation, shop: Shop) -> None:
    """Lists, events and beacons; of the other page not even the refusal can be read, and nothing of it is stored."""
    with _storefront() as ours, _storefront() as theirs:
        made = shop.client.post("/v1/keys", json={"kind": "publishable", "name": "page", "allowed_origins": [ours]})
        key = made.raise_for_status().json()["key"]
        visitor = "3f0c2a9e5b7d41f8a6c4e2d09b8f7a61"

        def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer: dict[str, Any] = page.evaluate(_ASK, [f"{installation.url}{path}", key, body])
            return answer

        def event(name: str) -> dict[str, Any]:
            return {"events": [{"type": "view", "item_id": "lamp", "visitor_id": visitor, "event_id": name}]}

        page.goto(ours)
        listed = ask("/v1/recommend", {"strategy": "new"})
        assert listed["status"] == 200
        assert listed["id"]
        assert [item["id"] for item in listed["body"]["items"]] == ["lamp"]
        assert ask("/v1/events", event("ours"))["body"]["accepted"] == 1
        address = f"{installation.url}/v1/events?key={key}"
        assert page.evaluate(_BEACON, [address, event("beacon")])

        def stored() -> set[str]:
            listed = shop.client.get("/v1/events").raise_for_status().json()["events"]
            return {each["event_id"] for each in listed}

        until(lambda: "beacon" in stored(), "the beacon to arrive")

        page.goto(theirs)
        for path, body in (("/v1/recommend", {"strategy": "new"}), ("/v1/events", event("theirs"))):
            assert "Failed to fetch" in ask(path, body)["refused"]
        assert stored() == {"ours", "beacon"}


def test_a_secret_key_is_of_no_use_on_a_page(page: Page, installation: Installation, shop: Shop) -> None:
    """Whoever puts one there by mistake learns it before the shop opens."""
    with _storefront() as ours:
        page.goto(ours)
        answer = page.evaluate(_ASK, [f"{installation.url}/v1/recommend", shop.secret_key, {"strategy": "new"}])
    assert "Failed to fetch" in answer["refused"]
