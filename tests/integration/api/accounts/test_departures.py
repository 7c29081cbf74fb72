"""People of a provider who delete their accounts and come back: as no more than they were."""

import re
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from infra.db import driver
from infra.settings import Settings
from tenants.accounts.departures import KEPT
from tenants.accounts.outbox import prune_accounts
from tests.conftest import FrozenClock
from tests.integration.api.accounts.conftest import Browser, Office, heading, running, token_of
from tests.integration.api.accounts.provider import Provider
from tests.integration.api.accounts.test_invitations import page_of
from tests.integration.api.accounts.test_sso import corp, provider, roles_of, settings, sign_in

pytestmark = pytest.mark.anyio

__all__ = ["corp", "provider", "settings"]


async def _bob(office: Office, provider: Provider) -> tuple[Browser, str, Browser, str]:
    """The owner, with the page of their organisation's members; and Bob, who joined it, with his address."""
    owner, bob = office.browser(), office.browser()
    provider.person = {"sub": "ada", "email": f"ada@{provider.domain}", "email_verified": True}
    await sign_in(owner)
    email = _be_bob(provider)
    await sign_in(bob)
    return owner, await page_of(owner), bob, email


def _be_bob(provider: Provider) -> str:
    email = f"bob@{provider.domain}"
    provider.person = {"sub": "bob", "email": email, "email_verified": True}
    return email


async def _on_bob(owner: Browser, page: str, action: str, email: str, **fields: str) -> None:
    text = (await owner.get(page)).text
    found = re.search(rf'<td>{re.escape(email)}.*?name="person_id" value="([0-9a-f-]{{36}})"', text, re.DOTALL)
    assert found is not None, text
    done = await owner.send(page, f"{page}/{action}", person_id=found[1], **fields)
    assert done.status_code == 200, done.text


async def _delete(browser: Browser, email: str) -> None:
    assert heading(await browser.send("/console/account/delete", email=email)) == "Your account is deleted"


async def _back(office: Office, email: str) -> tuple[httpx.Response, list[str]]:
    """What Bob is shown who signs in again, and his roles then."""
    shown = await sign_in(office.browser())
    return shown, [role for _, role in await roles_of(office, email)]


async def _remembered(office: Office) -> int:
    async with office.database.system_session(reason="test look") as conn:
        count: int = await (await driver(conn)).fetchval("select count(*) from sso_departures")
    return count


@pytest.mark.parametrize(
    ("role", "then"),
    [("billing", "billing"), ("analyst", "analyst"), ("developer", "developer"), ("admin", "developer")],
)
async def test_a_smaller_role_is_kept_by_who_comes_back(corp: Office, provider: Provider, role: str, then: str) -> None:
    """Demoted, deleted, back again, and once more; what is remembered goes with the return."""
    owner, page, bob, email = await _bob(corp, provider)
    await _on_bob(owner, page, "role", email, role=role)
    before = await _remembered(corp)
    for _ in range(2):
        await _delete(bob, email)
        assert await _remembered(corp) - before == (role in ("billing", "analyst"))
        bob = corp.browser()
        await sign_in(bob)
        assert [each for _, each in await roles_of(corp, email)] == [then]
        assert await _remembered(corp) == before


@pytest.mark.parametrize("how", ["removed", "left"])
async def test_who_is_out_comes_back_by_an_invitation_alone(corp: Office, provider: Provider, how: str) -> None:
    """With an account or without; and then with the role that the invitation says."""
    owner, page, bob, email = await _bob(corp, provider)
    if how == "removed":
        await _on_bob(owner, page, "remove", email)
    else:
        await _on_bob(bob, page, "remove", email)
    assert (await _back(corp, email))[1] == []
    await _delete(bob, email)
    for _ in range(2):
        shown, roles = await _back(corp, email)
        assert (shown.status_code, "ask an owner to invite you" in shown.text, roles) == (403, True, [])
    await owner.send(page, f"{page}/invite", email=email.upper(), role="analyst")
    bob = corp.browser()
    assert heading(await sign_in(bob)) == "Your shops"
    assert await roles_of(corp, email) == []
    link = await corp.link(f"BOB@{provider.domain}")
    await bob.send(link, "/invitation", token=token_of(link))
    assert [role for _, role in await roles_of(corp, email)] == ["analyst"]


async def test_it_holds_while_the_secret_is_changed(settings: Settings, provider: Provider, clock: FrozenClock) -> None:
    """What was remembered under the old secret is found under it."""
    async with running(settings, clock, settings.data_dir / "mail") as office:
        owner, page, bob, email = await _bob(office, provider)
        await _on_bob(owner, page, "role", email, role="billing")
        await _delete(bob, email)
    assert settings.secret_key is not None
    changed = replace(settings, secret_key="n" * 32, secret_key_old=(settings.secret_key,))
    async with running(changed, clock, settings.data_dir / "mail") as office:
        assert (await _back(office, email))[1] == ["billing"]


async def test_it_is_forgotten_after_a_year(corp: Office, provider: Provider) -> None:
    """From the deletion on."""
    owner, page, bob, email = await _bob(corp, provider)
    await _on_bob(owner, page, "role", email, role="billing")
    before = await _remembered(corp)
    await _delete(bob, email)
    for later, kept in ((KEPT, 1), (KEPT + timedelta(seconds=1), 0)):
        async with corp.database.system_session(reason="test upkeep") as conn:
            await prune_accounts(conn, corp.clock() + later)
        assert await _remembered(corp) - before == kept
