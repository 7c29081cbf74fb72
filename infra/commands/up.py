"""`kindred up`: database, API and workers in one supervised process group."""

import asyncio
import os
import sys
from argparse import Namespace
from dataclasses import replace

from rich.console import Console

from infra.commands.database import migrate_up
from infra.commands.models import fetch_with_progress
from infra.embedded import EmbeddedPostgres
from infra.errors import KindredError
from infra.filelock import try_exclusive
from infra.roles import APP
from infra.settings import Settings, port_is_free
from infra.supervisor import Role, http_ready, run_supervised
from workers.encoders.pack import PackNotFound
from workers.encoders.registry import open_pack


def run(settings: Settings, arguments: Namespace) -> int:
    """Supervise the roles until a signal ends them."""
    settings = replace(settings, host=arguments.host or settings.host, port=arguments.port or settings.port)
    if not port_is_free(settings.host, settings.port):
        print(
            f"kindred: port {settings.port} of {settings.host} is taken. Choose another: "
            f"`make run PORT={settings.port + 1}` or `kindred up --port {settings.port + 1}`.",
            file=sys.stderr,
        )
        return 2
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    # Kept until this process ends, however it does. Two would share one database and one encoder's socket, and the
    # first to end would take the other's database with it.
    if try_exclusive(settings.data_dir / "up.lock") is None:
        print(
            f"kindred: another `kindred up` runs on the folder {settings.data_dir.absolute()}. "
            "End it first, or choose another folder with --data-dir.",
            file=sys.stderr,
        )
        return 2
    fetch_missing_packs(settings)
    server = EmbeddedPostgres(settings.data_dir) if settings.database_url is None else None
    url = f"http://{settings.host}:{settings.port}"

    def roles() -> list[Role]:
        nonlocal settings
        if server is not None:
            settings = replace(settings, database_url=server.url(APP))
        asyncio.run(migrate_up(settings))
        environment = {**os.environ, **_environment(settings)}
        if sys.stdout.isatty() or arguments.demo or arguments.data is not None:
            # A person watches: a line per request would bury what the command has to say.
            environment.setdefault("KINDRED_LOG_LEVEL", "warning")
        workers = environment
        if settings.metrics_port:
            workers = {**environment, "KINDRED_METRICS_PORT": str(settings.metrics_port + 1)}
        return [
            Role(
                name="api", argv=[sys.executable, "-m", "api"], env=environment, ready=http_ready(f"{url}/health/ready")
            ),
            Role(name="workers", argv=[sys.executable, "-m", "workers"], env=workers),
        ]

    def on_ready() -> None:
        print(f"kindred: ready on {url} (documentation: {url}/docs). Ctrl-C ends it.", flush=True)
        if arguments.demo or arguments.data is not None:
            # Its libraries would stay in memory for as long as this process supervises the others.
            from infra.commands.demo import load_shop

            try:
                asyncio.run(load_shop(settings, url, arguments.data))
            except KindredError as error:
                print(f"kindred: {error.title}: {error.detail}", file=sys.stderr)

    return run_supervised(roles, database=server, on_ready=on_ready)


def _environment(settings: Settings) -> dict[str, str]:
    """What the children must know beyond this process's own environment."""
    environment = {
        "KINDRED_DATA_DIR": str(settings.data_dir.absolute()),
        "KINDRED_HOST": settings.host,
        "KINDRED_PORT": str(settings.port),
        "DATABASE_URL": settings.database_url or "",
    }
    if settings.direct_database_url is not None:
        environment["KINDRED_DIRECT_DATABASE_URL"] = settings.direct_database_url
    return environment


def fetch_missing_packs(settings: Settings) -> None:
    """Build or fetch the packs that the settings name, when they are not there yet."""
    for value in dict.fromkeys((settings.models_text, settings.models_image)):
        try:
            open_pack(value, settings.models_dir)
        except PackNotFound:
            fetch_with_progress(value, settings, Console())
