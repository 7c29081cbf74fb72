"""What is done to an organisation's members, in the audit log of each of its shops: membership is access to them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import enter_tenant
from infra.secret import Secret
from tenants.accounts.attempts import Knock
from tenants.accounts.organisations import list_shops
from tenants.audit.log import Actor, network_hash, note


async def note_membership(
    conn: AsyncConnection,
    by: UUID,
    action: str,
    subject: UUID,
    details: Mapping[str, Any],
    knock: Knock,
    now: datetime,
    *,
    secret: Secret,
) -> None:
    """Note what a person does in this transaction, in every shop of the organisation that `conn` is a session in.

    People are named by their ids alone: an address would outlive its account. Last in its transaction, since it leaves
    the session in the tenant of the last shop.
    """
    for shop in await list_shops(conn):
        await enter_tenant(conn, shop.tenant_id)
        await note(
            conn,
            shop.tenant_id,
            Actor(kind="person", id=str(by)),
            action,
            subject=str(subject),
            details=details,
            network=network_hash(secret.current, knock.network),
            request_id=knock.request_id,
            now=now,
        )
