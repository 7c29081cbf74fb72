"""`kindred tenants export` and `restore`: a shop as one file, and a shop of such a file."""

import asyncio
import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.blob_open import open_blobs
from infra.clock import ServerClock, server_now
from infra.commands.database import with_database
from infra.commands.keys import make_key
from infra.db import Database
from infra.errors import Invalid
from infra.secret import load_secret
from infra.settings import Settings
from tenants.lifecycle import find_tenant
from tenants.portability.dump import bundle, dump
from tenants.portability.restore import restore as restore_bundle


class BadOutput(Invalid):
    """The file cannot be written."""

    code = "bad_output"
    title = "The file cannot be written"


@with_database
async def export(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Write a shop into a file that its owner alone may read, whole or not at all."""
    tenant = await find_tenant(database, arguments.name)
    out: Path = arguments.out
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    blobs = open_blobs(settings.blob_url)
    try:
        aside.touch(mode=0o600, exist_ok=False)  # what people did is in it: for nobody else of this machine
        with TemporaryDirectory(prefix="kindred-export-", dir=_scratch(settings)) as scratch, aside.open("wb") as file:
            dumped = await dump(database, tenant.tenant_id, Path(scratch), now=await server_now(database))
            async for piece in bundle(dumped, blobs):
                await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(os.fsync, file.fileno())
        aside.replace(out)
    except OSError as error:
        raise BadOutput(f"{out} cannot be written: {error.strerror}. Name another place with --out.") from error
    finally:
        aside.unlink(missing_ok=True)
        await blobs.aclose()
    rows = sum(info.rows or 0 for info in dumped.files.values())
    print(f"kindred: {tenant.name} is in {out}: {rows:,} rows, {out.stat().st_size:,} bytes.")
    print("It holds everything but the keys, what people did included: keep it as you keep the database.")
    return 0


@with_database
async def restore(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Make a shop of an exported file, and its first keys."""
    clock = ServerClock(database)
    await clock.measure()
    blobs = open_blobs(settings.blob_url)
    try:
        made = await restore_bundle(
            database,
            blobs,
            arguments.file,
            secret=load_secret(settings),
            clock=clock,
            name=arguments.as_name,
            plan=arguments.plan,
        )
    finally:
        await blobs.aclose()
    told = {"tenant_id": str(made.tenant_id)}
    for kind in ("secret", "publishable"):
        told[f"{kind}_key"] = (await make_key(database, settings, made.tenant_id, kind, "first", first=True)).key
    if arguments.json:
        print(json.dumps(told))
    else:
        print(f"tenant {made.name}: {made.tenant_id}\n  secret key       {told['secret_key']}")
        print(f"  publishable key  {told['publishable_key']}\nThe keys are shown once; keep them.")
        print(f"kindred: {made.items:,} items, {made.photos:,} photos and {made.events:,} lines of events are back.")
    if made.erased:
        print(f"kindred: {made.erased} ids in the file are of people erased since; they stay erased.", file=sys.stderr)
    return 0


def _scratch(settings: Settings) -> Path:
    folder = settings.data_dir / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
