"""`kindred`, and `python -m infra`: parses arguments and calls the other packages.

The one module of infra that may import them (the import contract names it); each command imports what it needs
when it runs, so that `kindred --help` is quick.
"""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.arguments import Run, make_parser
from infra.errors import KindredError
from infra.settings import Settings, port_is_free

Arguments = argparse.Namespace


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = make_parser(_RUNS).parse_args(argv)
    try:
        settings = Settings.from_env()
        if arguments.data_dir is not None:
            settings = replace(settings, data_dir=arguments.data_dir)
        from infra.telemetry import configure_logging

        configure_logging(settings.log, settings.log_level if arguments.command == "up" else "warning")
        run: Callable[[Settings, Arguments], int] = arguments.run
        return run(settings, arguments)
    except KindredError as error:
        print(f"kindred: {error.title}: {error.detail}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


# up


def _up(settings: Settings, arguments: Arguments) -> int:
    from infra.embedded import EmbeddedPostgres
    from infra.filelock import try_exclusive
    from infra.roles import APP
    from infra.supervisor import Role, http_ready, run_supervised

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
    _fetch_missing_packs(settings)
    server = EmbeddedPostgres(settings.data_dir) if settings.database_url is None else None
    url = f"http://{settings.host}:{settings.port}"

    def roles() -> list[Role]:
        nonlocal settings
        if server is not None:
            settings = replace(settings, database_url=server.url(APP))
        asyncio.run(_migrate_up(settings))
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
            try:
                asyncio.run(_load_shop(settings, url, arguments.data))
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


def _fetch_missing_packs(settings: Settings) -> None:
    """Build or fetch the packs that the settings name, when they are not there yet."""
    from rich.console import Console

    from workers.encoders.pack import PackNotFound
    from workers.encoders.registry import open_pack

    for value in dict.fromkeys((settings.models_text, settings.models_image)):
        try:
            open_pack(value, settings.models_dir)
        except PackNotFound:
            _fetch_pack(value, settings, Console())


def _fetch_pack(value: str, settings: Settings, console: Any) -> None:
    from workers.encoders.sources import fetch_pack

    with console.status(f"Making the model pack {value}") as status:

        def tell(name: str, done: int, total: int | None) -> None:
            share = f"{done / total:.0%}" if total else f"{done >> 20} MB"
            status.update(f"Making the model pack {value}: {name} {share}")

        fetch_pack(value, settings.models_dir, progress=tell)
    console.print(f"Model pack {value} is ready.")


async def _migrate_up(settings: Settings) -> None:
    """Roles where they are missing and may be made, then every migration."""
    from infra import migrate
    from infra.roles import ensure_roles

    assert settings.database_url is not None
    url = settings.direct_database_url or settings.database_url
    await ensure_roles(url)
    await migrate.upgrade(url)


async def _load_shop(settings: Settings, url: str, folder: Path | None) -> None:
    """The demo shop, or a folder of items.jsonl and photos; then where to look."""
    import httpx
    from rich.console import Console

    from infra.demo.load import NAME, load_demo, wait_until_encoded
    from infra.demo.shop import DemoShop, write_demo
    from infra.importer import Options, import_feed

    console = Console()
    name = NAME if folder is None else folder.resolve().name
    async with _database(settings) as database:
        tenant_id = await _tenant_named(database, name)
        secret = await _make_key(database, settings, tenant_id, "secret", f"{name} loader")
        public = await _make_key(database, settings, tenant_id, "publishable", f"{name} page")
    headers = {"Authorization": f"Bearer {secret.key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, trust_env=False) as client:
        if folder is None:
            await load_demo(client, console)
        else:
            options = Options(file=folder / "items.jsonl", format="ndjson", images_dir=folder)
            await import_feed(client, options, console, local_photos=_local_photos)
        write_demo(settings.data_dir, DemoShop(name=name, publishable_key=public.key))
        listed = (await client.get("/v1/items", params={"limit": 1})).json()["items"]
        await wait_until_encoded(client, console)
    seed = json.dumps(listed[0]["id"] if listed else "item id", ensure_ascii=False)
    console.print(
        f"\nThe shop [bold]{name}[/bold] is loaded.\n"
        f"  storefront     {url}/demo\n"
        f"  API reference  {url}/docs\n"
        f"  secret key     {secret.key}\n\n"
        "A recommendation:\n",
        highlight=False,
    )
    body = f'{{"strategy": "similar", "item_ids": [{seed}], "count": 5, "fields": ["title"]}}'
    print(
        f"curl -s {url}/v1/recommend -H 'Authorization: Bearer {public.key}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d '{body}'",
        flush=True,
    )


def _local_photos(feed: Path, format_: Any) -> Iterable[tuple[str, list[str]]]:
    from workers.feeds.read import read_feed
    from workers.feeds.types import FeedRow

    with feed.open("rb") as stream:
        for row in read_feed(stream, format=format_, file_name=feed.name, default_currency="USD"):
            if isinstance(row, FeedRow) and row.local_images:
                yield str(row.item["id"]), row.local_images


async def _tenant_named(database: Any, name: str) -> Any:
    """The tenant of that name, made where there is none."""
    from tenants.lifecycle import TenantNotFound, create_tenant, find_tenant

    try:
        return (await find_tenant(database, name)).tenant_id
    except TenantNotFound:
        return await create_tenant(database, name)


def _demo(settings: Settings, arguments: Arguments) -> int:
    url = arguments.server or f"http://{settings.host}:{settings.port}"
    asyncio.run(_load_shop(settings, url, arguments.data))
    return 0


# The database


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Any]:
    """The database of the settings, or the embedded one: found running, or run for as long as this command does."""
    from infra.db import Database
    from infra.embedded import EmbeddedPostgres
    from infra.roles import APP

    server = None
    url = settings.database_url
    if url is None:
        server = EmbeddedPostgres(settings.data_dir)
        await asyncio.to_thread(server.start)
        url = server.url(APP)
    database = Database(url, direct_url=settings.direct_database_url, hot=0, sessions=1)
    try:
        yield database
    finally:
        await database.close()
        if server is not None:
            await asyncio.to_thread(server.stop)


def _with_database(work: Callable[[Any, Settings, Arguments], Awaitable[int]]) -> Callable[[Settings, Arguments], int]:
    def run(settings: Settings, arguments: Arguments) -> int:
        async def inside() -> int:
            async with _database(settings) as database:
                if work is not _migrate:
                    await _require_schema(database, settings)
                return await work(database, settings, arguments)

        return asyncio.run(inside())

    return run


class SchemaBehind(KindredError):
    """The database is older or newer than this program."""

    code = "schema_behind"
    title = "The database is not at this version"


async def _require_schema(database: Any, settings: Settings) -> None:
    """Bring the embedded database to this version; another is its administrator's to migrate. Raises SchemaBehind."""
    from infra import migrate

    if await migrate.current(database) == migrate.head():
        return
    if settings.database_url is not None:
        raise SchemaBehind("Run `kindred migrate`, then this again.")
    await _migrate_up(replace(settings, database_url=database.url))


async def _migrate(database: Any, settings: Settings, arguments: Arguments) -> int:
    from infra import migrate
    from infra.roles import bootstrap_roles, database_name, url_password

    if arguments.admin_url is not None:
        await bootstrap_roles(
            arguments.admin_url, url_password(database.url) or "", database=database_name(database.url)
        )
    await _migrate_up(replace(settings, database_url=database.url))
    print(f"kindred: the database is at revision {await migrate.current(database)}.")
    return 0


async def _make_key(
    database: Any, settings: Settings, tenant_id: Any, kind: Any, name: str, *, first: bool = False, **wanted: Any
) -> Any:
    """Make a key of a tenant, signed with this installation's secret; the first secret key may do everything."""
    from infra.secret import load_secret
    from tenants.keys import SCOPES, KeyRequest, create_key

    async with database.tenant_session(tenant_id) as conn:
        return await create_key(
            conn,
            tenant_id,
            KeyRequest(name=name, kind=kind, **wanted),
            secret=load_secret(settings),
            cell=settings.cell,
            now=datetime.now(UTC),
            scopes=SCOPES if first and kind == "secret" else None,
        )


async def _tenants_create(database: Any, settings: Settings, arguments: Arguments) -> int:
    from tenants.lifecycle import create_tenant

    tenant_id = await create_tenant(database, arguments.name, plan=arguments.plan, currency=arguments.currency)
    made = {"tenant_id": str(tenant_id)}
    for kind in ("secret", "publishable"):
        made[f"{kind}_key"] = (await _make_key(database, settings, tenant_id, kind, "first", first=True)).key
    if arguments.json:
        print(json.dumps(made))
    else:
        print(f"tenant {arguments.name}: {made['tenant_id']}\n  secret key       {made['secret_key']}")
        print(f"  publishable key  {made['publishable_key']}\nThe keys are shown once; keep them.")
    return 0


async def _tenants_list(database: Any, settings: Settings, arguments: Arguments) -> int:
    from rich.console import Console
    from rich.table import Table

    from tenants.lifecycle import list_tenants

    table = Table("tenant", "name", "plan", "items", "since", box=None, pad_edge=False)
    for tenant in await list_tenants(database):
        since = f"{tenant.created_at:%Y-%m-%d}"
        table.add_row(str(tenant.tenant_id), tenant.name, tenant.plan, f"{tenant.items:,}", since)
    Console().print(table)
    return 0


async def _tenants_delete(database: Any, settings: Settings, arguments: Arguments) -> int:
    from infra.blob import open_blobs
    from tenants.lifecycle import delete_tenant, erase_tenant, find_tenant

    tenant = await find_tenant(database, arguments.name)
    if not arguments.yes and input(f"Delete {tenant.name} with {tenant.items:,} items for ever? [y/N] ") != "y":
        return 1
    await delete_tenant(database, tenant.tenant_id)
    await erase_tenant(database, tenant.tenant_id)
    blobs = open_blobs(settings.blob_url)
    await blobs.delete_prefix(f"tenants/{tenant.tenant_id}/")
    await blobs.aclose()
    print(f"kindred: {tenant.name} is deleted.")
    return 0


async def _keys_create(database: Any, settings: Settings, arguments: Arguments) -> int:
    from tenants.keys import SCOPES
    from tenants.lifecycle import find_tenant

    unknown = set(arguments.scope) - set(SCOPES)
    if unknown:
        print(f"kindred: no such scope: {', '.join(sorted(unknown))}. There are {', '.join(SCOPES)}.", file=sys.stderr)
        return 2
    tenant = await find_tenant(database, arguments.tenant)
    made = await _make_key(
        database,
        settings,
        tenant.tenant_id,
        arguments.kind,
        arguments.name,
        scopes=arguments.scope or None,
        allowed_origins=arguments.origin or None,
    )
    print(json.dumps({"key_id": made.info.key_id, "key": made.key}) if arguments.json else made.key)
    return 0


async def _keys_list(database: Any, settings: Settings, arguments: Arguments) -> int:
    from rich.console import Console
    from rich.table import Table

    from tenants.keys import list_keys
    from tenants.lifecycle import find_tenant

    tenant = await find_tenant(database, arguments.tenant)
    table = Table("key id", "kind", "name", "scopes", "made", "ends", box=None, pad_edge=False)
    async with database.tenant_session(tenant.tenant_id) as conn:
        for key in await list_keys(conn, tenant.tenant_id):
            ends = "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}" if key.expires_at else ""
            scopes = " ".join(key.scopes)
            table.add_row(key.key_id, key.kind, key.name, scopes, f"{key.created_at:%Y-%m-%d}", ends)
    Console().print(table)
    return 0


async def _keys_revoke(database: Any, settings: Settings, arguments: Arguments) -> int:
    from tenants.keys import revoke_key
    from tenants.lifecycle import find_tenant

    tenant = await find_tenant(database, arguments.tenant)
    async with database.tenant_session(tenant.tenant_id) as conn:
        await revoke_key(conn, tenant.tenant_id, arguments.key_id, now=datetime.now(UTC))
    print(f"kindred: key {arguments.key_id} is revoked; every process knows within a second.")
    return 0


# Feeds, models, doctor


def _import(settings: Settings, arguments: Arguments) -> int:
    import httpx
    from rich.console import Console

    from infra.importer import ImportRefused, Options, import_feed

    server = arguments.server or f"http://{settings.host}:{settings.port}"
    if not arguments.file.is_file():
        print(f"kindred: there is no file {arguments.file}.", file=sys.stderr)
        return 2

    async def run() -> int:
        headers = {"Authorization": f"Bearer {arguments.key}"}
        async with httpx.AsyncClient(base_url=server, headers=headers, timeout=300, trust_env=False) as client:
            options = Options(
                file=arguments.file, format=arguments.format, mode=arguments.mode, images_dir=arguments.images_dir
            )
            return await import_feed(client, options, Console(), local_photos=_local_photos)

    try:
        return asyncio.run(run())
    except httpx.TransportError as error:
        raise ImportRefused(
            f"{server} does not answer ({error}). Is `kindred up` running? --server says where."
        ) from error


def _evaluate(settings: Settings, arguments: Arguments) -> int:
    from rich.console import Console

    from workers.evaluation.command import run_command

    if arguments.items is not None:
        _fetch_missing_packs(settings)
    return run_command(settings, arguments, Console(), sys.argv[1:])


def _models_list(settings: Settings, arguments: Arguments) -> int:
    from rich.console import Console
    from rich.table import Table

    from workers.encoders.registry import list_packs, pack_folder

    table = Table("pack", "kind", "dim", "MB", "licence", "here", "used", "", box=None, pad_edge=False)
    used = {settings.models_text: "text", settings.models_image: "image"}
    for pack in list_packs():
        here = "yes" if (pack_folder(pack.name, settings.models_dir) / "manifest.json").exists() else ""
        table.add_row(
            pack.name, pack.kind, str(pack.dim), str(pack.size_mb), pack.licence, here, used.get(pack.name), pack.about
        )
    Console().print(table)
    return 0


def _models_fetch(settings: Settings, arguments: Arguments) -> int:
    from rich.console import Console

    _fetch_pack(arguments.pack, settings, Console())
    return 0


def _models_use(settings: Settings, arguments: Arguments) -> int:
    from rich.console import Console

    from infra.settings import read_chosen, write_chosen
    from workers.encoders.registry import open_pack

    _fetch_pack(arguments.pack, settings, Console())
    pack = open_pack(arguments.pack, settings.models_dir)
    kinds = ["text", "image"] if pack.manifest.kind == "both" else [pack.manifest.kind]
    if arguments.only is not None:
        kinds = [kind for kind in kinds if kind == arguments.only]
    if not kinds:
        print(f"kindred: {arguments.pack} is no {arguments.only} pack.", file=sys.stderr)
        return 2
    before = {"text": settings.models_text, "image": settings.models_image}
    write_chosen(settings.data_dir, {**read_chosen(settings.data_dir), **dict.fromkeys(kinds, arguments.pack)})
    back = ", ".join(f"kindred models use {before[kind]}" for kind in kinds)
    print(
        f"kindred: {arguments.pack} encodes {' and '.join(kinds)} from the workers' next start. "
        "Every catalogue is then "
        f"encoded anew in the background; lists switch when that is complete. To go back: {back}"
    )
    return 0


def _models_verify(settings: Settings, arguments: Arguments) -> int:
    from workers.encoders.registry import open_pack

    for value in arguments.pack or [settings.models_text, settings.models_image]:
        pack = open_pack(value, settings.models_dir)
        print(f"kindred: {value}: {len(pack.manifest.files)} files match their sha256.")
    return 0


def _doctor(settings: Settings, arguments: Arguments) -> int:
    from rich.console import Console

    from infra import doctor, migrate
    from infra.blob import open_blobs
    from workers.encoders.registry import open_pack

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

    async def run() -> int:
        async with _database(settings) as database:
            checks = [
                *doctor.database_checks(database.url, revision=lambda: migrate.current(database), head=migrate.head()),
                doctor.disk_check(settings.data_dir),
                doctor.probe_check("model packs", packs, mend="Run `kindred models fetch NAME`."),
                doctor.probe_check("blob store", blobs, mend="Check KINDRED_BLOB and its permissions."),
            ]
            return doctor.report(await doctor.examine(checks), Console())

    return asyncio.run(run())


_RUNS: Mapping[str, Run] = {
    "up": _up,
    "demo": _demo,
    "migrate": _with_database(_migrate),
    "tenants create": _with_database(_tenants_create),
    "tenants list": _with_database(_tenants_list),
    "tenants delete": _with_database(_tenants_delete),
    "keys create": _with_database(_keys_create),
    "keys list": _with_database(_keys_list),
    "keys revoke": _with_database(_keys_revoke),
    "import": _import,
    "evaluate": _evaluate,
    "models list": _models_list,
    "models fetch": _models_fetch,
    "models use": _models_use,
    "models verify": _models_verify,
    "doctor": _doctor,
}


if __name__ == "__main__":
    sys.exit(main())
