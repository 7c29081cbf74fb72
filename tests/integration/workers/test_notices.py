"""Who nears a quota, or whose webhook was disabled, is told once: those of the shop's people who look after it."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId, driver
from infra.ids import uuid7
from infra.mail import Mail
from infra.secret import Secret
from tenants.accounts.email import hash_email
from tenants.accounts.organisations import add_organisation
from tenants.accounts.people import add_person
from tenants.accounts.signup import make_shop
from tenants.audit.log import SYSTEM
from tenants.usage import note_near
from tests.conftest import FrozenClock
from workers.jobs.upkeep import Upkeep
from workers.mail.loop import MailLoop

pytestmark = pytest.mark.anyio

SECRET = Secret(current=b"s" * 32)


class _Taken(list[Mail]):
    """A mail server that takes everything."""

    async def send(self, mail: Mail) -> None:
        self.append(mail)


@pytest.fixture
async def own(fresh_database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """A database of this test alone: an outbox is everybody's."""
    database = Database(fresh_database_url, hot=0, sessions=2)
    yield database
    await database.close()


async def _shop(database: Database, clock: FrozenClock) -> TenantId:
    """A shop called Lumen with an owner, one for the bills and a developer, and a webhook that wants to know."""
    person_id, org_id, tenant_id = uuid7(), uuid7(), TenantId(uuid7())
    async with database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        for place, (name, role) in enumerate((("ann", "owner"), ("bill", "billing"), ("dev", "developer"))):
            each = person_id if place == 0 else uuid7()
            email = f"{name}@example.org"
            await add_person(conn, each, email, hash_email(SECRET.current, email), None, now=clock())
            if place == 0:
                await add_organisation(conn, org_id, "Lumen", person_id, now=clock())
            else:
                await raw.execute("insert into members values ($1, $2, $3, $4)", org_id, each, role, clock())
        await make_shop(
            conn, org_id, tenant_id, "Lumen", currency="EUR", secret=b"s" * 32, cell="00", now=clock(), actor=SYSTEM
        )
        await raw.execute(
            "insert into webhook_endpoints (tenant_id, endpoint_id, url, events, description, enabled, secret, "
            "created_at, updated_at) values ($1, $2, 'https://a.example', '{quota.near}', '', true, '', $3, $3)",
            tenant_id,
            uuid7(),
            clock(),
        )
    return tenant_id


async def _told(database: Database, tenant_id: UUID) -> list[str]:
    async with database.system_session(reason="test look") as conn:
        rows = await (await driver(conn)).fetch(
            "select e.data::text as data from webhook_deliveries d join webhook_events e using (tenant_id, event_id) "
            "where d.tenant_id = $1 order by e.at, data",
            tenant_id,
        )
    return [row["data"] for row in rows]


async def _mail(database: Database, taken: _Taken, clock: FrozenClock) -> None:
    loop = MailLoop(database, taken, secret=SECRET, origin="https://kindred.example", clock=clock)
    while await loop.step():
        pass


async def test_a_quota_is_told_of_once(own: Database, clock: FrozenClock, blobs: FolderBlobs) -> None:
    """At 80 and at 100 per cent, by webhook and by mail to owners, admins and whoever pays; never again."""
    tenant_id = await _shop(own, clock)
    upkeep = Upkeep(own, blobs, clock=clock)
    taken = _Taken()
    for used, percent, words in ((81, 80, "80 %"), (100, 100, "all")):
        async with own.tenant_session(tenant_id) as conn:
            await note_near(conn, tenant_id, "events", used=used, quota=100, now=clock())
        assert await upkeep.tell() == 1
        assert await upkeep.tell() == 0
        await _mail(own, taken, clock)
        assert sorted(mail.to for mail in taken) == ["ann@example.org", "bill@example.org"]
        assert all(mail.subject == f"Lumen has used {words} of its events on Kindred" for mail in taken)
        assert f"https://kindred.example/console/shops/{tenant_id}" in taken[0].text
        taken.clear()
        assert f'"percent":{percent},"used":{used},"quota":100' in (await _told(own, tenant_id))[-1]
        clock.advance(3600)


async def test_a_deleted_shop_is_told_nothing(own: Database, clock: FrozenClock, blobs: FolderBlobs) -> None:
    """Nor does its notice keep upkeep busy."""
    tenant_id = await _shop(own, clock)
    async with own.tenant_session(tenant_id) as conn:
        await note_near(conn, tenant_id, "items", used=9, quota=10, now=clock())
    async with own.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute("update tenants set deleted_at = now() where tenant_id = $1", tenant_id)
    assert await Upkeep(own, blobs, clock=clock).tell() == 0
    assert await _told(own, tenant_id) == []


async def test_a_disabled_webhook_is_told_of_once(own: Database, clock: FrozenClock, blobs: FolderBlobs) -> None:
    """By mail to who can mend it; the mail names the host alone, for an address may hold a password."""
    await _shop(own, clock)
    async with own.system_session(reason="test set-up") as conn:
        await (await driver(conn)).execute(
            "with mended as (update webhook_endpoints set url = 'https://u:pw@hooks.example/s3cret' returning *) "
            "insert into webhook_notices (tenant_id, notice_id, endpoint_id, reason, at) "
            "select tenant_id, $1, endpoint_id, 'gone', $2 from mended",
            uuid7(),
            clock(),
        )
    upkeep, taken = Upkeep(own, blobs, clock=clock), _Taken()
    assert await upkeep.tell() == 1
    assert await upkeep.tell() == 0
    await _mail(own, taken, clock)
    assert sorted(mail.to for mail in taken) == ["ann@example.org", "dev@example.org"]
    assert taken[0].subject == "A webhook of Lumen on Kindred was disabled"
    assert "“Lumen” at hooks.example answered that it is gone" in taken[0].text
    assert "pw" not in taken[0].text
    assert "s3cret" not in taken[0].text
