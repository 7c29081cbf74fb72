"""What people do on the pages, and by a session at the API, is in the audit log under their name."""

import re
from collections import Counter

import pytest

from infra.db import driver
from tests.integration.api.accounts.conftest import PASSWORD, Office, form_token, new_address, token_of

pytestmark = pytest.mark.anyio


async def test_what_a_person_does_is_noted_as_theirs(office: Office) -> None:
    """A shop with its first keys, a key made and revoked, a feed; by pages, and by the session at the API."""
    _, browser = await office.account()
    page = f"/console/shops/{_shops((await browser.get('/console')).text)[0]}"
    shop = page.rpartition("/")[2]
    made = await browser.send(page, f"{page}/keys", name="storefront", kind="secret")
    key = re.search(r"sk_\w{45}", made.text)
    assert key is not None
    await browser.send(page, f"{page}/keys/revoke", key_id=key[0][5:15])
    form = {"form_token": form_token(await browser.get(page)), "feed": "id,title\na,Lamp\n"}
    fields = {name: (None, value) for name, value in form.items()}  # as a form that may carry a file
    await browser.http.post(f"{page}/feed", files=fields, headers={"origin": "http://kindred"})
    session = {"kindred-shop": shop}
    put = await browser.http.put("/v1/placements/home", json={"defaults": {"count": 3}}, headers=session)
    assert put.status_code == 201, put.text
    again = [
        await browser.http.post("/v1/keys", json={"name": "by session"}, headers={**session, "idempotency-key": "a"})
        for _ in range(2)
    ]
    assert again[0].content == again[1].content
    entries = (await browser.http.get("/v1/audit", headers=session)).json()["entries"]
    # The clock stands still, so their order says nothing.
    assert Counter(entry["action"] for entry in entries) == {
        "tenant.create": 1,
        "key.create": 4,
        "key.revoke": 1,
        "import.start": 1,
        "placement.put": 1,
    }
    async with office.database.system_session(reason="test look") as conn:
        person = await (await driver(conn)).fetchval(
            "select m.person_id::text from members m join tenants t on t.org_id = m.org_id "
            "where t.tenant_id::text = $1",
            shop,
        )
    assert {(entry["actor"]["kind"], entry["actor"]["id"]) for entry in entries} == {("person", person)}
    assert len({entry["network"] for entry in entries} - {None}) == 1
    assert [entry["action"] for entry in entries if entry["network"] is None or entry["request_id"] is None] == []


async def test_a_new_shop_begins_with_an_entry(office: Office) -> None:
    """Made on the page: who, and its keys."""
    _, browser = await office.account()
    shown = await browser.get("/console")
    org = re.search(r'name="org_id" value="([^"]+)"', shown.text)
    assert org is not None
    await browser.send("/console", "/console/shops", name="Second", currency="EUR", org_id=org[1])
    first, second = _shops((await browser.get("/console")).text)
    entries = (await browser.http.get("/v1/audit", headers={"kindred-shop": second})).json()["entries"]
    assert sorted(entry["action"] for entry in entries) == ["key.create", "key.create", "tenant.create"]
    assert {entry["actor"]["kind"] for entry in entries} == {"person"}
    assert [entry["action"] for entry in entries if entry["network"] is None or entry["request_id"] is None] == []
    assert first != second


async def test_a_shop_by_curl_begins_with_entries_too(office: Office) -> None:
    """From where its account was confirmed."""
    http, email = office.browser().http, new_address()
    await http.post("/v1/signup", json={"email": email, "password": PASSWORD})
    token = token_of(await office.link(email))
    made = (await http.post("/v1/signup/verify", json={"token": token, "password": PASSWORD})).json()
    entries = (await http.get("/v1/audit", headers={"X-API-Key": made["secret_key"]})).json()["entries"]
    assert len(entries) == 3
    assert [entry["action"] for entry in entries if entry["network"] is None or entry["request_id"] is None] == []


async def test_signing_up_cannot_be_tried_out(office: Office) -> None:
    """A parameter that would change nothing, and make an account all the same, is refused."""
    http = office.browser().http
    body = {"email": "a@shop.example", "password": "three words and more"}
    refused = await http.post("/v1/signup?dry_run=true", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/dry_run")


def _shops(page: str) -> list[str]:
    """The ids of the shops that a page links to, in order."""
    return list(dict.fromkeys(re.findall(r"/console/shops/([0-9a-f-]{36})", page)))
