"""`kindred secret`: what depends on the installation's secret, and changing it while everything runs."""

import sys
from argparse import Namespace
from collections import Counter

from rich.console import Console
from rich.table import Table

from infra.blob_open import open_blobs
from infra.commands.database import with_database
from infra.db import Database
from infra.secret import (
    Secret,
    adopt_secret,
    announce_secret,
    forget_old_secrets,
    load_secret,
    mark_of,
    new_secret,
)
from infra.settings import Settings
from tenants.accounts.people import count_emails
from tenants.accounts.second_step import count_second_steps
from tenants.audience.tombstones import count_tombstones
from tenants.certificates import count_certificates
from tenants.keys import count_keys
from tenants.visitor_secrets import count_visitor_secrets
from tenants.webhooks.endpoints import count_secrets as count_webhook_secrets

_BEFORE = "(before marks)"


async def _dependants(database: Database, settings: Settings, secret: Secret) -> dict[str, Counter[str]]:
    """What is stored under each secret, by its mark."""
    blobs = open_blobs(settings.blob_url)
    try:
        tombstones = await count_tombstones(blobs)
    finally:
        await blobs.aclose()
    async with database.system_session(reason="count what depends on secrets") as system:
        return {
            "live API keys": await count_keys(system),
            "live visitor secrets": await count_visitor_secrets(system),
            "people": await count_emails(system, secret),
            "second steps": await count_second_steps(system, secret),
            "webhook secrets": await count_webhook_secrets(system, secret),
            "certificates": await count_certificates(system, secret),
            "tombstones": tombstones,
        }


@with_database
async def status(database: Database, settings: Settings, arguments: Namespace) -> int:
    """A row per secret. 0 where nothing depends on an old one or an unknown one."""
    secret = load_secret(settings)
    found = await _dependants(database, settings, secret)
    table = Table("secret", "is", *found, box=None, pad_edge=False)
    names = {mark_of(secret.current): "current", **{mark_of(each): "believed" for each in secret.others}}
    marks = [*names, *sorted({mark for counts in found.values() for mark in counts} - names.keys())]
    for mark in marks:
        is_ = names.get(mark, "unknown here")
        table.add_row(mark or _BEFORE, is_, *(str(counts[mark]) for counts in found.values()))
    Console().print(table)
    print(
        "Not counted: cursors, a day; addresses of photos, as long as pages show them; repeats of events, eight days.",
        file=sys.stderr,
    )
    return 1 if _old(secret, found) else 0


def _old(secret: Secret, found: dict[str, Counter[str]]) -> int:
    """How much depends on another secret than the current one; so may a key of before the marks, where there is one."""
    fine = {mark_of(secret.current)} if secret.others else {mark_of(secret.current), ""}
    return sum(count for counts in found.values() for mark, count in counts.items() if mark not in fine)


def rotate(settings: Settings, arguments: Namespace) -> int:
    """Announce a new secret; where one is announced, adopt it."""
    if settings.secret_key is not None:
        print(
            f"A new secret: {new_secret()}\n"
            "1. Add it to KINDRED_SECRET_KEY_OLD of every process, and restart them one by one: now all believe it.\n"
            "2. Swap the two: it becomes KINDRED_SECRET_KEY, the old one KINDRED_SECRET_KEY_OLD. Restart one by one.\n"
            "3. When `kindred secret status` shows nothing under the old one, take it out of KINDRED_SECRET_KEY_OLD."
        )
        return 0
    announced = announce_secret(settings)
    if announced and not arguments.at_once:
        print(
            "A new secret is announced. Restart every process, so that all believe it; then `kindred secret rotate` "
            "again makes it the one that signs."
        )
        return 0
    adopt_secret(settings)
    print(
        "The new secret signs from each process's next start on; the old one is believed. Restart every process. When "
        "`kindred secret status` shows nothing under the old one, `kindred secret forget`."
    )
    return 0


@with_database
async def forget(database: Database, settings: Settings, arguments: Namespace) -> int:
    """Believe the old secrets no longer."""
    secret = load_secret(settings)
    old = _old(secret, await _dependants(database, settings, secret))
    if old and not arguments.yes:
        print(
            f"kindred: {old} things still depend on an old secret (`kindred secret status`). Keys move when they are "
            "next used, people, second steps, webhooks and certificates by the worker; make visitor secrets anew; "
            "tombstones last as long as backups. "
            "--yes forgets all the same.",
            file=sys.stderr,
        )
        return 1
    print(f"kindred: {forget_old_secrets(settings)} old secrets are forgotten at each process's next start.")
    return 0
