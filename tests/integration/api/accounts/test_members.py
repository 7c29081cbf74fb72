"""Members: invited by mail, with roles that hold at once, and never without an owner."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest

from infra.settings import Settings
from tests.conftest import FrozenClock
from tests.integration.api.accounts.conftest import PASSWORD, Browser, Office, heading, new_address, running, token_of
from tests.integration.api.conftest import SECRET

pytestmark = pytest.mark.anyio


async def _page(browser: Browser) -> str:
    found = re.search(r"/console/organisations/[0-9a-f-]{36}", (await browser.get("/console")).text)
    assert found is not None
    return found[0]


async def _ids(browser: Browser, page: str) -> dict[str, str]:
    """The person's id by address, of the members that the browser may remove."""
    text = (await browser.get(page)).text
    return {
        row[0]: row[1]
        for row in re.findall(
            r"<td>(\S+@shop\.example).*?name=\"person_id\" value=\"([0-9a-f-]{36})\"", text, re.DOTALL
        )
    }


async def _invited(office: Office, owner: Browser, role: str) -> tuple[str, Browser]:
    """Somebody new, who was invited and has joined."""
    email, page = new_address(), await _page(owner)
    sent = await owner.send(page, f"{page}/invite", email=email, role=role)
    assert heading(sent) == "The invitation is sent"
    link = await office.link(email)
    browser = office.browser()
    joined = await browser.send(link, "/invitation", token=token_of(link), password=PASSWORD)
    assert heading(joined) == "Your shops"
    return email, browser


async def test_who_is_invited_joins_with_a_new_account(office: Office) -> None:
    """The link proves the address; the organisation's shops are theirs to see, by their role."""
    _, owner = await office.account()
    email, browser = await _invited(office, owner, "analyst")
    shop = (await browser.get("/console")).text.partition("/console/shops/")[2][:36]
    assert (await browser.http.get("/v1/items", headers={"Kindred-Shop": shop})).status_code == 200
    refused = await browser.http.get("/v1/keys", headers={"Kindred-Shop": shop})
    assert refused.json()["code"] == "scope_missing"
    assert email in (await owner.get(await _page(owner))).text
    assert "Invite somebody" not in (await browser.get(await _page(browser))).text


async def test_an_invitation_works_once_and_for_a_week(office: Office) -> None:
    """A weak password does not use it up; another's click does."""
    _, owner = await office.account()
    page, email = await _page(owner), new_address()
    await owner.send(page, f"{page}/invite", email=email, role="developer")
    link = await office.link(email)
    guest = office.browser()
    weak = await guest.send(link, "/invitation", token=token_of(link), password="short")
    assert (weak.status_code, "at least 10 characters" in weak.text) == (422, True)
    assert (await guest.send(link, "/invitation", token=token_of(link), password=PASSWORD)).status_code == 200
    assert heading(await office.browser().get(link)) == "This link has been used"
    await owner.send(page, f"{page}/invite", email=new_address(), role="developer")
    other = new_address()
    await owner.send(page, f"{page}/invite", email=other, role="developer")
    link = await office.link(other)
    office.clock.advance(7 * 86_400)
    assert heading(await office.browser().get(link)) == "This link has expired"


async def test_who_has_an_account_joins_with_it(office: Office) -> None:
    """By one click where they are signed in; without, the page says to sign in first, and makes no second account."""
    _, owner = await office.account()
    email, guest = await office.account()
    page = await _page(owner)
    await owner.send(page, f"{page}/invite", email=email, role="admin")
    link = await office.link(email)
    stranger = office.browser()
    assert "Sign in</a>, then open the link" in (await stranger.get(link)).text
    taken = await stranger.send(link, "/invitation", token=token_of(link), password=PASSWORD)
    assert taken.status_code == 409
    joined = await guest.send(link, "/invitation", token=token_of(link))
    assert joined.text.count("/console/organisations/") == 2
    await owner.send(page, f"{page}/invite", email=email, role="owner")
    again = await office.link(email)
    refused = await guest.send(again, "/invitation", token=token_of(again))
    assert (refused.status_code, heading(refused)) == (409, "You belong to this organisation already")


async def test_roles_change_and_hold_with_the_next_request(office: Office) -> None:
    """As the table says, and only by who may."""
    _, owner = await office.account()
    email, developer = await _invited(office, owner, "developer")
    page = await _page(owner)
    shop = (await owner.get("/console")).text.partition("/console/shops/")[2][:36]
    ids = await _ids(owner, page)

    async def keys() -> int:
        return (await developer.http.get("/v1/keys", headers={"Kindred-Shop": shop})).status_code

    assert await keys() == 403
    await owner.send(page, f"{page}/role", person_id=ids[email], role="admin")
    assert await keys() == 200
    for role in ("analyst", "billing"):
        await owner.send(page, f"{page}/role", person_id=ids[email], role=role)
        assert await keys() == 403
    for role in ("king", "", "Owner"):
        shown = await owner.send(page, f"{page}/role", person_id=ids[email], role=role)
        assert shown.status_code == 422


async def test_who_may_not_changes_nothing(office: Office) -> None:
    """Developers nobody; admins no owner, and nobody into one."""
    address, owner = await office.account()
    _, developer = await _invited(office, owner, "developer")
    email, admin = await _invited(office, owner, "admin")
    page = await _page(owner)
    ids = await _ids(owner, page)
    for browser, path, fields in (
        (developer, "invite", {"email": new_address(), "role": "analyst"}),
        (developer, "role", {"person_id": ids[email], "role": "analyst"}),
        (developer, "remove", {"person_id": ids[email]}),
        (admin, "invite", {"email": new_address(), "role": "owner"}),
        (admin, "role", {"person_id": ids[email], "role": "owner"}),
        (admin, "role", {"person_id": ids[address], "role": "analyst"}),
        (admin, "remove", {"person_id": ids[address]}),
    ):
        refused = await browser.send(page, f"{page}/{path}", **fields)
        assert (refused.status_code, "Your role does not include this" in refused.text) == (403, True), (path, fields)
    assert (await admin.send(page, f"{page}/invite", email=new_address(), role="admin")).status_code == 200


async def test_others_do_not_see_that_an_organisation_exists(office: Office) -> None:
    """Neither its page nor its forms."""
    _, owner = await office.account()
    _, stranger = await office.account()
    page = await _page(owner)
    assert (await stranger.get(page)).status_code == 404
    token = re.findall(r'name="form_token" value="([^"]+)"', (await stranger.get("/console")).text)[0]
    for path in ("invite", "role", "remove"):
        sent = await stranger.http.post(f"{page}/{path}", data={"form_token": token, "email": "x@y.example"})
        assert sent.status_code == 404


async def test_who_is_removed_is_out_at_once(office: Office) -> None:
    """And sees so: the account stays, without the organisation."""
    _, owner = await office.account()
    email, guest = await _invited(office, owner, "developer")
    page = await _page(owner)
    shop = (await guest.get("/console")).text.partition("/console/shops/")[2][:36]
    await owner.send(page, f"{page}/remove", person_id=(await _ids(owner, page))[email])
    assert (await guest.http.get("/v1/items", headers={"Kindred-Shop": shop})).json()["code"] == "shop_header"
    assert "You belong to no organisation any more" in (await guest.get("/console")).text


async def test_the_last_owner_cannot_leave(office: Office) -> None:
    """Nor become something else; once there is another, both are possible, one after the other."""
    address, owner = await office.account()
    email, second = await _invited(office, owner, "admin")
    page = await _page(owner)
    ids = await _ids(owner, page)
    for path, fields in (("remove", {}), ("role", {"role": "admin"})):
        refused = await owner.send(page, f"{page}/{path}", person_id=ids[address], **fields)
        assert (refused.status_code, "Make somebody else an owner first" in refused.text) == (409, True)
    await owner.send(page, f"{page}/role", person_id=ids[email], role="owner")
    left = await owner.send(page, f"{page}/remove", person_id=ids[address])
    assert heading(left) == "Your shops"
    refused = await second.send(page, f"{page}/remove", person_id=ids[email])
    assert refused.status_code == 409


async def test_of_two_owners_who_leave_at_once_one_stays(office: Office) -> None:
    """Whatever the order in which their requests come."""
    address, owner = await office.account()
    email, second = await _invited(office, owner, "owner")
    page = await _page(owner)
    ids = await _ids(owner, page)
    answers = await asyncio.gather(
        owner.send(page, f"{page}/remove", person_id=ids[address]),
        second.send(page, f"{page}/remove", person_id=ids[email]),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_by_invitation_means_by_invitation(database_url: str, tmp_path: Path, clock: FrozenClock) -> None:
    """`invite` takes who is invited; `closed` nobody new."""
    base = Settings(data_dir=tmp_path, secret_key=SECRET, database_url=database_url)
    for signup, status in (("invite", 200), ("closed", 403)):
        async with running(base, clock, tmp_path / "mail") as office:
            _, owner = await office.account()
            page, email = await _page(owner), new_address()
            await owner.send(page, f"{page}/invite", email=email, role="developer")
            link = await office.link(email)
        async with running(replace(base, signup=signup), clock, tmp_path / "mail") as office:
            guest = office.browser()
            shown = await guest.send(link, "/invitation", token=token_of(link), password=PASSWORD)
            assert shown.status_code == status
