"""`kindred keys`: the API keys of a shop."""

import json
import sys
from argparse import Namespace
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.clock import server_now
from infra.commands.database import with_database
from infra.db import Database, TenantId
from infra.decode import convert, plain_json
from infra.secret import load_secret
from infra.settings import Settings
from tenants.audit.log import command_line, note
from tenants.keys import (
    MAX_OVERLAP_S,
    SCOPES,
    KeyRequest,
    KeyRotation,
    Kind,
    NewKey,
    ParsedKey,
    create_key,
    find_keys,
    list_keys,
    parse_key,
    revoke_key,
    rotate_key,
)
from tenants.lifecycle import find_tenant
from tenants.visitor_secrets import create_visitor_secret, newest_visitor_secret
from tenants.visitor_tokens import AUDIENCE, Claims, sign, verify


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
    now = await server_now(database)
    async with database.tenant_session(tenant_id) as conn:
        made = await create_key(
            conn,
            tenant_id,
            KeyRequest(name=name, kind=kind, **wanted),
            secret=load_secret(settings).current,
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
        placements=arguments.placement or None,
    )
    print(json.dumps({"key_id": made.info.key_id, "key": made.key}) if arguments.json else made.key)
    return 0


@with_database
async def list_(database: Database, settings: Settings, arguments: Namespace) -> int:
    """The keys of a shop."""
    tenant = await find_tenant(database, arguments.tenant)
    table = Table("key id", "kind", "name", "scopes", "made", "used", "ends", box=None, pad_edge=False)
    async with database.tenant_session(tenant.tenant_id) as conn:
        for key in await list_keys(conn, tenant.tenant_id):
            ends = "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}" if key.expires_at else ""
            scopes = " ".join(key.scopes)
            used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else ""
            table.add_row(key.key_id, key.kind, key.name, scopes, f"{key.created_at:%Y-%m-%d}", used, ends)
    Console().print(table)
    return 0


@with_database
async def rotate(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Make a key of the same name; it is shown once."""
    if not 0 <= arguments.overlap_s <= MAX_OVERLAP_S:
        print(f"kindred: an overlap has 0 to {MAX_OVERLAP_S} seconds.", file=sys.stderr)
        return 2
    tenant = await find_tenant(database, arguments.tenant)
    now = await server_now(database)
    async with database.tenant_session(tenant.tenant_id) as conn:
        made = await rotate_key(
            conn,
            tenant.tenant_id,
            arguments.key_id,
            KeyRotation(overlap_s=arguments.overlap_s),
            secret=load_secret(settings).current,
            cell=settings.cell,
            now=now,
        )
        details = {"new": made.info.key_id, "overlap_s": arguments.overlap_s}
        await note(
            conn, tenant.tenant_id, command_line(), "key.rotate", subject=arguments.key_id, details=details, now=now
        )
    print(made.key)
    return 0


def check(settings: Settings, arguments: Namespace) -> int:
    """What a string says as a key, or which keys stand in a text; none of it is repeated."""
    if arguments.key == "-":
        found = list(find_keys(sys.stdin.read()))
        for place, each in found:
            print(f"at character {place}: {_told(each)}")
        print(f"kindred: {len(found)} API keys.", file=sys.stderr)
        return 1 if found else 0
    print(_told(parse_key(arguments.key)))
    return 0


def _told(key: ParsedKey) -> str:
    return f"{key.kind} key {key.key_id} of cell {key.cell}; its checksum is right"


@with_database
async def visitor_token(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Sign a token as a shop's server would, with a signing secret that is made where there is none."""
    tenant = await find_tenant(database, arguments.tenant)
    secret = load_secret(settings)
    now = await server_now(database)
    async with database.tenant_session(tenant.tenant_id) as conn:
        signing = await newest_visitor_secret(conn, tenant.tenant_id, secret)
        if signing is None:
            made = await create_visitor_secret(conn, tenant.tenant_id, secret=secret.current, now=now)
            await note(conn, tenant.tenant_id, command_line(), "visitor_secret.create", subject=made.kid, now=now)
            signing = made.kid, made.secret
    claims = {
        "aud": AUDIENCE,
        "tenant": str(tenant.tenant_id),
        "exp": int(now.timestamp() + arguments.hours * 3600),
        "user": arguments.user,
        "visitor": arguments.visitor,
        "placements": arguments.placement or None,
        "filter": None if arguments.filter is None else plain_json(arguments.filter.encode()),
    }
    kid, key = signing
    token = sign(convert(claims, Claims), kid=kid, secret=key)
    verify(token, {kid: key}, tenant.tenant_id, now=now)  # what no server would be believed is not printed
    print(token)
    return 0


@with_database
async def revoke(database: Database, settings: Settings, arguments: Namespace) -> int:
    """End a key at once."""
    tenant = await find_tenant(database, arguments.tenant)
    now = await server_now(database)
    async with database.tenant_session(tenant.tenant_id) as conn:
        await revoke_key(conn, tenant.tenant_id, arguments.key_id, now=now)
        await note(conn, tenant.tenant_id, command_line(), "key.revoke", subject=arguments.key_id, now=now)
    print(f"kindred: key {arguments.key_id} is revoked; every process knows within a second.")
    return 0
