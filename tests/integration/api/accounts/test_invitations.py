"""Open invitations: seen by the members, sent again and withdrawn by who may grant their role."""

import html
import re

import pytest

from infra.db import driver
from tenants.accounts.outbox import prune_accounts
from tests.integration.api.accounts.conftest import PASSWORD, Browser, Office, heading, new_address, token_of

pytestmark = pytest.mark.anyio


async def page_of(browser: Browser) -> str:
    """The members page of the browser's first organisation."""
    found = re.search(r"/console/organisations/[0-9a-f-]{36}", (await browser.get("/console")).text)
    assert found is not None
    return found[0]


def _open(page: str) -> dict[str, list[str]]:
    """The rows of open invitations by address: role, who invited and until when."""
    table = page.partition("<h2>Open invitations</h2>")[2].partition("</table>")[0]
    rows = [
        [html.unescape(cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2], re.DOTALL)
    ]
    return {row[0]: row[1:4] for row in rows}


async def invitation_id_of(browser: Browser, email: str) -> str:
    """The id of the open invitation to an address."""
    page = (await browser.get(await page_of(browser))).text
    found = re.search(
        rf"<td>{re.escape(email)}</td>.*?name=\"invitation_id\" value=\"([0-9a-f-]{{36}})\"", page, re.DOTALL
    )
    assert found is not None, page
    return found[1]


async def _invite(browser: Browser, email: str, role: str = "developer") -> None:
    page = await page_of(browser)
    sent = await browser.send(page, f"{page}/invite", email=email, role=role)
    assert heading(sent) == "The invitation is sent", sent.text


async def _member(office: Office, owner: Browser, role: str) -> Browser:
    email = new_address()
    await _invite(owner, email, role)
    link = await office.link(email)
    browser = office.browser()
    assert heading(await browser.send(link, "/invitation", token=token_of(link), password=PASSWORD)) == "Your shops"
    return browser


async def test_open_invitations_are_listed(office: Office) -> None:
    """Address, role, who invited and until when, to every member; no longer once it was accepted or has ended."""
    address, owner = await office.account()
    email, late = new_address(), new_address()
    assert "Open invitations" not in (await owner.get(await page_of(owner))).text
    await _invite(owner, email)
    await _invite(owner, late, "analyst")
    page = (await owner.get(await page_of(owner))).text
    assert _open(page) == {
        email: ["developer", address, "22 Jan, 12:00 UTC"],
        late: ["analyst", address, "22 Jan, 12:00 UTC"],
    }
    link = await office.link(email)
    guest = office.browser()
    await guest.send(link, "/invitation", token=token_of(link), password=PASSWORD)
    shown = (await guest.get(await page_of(guest))).text
    assert set(_open(shown)) == {late}
    assert "Withdraw" not in shown
    office.clock.advance(7 * 86_400)
    await owner.send("/signin", email=address, password=PASSWORD)
    assert "Open invitations" not in (await owner.get(await page_of(owner))).text
    async with office.database.system_session(reason="test look") as conn:
        await prune_accounts(conn, office.clock())
        assert await (await driver(conn)).fetchval("select count(*) from invitations where email = $1", late) == 0


async def test_the_link_of_a_withdrawn_invitation_says_so(office: Office) -> None:
    """The page and the form, whoever opens it; nobody joins."""
    _, owner = await office.account()
    email = new_address()
    await _invite(owner, email)
    link = await office.link(email)
    guest = office.browser()
    assert heading(await guest.get(link)).startswith("Join ")
    page = await page_of(owner)
    done = await owner.send(page, f"{page}/invite/withdraw", invitation_id=await invitation_id_of(owner, email))
    assert "The invitation is withdrawn" in done.text
    assert _open(done.text) == {}
    assert heading(await guest.get(link)) == "This invitation was withdrawn"
    refused = await guest.send("/signin", "/invitation", token=token_of(link), password=PASSWORD)
    assert (refused.status_code, heading(refused)) == (422, "This invitation was withdrawn")
    _, somebody = await office.account()
    refused = await somebody.send("/console", "/invitation", token=token_of(link))
    assert (refused.status_code, heading(refused)) == (422, "This invitation was withdrawn")


async def test_a_withdrawn_invitation_is_not_mailed(office: Office) -> None:
    """Where the mail still waited."""
    _, owner = await office.account()
    email = new_address()
    await _invite(owner, email)
    page = await page_of(owner)
    await owner.send(page, f"{page}/invite/withdraw", invitation_id=await invitation_id_of(owner, email))
    assert await office.mails(email) == []


async def test_an_invitation_is_sent_again(office: Office) -> None:
    """It holds for seven days from then; each of its links is good, and only one of them is used."""
    _, owner = await office.account()
    email = new_address()
    await _invite(owner, email)
    first = await office.link(email)
    office.clock.advance(5 * 86_400)
    page = await page_of(owner)
    done = await owner.send(page, f"{page}/invite/again", invitation_id=await invitation_id_of(owner, email))
    assert "The invitation is sent again" in done.text
    assert _open(done.text)[email][2] == "27 Jan, 12:00 UTC"
    second = await office.link(email)
    assert first != second
    assert heading(await office.browser().get(first)).startswith("Join ")
    office.clock.advance(3 * 86_400)
    guest = office.browser()
    assert heading(await guest.get(first)) == "This link has expired"
    joined = await guest.send(second, "/invitation", token=token_of(second), password=PASSWORD)
    assert heading(joined) == "Your shops"


async def test_the_other_link_of_an_invitation_is_used_up_with_it(office: Office) -> None:
    """And says that it was used, not that it was withdrawn."""
    _, owner = await office.account()
    email = new_address()
    await _invite(owner, email)
    first = await office.link(email)
    page = await page_of(owner)
    await owner.send(page, f"{page}/invite/again", invitation_id=await invitation_id_of(owner, email))
    second = await office.link(email)
    await office.browser().send(second, "/invitation", token=token_of(second), password=PASSWORD)
    assert heading(await office.browser().get(first)) == "This link has been used"


async def test_who_is_invited_twice_has_one_invitation(office: Office) -> None:
    """With the role of the second time, by the first link too."""
    _, owner = await office.account()
    email = new_address()
    await _invite(owner, email, "admin")
    first = await office.link(email)
    await _invite(owner, email.replace("ada", "ADA"), "analyst")
    page = (await owner.get(await page_of(owner))).text
    assert [row[0] for row in _open(page).values()] == ["analyst"]
    guest = office.browser()
    assert "You are invited as <strong>analyst</strong>" in (await guest.get(first)).text
    await guest.send(first, "/invitation", token=token_of(first), password=PASSWORD)
    assert "Invite somebody" not in (await guest.get(await page_of(guest))).text


async def test_who_may_not_grant_a_role_may_not_withdraw_its_invitation(office: Office) -> None:
    """Developers none; admins none to become an owner, nor turn one into something less."""
    _, owner = await office.account()
    developer, admin = await _member(office, owner, "developer"), await _member(office, owner, "admin")
    heir, helper = new_address(), new_address()
    await _invite(owner, heir, "owner")
    await _invite(owner, helper, "analyst")
    page = await page_of(owner)
    ids = {email: await invitation_id_of(owner, email) for email in (heir, helper)}
    for browser, email in ((developer, helper), (developer, heir), (admin, heir)):
        for path in ("again", "withdraw"):
            refused = await browser.send(page, f"{page}/invite/{path}", invitation_id=ids[email])
            assert (refused.status_code, "Your role does not include this" in refused.text) == (403, True)
    lowered = await admin.send(page, f"{page}/invite", email=heir, role="analyst")
    assert lowered.status_code == 403
    assert (await admin.send(page, f"{page}/invite/withdraw", invitation_id=ids[helper])).status_code == 200
    assert set(_open((await owner.get(page)).text)) == {heir}


async def test_an_invitation_of_another_organisation_is_not_there(office: Office) -> None:
    """By its id, from one's own organisation; nor does it change."""
    _, owner = await office.account()
    _, stranger = await office.account()
    email = new_address()
    await _invite(owner, email)
    invitation_id = await invitation_id_of(owner, email)
    page = await page_of(stranger)
    for path in ("again", "withdraw"):
        refused = await stranger.send(page, f"{page}/invite/{path}", invitation_id=invitation_id)
        assert (refused.status_code, "There is no such invitation" in refused.text) == (404, True)
    assert set(_open((await owner.get(await page_of(owner))).text)) == {email}


async def test_many_invitations_are_slowed_down_and_not_refused(office: Office) -> None:
    """Past what is free, the page shows the calculation that its form then carries."""
    _, owner = await office.account()
    page = await page_of(owner)
    for _ in range(15):
        shown = await owner.send(page, f"{page}/invite", email=new_address(), role="analyst")
    assert "data-challenge" not in shown.text
    slowed = await owner.send(page, f"{page}/invite", email=new_address(), role="analyst")
    assert (slowed.status_code, "data-challenge" in slowed.text) == (429, True)


@pytest.mark.parametrize(("door", "fields"), [("role", {"role": "analyst"}), ("remove", {})])
async def test_who_may_invite_no_more_leaves_no_way_in(office: Office, door: str, fields: dict[str, str]) -> None:
    """What a member invited to goes with the right to invite; what others invited to stays."""
    _, owner = await office.account()
    admin = await _member(office, owner, "admin")
    second, other = new_address(), new_address()
    await _invite(admin, second, "admin")
    await _invite(owner, other)
    link = await office.link(second)
    page = await page_of(owner)
    async with office.database.system_session(reason="test look") as conn:
        person_id = await (await driver(conn)).fetchval(
            "select invited_by::text from invitations where email = $1", second
        )
    await owner.send(page, f"{page}/{door}", person_id=person_id, **fields)
    assert _open((await owner.get(page)).text).keys() == {other}
    assert "This invitation was withdrawn" in (await office.browser().get(link)).text
