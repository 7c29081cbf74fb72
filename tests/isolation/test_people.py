"""Two people, each with an organisation, against the tables of people: row-level security alone."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec import Struct

from api.app import Application
from infra.db import TenantId, driver
from infra.ids import uuid7
from tenants.accounts.organisations import ShopNotFound, add_organisation, get_own_shop, list_memberships, list_shops
from tenants.accounts.outbox import queue_mail
from tenants.accounts.people import add_person, find_person
from tenants.accounts.sessions import SignedIn, begin_session, find_session
from tenants.accounts.signup import ask_for_account, make_shop
from tenants.accounts.tokens import get_token, hash_token, store_token
from tenants.audit.log import Actor
from tenants.lifecycle import find_tenant
from tests.isolation.conftest import OF_PEOPLE

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
READ = (
    "people",
    "organisations",
    "members",
    "sessions",
    "second_steps",
    "recovery_codes",
    "identities",
    "sso_organisations",
    "sso_departures",
    "invitations",
    "address_changes",
)
OF_ORGANISATION = ("organisations", "members", "sso_organisations", "sso_departures", "invitations")
WRITTEN = ("signups", "mails")
NOTHING = ("one_time_tokens", "attempts")


class Somebody(Struct, frozen=True, kw_only=True):
    """A person with an organisation, a shop, a session, and a row in every other table."""

    person_id: UUID
    org_id: UUID
    tenant_id: TenantId
    email_hash: bytes
    cookie: str
    token: str


async def _somebody(app: Application) -> Somebody:
    database = app.services.database
    person_id, org_id, tenant_id = uuid7(), uuid7(), TenantId(uuid7())
    mark = uuid4().hex
    email_hash, token = mark.encode(), (mark + mark)[:43]
    async with database.person_session(person_id, org_id=org_id, tenant_id=tenant_id) as conn:
        await add_person(conn, person_id, f"{mark}@shop.example", email_hash, "hash", now=NOW)
        await add_organisation(conn, org_id, mark, person_id, now=NOW)
        await make_shop(
            conn,
            org_id,
            tenant_id,
            "Lumen",
            currency="EUR",
            secret=b"s" * 32,
            cell="00",
            now=NOW,
            actor=Actor(kind="person", id=str(person_id)),
        )
        signed_in = SignedIn(person_id=person_id, method="password", credentials=0)
        cookie = await begin_session(conn, signed_in, browser="b", now=NOW)
        await ask_for_account(conn, mark, email_hash, "hash", mark, currency="EUR", browser=None, now=NOW)
        raw = await driver(conn)
        await raw.fetch("select admit_attempt($1, $2, $3, 0)", [email_hash], [NOW], [1])
        for statement, *values in (
            ("insert into second_steps (person_id, sealed, created_at) values ($1, $2, now())", person_id, b"sealed"),
            ("insert into recovery_codes (person_id, code_hash) values ($1, $2)", person_id, b"hash"),
            (
                "insert into identities (issuer, subject, person_id, created_at) values ($1, 'subject', $2, now())",
                mark,
                person_id,
            ),
            ("insert into sso_organisations (issuer, org_id, created_at) values ($1, $2, now())", mark, org_id),
            ("insert into sso_departures (org_id, identity_hash, left_at) values ($1, $2, now())", org_id, email_hash),
            (
                "insert into invitations (invitation_id, org_id, email, role, invited_by, created_at, expires_at) "
                "values ($1, $2, $3, 'admin', $4, now(), now() + interval '1 day')",
                uuid7(),
                org_id,
                mark,
                person_id,
            ),
            (
                "insert into address_changes (change_id, person_id, email, asked_at, expires_at) "
                "values ($1, $2, $3, now(), now() + interval '1 day')",
                uuid7(),
                person_id,
                mark,
            ),
        ):
            await raw.execute(statement, *values)
    async with database.system_session(reason="test set-up") as conn:
        later = NOW + timedelta(days=1)
        await store_token(conn, hash_token(token), "reset", now=NOW, expires_at=later, person_id=person_id)
    return Somebody(
        person_id=person_id, org_id=org_id, tenant_id=tenant_id, email_hash=email_hash, cookie=cookie, token=token
    )


@pytest.fixture
async def ada(app: Application) -> Somebody:
    """Whose rows nobody else may see."""
    return await _somebody(app)


@pytest.fixture
async def eve(app: Application) -> Somebody:
    """Who tries."""
    return await _somebody(app)


async def test_every_table_of_people_forces_its_policies(app: Application) -> None:
    """Enabled and forced; what the application may read hangs on who is set, and some it may not read at all."""
    assert {*READ, *WRITTEN, *NOTHING} == OF_PEOPLE
    async with app.services.database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        for table in OF_PEOPLE:
            forced = await raw.fetchval(
                "select relrowsecurity and relforcerowsecurity from pg_class where relname = $1", table
            )
            assert (table, forced) == (table, True)
            conditions = await raw.fetch(
                "select qual, with_check, cmd from pg_policies where tablename = $1 and 'kindred_app' = any(roles)",
                table,
            )
            for record in conditions:
                if record["qual"] is not None:
                    assert "app.person_id" in record["qual"] or "app.org_id" in record["qual"]
            may = {
                right: await raw.fetchval("select has_table_privilege('kindred_app', $1, $2)", table, right)
                for right in ("select", "insert", "update", "delete")
            }
            assert may == {
                "select": table in READ,
                "insert": table in READ + WRITTEN,
                "update": table in READ,
                "delete": table in READ,
            }, table


async def test_another_person_sees_no_row(app: Application, ada: Somebody, eve: Somebody) -> None:
    """As the person, in their organisation and in their shop; and not for asking by name."""
    async with app.services.database.person_session(eve.person_id, org_id=eve.org_id, tenant_id=eve.tenant_id) as conn:
        raw = await driver(conn)
        for table in READ:
            rows = [record["row"] for record in await raw.fetch(f"select t::text as row from {table} t")]
            assert rows, table
            for row in rows:
                assert str(ada.person_id) not in row
                assert str(ada.org_id) not in row
        assert [each.org_id for each in await list_memberships(conn, ada.person_id)] == []
        assert [each.tenant_id for each in await list_shops(conn)] == [eve.tenant_id]
        records = await raw.fetch("select person_id from people_of_organisation()")
        assert [record["person_id"] for record in records] == [eve.person_id]
        assert len(await raw.fetch("select * from plans_of_organisation()")) == 1


async def test_nobody_sees_no_row(app: Application, ada: Somebody) -> None:
    """A connection that is nobody's, and one of a tenant, see nothing of people."""
    database = app.services.database
    for session in (database.anonymous_session(), database.tenant_session(ada.tenant_id)):
        async with session as conn:
            raw = await driver(conn)
            for table in READ:
                assert (table, await raw.fetchval(f"select count(*) from {table}")) == (table, 0)
            assert await raw.fetch("select * from shops_of_organisation()") == []
            assert await raw.fetch("select * from people_of_organisation()") == []
            assert await raw.fetch("select * from plans_of_organisation()") == []


async def test_another_person_changes_no_row(app: Application, ada: Somebody, eve: Somebody) -> None:
    """Update and delete without any predicate touch the attacker's rows alone."""

    async def rows() -> dict[str, list[str]]:
        async with app.services.database.system_session(reason="test look") as conn:
            raw = await driver(conn)
            return {
                table: sorted(
                    record["row"]
                    for record in await raw.fetch(f"select t::text as row from {table} t")
                    if str(ada.person_id) in record["row"] or str(ada.org_id) in record["row"]
                )
                for table in READ
            }

    before = await rows()
    async with app.services.database.person_session(eve.person_id, org_id=eve.org_id) as conn:
        raw = await driver(conn)
        for table in reversed(READ):
            column = "org_id" if table in OF_ORGANISATION else "person_id"
            await raw.execute(f"update {table} set {column} = {column}")
        await raw.execute("select void_tokens(array['reset'], $1)", NOW)
        for table in (
            "address_changes",
            "invitations",
            "sso_departures",
            "sso_organisations",
            "identities",
            "recovery_codes",
            "second_steps",
            "sessions",
            "members",
        ):
            await raw.execute(f"delete from {table}")
    assert await rows() == before
    async with app.services.database.anonymous_session() as conn:
        assert (await get_token(conn, ada.token, "reset", now=NOW)).person_id == ada.person_id


@pytest.mark.parametrize(
    "statement",
    [
        "insert into members (org_id, person_id, role, created_at) values ($1, $3, 'owner', now())",
        "insert into sessions (session_id, person_id, token_hash, method, browser, created_at, seen_at, rotated_at, "
        "expires_at) values (gen_random_uuid(), $2, 'x', 'x', 'x', now(), now(), now(), now())",
        "update members set org_id = $1 where person_id = $3 and $2::uuid is not null",
        "update sessions set person_id = $2 where person_id = $3 and $1::uuid is not null",
        "insert into identities (issuer, subject, person_id, created_at) select 'x', $3::text, $2, now() "
        "where $1::uuid is not null",
        "update identities set person_id = $2 where person_id = $3 and $1::uuid is not null",
        "insert into second_steps (person_id, sealed, created_at) select $2, 'x', now() "
        "where $1::uuid is not null and $3::uuid is not null",
        "update sso_organisations set org_id = $1 where $2::uuid is not null and $3::uuid is not null",
        "insert into sso_departures (org_id, identity_hash, left_at) select $1, 'x', now() "
        "where $2::uuid is not null and $3::uuid is not null",
        "update sso_departures set org_id = $1 where $2::uuid is not null and $3::uuid is not null",
        "insert into invitations (invitation_id, org_id, email, role, invited_by, created_at, expires_at) "
        "select gen_random_uuid(), $1, 'x', 'owner', $2, now(), now() where $3::uuid is not null",
        "update invitations set org_id = $1 where $2::uuid is not null and $3::uuid is not null",
        "insert into address_changes (change_id, person_id, email, asked_at, expires_at) "
        "select gen_random_uuid(), $2, 'x', now(), now() where $1::uuid is not null and $3::uuid is not null",
        "update address_changes set person_id = $2 where person_id = $3 and $1::uuid is not null",
    ],
)
async def test_nobody_joins_another_organisation_or_session(
    app: Application, ada: Somebody, eve: Somebody, statement: str
) -> None:
    """Row-level security refuses the row."""

    async def attack() -> None:
        async with app.services.database.person_session(eve.person_id, org_id=eve.org_id) as conn:
            sql = f"with ids as (select $1::uuid, $2::uuid, $3::uuid) {statement}"
            await (await driver(conn)).execute(sql, ada.org_id, ada.person_id, eve.person_id)

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await attack()


async def test_look_ups_tell_one_row_for_one_exact_hash(app: Application, ada: Somebody) -> None:
    """And nothing for anything else; a cookie's hash finds one session."""
    async with app.services.database.anonymous_session() as conn:
        found = await find_person(conn, ada.email_hash)
        assert found is not None
        assert found.person_id == ada.person_id
        assert await find_person(conn, ada.email_hash[:-1]) is None
        seen = await find_session(conn, ada.cookie, now=NOW)
        assert seen is not None
        assert seen.session.person_id == ada.person_id
        assert await find_session(conn, ada.cookie[:-1] + "_", now=NOW) is None


async def test_a_shop_is_of_those_who_belong_to_its_organisation(
    app: Application, ada: Somebody, eve: Somebody
) -> None:
    """Of others it does not exist; nor does one without an organisation."""
    database = app.services.database
    for person, tenant_id, may in (
        (ada, ada.tenant_id, True),
        (eve, ada.tenant_id, False),
        (ada, eve.tenant_id, False),
        (ada, TenantId(uuid4()), False),
    ):
        async with database.person_session(person.person_id, tenant_id=tenant_id) as conn:
            if may:
                assert (await get_own_shop(conn, person.person_id, tenant_id)).role == "owner"
            else:
                with pytest.raises(ShopNotFound):
                    await get_own_shop(conn, person.person_id, tenant_id)


async def test_names_of_shops_are_of_one_organisation(app: Application, ada: Somebody, eve: Somebody) -> None:
    """Two customers may both have a shop named Lumen, and neither learns of the other."""
    for somebody in (ada, eve):
        assert (await find_tenant(app.services.database, str(somebody.tenant_id))).name == "Lumen"


async def test_a_mail_can_be_asked_for_and_not_read(app: Application) -> None:
    """The application puts mails in and gets none out."""
    database = app.services.database
    async with database.anonymous_session() as conn:
        await queue_mail(conn, "magic_link", "ada@shop.example", now=NOW)

    async def read() -> None:
        async with database.anonymous_session() as conn:
            await (await driver(conn)).fetch("select * from mails")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await read()
