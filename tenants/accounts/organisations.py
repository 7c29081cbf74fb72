"""Organisations, their members and their shops."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver, fetch
from infra.errors import Forbidden, NotFound
from tenants.accounts.roles import Role


class RoleTooLow(Forbidden):
    """The person's role in the organisation does not include this."""

    code = "role_too_low"
    title = "Your role does not include this"


class ShopNotFound(NotFound):
    """The person belongs to no organisation with such a shop."""

    code = "shop_not_found"
    title = "There is no such shop"


class Membership(Struct, frozen=True, kw_only=True):
    """An organisation that a person belongs to, and as what."""

    org_id: UUID
    name: str
    role: Role


class OwnShop(Struct, frozen=True, kw_only=True):
    """A shop as somebody sees it who belongs to its organisation."""

    tenant_id: TenantId
    name: str
    currency: str
    org_id: UUID
    role: Role


class ShopInfo(Struct, frozen=True, kw_only=True):
    """A shop in the list of its organisation."""

    tenant_id: TenantId
    name: str
    currency: str
    created_at: datetime


async def add_organisation(conn: AsyncConnection, org_id: UUID, name: str, owner: UUID, *, now: datetime) -> None:
    """Make an organisation with its first owner. `conn` is a session of that person in that organisation."""
    raw = await driver(conn)
    await raw.execute("insert into organisations (org_id, name, created_at) values ($1, $2, $3)", org_id, name, now)
    await raw.execute(
        "insert into members (org_id, person_id, role, created_at) values ($1, $2, 'owner', $3)", org_id, owner, now
    )


async def list_memberships(conn: AsyncConnection, person_id: UUID) -> list[Membership]:
    """Where a person belongs to, the oldest first. `conn` is a session of that person."""
    records = await fetch(
        conn,
        "select m.org_id, o.name, m.role from members m join organisations o on o.org_id = m.org_id "
        "where m.person_id = $1 order by m.created_at, m.org_id",
        person_id,
    )
    return [
        Membership(org_id=UUID(int=record["org_id"].int), name=record["name"], role=record["role"])
        for record in records
    ]


async def list_shops(conn: AsyncConnection) -> list[ShopInfo]:
    """The shops of the organisation that `conn` is a session in, the oldest first."""
    records = await fetch(conn, "select * from shops_of_organisation() order by created_at, tenant_id")
    return [
        ShopInfo(**{**dict(record), "tenant_id": TenantId(UUID(int=record["tenant_id"].int))}) for record in records
    ]


async def get_own_shop(conn: AsyncConnection, person_id: UUID, tenant_id: TenantId) -> OwnShop:
    """A shop of an organisation that the person belongs to. `conn` is a session of that person in that tenant.

    Raises ShopNotFound: of others' shops nobody learns that they exist.
    """
    record = await (await driver(conn)).fetchrow(
        "select t.name, t.currency, t.org_id, m.role from tenants t "
        "join members m on m.org_id = t.org_id and m.person_id = $2 where t.tenant_id = $1 and t.deleted_at is null",
        tenant_id,
        person_id,
    )
    if record is None:
        raise ShopNotFound("You have no such shop, or it was deleted. “Your shops” lists those you have.")
    return OwnShop(
        tenant_id=tenant_id,
        name=record["name"],
        currency=record["currency"],
        org_id=UUID(int=record["org_id"].int),
        role=record["role"],
    )


async def organisation_of(conn: AsyncConnection, tenant_id: TenantId) -> UUID | None:
    """The organisation of a shop, None of one of the command line. `conn` is a session in that tenant."""
    org_id = await (await driver(conn)).fetchval("select org_id from tenants where tenant_id = $1", tenant_id)
    return None if org_id is None else UUID(int=org_id.int)


async def name_of_organisation(conn: AsyncConnection, org_id: UUID) -> str | None:
    """The name of an organisation; `conn` is a system session, or one in it."""
    name: str | None = await (await driver(conn)).fetchval("select name from organisations where org_id = $1", org_id)
    return name
