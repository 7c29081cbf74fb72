"""A tenant deleted, and had back: its keys stop at once, its data stays for the days of grace, then it is erased.

Every function takes the connection of a `tenant_session` and never commits, but for those that take a Database.
"""

import hmac
from datetime import datetime, timedelta
from typing import Final

import asyncpg
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.db import Database, TenantId, driver, fetch
from infra.errors import Invalid
from tenants.audit.log import SYSTEM, Actor, note
from tenants.lifecycle import TenantNameTaken, TenantNotFound

ERASE_AFTER: Final = timedelta(minutes=1)
"""A deleted tenant is left alone for so long at least: what was being answered for it has written by then."""


class TenantNameDiffers(Invalid):
    """A tenant is deleted only by whoever types its name."""

    code = "tenant_name_differs"
    title = "The name is not that of the tenant"


class Deletion(Struct, frozen=True, kw_only=True):
    """A deleted tenant. `name` is what it was called; until `erase_after` it can be had back under it."""

    tenant_id: TenantId
    name: str
    deleted_at: datetime
    erase_after: datetime


async def delete_tenant(
    conn: AsyncConnection,
    tenant_id: TenantId,
    *,
    now: datetime,
    grace: timedelta,
    typed: str | None = None,
    actor: Actor | None = None,
) -> Deletion:
    """Shut a tenant off: its keys stop within a second in every process, its name is free again.

    `typed`: the name as a person has typed it; None where the caller has asked already. `actor`: who, for the audit
    log; None where the caller notes it. Raises TenantNotFound, TenantNameDiffers.
    """
    raw = await driver(conn)
    name: str | None = await raw.fetchval(
        "select name from tenants where tenant_id = $1 and deleted_at is null for update", tenant_id
    )
    if name is None:
        raise TenantNotFound("There is no such tenant, or it was deleted before.")
    if typed is not None and not hmac.compare_digest(typed.encode(), name.encode()):
        raise TenantNameDiffers("Give the tenant's exact name, so that no other is deleted by mistake.")
    erase_after = now + max(grace, ERASE_AFTER)
    await raw.execute(
        "update tenants set deleted_at = $2, erase_after = $3, former_name = name, name = 'deleted:' || tenant_id "
        "where tenant_id = $1",
        tenant_id,
        now,
        erase_after,
    )
    if actor is not None:
        await note(conn, tenant_id, actor, "tenant.delete", now=now)
    await record_change(conn, tenant_id, "tenant")
    return Deletion(tenant_id=tenant_id, name=name, deleted_at=now, erase_after=erase_after)


async def undelete_tenant(
    conn: AsyncConnection, deletion: Deletion, *, now: datetime, name: str | None = None, actor: Actor = SYSTEM
) -> str:
    """Give a deleted tenant back all that it had, its keys included; the name that it has now.

    `name`: another one than before. Raises TenantNotFound where its time is over, TenantNameTaken.
    """
    raw = await driver(conn)
    wanted = name or deletion.name
    try:
        found = await raw.fetchval(
            "update tenants set deleted_at = null, erase_after = null, former_name = null, name = $3 "
            "where tenant_id = $1 and deleted_at is not null and former_name is not null and erase_after > $2 "
            "returning 1",
            deletion.tenant_id,
            now,
            wanted,
        )
    except asyncpg.UniqueViolationError as error:
        raise TenantNameTaken(f"There is another tenant named {wanted!r} by now; choose another name.") from error
    if not found:
        raise TenantNotFound("The tenant is being erased, or was had back already.")
    await note(conn, deletion.tenant_id, actor, "tenant.undelete", now=now)
    await record_change(conn, deletion.tenant_id, "tenant")
    return wanted


async def list_deletions(database: Database, *, now: datetime) -> list[Deletion]:
    """The tenants that can be had back, the last deleted first."""
    async with database.system_session(reason="list deleted tenants") as conn:
        records = await fetch(
            conn,
            "select tenant_id, former_name as name, deleted_at, erase_after from tenants where deleted_at is not null "
            "and former_name is not null and erase_after > $1 order by deleted_at desc, tenant_id",
            now,
        )
    return [Deletion(**dict(record)) for record in records]


async def find_deletion(database: Database, name_or_id: str, *, now: datetime) -> Deletion:
    """The deleted tenant of that id, or the last deleted of that name. Raises TenantNotFound."""
    for deletion in await list_deletions(database, now=now):
        if name_or_id in (deletion.name, str(deletion.tenant_id)):
            return deletion
    raise TenantNotFound(
        f"No deleted tenant {name_or_id!r} can be had back; `kindred tenants list --deleted` shows those that can."
    )
