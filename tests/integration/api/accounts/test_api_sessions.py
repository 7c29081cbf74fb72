"""A session at the API: the same guards as a key, in the shop that a header names, by the role's scopes."""

from typing import get_args
from uuid import UUID, uuid4

import pytest

from infra.db import driver
from tenants.accounts.roles import ROLE_SCOPES, ROLES
from tenants.keys import SCOPES, Scope
from tests.integration.api.accounts.conftest import Browser, Office

pytestmark = pytest.mark.anyio


async def _shop(browser: Browser) -> str:
    return (await browser.get("/console")).text.partition("/console/shops/")[2][:36]


async def _become(office: Office, shop: str, role: str) -> None:
    async with office.database.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute(
            "update members set role = $2 where org_id = (select org_id from tenants where tenant_id = $1)",
            UUID(shop),
            role,
        )


async def test_a_session_acts_in_the_shop_that_it_names(office: Office) -> None:
    """Read and write, as a key of the shop would."""
    _, browser = await office.account()
    headers = {"Kindred-Shop": await _shop(browser)}
    stored = await browser.http.put("/v1/items/lamp", json={"title": "Brass lamp"}, headers=headers)
    assert stored.status_code in (200, 201)
    listed = await browser.http.get("/v1/items", headers=headers)
    assert [item["id"] for item in listed.json()["items"]] == ["lamp"]


async def test_without_the_header_a_cookie_is_nothing(office: Office) -> None:
    """So no page elsewhere can have a browser call the API."""
    _, browser = await office.account()
    refused = await browser.http.get("/v1/items")
    assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")


async def test_a_key_wins(office: Office) -> None:
    """Who sends both is the key's."""
    _, browser = await office.account()
    headers = {"Kindred-Shop": await _shop(browser), "Authorization": "Bearer sk_nonsense"}
    assert (await browser.http.get("/v1/items", headers=headers)).json()["code"] == "mistyped_key"


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_other_sites_get_nothing(office: Office, headers: dict[str, str]) -> None:
    """Whatever they send; and no preflight lets them send it."""
    _, browser = await office.account()
    shop = {"Kindred-Shop": await _shop(browser)}
    refused = await browser.http.get("/v1/items", headers={**shop, **headers})
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    allowed = (await browser.http.options("/v1/items", headers=preflight)).headers
    assert "kindred-shop" not in allowed["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed


async def test_the_shop_of_another_is_none(office: Office) -> None:
    """Nor one that does not exist, nor what is no id; all with one answer."""
    _, ada = await office.account()
    _, eve = await office.account()
    for shop in (await _shop(ada), str(uuid4()), "x", "é", ""):
        refused = await eve.http.get("/v1/items", headers={"Kindred-Shop": shop.encode("latin-1")})
        assert (refused.status_code, refused.json()["code"]) == (403, "shop_header")
        page = await eve.get(f"/console/shops/{shop or 'x'}")
        assert page.status_code == 404
        assert "Lumen" not in page.text


async def test_an_ended_session_is_told_to_sign_in(office: Office) -> None:
    """With its next call."""
    _, browser = await office.account()
    headers = {"Kindred-Shop": await _shop(browser), "Cookie": f"kindred={browser.http.cookies['kindred']}"}
    await browser.send("/console", "/signout")
    refused = await browser.http.get("/v1/items", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "sign_in_needed")


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_what_its_table_says(office: Office, role: str) -> None:
    """With the very next request after the role has changed."""
    _, browser = await office.account()
    shop = await _shop(browser)
    await _become(office, shop, role)
    headers = {"Kindred-Shop": shop}
    scopes = ROLE_SCOPES[role]  # type: ignore[index]
    calls: dict[Scope, tuple[str, str, dict[str, object]]] = {
        "catalog:read": ("GET", "/v1/items", {}),
        "catalog:write": ("PUT", "/v1/items/x", {"title": "x"}),
        "events:write": ("POST", "/v1/events", {"events": []}),
        "search": ("POST", "/v1/search", {"query": "lamp"}),
        "analytics:read": ("GET", "/v1/models", {}),
        "admin": ("GET", "/v1/keys", {}),
    }
    for scope, (method, path, body) in calls.items():
        answer = await browser.http.request(method, path, headers=headers, **({"json": body} if body else {}))
        refused = answer.status_code == 403 and answer.json()["code"] == "scope_missing"
        assert refused == (scope not in scopes), (scope, answer.text)
    page = await browser.get(f"/console/shops/{shop}")
    assert ("Make another key" in page.text) == ("admin" in scopes)
    assert ('name="feed"' in page.text) == ("catalog:write" in scopes)


def test_every_role_has_scopes_that_there_are() -> None:
    """And owners have them all."""
    assert ROLE_SCOPES.keys() == set(ROLES)
    assert ROLE_SCOPES["owner"] == set(SCOPES) == set(get_args(Scope))


async def test_a_role_that_is_too_low_does_nothing_by_forms_either(office: Office) -> None:
    """403 with who to ask."""
    _, browser = await office.account()
    shop = await _shop(browser)
    await _become(office, shop, "analyst")
    page = f"/console/shops/{shop}"
    made = await browser.send(page, f"{page}/keys", name="x", kind="secret")
    assert (made.status_code, "As analyst you may not make keys" in made.text) == (403, True)
    revoked = await browser.send(page, f"{page}/keys/revoke", key_id="abc")
    assert revoked.status_code == 403
    token = (await browser.get("/console")).text.partition('name="form_token" value="')[2].partition('"')[0]
    sent = await browser.http.post(f"{page}/feed", data={"form_token": token, "example": "1"}, files={"file": b""})
    assert sent.status_code == 403
