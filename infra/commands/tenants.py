"""`kindred tenants`: the shops of this installation."""

import json
from argparse import Namespace

from rich.console import Console
from rich.table import Table

from infra.commands.database import with_database
from infra.commands.keys import make_key
from infra.db import Database
from infra.settings import Settings
from tenants.audit.log import command_line
from tenants.lifecycle import create_tenant, delete_tenant, find_tenant, list_tenants


@with_database
async def create(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Make a shop and its first keys."""
    tenant_id = await create_tenant(
        database, arguments.name, plan=arguments.plan, currency=arguments.currency, actor=command_line()
    )
    made = {"tenant_id": str(tenant_id)}
    for kind in ("secret", "publishable"):
        made[f"{kind}_key"] = (await make_key(database, settings, tenant_id, kind, "first", first=True)).key
    if arguments.json:
        print(json.dumps(made))
    else:
        print(f"tenant {arguments.name}: {made['tenant_id']}\n  secret key       {made['secret_key']}")
        print(f"  publishable key  {made['publishable_key']}\nThe keys are shown once; keep them.")
    return 0


@with_database
async def list_(database: Database, settings: Settings, arguments: Namespace) -> int:
    """The shops, oldest first."""
    table = Table("tenant", "name", "plan", "items", "since", box=None, pad_edge=False)
    for tenant in await list_tenants(database):
        since = f"{tenant.created_at:%Y-%m-%d}"
        table.add_row(str(tenant.tenant_id), tenant.name, tenant.plan, f"{tenant.items:,}", since)
    Console().print(table)
    return 0


@with_database
async def delete(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Delete a shop with all it has."""
    tenant = await find_tenant(database, arguments.name)
    if not arguments.yes and input(f"Delete {tenant.name} with {tenant.items:,} items for ever? [y/N] ") != "y":
        return 1
    await delete_tenant(database, tenant.tenant_id, actor=command_line())
    print(f"kindred: {tenant.name} is deleted. A worker erases what it had within minutes.")
    return 0
