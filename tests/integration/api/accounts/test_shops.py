"""Shops on pages: made, their keys shown once, fed, and asked for a list."""

import html
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.console.pages import shops
from infra.db import driver
from tenants.deletion import find_deletion
from tests.integration.api.accounts.conftest import Browser, Office, form_token, heading

pytestmark = pytest.mark.anyio


async def _shop(browser: Browser) -> str:
    return (await browser.get("/console")).text.partition("/console/shops/")[2][:36]


async def _org(browser: Browser) -> str:
    return (await browser.get("/console")).text.partition('name="org_id" value="')[2][:36]


async def test_a_second_shop_has_keys_of_its_own(office: Office) -> None:
    """Shown once; its name is taken within the organisation and free for others."""
    _, browser = await office.account()
    org_id = await _org(browser)
    made = await browser.send("/console", "/console/shops", name="Terra", currency="EUR", org_id=org_id)
    assert heading(made) == "The keys of “Terra”"
    secret = re.findall(r"sk_\w{45}", made.text)[0]
    assert (await office.browser().http.get("/v1/keys", headers={"X-API-Key": secret})).status_code == 200
    again = await browser.send("/console", "/console/shops", name="Terra", currency="EUR", org_id=org_id)
    assert (again.status_code, "choose another name" in again.text) == (409, True)
    _, other = await office.account()
    theirs = await other.send("/console", "/console/shops", name="Terra", currency="EUR", org_id=await _org(other))
    assert theirs.status_code == 200
    foreign = await other.send("/console", "/console/shops", name="Mine", currency="EUR", org_id=org_id)
    assert foreign.status_code == 404


@pytest.mark.parametrize(
    "fields", [{"name": ""}, {"name": "x" * 101}, {"currency": "eur"}, {"currency": ""}, {"org_id": "x"}, {"name": " "}]
)
async def test_a_shop_that_cannot_be_is_not_made(office: Office, fields: dict[str, str]) -> None:
    """422 on the same page, with what was typed."""
    _, browser = await office.account()
    sent = {"name": "Terra", "currency": "EURO", "org_id": await _org(browser), **fields}
    sent = {"currency": "EUR", **{name: value for name, value in sent.items() if value or name == "name"}}
    if fields.get("currency") is None:
        sent["currency"] = "EUR"
    if fields.get("currency") == "":
        sent["currency"] = "€"
    shown = await browser.send("/console", "/console/shops", **sent)
    assert (shown.status_code, heading(shown)) == (422, "Your shops")


async def test_keys_are_made_and_revoked(office: Office) -> None:
    """A new one is shown once, and works; a revoked one does not."""
    _, browser = await office.account()
    page = f"/console/shops/{await _shop(browser)}"
    made = await browser.send(page, f"{page}/keys", name="storefront", kind="publishable")
    (key,) = re.findall(r"pk_\w{45}", made.text)
    assert key not in (await browser.get(page)).text
    asked = await office.browser().http.post("/v1/search", json={"query": "x"}, headers={"X-API-Key": key})
    assert asked.status_code == 200
    await browser.send(page, f"{page}/keys/revoke", key_id=key[5:15])
    asked = await office.browser().http.post("/v1/search", json={"query": "x"}, headers={"X-API-Key": key})
    assert asked.json()["code"] == "key_revoked"
    for bad in ("", "x" * 30, "../"):
        shown = await browser.send(page, f"{page}/keys/revoke", key_id=bad)
        assert shown.status_code == 422
    shown = await browser.send(page, f"{page}/keys/revoke", key_id="0123456789")
    assert shown.status_code == 404


async def test_when_and_from_where_a_key_was_last_used_is_shown(office: Office) -> None:
    """To the hour, and never the address itself; so one sees which can go."""
    _, browser = await office.account()
    page = f"/console/shops/{await _shop(browser)}"
    (key,) = re.findall(r"sk_\w{45}", (await browser.send(page, f"{page}/keys", name="server", kind="secret")).text)
    before = (await browser.get(page)).text
    assert (before.count("not yet"), "12:00 UTC" in before) == (3, False)
    user = office.browser("203.0.113.7")
    assert (await user.http.get("/v1/items", headers={"X-API-Key": key})).status_code == 200
    await office.app.services.key_usage.flush()
    after = (await browser.get(page)).text
    assert (after.count("not yet"), "15 Jan 2026, 12:00 UTC" in after, "203.0.113" in after) == (2, True, False)


async def test_an_empty_feed_says_what_to_do(office: Office) -> None:
    """Nothing pasted, no file, only spaces; and a page without products leads to the upload."""
    _, browser = await office.account()
    page = f"/console/shops/{await _shop(browser)}"
    for fields in ({}, {"feed": "  \r\n "}):
        token = form_token(await browser.get(page))
        shown = await browser.http.post(f"{page}/feed", data={"form_token": token, **fields}, files={"file": ("", b"")})
        assert (shown.status_code, "Paste your feed" in shown.text) == (400, True)
    assert heading(await browser.get(f"{page}/first")) == "There is no product yet"


async def test_a_feed_becomes_an_import(office: Office) -> None:
    """As the API would take it; the page waits for the worker. Another's job is not shown."""
    _, browser = await office.account()
    shop = await _shop(browser)
    page = f"/console/shops/{shop}"
    for data, file in (({"feed": "id,title\na,A\n"}, ("", b"")), ({}, ("../../feed.csv", b"id,title\nb,B\n"))):
        token = form_token(await browser.get(page))
        sent = await browser.http.post(f"{page}/feed", data={"form_token": token, **data}, files={"file": file})
        assert heading(sent) == "Reading your feed"
        assert 'http-equiv="refresh"' in sent.text
        job = str(sent.url).rpartition("/")[2]
        told = (await browser.http.get(f"/v1/jobs/{job}", headers={"Kindred-Shop": shop})).json()
        assert (told["kind"], told["status"]) == ("import", "queued")
        _, other = await office.account()
        stolen = await other.get(f"/console/shops/{await _shop(other)}/imports/{job}")
        assert stolen.status_code == 404


async def test_the_first_list_is_of_own_products(office: Office) -> None:
    """By words at once, from whichever product one chooses; the call that makes it stands beside it."""
    _, browser = await office.account()
    shop = await _shop(browser)
    items = [
        {"id": "a/1", "title": "Brass desk lamp", "price": 4900, "currency": "EUR"},
        {"id": "b", "title": "Steel desk lamp", "sale_price": 500, "price": 600, "currency": "JPY"},
        {"id": "c", "title": "<b>Mug</b>", "images": ["https://shop.example/mug.jpg"]},
    ]
    headers = {"Kindred-Shop": shop}
    assert (await browser.http.post("/v1/items/bulk", json=items, headers=headers)).json()["accepted"] == 3
    shown = await browser.get(f"/console/shops/{shop}/first")
    assert heading(shown) == "Your first recommendation"
    for text in ("Brass desk lamp", "49.00 EUR", "Steel desk lamp", "500 JPY", "&lt;b&gt;Mug", "/v1/recommend"):
        assert text in shown.text
    other = await browser.get(f"/console/shops/{shop}/first?item=a/1")
    assert "a/1" in other.text
    assert (await browser.get(f"/console/shops/{shop}/first?item={'x' * 500}")).status_code == 200


async def test_the_line_to_copy_is_one_command_whatever_the_id(office: Office, tmp_path: Path) -> None:
    """An id of a feed is no command of the shell, and the body is JSON."""
    _, browser = await office.account()
    shop, item_id = await _shop(browser), "x'; touch pwned; echo '\"`$(id)\\"
    items = [{"id": item_id, "title": "Brass desk lamp"}]
    done = await browser.http.post("/v1/items/bulk", json=items, headers={"Kindred-Shop": shop})
    assert done.json()["accepted"] == 1, done.text
    shown = html.unescape((await browser.get(f"/console/shops/{shop}/first")).text)
    line = "curl " + shown.partition("<code>curl")[2].partition("</code>")[0]
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, cwd=tmp_path)  # noqa: ASYNC221
    words = ran.stdout.decode().split("\0")[:-1]
    assert words[:5] == ["-sS", "--fail-with-body", "http://127.0.0.1:8000/v1/recommend", "-H",
                         "Authorization: Bearer $PUBLISHABLE_KEY"]  # fmt: skip
    assert (words[-2], msgspec.json.decode(words[-1])["item_ids"]) == ("-d", [item_id])


async def test_a_shop_is_deleted_by_its_name(office: Office) -> None:
    """Typed exactly: its keys stop, it is in no list any more, and whoever runs the installation can give it back."""
    _, browser = await office.account()
    org_id = await _org(browser)
    made = await browser.send("/console", "/console/shops", name="Terra", currency="EUR", org_id=org_id)
    secret = re.findall(r"sk_\w{45}", made.text)[0]
    shop = next(each for each in re.findall(r"/console/shops/([0-9a-f-]{36})", made.text))
    page = f"/console/shops/{shop}"
    wrong = await browser.send(page, f"{page}/delete", typed_name="terra")
    assert (wrong.status_code, "The name is not that of the tenant" in wrong.text) == (422, True)
    assert (await office.browser().http.get("/v1/keys", headers={"X-API-Key": secret})).status_code == 200
    gone = await browser.send(page, f"{page}/delete", typed_name="Terra")
    assert (heading(gone), "The shop is shut off" in gone.text, shop in gone.text) == ("Your shops", True, False)
    await office.app.services.feed.poll()
    assert (await office.browser().http.get("/v1/keys", headers={"X-API-Key": secret})).status_code == 401
    assert (await browser.get(page)).status_code == 404
    deletion = await find_deletion(office.database, shop, now=office.clock())
    assert deletion.name == "Terra"
    async with office.database.system_session(reason="test look") as conn:
        actor = await (await driver(conn)).fetchrow(
            "select actor_kind, details ->> 'erase_after' as until from audit "
            "where tenant_id = $1 and action = 'tenant.delete'",
            deletion.tenant_id,
        )
    assert dict(actor) == {"actor_kind": "person", "until": deletion.erase_after.isoformat()}


async def test_who_looks_at_bills_sees_no_products(office: Office) -> None:
    """A page shows what the API would: billing has usage, neither products nor feeds nor what leads there."""
    _, browser = await office.account()
    shop = await _shop(browser)
    page, headers = f"/console/shops/{shop}", {"Kindred-Shop": shop}
    await browser.http.post("/v1/items/bulk", json=[{"id": "a", "title": "Secret lamp"}], headers=headers)
    token = form_token(await browser.get(page))
    fields = {"form_token": (None, token), "feed": (None, "id,title\nb,B\n")}
    job = str((await browser.http.post(f"{page}/feed", files=fields)).url).removeprefix("http://kindred")
    pages = (f"{page}/first", job)
    assert [(await browser.get(each)).status_code for each in pages] == [200, 200]
    async with office.database.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute(
            "update members m set role = 'billing' from tenants t where t.tenant_id::text = $1 and m.org_id = t.org_id",
            shop,
        )
    for address, path in zip(pages, ("/v1/items", f"/v1/jobs/{job.rpartition('/')[2]}"), strict=True):
        shown = await browser.get(address)
        assert (shown.status_code, "Secret lamp" in shown.text) == (403, False)
        assert (await browser.http.get(path, headers=headers)).status_code == 403
    seen = (await browser.get(page)).text
    assert ("/first" in seen, "product" in seen, "Usage in" in seen) == (False, False, True)


async def test_who_may_make_no_shops_any_more_makes_none(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The role that counts is that of the transaction, whatever the page has read before."""
    _, browser = await office.account()
    org_id, listed = await _org(browser), shops._organisations

    async def then_demoted(*arguments: Any) -> Any:
        found = await listed(*arguments)
        async with office.database.system_session(reason="test set-up") as conn:
            await (await driver(conn)).execute("update members set role = 'developer' where org_id::text = $1", org_id)
        return found

    token = form_token(await browser.get("/console"))
    monkeypatch.setattr(shops, "_organisations", then_demoted)
    fields = {"form_token": token, "name": "Terra", "currency": "EUR", "org_id": org_id}
    refused = await browser.http.post("/console/shops", data=fields)
    assert (refused.status_code, "you may not make shops" in refused.text) == (403, True)


async def test_who_may_not_make_shops_deletes_none(office: Office) -> None:
    """The roles below admin neither see the form nor may send it."""
    _, browser = await office.account()
    page = f"/console/shops/{await _shop(browser)}"
    async with office.database.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute(
            "update members m set role = 'developer' from tenants t "
            "where t.tenant_id::text = $1 and m.org_id = t.org_id",
            page[-36:],
        )
    assert "Delete this shop" not in (await browser.get(page)).text
    refused = await browser.send(page, f"{page}/delete", typed_name="Lumen")
    assert refused.status_code == 403
    assert (await browser.get(page)).status_code == 200
