"""`kindred tenants`: the shops of this installation."""

import json
from argparse import Namespace
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from rich.console import Console
from rich.table import Table

from billing.plans import plan_named
from infra.clock import server_now
from infra.commands.database import with_database
from infra.commands.keys import make_key
from infra.db import Database, TenantId
from infra.secret import load_secret
from infra.settings import Settings
from tenants.audit.log import command_line
from tenants.certificates import CertificateInvalid, CertificateNotFound, get_certificate, verify
from tenants.deletion import Deletion, delete_tenant, find_deletion, list_deletions, undelete_tenant
from tenants.lifecycle import create_tenant, find_tenant, list_tenants, set_plan


@with_database
async def create(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Make a shop and its first keys."""
    plan_named(arguments.plan)
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
    """The shops, oldest first; or those that were deleted and can be had back."""
    if arguments.deleted:
        table = Table("tenant", "name", "deleted", "erased after", box=None, pad_edge=False)
        for deletion in await list_deletions(database, now=await server_now(database)):
            table.add_row(str(deletion.tenant_id), deletion.name, _minute(deletion.deleted_at), _end(deletion))
    else:
        table = Table("tenant", "name", "plan", "items", "since", box=None, pad_edge=False)
        for tenant in await list_tenants(database):
            since = f"{tenant.created_at:%Y-%m-%d}"
            table.add_row(str(tenant.tenant_id), tenant.name, tenant.plan, f"{tenant.items:,}", since)
    Console().print(table)
    return 0


@with_database
async def plan(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Let another plan hold for a shop."""
    wanted = plan_named(arguments.plan)
    tenant = await find_tenant(database, arguments.name)
    await set_plan(database, tenant.tenant_id, wanted.name, actor=command_line())
    print(f"kindred: {tenant.name} has the plan {wanted.name}, before it was {tenant.plan}.")
    if settings.entitlements == "licence":
        print("kindred: it is not heeded here: KINDRED_ENTITLEMENTS is licence, so nobody's use is limited.")
    return 0


@with_database
async def delete(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Delete a shop with all it has: at once for everybody, for good when the days of grace are over."""
    tenant = await find_tenant(database, arguments.name)
    if not arguments.yes and input(f"Delete {tenant.name} with {tenant.items:,} items? [y/N] ") != "y":
        return 1
    grace = timedelta(days=settings.tenant_grace_days)
    now = await server_now(database)
    async with database.tenant_session(tenant.tenant_id) as conn:
        deletion = await delete_tenant(conn, tenant.tenant_id, now=now, grace=grace, actor=command_line())
    print(f"kindred: {tenant.name} ({tenant.tenant_id}) is deleted; its keys open nothing. Until {_end(deletion)}")
    print(f"`kindred tenants undelete {tenant.tenant_id}` gives all of it back; then a worker erases what it had.")
    return 0


@with_database
async def undelete(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Have a deleted shop back."""
    now = await server_now(database)
    deletion = await find_deletion(database, arguments.name, now=now)
    async with database.tenant_session(deletion.tenant_id) as conn:
        name = await undelete_tenant(conn, deletion, now=now, name=arguments.as_name, actor=command_line())
    print(f"kindred: {name} is back, with its keys and all it had.")
    return 0


@with_database
async def show_certificate(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Print the certificate of what was erased of a shop."""
    try:
        tenant_id = TenantId(UUID(arguments.tenant))
    except ValueError:
        raise CertificateNotFound("Certificates name no shop: give the id that it had.") from None
    certificate = msgspec.json.format(msgspec.json.encode(await get_certificate(database, tenant_id)), indent=2)
    if arguments.out is None:
        print(certificate.decode())
    else:
        arguments.out.write_bytes(certificate + b"\n")
    return 0


def verify_certificate(settings: Settings, arguments: Namespace) -> int:
    """Whether a certificate is of this installation and says what was signed."""
    try:
        file = arguments.file.read_bytes()
    except OSError as error:
        raise CertificateInvalid(f"{arguments.file} cannot be read: {error.strerror}.") from error
    erasure = verify(file, secrets=load_secret(settings).every)
    rows = f"{sum(erasure.rows.values()):,} rows of {len(erasure.rows)} tables"
    files = f"{erasure.files:,} files of {erasure.bytes:,} bytes"
    print(
        f"kindred: the certificate holds. Of tenant {erasure.tenant_id}, deleted {_minute(erasure.deleted_at)}, "
        f"{rows} and {files} were erased by {_minute(erasure.ended_at)}."
    )
    return 0


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _end(deletion: Deletion) -> str:
    return _minute(deletion.erase_after)
