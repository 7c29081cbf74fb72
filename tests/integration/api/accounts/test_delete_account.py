"""An account deleted by its owner: nothing of the person is left, and nobody's organisation loses its last owner."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from infra import roles
from infra.db import driver
from infra.embedded import EmbeddedPostgres
from infra.settings import Settings
from tenants.accounts.email import hash_email
from tenants.deletion import delete_tenant, find_deletion, undelete_tenant
from tests.conftest import FrozenClock
from tests.integration.api.accounts.conftest import (
    PASSWORD,
    Browser,
    Office,
    heading,
    new_address,
    running,
    shop_of,
    token_of,
)
from tests.integration.api.accounts.test_invitations import page_of
from tests.integration.api.conftest import SECRET

pytestmark = pytest.mark.anyio

PAGE = "/console/account/delete"
DONE = "Your account is deleted"


@pytest.fixture
async def alone(
    fresh_database_url: str, tmp_path: Path, clock: FrozenClock, anyio_backend: str
) -> AsyncIterator[Office]:
    """An installation with a database of the test's own: all of it is searched."""
    settings = Settings(data_dir=tmp_path, secret_key=SECRET, database_url=fresh_database_url)
    async with running(settings, clock, tmp_path / "mail") as made:
        yield made


async def _places(cluster: EmbeddedPostgres, database_url: str, *marks: str) -> set[str]:
    """Tables and partitions with a row that holds one of the marks, in any case or as hexadecimal digits."""
    found = set()
    # The superuser's address: no policy hides a row.
    connection = await asyncpg.connect(roles.database_url(cluster.superuser_url, roles.database_name(database_url)))
    try:
        relations = await connection.fetch(
            "select c.oid::regclass::text as name from pg_class c "
            "where c.relkind in ('r', 'p', 'm') and c.relnamespace = 'public'::regnamespace"
        )
        assert len(relations) > 40
        for relation in relations:
            for row in await connection.fetch(f"select lower(t::text) as row from {relation['name']} t"):
                if any(mark.lower() in row["row"] or mark.encode().hex() in row["row"] for mark in marks):
                    found.add(relation["name"])
    finally:
        await connection.close()
    return found


async def _drop_shop(office: Office, browser: Browser) -> None:
    shop = await shop_of(browser)
    async with office.database.tenant_session(shop) as conn:
        await delete_tenant(conn, shop, now=office.clock(), grace=timedelta(days=7))


async def _invited(office: Office, owner: Browser, role: str) -> tuple[str, Browser]:
    email, page = new_address(), await page_of(owner)
    await owner.send(page, f"{page}/invite", email=email, role=role)
    link = await office.link(email)
    browser = office.browser()
    await browser.send(link, "/invitation", token=token_of(link), password=PASSWORD)
    return email, browser


async def _exists(office: Office, email: str) -> bool:
    async with office.database.system_session(reason="test look") as conn:
        return bool(await (await driver(conn)).fetchval("select 1 from people where email = $1", email))


async def test_nothing_of_a_deleted_account_is_left(
    alone: Office, cluster: EmbeddedPostgres, fresh_database_url: str
) -> None:
    """In the whole database: the address, its hash and the sessions are gone; the id stays in the audit log alone."""
    email, browser = await alone.account()
    _, other = await alone.account()
    stranger = alone.browser()
    await stranger.send("/signup", email=email.replace("ada", "ADA"), password=PASSWORD, shop_name="Lumen")
    await stranger.send("/forgot", email=email)
    await browser.send("/console/account", "/console/account/email", email=new_address(), email_password=PASSWORD)
    page = await page_of(other)
    await other.send(page, f"{page}/invite", email=email, role="admin")
    await alone.deliver()
    await stranger.send("/signin", "/signin/mail", email=email)
    await other.send(page, f"{page}/invite", email=f"x{email}", role="analyst")
    await browser.send("/console/account/second-step", step_password=PASSWORD)
    async with alone.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        person = await raw.fetchval("select person_id::text from people where email = $1", email)
        await raw.execute(
            "insert into identities (issuer, subject, person_id, created_at) values ('i', $1, $2, now())",
            email,
            UUID(person),
        )
    await _drop_shop(alone, browser)
    marks = (f"({email}", f",{email}", f'"{email}', hash_email(SECRET.encode(), email).hex())
    before = await _places(cluster, fresh_database_url, *marks, person)
    assert before >= {
        "people",
        "sessions",
        "second_steps",
        "identities",
        "members",
        "mails",
        "one_time_tokens",
        "address_changes",
        "signups",
        "invitations",
        "audit",
    }
    gone = await browser.send(PAGE, email=f" {email.upper()} ", delete_password=PASSWORD)
    assert heading(gone) == DONE, gone.text
    subject, text = (await alone.mails(email))[-1]
    assert (subject, "This is the last mail." in text) == ("Your Kindred account is deleted", True)
    assert await _places(cluster, fresh_database_url, *marks) == set()
    assert await _places(cluster, fresh_database_url, person) == {"audit"}


async def test_every_session_ends_and_the_address_is_free(office: Office) -> None:
    """Everywhere at once; who signs up again begins with nothing."""
    email, browser = await office.account()
    elsewhere = office.browser()
    await elsewhere.send("/signin", email=email, password=PASSWORD)
    await _drop_shop(office, browser)
    assert heading(await browser.send(PAGE, email=email, delete_password=PASSWORD)) == DONE
    for each in (browser, elsewhere):
        assert heading(await each.get("/console")) == "Sign in"
    failed = await elsewhere.send("/signin", email=email, password=PASSWORD)
    assert failed.status_code == 401
    _, again = await office.account(email)
    assert "Lumen" in (await again.get("/console")).text


async def test_the_address_and_the_password_are_asked_for(office: Office) -> None:
    """Another address, another password or none: nothing is deleted."""
    email, browser = await office.account()
    await _drop_shop(office, browser)
    for fields, status in (
        ({"email": new_address(), "delete_password": PASSWORD}, 422),
        ({"email": "ada", "delete_password": PASSWORD}, 422),
        ({"email": email, "delete_password": "another one"}, 401),
        ({"email": email}, 401),
        ({"delete_password": PASSWORD}, 422),
    ):
        refused = await browser.send(PAGE, **fields)
        assert (refused.status_code, heading(refused)) == (status, "Delete your account"), fields
    assert await _exists(office, email)


async def test_who_has_no_password_signs_in_again(office: Office) -> None:
    """A session of the last ten minutes is enough; an older one is not."""
    email, browser = await office.account()
    await _drop_shop(office, browser)
    async with office.database.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute("update people set password_hash = null where email = $1", email)
    assert 'name="email"' in (await browser.get(PAGE)).text
    assert "delete_password" not in (await browser.get(PAGE)).text
    office.clock.advance(600)
    assert "sign in again first" in (await browser.get(PAGE)).text
    refused = await browser.send(PAGE, email=email)
    assert (refused.status_code, "Sign in again first" in refused.text) == (401, True)
    fresh = office.browser()
    await fresh.send("/signin", "/signin/mail", email=email)
    link = await office.link(email)
    await fresh.send(link, "/signin/link", token=token_of(link))
    assert heading(await fresh.send(PAGE, email=email)) == DONE
    assert not await _exists(office, email)


async def test_the_only_owner_is_told_what_to_do_first(office: Office) -> None:
    """With shops; with other members; with both. Then the account goes, and the organisation with it."""
    email, owner = await office.account()
    page = await owner.get(PAGE)
    assert "which has 1 shop" in page.text
    assert 'name="delete_password"' not in page.text
    refused = await owner.send(PAGE, email=email, delete_password=PASSWORD)
    assert (refused.status_code, "You are the only owner of “Lumen”" in refused.text) == (409, True)
    _, member = await _invited(office, owner, "admin")
    assert "which has 1 other member and 1 shop" in (await owner.get(PAGE)).text
    await _drop_shop(office, owner)
    assert "which has 1 other member." in (await owner.get(PAGE)).text
    assert (await owner.send(PAGE, email=email, delete_password=PASSWORD)).status_code == 409
    members = await page_of(owner)
    person = (await member.get(members)).text.partition('name="person_id" value="')[2][:36]
    await member.send(members, f"{members}/remove", person_id=person)
    assert "So does Lumen" in (await owner.get(PAGE)).text
    assert heading(await owner.send(PAGE, email=email, delete_password=PASSWORD)) == DONE
    async with office.database.system_session(reason="test look") as conn:
        assert not await (await driver(conn)).fetchval(
            "select 1 from organisations where org_id::text = $1", members.rpartition("/")[2]
        )


async def test_an_organisation_with_another_owner_stays(office: Office) -> None:
    """With its shops; their logs note that somebody left, by an id."""
    email, owner = await office.account()
    _, heir = await _invited(office, owner, "owner")
    shop = await shop_of(owner)
    assert heading(await owner.send(PAGE, email=email, delete_password=PASSWORD)) == DONE
    assert "Lumen" in (await heir.get("/console")).text
    told = await heir.http.get("/v1/audit?action=member.leave", headers={"Kindred-Shop": str(shop)})
    (entry,) = told.json()["entries"]
    assert (entry["actor"]["id"], entry["details"]) == (entry["subject"], {"role": "owner"})
    assert entry["network"] is not None


async def test_invitations_go_with_the_account_that_sent_them(office: Office) -> None:
    """As when a member is removed, lest one is their way back; each shop's log says how many."""
    _, owner = await office.account()
    email, admin = await _invited(office, owner, "admin")
    page, way_back = await page_of(admin), new_address()
    await admin.send(page, f"{page}/invite", email=way_back, role="admin")
    link = await office.link(way_back)
    assert heading(await admin.send(PAGE, email=email, delete_password=PASSWORD)) == DONE
    shown = await office.browser().get(link)
    assert (shown.status_code, heading(shown)) == (422, "This invitation was withdrawn")
    headers = {"Kindred-Shop": str(await shop_of(owner))}
    (left,) = (await owner.http.get("/v1/audit?action=member.leave", headers=headers)).json()["entries"]
    assert left["details"] == {"role": "admin", "withdrawn": 1}


async def test_of_two_owners_who_go_at_once_one_is_refused(office: Office) -> None:
    """The last one is told to do something about the shop."""
    email, owner = await office.account()
    other, heir = await _invited(office, owner, "owner")
    shown = await asyncio.gather(
        owner.send(PAGE, email=email, delete_password=PASSWORD), heir.send(PAGE, email=other, delete_password=PASSWORD)
    )
    assert sorted(each.status_code for each in shown) == [200, 409]


async def test_a_deleted_shop_can_be_had_back_after_its_owner_is_gone(office: Office) -> None:
    """By whoever runs the installation; it is of no organisation then."""
    email, owner = await office.account()
    shop = await shop_of(owner)
    await _drop_shop(office, owner)
    assert heading(await owner.send(PAGE, email=email, delete_password=PASSWORD)) == DONE
    deletion = await find_deletion(office.database, str(shop), now=office.clock())
    async with office.database.tenant_session(shop) as conn:
        name = await undelete_tenant(conn, deletion, now=office.clock(), name=f"Back {shop}")
    assert name == f"Back {shop}"
