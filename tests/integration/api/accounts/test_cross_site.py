"""No other site has a person's browser do anything here."""

from collections.abc import Iterator

import pytest
from litestar.routes import HTTPRoute

from api.app import Application
from infra.db import driver
from tests.integration.api.accounts.conftest import PASSWORD, Office, form_token

pytestmark = pytest.mark.anyio


def _forms(app: Application) -> Iterator[str]:
    """Every address that takes a form."""
    for route in app.framework.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if "POST" in handler.http_methods and not handler.resolve_include_in_schema():
                    yield route.path_format


async def test_every_form_is_of_this_site_and_this_browser(office: Office) -> None:
    """Without the token, with another's, or from another origin: 403, and nothing is done."""
    _, browser = await office.account()
    _, other = await office.account()
    shop = (await browser.get("/console")).text.partition("/console/shops/")[2][:36]
    token, foreign = form_token(await browser.get("/console")), form_token(await other.get("/console"))
    org_id = (await browser.get("/console")).text.partition("/console/organisations/")[2][:36]
    forms = [path.replace("{tenant_id}", shop).replace("{org_id}", org_id) for path in _forms(office.app)]
    assert len(forms) > 15
    good = {"Origin": "http://kindred", "Sec-Fetch-Site": "same-origin"}
    for path in forms:
        uploads = {"files": {"file": ("", b"")}} if path.endswith("/feed") else {}
        for fields, headers in (
            ({}, good),
            ({"form_token": ""}, good),
            ({"form_token": "é"}, good),
            ({"form_token": foreign}, good),
            ({"form_token": token}, {"Origin": "https://evil.example"}),
            ({"form_token": token}, {"Origin": "null"}),
            ({"form_token": token}, {"Origin": "http://kindred.evil.example"}),
            ({"form_token": token}, {"Sec-Fetch-Site": "cross-site"}),
            ({"form_token": token}, {"Sec-Fetch-Site": "same-site"}),
        ):
            kind = {} if uploads else {"Content-Type": "application/x-www-form-urlencoded"}
            shown = await browser.http.post(path, data=fields, headers={**headers, **kind}, **uploads)
            assert shown.status_code == 403, (path, fields, headers)
        elsewhere = await browser.http.post(path, content=b'{"a": 1}', headers={**good, "Content-Type": "text/plain"})
        assert elsewhere.status_code == 415, path
    assert (await browser.get("/console/account")).status_code == 200


async def test_a_form_of_before_signing_in_is_not_good_after(office: Office) -> None:
    """The token goes with the session."""
    browser = office.browser()
    before = form_token(await browser.get("/signin"))
    await office.account(browser=browser)
    assert (await browser.http.post("/signout", data={"form_token": before})).status_code == 403


async def test_no_cookie_stands_for_a_session(office: Office) -> None:
    """The id of a session is in the log: who knows it gets no token that the session's forms would take."""
    _, browser = await office.account()
    async with office.database.system_session(reason="test look") as conn:
        session_id = await (await driver(conn)).fetchval(
            "select session_id from sessions order by session_id desc limit 1"
        )
    other = office.browser()
    other.http.cookies.set("kindred-form", f"session:{session_id}")
    forged = form_token(await other.get("/signin"))
    assert forged != form_token(await browser.get("/console/account"))
    assert (await browser.http.post("/signout", data={"form_token": forged})).status_code == 403


async def test_what_is_no_form_is_refused(office: Office) -> None:
    """400, 413 or 422 as a page, never 500."""
    browser = office.browser()
    token = form_token(await browser.get("/signin"))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for body, status in (
        (b"\xff\xfe", 400),
        (b"a=%ff", 400),
        (b"&".join(b"f%d=1" % number for number in range(60)), 400),
        (b"email=" + b"a" * 70_000, 413),
        (f"form_token={token}&email=a%00b@shop.example&password=x".encode(), 422),
    ):
        shown = await browser.http.post("/signin", content=body, headers=headers)
        assert (shown.status_code, shown.headers["content-type"]) == (status, "text/html; charset=utf-8"), body[:30]


async def test_pages_load_nothing_from_elsewhere_and_stand_in_no_frame(office: Office) -> None:
    """The policy of every page; and no cache keeps one."""
    _, browser = await office.account()
    for path in ("/signup", "/signin", "/console", "/console/account", "/verify?token=x"):
        headers = (await browser.get(path)).headers
        policy = headers["content-security-policy"]
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'"):
            assert part in policy
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"


async def test_text_that_people_type_is_text(office: Office) -> None:
    """On the page and in the mail."""
    mark = "<script>alert(1)</script>"
    browser = office.browser()
    shown = await browser.send("/signup", email="nobody", password=PASSWORD, shop_name=mark)
    assert mark not in shown.text
    assert "&lt;script&gt;" in shown.text
