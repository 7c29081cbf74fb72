"""In a real browser: a person signs up and sees a recommendation of own products, by what the pages say alone."""

import re
from email import message_from_bytes, policy
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.installation import Installation, until

pytestmark = pytest.mark.browser

PASSWORD = "three words and more"
FEED = """id,title,price,category
sofa-1,Grey linen sofa,899.00,Living > Sofas
sofa-2,Green velvet sofa,1099.00,Living > Sofas
table-1,Oak coffee table,249.00,Living > Tables
rug-1,Wool rug in grey,199.00,Living > Rugs
"""


def _link(installation: Installation, address: str, page: str) -> str:
    """The link to that page in a mail to the address, once it has come."""

    def newest() -> str | None:
        found = None
        for path in sorted((installation.data_dir / "mail").glob("*.eml")):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            if message["To"] == address:
                body = message.get_body(("plain",))
                assert body is not None
                found = re.search(rf"http://\S+/{page}\?\S+", body.get_content()) or found
        return None if found is None else found[0]

    link: str = until(newest, f"a mail to {address}")
    return link


def _sign_up(page: Page, installation: Installation) -> str:
    address = f"ada-{uuid4().hex[:8]}@shop.example"
    page.goto(f"{installation.url}/signup")
    page.get_by_label("E-mail").fill(address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Name of your shop").fill("Living rooms")
    page.get_by_label("Currency").fill("EUR")
    page.get_by_role("button", name="Make the account").click()
    expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()
    page.goto(_link(installation, address, "verify"))
    page.get_by_role("button", name="Confirm and open my shop").click()
    expect(page.get_by_role("heading", name="The keys of “Living rooms”")).to_be_visible()
    return address


def test_a_stranger_sees_a_list_of_own_products(installation: Installation, page: Page) -> None:
    """Sign up, confirm, paste, look: no page says less than what to do next."""
    _sign_up(page, installation)
    page.get_by_role("link", name="Now my products").click()
    page.get_by_label("The feed's text").fill(FEED)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", name="Your first recommendation")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("heading", name="may like these").locator("xpath=../ul/li").first).to_contain_text("sofa")
    expect(page.get_by_text("1,099.00 EUR").first).to_be_visible()


def test_a_feed_that_cannot_be_read_says_what_to_mend(installation: Installation, page: Page) -> None:
    """By line, and with a way back."""
    _sign_up(page, installation)
    page.get_by_role("link", name="Now my products").click()
    page.get_by_label("The feed's text").fill("id,title\n,a lamp without an id\n")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", name="No product could be read")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Line 2")).to_be_visible()
    page.get_by_role("link", name="Upload again").click()
    expect(page.get_by_label("The feed's text")).to_be_visible()


def test_a_person_signs_out_and_in_by_a_link(installation: Installation, page: Page) -> None:
    """Without the password; the way back leads to the shops."""
    address = _sign_up(page, installation)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("E-mail").fill(address)
    page.get_by_role("button", name="Mail me a link instead").click()
    expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()
    page.goto(_link(installation, address, "signin/link"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Your shops")).to_be_visible()
    page.locator("a.shop").get_by_text("Living rooms").click()
    expect(page.get_by_role("heading", name="Living rooms")).to_be_visible()


def test_a_person_takes_an_invitation_back_and_leaves(installation: Installation, page: Page) -> None:
    """The account cannot go before its shop, and the pages lead there."""
    address = _sign_up(page, installation)
    page.goto(f"{installation.url}/console")
    page.get_by_role("link", name="Members of").click()
    page.get_by_label("E-mail").fill(f"new-{address}")
    page.get_by_role("button", name="Mail the invitation").click()
    expect(page.get_by_role("heading", name="The invitation is sent")).to_be_visible()
    link = _link(installation, f"new-{address}", "invitation")
    page.get_by_role("link", name="Type it again").click()
    page.get_by_role("link", name="Members of").click()
    page.get_by_role("button", name=f"Withdraw the invitation of new-{address}").click()
    expect(page.get_by_role("status")).to_contain_text("The invitation is withdrawn")
    page.goto(link)
    expect(page.get_by_role("heading", name="This invitation was withdrawn")).to_be_visible()
    page.goto(f"{installation.url}/console/account")
    page.get_by_role("link", name="Delete my account").click()
    page.get_by_role("main").get_by_role("link", name="Your shops").click()
    page.locator("a.shop").get_by_text("Living rooms").click()
    page.get_by_text("Delete this shop").click()
    page.get_by_label("Type its name").fill("Living rooms")
    page.get_by_role("button", name="Delete the shop").click()
    expect(page.get_by_role("status")).to_contain_text("The shop is shut off")
    page.goto(f"{installation.url}/console/account/delete")
    page.get_by_label("Type your address").fill(address)
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Delete my account").click()
    expect(page.get_by_role("heading", name="Your account is deleted")).to_be_visible()
    page.goto(f"{installation.url}/console")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_proof_of_work_is_done_by_the_page(installation: Installation, page: Page) -> None:
    """After too many wrong passwords: the browser calculates, then the form goes through."""
    address = _sign_up(page, installation)
    page.get_by_role("button", name="Sign out").click()
    for _ in range(11):
        page.get_by_label("E-mail").fill(address)
        page.get_by_label("Password").fill("not the password")
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_text("It is done")).to_be_visible(timeout=120_000)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("heading", name="Your shops")).to_be_visible()


def test_no_page_is_wider_than_a_phone(installation: Installation, page: Page) -> None:
    """Long keys, tables and snippets scroll inside their boxes."""

    def fits(name: str | None) -> None:
        for width in (320, 375, 768):
            page.set_viewport_size({"width": width, "height": 700})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name

    _sign_up(page, installation)
    fits("the keys")
    shop = page.get_by_role("link", name="Now my products").get_attribute("href")
    page.goto(f"{installation.url}/console")
    members = page.get_by_role("link", name="Members of").get_attribute("href")
    for path in (
        "/console",
        shop,
        f"{shop}/first",
        members,
        "/console/account",
        "/console/account/delete",
        "/verify?token=x",
    ):
        page.goto(f"{installation.url}{path}")
        fits(path)
