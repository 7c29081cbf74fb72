"""What a shop uses of its plan, on its page: to whom it concerns, with a notice where a quota nears its end."""

import re

import pytest

from infra.db import TenantId, driver
from tenants.lifecycle import set_plan
from tenants.usage import month_of
from tests.integration.api.accounts.conftest import Office, shop_of

pytestmark = pytest.mark.anyio


async def _use(office: Office, shop: TenantId, meter: str, used: int, *, noticed: int | None = None) -> None:
    """As if so much had been counted this month, and the shop told at `noticed` per cent."""
    async with office.database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        period = month_of(office.clock())
        await raw.execute("insert into usage_months values ($1, $2, $3, $4)", shop, period, meter, used)
        if noticed is not None:
            await raw.execute(
                "insert into quota_notices (tenant_id, period, meter, percent, used, quota, at) "
                "values ($1, $2, $3, $4, $5, 1, $6)",
                shop,
                period,
                meter,
                noticed,
                used,
                office.clock(),
            )


def _notices(page: str) -> list[str]:
    """The words of each notice."""
    found = re.findall(r'<div class="quota-notice.*?</div>', page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", each).split()) for each in found]


async def test_the_page_shows_what_the_api_says(hosted: Office) -> None:
    """The same figures, limits and plan; and no notice as long as nothing is near."""
    _, browser = await hosted.account()
    shop = await shop_of(browser)
    await _use(hosted, shop, "requests", 1_234)
    told = (await browser.http.get("/v1/usage", headers={"Kindred-Shop": str(shop)})).json()
    page = (await browser.get(f"/console/shops/{shop}")).text
    assert f"plan {told['plan']}" in page
    for meter in told["meters"]:
        if meter["meter"] in ("requests", "events", "items", "placements"):
            assert f"{meter['used']:,} " in page
            assert f"of {meter['limit']:,}, then refused" in page
    assert page.count("<progress ") == 4
    assert _notices(page) == []


async def test_a_quota_that_nears_its_end_is_told_at_the_top(hosted: Office) -> None:
    """Which, how far, what happens beyond and what has more."""
    _, browser = await hosted.account()
    shop = await shop_of(browser)
    await _use(hosted, shop, "requests", 41_000, noticed=80)
    page = (await browser.get(f"/console/shops/{shop}")).text
    assert _notices(page) == [
        "Requests: 82 % of this month’s quota (41,000 of 50,000) Beyond it, more are refused until 1 February, when "
        "the next month begins. The plan pro has more. Whoever runs this installation changes the plan."
    ]
    assert page.index("quota-notice") < page.index("Your products")


async def test_a_quota_that_is_used_up_says_since_when(hosted: Office) -> None:
    """As it was noted; of what is deleted, that this makes room."""
    _, browser = await hosted.account()
    shop = await shop_of(browser)
    await _use(hosted, shop, "events", 200_001, noticed=100)
    items = [{"id": f"i{number}"} for number in range(1_000)]
    headers = {"Kindred-Shop": str(shop)}
    for start in (0, 1_000):
        sent = [{"id": f"{start}-{each['id']}"} for each in items]
        assert (await browser.http.post("/v1/items/bulk", json=sent, headers=headers)).json()["accepted"] == 1_000
    events, stored = _notices((await browser.get(f"/console/shops/{shop}")).text)
    assert events.startswith(
        "Events: this month’s quota is used up since 15 January (200,001 of 200,000) More are refused"
    )
    assert stored == (
        "Items: the quota is used up since 15 January (2,000 of 2,000) More are refused. The plan pro has more. "
        "Whoever runs this installation changes the plan; deleting items makes room."
    )


async def test_what_is_billed_beyond_is_not_said_to_be_refused(hosted: Office) -> None:
    """Of a plan that goes on."""
    _, browser = await hosted.account()
    shop = await shop_of(browser)
    await set_plan(hosted.database, shop, "pro")
    await hosted.app.services.feed.poll()
    await _use(hosted, shop, "requests", 900_000)
    page = (await browser.get(f"/console/shops/{shop}")).text
    assert "of 1,000,000, then billed" in page
    (notice,) = _notices(page)
    assert "Nothing is billed yet; beyond the quota, more are. The plan enterprise has more." in notice


async def test_who_may_not_see_bills_sees_no_usage(hosted: Office) -> None:
    """The roles without the scope `billing:read`."""
    _, browser = await hosted.account()
    shop = await shop_of(browser)
    await _use(hosted, shop, "requests", 50_000)
    for role, sees in (("admin", True), ("billing", True), ("developer", False), ("analyst", False)):
        async with hosted.database.system_session(reason="test set-up") as conn:
            await (await driver(conn)).execute(
                "update members m set role = $2 from tenants t where t.tenant_id = $1 and m.org_id = t.org_id",
                shop,
                role,
            )
        page = await browser.get(f"/console/shops/{shop}")
        assert page.status_code == 200
        assert ("Usage in" in page.text, "quota-notice" in page.text) == (sees, sees), role


async def test_an_installation_of_ones_own_shows_counts_alone(office: Office) -> None:
    """No plan, no limit, no bar."""
    _, browser = await office.account()
    shop = await shop_of(browser)
    await _use(office, shop, "requests", 999_999)
    page = (await browser.get(f"/console/shops/{shop}")).text
    assert "999,999" in page
    assert "Nothing is limited on this installation." in page
    for absent in ("<progress", "plan unlimited", "then refused", "quota-notice"):
        assert absent not in page
