"""`python -m workers [--queues encode,imports,train,upkeep,webhooks]`: everything heavy or asynchronous."""

import argparse
import asyncio
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

import structlog

from infra.blob_open import open_blobs
from infra.clock import ServerClock
from infra.db import Database
from infra.embedded import EmbeddedPostgres
from infra.errors import Invalid, NotFound
from infra.fetch import Fetcher
from infra.mail import open_mailer
from infra.roles import APP
from infra.secret import load_secret
from infra.settings import BadSettings, Settings
from infra.telemetry import configure_logging, serve_metrics
from tenants.catalog.imports import HISTORY_JOB, IMPORT_JOB
from tenants.learned.models import TRAIN_JOB
from tenants.learned.neighbours import NEIGHBOURS_JOB
from tenants.portability.exports import EXPORT_JOB
from workers.encoders.server import EncodeServer
from workers.jobs.drift import DriftWatch
from workers.jobs.encode import TextLoop
from workers.jobs.export import Exports
from workers.jobs.generations import Keeper
from workers.jobs.history import HistoryImports
from workers.jobs.imports import Imports
from workers.jobs.lend import Lending
from workers.jobs.neighbours import Neighbours
from workers.jobs.photos import PhotoLoop
from workers.jobs.popularity import EVERY_S, Popularity
from workers.jobs.train import Training
from workers.jobs.upkeep import Upkeep
from workers.jobs.webhooks import Webhooks, open_sender
from workers.mail.loop import MailLoop
from workers.memory import give_back, use_one_arena
from workers.models import Models, load_models
from workers.runner import JobLoop
from workers.training.child import sweep_scratch

log = structlog.get_logger(__name__)

QUEUES: Final = ("encode", "imports", "train", "upkeep", "webhooks")
IMPORTS_AT_ONCE: Final = 3
EXIT_CONFIG: Final = 78
_PHOTO_BYTES: Final = 10 * 1024 * 1024
_PHOTO_S: Final = 20.0


async def serve(settings: Settings, queues: Sequence[str], stop: asyncio.Event) -> None:
    """Run the queues until `stop`, then finish what is in hand."""
    async with AsyncExitStack() as stack:
        url = settings.database_url
        if url is None:
            embedded = EmbeddedPostgres(settings.data_dir)
            await asyncio.to_thread(embedded.start)
            stack.callback(embedded.stop)
            url = embedded.url(APP)
        database = Database(url, direct_url=settings.direct_database_url, hot=0, sessions=3)
        stack.push_async_callback(database.close)
        clock = ServerClock(database)
        await clock.start()
        stack.push_async_callback(clock.close)
        blobs = open_blobs(settings.blob_url)
        stack.push_async_callback(blobs.aclose)
        fetcher = await stack.enter_async_context(Fetcher(allow=settings.fetch_allow))
        if settings.metrics_port:
            stack.callback(serve_metrics(settings.metrics_port + 1, settings.host).close)

        async def fetch(url: str) -> bytes:
            return (await fetcher.fetch(url, max_bytes=_PHOTO_BYTES, timeout_s=_PHOTO_S, accept=("image/",))).body

        models = await load_models(settings, database) if "encode" in queues else ()
        async with asyncio.TaskGroup() as group:
            if models:
                keeper = Keeper(database, models[0])
                await keeper.retarget()
                await keeper.tick()
                server = _ServerThread(settings, models)
                await asyncio.to_thread(server.start)
                stack.push_async_callback(asyncio.to_thread, server.stop)
                texts = TextLoop(database, models, stored=keeper.stored, clock=clock)
                photos = PhotoLoop(database, models, blobs, fetch, stored=keeper.stored, clock=clock)
                group.create_task(_keep_running("texts", texts.run, stop))
                group.create_task(_keep_running("photos", photos.run, stop))
                group.create_task(_every("generations", 0.5, keeper.tick, stop))
            if "imports" in queues:
                imports = Imports(database, blobs, fetcher, mode=settings.entitlements, clock=clock)
                stack.push_async_callback(imports.close)
                history = HistoryImports(
                    database, blobs, secret=load_secret(settings), mode=settings.entitlements, clock=clock
                )
                stack.push_async_callback(history.close)
                scratch = settings.data_dir / "scratch"
                # Of its own: one long transaction reads all that a shop has.
                readers = Database(url, direct_url=settings.direct_database_url, hot=0, sessions=1)
                stack.push_async_callback(readers.close)
                exports = Exports(database, blobs, folder=scratch, clock=clock, readers=readers)
                group.create_task(_every("scratch", 3600, exports.sweep, stop))
                jobs = JobLoop(database, {IMPORT_JOB: imports, HISTORY_JOB: history}, clock=clock)
                for _ in range(IMPORTS_AT_ONCE):
                    group.create_task(_keep_running("jobs", jobs.run, stop))
                # One, as there is one reader: the next is claimed when it is free, and imports never wait for any.
                group.create_task(
                    _keep_running("exports", JobLoop(database, {EXPORT_JOB: exports}, clock=clock).run, stop)
                )
            if "train" in queues:
                scratch = settings.data_dir / "scratch"
                await asyncio.to_thread(sweep_scratch, scratch, now=time.time())
                # Of its own: its transactions last for seconds, and encoding is not to wait for a connection.
                learned = Database(url, direct_url=settings.direct_database_url, hot=0, sessions=2)
                stack.push_async_callback(learned.close)
                neighbours = Neighbours(learned, folder=scratch, stop=stop, clock=clock)
                training = Training(learned, folder=scratch, stop=stop, clock=clock)
                loop = JobLoop(learned, {NEIGHBOURS_JOB: neighbours, TRAIN_JOB: training}, clock=clock)
                group.create_task(_keep_running("training", loop.run, stop))
                group.create_task(_every("schedule", 30, training.schedule, stop))
                group.create_task(_every("lend", 5, Lending(learned).lend, stop))
                group.create_task(_every("drift", 600, DriftWatch(learned, clock=clock).tick, stop))
                popularity = Popularity(learned, clock=clock)
                group.create_task(_every("popularity", EVERY_S, popularity.tick, stop))
                group.create_task(_every("neighbours", 30, neighbours.schedule, stop))
            if "webhooks" in queues:
                sender = await stack.enter_async_context(open_sender(settings.fetch_allow))
                webhooks = Webhooks(database, sender, secrets=load_secret(settings).every, clock=clock)
                group.create_task(_keep_running("webhooks", webhooks.run, stop))
            if "upkeep" in queues:
                if settings.smtp_url is not None and settings.public_url is None:
                    log.warning("mail.links_lead_here", origin=settings.public_origin, set="KINDRED_PUBLIC_URL")
                mails = MailLoop(
                    database,
                    open_mailer(settings),
                    secret=load_secret(settings),
                    origin=settings.public_origin,
                    clock=clock,
                )
                group.create_task(_keep_running("mails", mails.run, stop))
                upkeep = Upkeep(
                    database,
                    blobs,
                    clock=clock,
                    events_days=settings.events_retention_days or None,
                    secret=load_secret(settings),
                )
                group.create_task(_every("counts", 5, upkeep.count, stop))
                group.create_task(_every("prune", 300, upkeep.prune, stop))
                group.create_task(_every("seal", 10, upkeep.seal, stop))
                group.create_task(_every("partitions", 3600, upkeep.partitions, stop))
                group.create_task(_every("tell", 60, upkeep.tell, stop))
                group.create_task(_every("settle", 60, upkeep.settle, stop))
                group.create_task(_every("rehash", 600, upkeep.rehash, stop))
                group.create_task(_every("replay", 3600, upkeep.replay, stop))
                group.create_task(_every("shards", 60, upkeep.shards, stop))
                group.create_task(_every("erase", 60, upkeep.erase, stop))
                group.create_task(_every("sweep", 3600, upkeep.sweep, stop))
                group.create_task(_every("files", 3600, upkeep.sweep_files, stop))
                group.create_task(_every("retain", 3600, upkeep.retain, stop))
            group.create_task(_every("memory", 2, give_back, stop))
            log.info("workers.ready", queues=list(queues))
        log.info("workers.drained")


async def _keep_running(name: str, run: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
    """Start a loop again when it fails: a database that is away comes back."""
    pause_s = 0.5
    while not stop.is_set():
        began = asyncio.get_running_loop().time()
        try:
            await run(stop)
        except Exception:
            log.exception("workers.loop_failed", loop=name)
            if asyncio.get_running_loop().time() - began > 60:
                pause_s = 0.5
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
            pause_s = min(pause_s * 2, 10)


async def _every(name: str, seconds: float, task: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await task()
        except Exception:
            log.exception("workers.task_failed", task=name)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


class _ServerThread:
    """The query encoder on a loop of its own: a query has 150 ms, and an import may hold the main loop for longer."""

    def __init__(self, settings: Settings, models: Sequence[Models]) -> None:
        self._settings = settings
        self._models = models
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="queries", daemon=True)
        self._server: EncodeServer | None = None
        self._fetcher: Fetcher | None = None

    def start(self) -> None:
        """Listen; returns when queries are answered. Raises OSError where the address is taken."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def stop(self) -> None:
        """Answer what is in the queue and end."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        texts = {}
        photos = {}
        for models in self._models:
            text, ngrams, image = models.names
            texts[text] = models.text
            texts[ngrams] = models.ngrams
            photos[image] = models.image
        self._fetcher = Fetcher(allow=self._settings.fetch_allow)
        fetcher = self._fetcher

        async def fetch(url: str) -> bytes:
            return (await fetcher.fetch(url, max_bytes=_PHOTO_BYTES, timeout_s=_PHOTO_S, accept=("image/",))).body

        self._server = EncodeServer(texts=texts, photos=photos, fetch_photo=fetch)
        await self._server.start(self._settings.encoder_address)

    async def _stop(self) -> None:
        if self._server is not None:
            await self._server.close()
        if self._fetcher is not None:
            await self._fetcher.aclose()


async def _run(settings: Settings, queues: Sequence[str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await serve(settings, queues, stop)


def main(argv: Sequence[str] | None = None) -> int:
    """The process; 0 after a drain, 78 where the settings or packs can never work."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--queues", default=",".join(QUEUES), help="which of: " + ", ".join(QUEUES))
    queues = [name.strip() for name in parser.parse_args(argv).queues.split(",") if name.strip()]
    unknown = [name for name in queues if name not in QUEUES]
    if unknown or not queues:
        print(f"Unknown queue {', '.join(unknown) or '(none)'}; there are {', '.join(QUEUES)}.", file=sys.stderr)
        return EXIT_CONFIG
    use_one_arena()
    try:
        settings = Settings.from_env()
    except BadSettings as error:
        print(error.detail, file=sys.stderr)
        return EXIT_CONFIG
    configure_logging(settings.log, settings.log_level)
    try:
        asyncio.run(_run(settings, queues))
    except (Invalid, NotFound) as error:
        print(error.detail, file=sys.stderr)
        return EXIT_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
