"""`kindred keys`: the API keys of a shop."""

import json
import sys
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.commands.database import with_database
from infra.db import Database, TenantId
from infra.secret import load_secret
from infra.settings import Settings
from tenants.audit.log import command_line, note
from tenants.keys import SCOPES, KeyRequest, Kind, NewKey, create_key, list_keys, revoke_key
from tenants.lifecycle import find_tenant


async def make_key(
    database: Database,
    settings: Settings,
    tenant_id: TenantId,
    kind: Kind,
    name: str,
    *,
    first: bool = False,
    **wanted: Any,
) -> NewKey:
    """Make a key of a tenant, signed with this installation's secret; the first secret key may do everything."""
    now = datetime.now(UTC)
    async with database.tenant_session(tenant_id) as conn:
        made = await create_key(
            conn,
            tenant_id,
            KeyRequest(name=name, kind=kind, **wanted),
            secret=load_secret(settings),
            cell=settings.cell,
            now=now,
            scopes=SCOPES if first and kind == "secret" else None,
        )
        details = {"kind": kind, "name": name, "scopes": made.info.scopes}
        await note(conn, tenant_id, command_line(), "key.create", subject=made.info.key_id, details=details, now=now)
    return made


@with_database
async def create(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Make a key; it is shown once."""
    unknown = set(arguments.scope) - set(SCOPES)
    if unknown:
        print(f"kindred: no such scope: {', '.join(sorted(unknown))}. There are {', '.join(SCOPES)}.", file=sys.stderr)
        return 2
    tenant = await find_tenant(database, arguments.tenant)
    made = await make_key(
        database,
        settings,
        tenant.tenant_id,
        arguments.kind,
        arguments.name,
        scopes=arguments.scope or None,
        allowed_origins=arguments.origin or None,
    )
    print(json.dumps({"key_id": made.info.key_id, "key": made.key}) if arguments.json else made.key)
    return 0


@with_database
async def list_(database: Database, settings: Settings, arguments: Namespace) -> int:
    """The keys of a shop."""
    tenant = await find_tenant(database, arguments.tenant)
    table = Table("key id", "kind", "name", "scopes", "made", "ends", box=None, pad_edge=False)
    async with database.tenant_session(tenant.tenant_id) as conn:
        for key in await list_keys(conn, tenant.tenant_id):
            ends = "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}" if key.expires_at else ""
            scopes = " ".join(key.scopes)
            table.add_row(key.key_id, key.kind, key.name, scopes, f"{key.created_at:%Y-%m-%d}", ends)
    Console().print(table)
    return 0


@with_database
async def revoke(database: Database, settings: Settings, arguments: Namespace) -> int:
    """End a key at once."""
    tenant = await find_tenant(database, arguments.tenant)
    async with database.tenant_session(tenant.tenant_id) as conn:
        now = datetime.now(UTC)
        await revoke_key(conn, tenant.tenant_id, arguments.key_id, now=now)
        await note(conn, tenant.tenant_id, command_line(), "key.revoke", subject=arguments.key_id, now=now)
    print(f"kindred: key {arguments.key_id} is revoked; every process knows within a second.")
    return 0
