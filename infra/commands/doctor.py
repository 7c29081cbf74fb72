"""`kindred doctor`: what is wrong with this installation, and how to mend it."""

import asyncio
import re
from argparse import Namespace

from rich.console import Console

from infra import doctor, migrate
from infra.blob_open import open_blobs
from infra.commands.database import open_database
from infra.settings import Settings
from workers.encoders.registry import open_pack


def run(settings: Settings, arguments: Namespace) -> int:
    """Look the installation over."""

    async def packs() -> str:
        for value in (settings.models_text, settings.models_image):
            await asyncio.to_thread(open_pack, value, settings.models_dir)
        return f"{settings.models_text}, {settings.models_image}"

    async def blobs() -> str:
        store = open_blobs(settings.blob_url)
        try:
            await store.put("doctor/probe", b"probe", content_type="text/plain")
            await store.delete("doctor/probe")
        finally:
            await store.aclose()
        return re.sub(r"//[^/@]*@", "//", settings.blob_url)

    async def look() -> int:
        async with open_database(settings) as database:
            checks = [
                *doctor.database_checks(database.url, revision=lambda: migrate.current(database), head=migrate.head()),
                doctor.disk_check(settings.data_dir),
                doctor.probe_check("model packs", packs, mend="Run `kindred models fetch NAME`."),
                doctor.probe_check("blob store", blobs, mend="Check KINDRED_BLOB and its permissions."),
            ]
            return doctor.report(await doctor.examine(checks), Console())

    return asyncio.run(look())
