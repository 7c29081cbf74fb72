"""`kindred demo`: a shop to look at, and where."""

import asyncio
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console

from infra.commands.database import open_database
from infra.commands.imports import local_photos
from infra.commands.keys import make_key
from infra.curl import curl_json
from infra.db import Database, TenantId
from infra.demo.load import NAME, demo_visitors, learn, load_demo, load_shoppers, wait_until_encoded
from infra.demo.shop import DemoShop, write_demo
from infra.importer import Options, import_feed
from infra.settings import Settings
from tenants.lifecycle import TenantNotFound, create_tenant, find_tenant


async def load_shop(settings: Settings, url: str, folder: Path | None) -> None:
    """The demo shop, or a folder of items.jsonl and photos; then where to look."""
    console = Console()
    name = NAME if folder is None else folder.resolve().name
    async with open_database(settings) as database:
        tenant_id = await _tenant_named(database, name)
        secret = await make_key(database, settings, tenant_id, "secret", f"{name} loader", first=True)
        public = await make_key(database, settings, tenant_id, "publishable", f"{name} page")
    headers = {"Authorization": f"Bearer {secret.key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, trust_env=False) as client:
        if folder is None:
            await load_demo(client, console)
            await load_shoppers(client, console, now=datetime.now(UTC))
        else:
            options = Options(file=folder / "items.jsonl", format="ndjson", images_dir=folder)
            await import_feed(client, options, console, local_photos=local_photos)
        visitors = demo_visitors() if folder is None else []
        write_demo(settings.data_dir, DemoShop(name=name, publishable_key=public.key, visitors=visitors))
        listed = (await client.get("/v1/items", params={"limit": 1})).json()["items"]
        await wait_until_encoded(client, console)
        if folder is None:
            await learn(client, console)
    seed = listed[0]["id"] if listed else "item id"
    console.print(
        f"\nThe shop [bold]{name}[/bold] is loaded.\n"
        f"  storefront     {url}/demo\n"
        f"  API reference  {url}/docs\n"
        f"  secret key     {secret.key}\n\n"
        "A recommendation:\n",
        highlight=False,
    )
    body = {"strategy": "similar", "item_ids": [seed], "count": 5, "fields": ["title"]}
    print(curl_json(f"{url}/v1/recommend", public.key, body), flush=True)


async def _tenant_named(database: Database, name: str) -> TenantId:
    """The tenant of that name, made where there is none."""
    try:
        return (await find_tenant(database, name)).tenant_id
    except TenantNotFound:
        return await create_tenant(database, name)


def run(settings: Settings, arguments: Namespace) -> int:
    """Load the shop into a running server."""
    url = arguments.server or f"http://{settings.host}:{settings.port}"
    asyncio.run(load_shop(settings, url, arguments.data))
    return 0
