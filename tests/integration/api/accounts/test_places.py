"""Members and shops against the plan of the organisation, counted in the transaction that adds one."""

import asyncio
from datetime import timedelta

import pytest

from infra.db import driver
from tenants.deletion import delete_tenant
from tenants.lifecycle import set_plan
from tests.integration.api.accounts.conftest import (
    PASSWORD,
    Browser,
    Office,
    form_token,
    heading,
    new_address,
    shop_of,
    token_of,
)
from tests.integration.api.accounts.test_invitations import invitation_id_of, page_of

pytestmark = pytest.mark.anyio

TOO_MANY = "The plan includes no more of these"


async def _invite(browser: Browser, email: str) -> int:
    page = await page_of(browser)
    return (await browser.send(page, f"{page}/invite", email=email, role="developer")).status_code


async def _count(office: Office, what: str, browser: Browser) -> int:
    """How many rows of that table are of the browser's organisation."""
    org_id = (await page_of(browser)).rpartition("/")[2]
    async with office.database.system_session(reason="test look") as conn:
        found: int = await (await driver(conn)).fetchval(f"select count(*) from {what} where org_id::text = $1", org_id)
    return found


async def test_open_invitations_keep_a_place(hosted: Office) -> None:
    """The free plan has two: past an owner and an invitation it is full, until one is withdrawn."""
    _, owner = await hosted.account()
    first, page = new_address(), await page_of(owner)
    assert await _invite(owner, first) == 200
    assert "2 of 2 places of the plan free are taken" in (await owner.get(page)).text
    refused = await owner.send(page, f"{page}/invite", email=new_address(), role="developer")
    assert (refused.status_code, TOO_MANY in refused.text, "The plan pro has more." in refused.text) == (
        402,
        True,
        True,
    )
    assert await _invite(owner, first) == 200  # the same once more is no other one
    await owner.send(page, f"{page}/invite/withdraw", invitation_id=await invitation_id_of(owner, first))
    assert await _invite(owner, new_address()) == 200
    assert await _count(hosted, "invitations", owner) == 1


async def test_an_invitation_that_has_ended_keeps_none(hosted: Office) -> None:
    """After seven days."""
    address, owner = await hosted.account()
    assert await _invite(owner, new_address()) == 200
    hosted.clock.advance(7 * 86_400)
    await owner.send("/signin", email=address, password=PASSWORD)
    assert await _invite(owner, new_address()) == 200


async def test_of_two_invitations_to_the_last_place_one_is_sent(hosted: Office) -> None:
    """At the same moment."""
    _, owner = await hosted.account()
    page = await page_of(owner)
    token = form_token(await owner.get(page))
    sent = await asyncio.gather(
        *(
            owner.http.post(f"{page}/invite", data={"form_token": token, "email": new_address(), "role": "analyst"})
            for _ in range(4)
        )
    )
    assert sorted(each.status_code for each in sent) == [200, 402, 402, 402]
    assert await _count(hosted, "invitations", owner) == 1


async def test_who_was_invited_under_a_larger_plan_may_find_no_place(hosted: Office) -> None:
    """Refused in words; the link is not used up, and is good once there is room."""
    _, owner = await hosted.account()
    shop = await shop_of(owner)
    await set_plan(hosted.database, shop, "pro")
    emails = [new_address() for _ in range(3)]
    for email in emails:
        assert await _invite(owner, email) == 200
    await set_plan(hosted.database, shop, "free")
    links = [await hosted.link(email) for email in emails]
    joined = await hosted.browser().send(links[0], "/invitation", token=token_of(links[0]), password=PASSWORD)
    assert heading(joined) == "Your shops"
    guest = hosted.browser()
    refused = await guest.send(links[1], "/invitation", token=token_of(links[1]), password=PASSWORD)
    assert (refused.status_code, heading(refused)) == (402, TOO_MANY)
    await set_plan(hosted.database, shop, "pro")
    joined = await guest.send(links[1], "/invitation", token=token_of(links[1]), password=PASSWORD)
    assert heading(joined) == "Your shops"
    assert await _count(hosted, "members", owner) == 3


async def test_a_shop_too_many_is_not_made(hosted: Office) -> None:
    """With the free plan the second; the plan of one shop holds for all of the organisation."""
    _, owner = await hosted.account()
    org_id = (await page_of(owner)).rpartition("/")[2]
    second = {"name": "Terra", "currency": "EUR", "org_id": org_id}
    refused = await owner.send("/console", "/console/shops", **second)
    assert (refused.status_code, TOO_MANY in refused.text, "The plan pro has more." in refused.text) == (
        402,
        True,
        True,
    )
    await set_plan(hosted.database, await shop_of(owner), "pro")
    assert heading(await owner.send("/console", "/console/shops", **second)) == "The keys of “Terra”"
    third = await owner.send("/console", "/console/shops", **{**second, "name": "Onda"})
    assert third.status_code == 200


async def test_of_two_shops_in_the_last_place_one_is_made(hosted: Office) -> None:
    """At the same moment, in an organisation whose only shop was deleted."""
    _, owner = await hosted.account()
    shop = await shop_of(owner)
    async with hosted.database.tenant_session(shop) as conn:
        await delete_tenant(conn, shop, now=hosted.clock(), grace=timedelta(days=7))
    page = await owner.get("/console")
    org_id = (await page_of(owner)).rpartition("/")[2]
    sent = await asyncio.gather(
        *(
            owner.http.post(
                "/console/shops",
                data={"form_token": form_token(page), "name": f"Shop {number}", "currency": "EUR", "org_id": org_id},
            )
            for number in range(4)
        )
    )
    assert sorted(each.status_code for each in sent) == [200, 402, 402, 402]
    assert await _count(hosted, "tenants", owner) == 2


async def test_the_api_tells_members_and_shops(hosted: Office) -> None:
    """Against the plan of the organisation, which may be another than the shop's own."""
    _, owner = await hosted.account()
    shop = await shop_of(owner)
    await _invite(owner, new_address())
    headers = {"Kindred-Shop": str(shop)}

    async def meters() -> dict[str, tuple[int, int]]:
        told = (await owner.http.get("/v1/usage", headers=headers)).json()
        return {each["meter"]: (each["used"], each["limit"]) for each in told["meters"]}

    told = await meters()
    assert (told["members"], told["shops"]) == ((2, 2), (1, 1))
    await set_plan(hosted.database, shop, "pro")
    org_id = (await page_of(owner)).rpartition("/")[2]
    await owner.send("/console", "/console/shops", name="Terra", currency="EUR", org_id=org_id)
    headers = {"Kindred-Shop": str(next(each for each in await _shops(owner) if each != str(shop)))}
    told = await meters()
    assert (told["members"], told["shops"], told["items"]) == ((2, 20), (2, 10), (0, 2_000))


async def _shops(browser: Browser) -> list[str]:
    parts = (await browser.get("/console")).text.split('href="/console/shops/')[1:]
    return [part[:36] for part in parts]
