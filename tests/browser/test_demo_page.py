"""The storefront in a real Chromium: what a visitor sees, and what it says when something is wrong."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

pytestmark = pytest.mark.browser

RECOMMEND = "**/v1/recommend"


def _asked(request: Request) -> dict[str, Any]:
    body = request.post_data_json
    assert isinstance(body, dict)
    return body


def _open_first(page: Page, base: str) -> None:
    page.goto(f"{base}/demo")
    page.locator("#grid a.card").first.click()
    expect(page.locator("#row-similar a.card").first).to_be_visible()


def test_the_products_are_shown_with_their_pictures(page: Page, demo_server: str) -> None:
    """The first screen is a grid of products whose photos have loaded."""
    page.goto(f"{demo_server}/demo")
    expect(page.locator("#grid a.card").first).to_be_visible()
    assert page.locator("#grid a.card").count() >= 40
    page.wait_for_function("document.querySelector('#grid img').naturalWidth > 0")
    expect(page.locator("#grid .price").first).to_contain_text("€")


def test_scrolling_down_shows_more_products(page: Page, demo_server: str) -> None:
    """The list goes on by itself when its end comes near, with no product twice."""
    page.goto(f"{demo_server}/demo")
    expect(page.locator("#grid a.card").first).to_be_visible()
    before = page.locator("#grid a.card").count()
    page.locator("#more").scroll_into_view_if_needed()
    expect(page.locator("#grid a.card").nth(before)).to_be_attached()
    ids = page.locator("#grid li").evaluate_all("nodes => nodes.map(node => node.dataset.id)")
    assert len(ids) == len(set(ids))


def test_a_product_shows_its_three_rows(page: Page, demo_server: str) -> None:
    """Similar, looks similar and text only are all filled, each asked for in its own way."""
    asked: list[dict[str, Any]] = []
    page.on("request", lambda request: asked.append(_asked(request)) if request.method == "POST" else None)
    _open_first(page, demo_server)
    for row in ("similar", "looks", "text"):
        expect(page.locator(f"#row-{row} a.card").nth(5)).to_be_attached()
    kinds = [(body["strategy"], body.get("weights")) for body in asked if "item_ids" in body]
    assert ("similar", {"text": 0.5, "image": 0.5}) in kinds
    assert ("visually_similar", None) in kinds
    assert ("similar", {"text": 1, "image": 0}) in kinds
    expect(page.locator("#detail-title")).not_to_be_empty()
    expect(page.locator("#detail-title")).to_be_focused()


def test_the_dial_asks_anew(page: Page, demo_server: str) -> None:
    """Moving the dial sends the new weights, and the row answers them."""
    _open_first(page, demo_server)
    with page.expect_request(lambda request: "item_ids" in (request.post_data or "")) as asked:
        page.locator("#dial").fill("80")
    assert _asked(asked.value)["weights"] == {"text": 0.2, "image": 0.8}
    expect(page.locator("#dial-value")).to_contain_text("20 % text, 80 % photo")
    expect(page.locator("#dial")).to_have_attribute("aria-valuetext", "20 % text, 80 % photo")


def test_a_stale_answer_is_never_shown(page: Page, demo_server: str) -> None:
    """An answer that was overtaken by a later position of the dial is dropped."""
    _open_first(page, demo_server)
    held: list[Route] = []

    def hold(route: Route) -> None:
        weights = _asked(route.request).get("weights", {})
        if weights.get("image") == 1:
            held.append(route)
        else:
            route.continue_()

    page.route(RECOMMEND, hold)
    with page.expect_request(lambda request: '"image":1}' in (request.post_data or "")):
        page.locator("#dial-photo").click()
    page.locator("#dial-text").click()
    expect(page.locator("#dial-value")).to_contain_text("100 % text, 0 % photo ·")
    shown = page.locator("#row-similar li").evaluate_all("nodes => nodes.map(node => node.dataset.id)")
    for route in held:
        route.fulfill(json={"items": [], "fallback_used": False, "took_ms": 1.0})
    expect(page.locator("#row-similar li").first).to_have_attribute("data-id", shown[0])
    expect(page.locator("#row-similar .message")).to_have_count(0)


def test_focus_shows_what_the_score_is_made_of(page: Page, demo_server: str) -> None:
    """The contributions of text and photo appear on a focused card."""
    _open_first(page, demo_server)
    first = page.locator("#row-similar a.card").first
    expect(first.locator(".why")).to_have_css("opacity", "0")
    page.locator("#dial-photo").focus()
    page.keyboard.press("Tab")
    expect(first).to_be_focused()
    expect(first.locator(".why")).to_have_css("opacity", "1")
    expect(first.locator(".why")).to_contain_text(re.compile(r"Text \d\.\d\d.*Photo \d\.\d\d"))


def test_the_keyboard_alone_opens_a_product_and_comes_back(page: Page, demo_server: str) -> None:
    """Enter opens, the browser's back returns to the same card."""
    page.goto(f"{demo_server}/demo")
    second = page.locator("#grid a.card").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    page.go_back()
    expect(page.locator("#shop")).to_be_visible()
    expect(second).to_be_focused()


def test_search_finds_and_can_be_linked(page: Page, demo_server: str) -> None:
    """Typing searches; the address holds the query, so that the result can be shared."""
    page.goto(f"{demo_server}/demo")
    page.locator("#query").fill("lamp")
    expect(page.locator("#headline")).to_have_text("Results for “lamp”")
    expect(page.locator("#grid .score").first).to_be_visible()
    assert "q=lamp" in page.url
    page.goto("about:blank")
    page.goto(f"{demo_server}/demo#q=lamp")
    expect(page.locator("#headline")).to_have_text("Results for “lamp”")
    expect(page.locator("#query")).to_have_value("lamp")


def test_nothing_found_says_what_to_do(page: Page, demo_server: str) -> None:
    """An empty result offers the way out."""

    def nothing(route: Route) -> None:
        route.fulfill(json={"recommendation_id": "x", "items": [], "fallback_used": False, "took_ms": 0.4})

    page.route("**/v1/search", nothing)
    page.goto(f"{demo_server}/demo#q=zzzz")
    expect(page.locator("#notice h2")).to_have_text("Nothing found for “zzzz”")
    page.locator("#notice button").click()
    expect(page.locator("#headline")).to_have_text("New in the shop")


def test_chips_narrow_the_list(page: Page, demo_server: str) -> None:
    """A language and a category together leave only products of both."""
    page.goto(f"{demo_server}/demo")
    page.get_by_role("button", name="Deutsch").click()
    expect(page.get_by_role("button", name="Deutsch")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#grid .tongue").first).to_have_text("de")
    with page.expect_request(RECOMMEND) as asked:
        page.get_by_role("button", name="Home").click()
    parts = _asked(asked.value)["filter"]["and"]
    assert parts[0] == {"eq": ["language", "de"]}
    assert parts[1]["in"][0] == "categories"
    expect(page.locator("#grid [aria-hidden].skeleton")).to_have_count(0)
    assert set(page.locator("#grid .tongue").all_text_contents()) == {"de"}


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        (lambda route: route.abort(), "The server does not answer"),
        (
            lambda route: route.fulfill(
                status=503, body=json.dumps({"title": "Starting"}), headers={"Retry-After": "3"}
            ),
            "Starting",
        ),
        (lambda route: route.fulfill(status=401, body="{}"), "The shop's key is no longer valid"),
        (lambda route: route.fulfill(status=500, body="<html>"), "The server answered 500"),
    ],
    ids=["down", "busy", "key", "broken"],
)
def test_a_failure_is_said_and_can_be_retried(
    page: Page, demo_server: str, answer: Callable[[Route], None], title: str
) -> None:
    """Whatever fails, the page names it, says what to do, and the button works once the cause is gone."""
    page.route(RECOMMEND, answer)
    page.goto(f"{demo_server}/demo")
    expect(page.locator("#notice h2")).to_have_text(title)
    page.unroute(RECOMMEND)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#grid a.card").first).to_be_visible()


def test_a_product_still_being_encoded_says_so(page: Page, demo_server: str) -> None:
    """A fallback answer is called what it is, and is replaced without a reload."""
    pending = True

    def encode(route: Route) -> None:
        body = route.fetch().json()
        if pending and _asked(route.request)["strategy"] != "new":
            body["fallback_used"] = True
            body["items"] = [{**item, "fallback": True, "explain": None} for item in body["items"]]
        route.fulfill(json=body)

    page.route(RECOMMEND, encode)
    page.clock.install()
    _open_first(page, demo_server)
    expect(page.locator("#row-similar .encoding")).to_contain_text("Still encoding this product")
    pending = False
    page.clock.run_for(3100)
    expect(page.locator("#row-similar .encoding")).to_have_count(0)
    expect(page.locator("#row-similar .score").first).to_be_visible()


def test_a_link_to_a_product_that_is_gone_says_so(page: Page, demo_server: str) -> None:
    """An old link is no blank page."""
    page.goto(f"{demo_server}/demo#item=no-such-product")
    expect(page.locator("#detail-title")).to_have_text("This product is not in the shop")
    expect(page.locator(".row-section").first).to_be_hidden()


def test_a_link_straight_to_a_product_works(page: Page, demo_server: str) -> None:
    """A shared link opens the product without the list having been loaded."""
    _open_first(page, demo_server)
    title, address = page.locator("#detail-title").inner_text(), page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#detail-title")).to_have_text(title)
    expect(page.locator("#row-looks a.card").first).to_be_visible()


def test_a_product_without_a_photo_is_not_waited_for(page: Page, demo_server: str) -> None:
    """No photo means no look-alikes, and the page says why instead of asking again and again."""

    def bare(route: Route) -> None:
        body = route.fetch().json()
        for item in body["items"]:
            item["fields"]["images"] = []
        route.fulfill(json=body)

    page.route(RECOMMEND, bare)
    _open_first(page, demo_server)
    expect(page.locator("#row-looks h2")).to_have_text("This product has no photo")
    expect(page.locator("#row-text a.card").first).to_be_visible()
    expect(page.locator(".stage .no-photo")).to_be_visible()


def test_titles_are_shown_as_text(page: Page, demo_server: str) -> None:
    """Markup in a product's text is never run nor rendered."""
    evil = "<img src=x onerror=alert(1)><b>bold</b>"

    def poison(route: Route) -> None:
        body = route.fetch().json()
        for item in body["items"]:
            item["fields"].update(title=evil, brand=evil, description=evil)
        route.fulfill(json=body)

    page.route(RECOMMEND, poison)
    _open_first(page, demo_server)
    expect(page.locator("#detail-title")).to_have_text(evil)
    expect(page.locator("#grid .card-title").first).to_have_text(evil)
    assert page.locator("b").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (768, "dark"), (1600, "light")])
def test_no_window_scrolls_sideways(chromium: Browser, demo_server: str, width: int, scheme: Any) -> None:
    """List and product fit narrow and wide windows, light and dark."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    _open_first(page, demo_server)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.go_back()
    expect(page.locator("#grid a.card").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_nothing_is_fetched_from_elsewhere(page: Page, demo_server: str) -> None:
    """The page works with no network but its own server."""
    elsewhere: list[str] = []
    page.on(
        "request",
        lambda request: elsewhere.append(request.url) if not request.url.startswith((demo_server, "data:")) else None,
    )
    _open_first(page, demo_server)
    assert elsewhere == []


def _row(page: Page, name: str) -> list[str]:
    expect(page.locator(f"#row-{name} ul")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator(f"#row-{name} a.card").first).to_be_visible()
    ids: list[str] = page.locator(f"#row-{name} li").evaluate_all("nodes => nodes.map(node => node.dataset.id)")
    return ids


def _shop_as(page: Page, index: int) -> list[str]:
    with page.expect_response(lambda answer: "for_you" in (answer.request.post_data or "")):
        page.locator("#shopper").select_option(index=index)
    return _row(page, "for-you")


def test_two_shoppers_see_different_rows(page: Page, demo_server: str) -> None:
    """Each of the demo's people has a row of their own."""
    page.goto(f"{demo_server}/demo")
    expect(page.locator("#row-for-you a.card").first).to_be_visible()
    first, second = _shop_as(page, 1), _shop_as(page, 2)
    assert first != second
    assert len(set(first) & set(second)) < len(first) / 2


def test_a_click_changes_the_shoppers_row(page: Page, demo_server: str) -> None:
    """A new visitor's row follows what was looked at, which is told to the API and shown as recently viewed."""
    page.goto(f"{demo_server}/demo")
    before = _row(page, "for-you")
    with page.expect_response("**/v1/events") as told:
        page.locator("#grid a.card").nth(5).click()
    assert told.value.json()["accepted"] == 1
    item = page.url.partition("item=")[2]
    with page.expect_response(lambda answer: "for_you" in (answer.request.post_data or "")):
        page.locator("#back").click()
    assert _row(page, "recent")[0] == item
    after = _row(page, "for-you")
    assert after != before
    assert item not in after
