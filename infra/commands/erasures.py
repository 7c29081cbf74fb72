"""`kindred erasures`: people who were erased, and backups that do not know it yet."""

from argparse import Namespace

from infra.blob_open import open_blobs
from infra.commands.database import with_database
from infra.db import Database
from infra.secret import load_secret
from infra.settings import Settings
from tenants.audience.tombstones import replay as replay_tombstones


@with_database
async def replay(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Erase again whoever a restored backup has brought back."""
    blobs = open_blobs(settings.blob_url)
    try:
        done = await replay_tombstones(database, blobs, load_secret(settings))
    finally:
        await blobs.aclose()
    print(f"kindred: {done.erased} ids were erased again.")
    if done.foreign:
        print(
            f"kindred: {done.foreign} more were erased under another secret. Set KINDRED_SECRET_KEY to that of the API."
        )
    if done.failed:
        print("kindred: not every shop's could be replayed; the lines above say why. Run it again.")
    return 1 if done.foreign or done.failed else 0
