"""People of a provider who delete their accounts, and come back: they are no more than they were.

Nobody's data: a keyed hash of who they are at the provider, with their role. Without it whoever was given a smaller
role, or removed, would delete the account and arrive as a newcomer.
"""

import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from infra.secret import Secret
from tenants.accounts.roles import Role, lesser

KEPT: Final = timedelta(days=365)
"""From the deletion on."""


async def remember(
    conn: AsyncConnection,
    person_id: UUID,
    roles: Mapping[UUID, Role],
    *,
    joins: UUID | None,
    newcomer: Role | None,
    secret: bytes,
    now: datetime,
) -> None:
    """Before a person's rows go. `roles`: what they are, by organisation; `conn` is a system session.

    `joins`: the organisation that is configured, `newcomer` the role there; of who has that or more nothing is kept.
    """
    raw = await driver(conn)
    for record in await raw.fetch(
        "select i.issuer, i.subject, coalesce($2::uuid, s.org_id) as org_id from identities i "
        "left join sso_organisations s on s.issuer = i.issuer where i.person_id = $1",
        person_id,
        joins,
    ):
        role = None if record["org_id"] is None else roles.get(UUID(int=record["org_id"].int))
        if role is not None and newcomer is not None and lesser(role, newcomer) == newcomer:
            continue
        await raw.execute(
            "insert into sso_departures (org_id, identity_hash, role, left_at) "
            "select org_id, $2, $3, $4 from organisations where org_id = $1 "
            "on conflict (org_id, identity_hash) do update set role = excluded.role, left_at = excluded.left_at",
            record["org_id"],
            _hash(secret, record["issuer"], record["subject"]),
            role,
            now,
        )


async def returning(
    conn: AsyncConnection, org_id: UUID, issuer: str, subject: str, newcomer: Role, *, secret: Secret
) -> Role | None:
    """The role that somebody comes back with, the newcomers' where they were not here; None: they belong here no more.

    What was remembered is spent. `conn` is a session in that organisation.
    """
    hashes = [_hash(each, issuer, subject) for each in secret.every]
    records = await (await driver(conn)).fetch(
        "delete from sso_departures where org_id = $1 and identity_hash = any($2::bytea[]) returning role",
        org_id,
        hashes,
    )
    role: Role | None = newcomer
    for record in records:
        role = None if role is None or record["role"] is None else lesser(role, record["role"])
    return role


def _hash(secret: bytes, issuer: str, subject: str) -> bytes:
    return hmac.digest(secret, b"\0".join([b"departure", issuer.encode(), subject.encode()]), "sha256")
