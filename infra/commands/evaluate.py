"""`kindred evaluate`: how good every model is, on files of interactions or on a tenant's own events."""

import asyncio
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from infra.commands.database import open_database, require_schema
from infra.commands.models import fetch_missing_packs
from infra.settings import Settings
from tenants.learned.interactions import ItemVectors, copy_interactions, copy_items, load_vectors
from tenants.lifecycle import find_tenant, load_tenant
from workers.evaluation.command import BadEvaluation, run_command


def run(settings: Settings, arguments: Namespace) -> int:
    """Measure, print the table, write the card and its page."""
    with TemporaryDirectory(prefix="kindred-evaluate-") as folder:
        stored = None
        if arguments.tenant is not None:
            if arguments.interactions or arguments.train or arguments.test:
                raise BadEvaluation("Give either --tenant, or files.")
            stored = asyncio.run(_export(settings, arguments, Path(folder)))
        if arguments.items is not None and stored is None:
            fetch_missing_packs(settings)
        return run_command(settings, arguments, Console(), sys.argv[1:], stored=stored)


async def _export(settings: Settings, arguments: Namespace, folder: Path) -> ItemVectors | None:
    """The tenant's events and items as files, which then are read like any; and the vectors of its items, where some
    are encoded and no other items were named.
    """
    async with open_database(settings) as database:
        await require_schema(database, settings)
        tenant_id = (await find_tenant(database, arguments.tenant)).tenant_id
        arguments.interactions = folder / "events.csv"
        async with database.tenant_session(tenant_id) as conn:
            tenant = await load_tenant(conn, tenant_id)
            await copy_interactions(conn, tenant_id, tenant.event_weights, arguments.interactions)
            if arguments.items is not None:
                return None
            arguments.items = folder / "items.jsonl"
            await copy_items(conn, tenant_id, arguments.items)
            vectors = await load_vectors(conn, tenant)
    return vectors if vectors.ids else None
