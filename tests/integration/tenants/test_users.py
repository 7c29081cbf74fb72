"""One person described, merged and erased at the same time, each in a transaction of its own."""

import asyncio
from typing import Any, Final
from uuid import uuid4

import pytest

from infra.db import Database, TenantId, driver
from tenants.audience import users
from tenants.audience.shoppers import number_ids, user_key, visitor_key
from tenants.audience.users import Erased, User, erase_user, merge_visitor, settle_late, store_user
from tenants.lifecycle import create_tenant
from tests.conftest import START

pytestmark = pytest.mark.anyio

SECRET: Final = b"s" * 32
MARIA: Final = User(id="maria", attributes={"city": "secretcity"})
VISITOR: Final = "v" * 32


@pytest.fixture
async def shop(database: Database) -> TenantId:
    """A shop that knows a user and a visitor by what they did."""
    made = await create_tenant(database, f"shop {uuid4()}", currency="EUR")
    async with database.tenant_session(made) as conn:
        await number_ids(await driver(conn), made, [user_key("maria"), visitor_key(VISITOR)], [])
    return made


async def erase(database: Database, shop: TenantId) -> Erased:
    """Erase the user."""
    async with database.tenant_session(shop) as conn:
        return await erase_user(conn, shop, "maria", now=START, secret=SECRET)


async def waits(database: Database, task: asyncio.Task[Any]) -> None:
    """Return when a statement on this database waits for what another has locked, or the task is done without."""
    while not task.done():
        async with database.system_session(reason="test look") as conn:
            if await (await driver(conn)).fetchval(
                "select exists (select 1 from pg_locks l join pg_stat_activity a using (pid) "
                "where not l.granted and a.datname = current_database())"
            ):
                return
        await asyncio.sleep(0.01)


async def people(database: Database, shop: TenantId) -> list[tuple[Any, ...]]:
    """Every id of the shop, whom it stands for, and what was said of that person."""
    async with database.tenant_session(shop) as conn:
        records = await (await driver(conn)).fetch(
            "select s.external_id, o.external_id, u.attributes::text from shopper_ids s "
            "left join shopper_ids o on o.tenant_id = $1 and o.shopper_no = coalesce(s.merged_into, s.shopper_no) "
            "full join (select * from users where tenant_id = $1) u on u.shopper_no = s.shopper_no "
            "where coalesce(s.tenant_id, u.tenant_id) = $1 order by 1",
            shop,
        )
    return [tuple(record) for record in records]


async def test_an_erasure_waits_for_a_description_and_takes_it_along(database: Database, shop: TenantId) -> None:
    """It was sent before."""
    async with database.tenant_session(shop) as conn:
        await store_user(conn, shop, MARIA, now=START)
        task = asyncio.create_task(erase(database, shop))
        await waits(database, task)
    await task
    assert await people(database, shop) == [(VISITOR, VISITOR, None)]


async def test_a_description_that_meets_an_erasure_is_of_a_new_person(
    database: Database, shop: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom it had looked up is gone when it is stored: it stays under no number that nobody has, and can be erased."""
    erased = []

    async def look_up(*args: Any) -> Any:
        found = await number_ids(*args)
        if not erased:
            erased.append(await erase(database, shop))
        return found

    monkeypatch.setattr(users, "number_ids", look_up)
    async with database.tenant_session(shop) as conn:
        assert await store_user(conn, shop, MARIA, now=START)
    assert await people(database, shop) == [
        ("maria", "maria", '{"city": "secretcity"}'),
        (VISITOR, VISITOR, None),
    ]
    assert erased[0].shopper_nos != (await erase(database, shop)).shopper_nos
    assert await people(database, shop) == [(VISITOR, VISITOR, None)]


async def test_an_erasure_waits_for_a_merge_and_takes_the_visitor_along(database: Database, shop: TenantId) -> None:
    """The visitor is of the person from the merge on, and both are remembered as erased."""
    async with database.tenant_session(shop) as conn:
        await merge_visitor(conn, shop, "maria", VISITOR, now=START)
        task = asyncio.create_task(erase(database, shop))
        await waits(database, task)
    erased = await task
    assert await people(database, shop) == []
    assert len(erased.subjects) == 2


async def test_a_merge_that_waits_for_an_erasure_is_of_a_new_person(database: Database, shop: TenantId) -> None:
    """No defect."""

    async def merge() -> None:
        async with database.tenant_session(shop) as conn:
            await merge_visitor(conn, shop, "maria", VISITOR, now=START)

    async with database.tenant_session(shop) as conn:
        erased = await erase_user(conn, shop, "maria", now=START, secret=SECRET)
        task = asyncio.create_task(merge())
        await waits(database, task)
    await task
    assert await people(database, shop) == [("maria", "maria", None), (VISITOR, "maria", None)]
    assert set(erased.shopper_nos).isdisjoint((await erase(database, shop)).shopper_nos)


async def test_what_was_said_of_an_erased_number_goes(database: Database, shop: TenantId) -> None:
    """Whoever has written it, upkeep finds it."""
    (number,) = (await erase(database, shop)).shopper_nos
    async with database.tenant_session(shop) as conn:
        await (await driver(conn)).execute("insert into users (tenant_id, shopper_no) values ($1, $2)", shop, number)
    assert len(await people(database, shop)) == 2
    async with database.system_session(reason="test") as conn:
        await settle_late(await driver(conn), START.replace(hour=0))
    assert await people(database, shop) == [(VISITOR, VISITOR, None)]
