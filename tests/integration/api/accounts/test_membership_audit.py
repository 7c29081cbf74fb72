"""Who belongs to an organisation, since when and by whom, is in the audit log of each of its shops."""

from typing import Any

import pytest

from infra.db import TenantId, driver
from tenants.audit.sealing import check, seal
from tests.integration.api.accounts.conftest import PASSWORD, Browser, Office, new_address, shop_of, token_of
from tests.integration.api.accounts.test_invitations import invitation_id_of, page_of

pytestmark = pytest.mark.anyio


async def _entries(browser: Browser, shop: str) -> list[dict[str, Any]]:
    told = (await browser.http.get("/v1/audit", params={"limit": 100}, headers={"Kindred-Shop": shop})).json()
    return [each for each in told["entries"] if each["action"].startswith("member.")]


async def _person(office: Office, email: str) -> str:
    async with office.database.system_session(reason="test look") as conn:
        found: str = await (await driver(conn)).fetchval("select person_id::text from people where email = $1", email)
    return found


async def _two_shops(browser: Browser) -> list[str]:
    org_id = (await page_of(browser)).rpartition("/")[2]
    await browser.send("/console", "/console/shops", name="Terra", currency="EUR", org_id=org_id)
    parts = (await browser.get("/console")).text.split('href="/console/shops/')[1:]
    return [part[:36] for part in parts]


async def test_every_change_of_members_is_noted_in_each_shop(office: Office) -> None:
    """Invited, withdrawn, invited again, joined, another role, removed, left: by whom, to whom, with which role."""
    address, owner = await office.account()
    shops = await _two_shops(owner)
    page = await page_of(owner)
    first, second, withdrawn = new_address(), new_address(), new_address()
    for email, role in ((first, "developer"), (second, "analyst"), (withdrawn, "admin")):
        await owner.send(page, f"{page}/invite", email=email, role=role)
    invitations = {email: await invitation_id_of(owner, email) for email in (first, second, withdrawn)}
    await owner.send(page, f"{page}/invite/again", invitation_id=invitations[first])
    await owner.send(page, f"{page}/invite/withdraw", invitation_id=invitations[withdrawn])
    browsers = {}
    for email in (first, second):
        link = await office.link(email)
        browsers[email] = office.browser()
        await browsers[email].send(link, "/invitation", token=token_of(link), password=PASSWORD)
    boss, one, two = [await _person(office, email) for email in (address, first, second)]
    await owner.send(page, f"{page}/role", person_id=one, role="billing")
    await owner.send(page, f"{page}/remove", person_id=one)
    await browsers[second].send(page, f"{page}/remove", person_id=two)
    for shop in shops:
        entries = await _entries(owner, shop)
        told = {
            (each["actor"]["id"], each["action"], each["subject"], tuple(sorted(each["details"].items())))
            for each in entries
        }
        assert told == {
            (boss, "member.invite", invitations[first], (("again", False), ("role", "developer"))),
            (boss, "member.invite", invitations[second], (("again", False), ("role", "analyst"))),
            (boss, "member.invite", invitations[withdrawn], (("again", False), ("role", "admin"))),
            (boss, "member.invite", invitations[first], (("again", True), ("role", "developer"))),
            (boss, "member.withdraw", invitations[withdrawn], (("role", "admin"),)),
            (one, "member.join", one, (("invitation", invitations[first]), ("role", "developer"))),
            (two, "member.join", two, (("invitation", invitations[second]), ("role", "analyst"))),
            (boss, "member.change", one, (("before", "developer"), ("role", "billing"))),
            (boss, "member.remove", one, (("role", "billing"),)),
            (two, "member.leave", two, (("role", "analyst"),)),
        }
        assert {each["actor"]["kind"] for each in entries} == {"person"}
        assert all(each["network"] and each["request_id"] for each in entries)
        assert "@" not in str(entries)


async def test_another_organisations_log_has_nothing_of_it(office: Office) -> None:
    """Nor one of a shop that is of no organisation."""
    _, owner = await office.account()
    _, stranger = await office.account()
    page = await page_of(owner)
    await owner.send(page, f"{page}/invite", email=new_address(), role="analyst")
    assert len(await _entries(owner, str(await shop_of(owner)))) == 1
    assert await _entries(stranger, str(await shop_of(stranger))) == []


async def test_what_is_refused_is_not_noted(office: Office) -> None:
    """An owner who would be the last, a role that may not."""
    address, owner = await office.account()
    page = await page_of(owner)
    person = await _person(office, address)
    refused = await owner.send(page, f"{page}/remove", person_id=person)
    assert refused.status_code == 409
    assert await _entries(owner, str(await shop_of(owner))) == []


async def test_entries_of_members_are_sealed_like_others(office: Office) -> None:
    """In the one chain of the shop."""
    _, owner = await office.account()
    page, shop = await page_of(owner), TenantId(await shop_of(owner))
    await owner.send(page, f"{page}/invite", email=new_address(), role="analyst")
    await seal(office.database, shop, now=office.clock())
    checked = await check(office.database, shop)
    async with office.database.tenant_session(shop) as conn:
        noted = await (await driver(conn)).fetchval("select count(*) from audit where tenant_id = $1", shop)
    assert (checked.difference, checked.unsealed, checked.entries) == (None, 0, noted)
