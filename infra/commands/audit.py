"""`kindred audit`: who changed what in a shop, checked and written out."""

import asyncio
import sys
from argparse import Namespace

from infra.clock import server_now
from infra.commands.database import open_database, require_schema, with_database
from infra.db import Database
from infra.errors import Invalid
from infra.settings import Settings
from tenants.audit.chain import Checked, check_export
from tenants.audit.sealing import check, export_lines
from tenants.lifecycle import find_tenant


class NothingToVerify(Invalid):
    """`kindred audit verify` was given neither a shop nor a file, or both."""

    code = "nothing_to_verify"
    title = "Say which audit log is to be checked"


def verify(settings: Settings, arguments: Namespace) -> int:
    """Check a shop's log, or an exported file; 1 where something differs. Raises NothingToVerify, TenantNotFound."""
    if (arguments.tenant is None) == (arguments.file is None):
        raise NothingToVerify("Name a shop, or a file with --file.")
    if arguments.file is None:
        checked = asyncio.run(_verify(settings, arguments.tenant))
    else:
        try:
            with arguments.file.open("rb") as lines:
                checked = check_export(lines)
        except OSError as error:
            raise NothingToVerify(f"{arguments.file} cannot be read: {error.strerror}.") from error
    return _tell(checked)


async def _verify(settings: Settings, name: str) -> Checked:
    async with open_database(settings) as database:
        await require_schema(database, settings)
        tenant = await find_tenant(database, name)
        return await check(database, tenant.tenant_id)


def _tell(checked: Checked) -> int:
    different = checked.difference
    if different is not None:
        place = "" if different.place is None else f", entry {different.place}"
        entry = "" if different.entry is None else f" ({different.entry})"
        print(f"kindred: the log differs from its seals at seal {different.seal}{place}{entry}: {different.message}")
        print(f"kindred: {checked.entries:,} entries before it are as they were sealed.")
        return 1
    if not checked.last:
        print(f"kindred: there is no seal yet; {checked.unsealed:,} entries wait for one.")
        return 0
    print(
        f"kindred: {checked.entries:,} entries are as they were sealed, in seals {checked.first} to {checked.last}; "
        f"{checked.unsealed:,} wait for the next."
    )
    print(f"kindred: the last seal is {checked.head}. Keep it elsewhere: it vouches for all of them.")
    return 0


@with_database
async def export(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Write the whole log, one line of JSON each, with the seals."""
    tenant = await find_tenant(database, arguments.tenant)
    out = sys.stdout.buffer if arguments.out is None else arguments.out.open("wb")
    try:
        async for line in export_lines(database, tenant.tenant_id, now=await server_now(database)):
            out.write(line + b"\n")
        out.flush()
    finally:
        if arguments.out is not None:
            out.close()
    return 0
