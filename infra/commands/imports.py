"""`kindred import`: a feed into a running server."""

import asyncio
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from infra.importer import ImportRefused, Options, import_feed
from infra.settings import Settings
from workers.feeds.read import read_feed
from workers.feeds.types import FeedRow


def run(settings: Settings, arguments: Namespace) -> int:
    """Send the file, follow the job, upload the photos that the feed names by file."""
    server = arguments.server or f"http://{settings.host}:{settings.port}"
    if not arguments.file.is_file():
        print(f"kindred: there is no file {arguments.file}.", file=sys.stderr)
        return 2

    async def send() -> int:
        headers = {"Authorization": f"Bearer {arguments.key}"}
        async with httpx.AsyncClient(base_url=server, headers=headers, timeout=300, trust_env=False) as client:
            options = Options(
                file=arguments.file, format=arguments.format, mode=arguments.mode, images_dir=arguments.images_dir
            )
            return await import_feed(client, options, Console(), local_photos=local_photos)

    try:
        return asyncio.run(send())
    except httpx.TransportError as error:
        raise ImportRefused(
            f"{server} does not answer ({error}). Is `kindred up` running? --server says where."
        ) from error


def local_photos(feed: Path, format_: Any) -> Iterable[tuple[str, list[str]]]:
    """The items of a feed that name photos by file, with those names."""
    with feed.open("rb") as stream:
        for row in read_feed(stream, format=format_, file_name=feed.name, default_currency="USD"):
            if isinstance(row, FeedRow) and row.local_images:
                yield str(row.item["id"]), row.local_images
