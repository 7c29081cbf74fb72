"""create_app: the parts of an API process put together. Start reading here."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from api.auth import Authenticator, requires
from api.console.pages import demo
from api.deps import Clock, Services, utc_now
from api.edge import Edge
from api.openapi import operations
from api.problems import answer_problem
from api.readiness import Readiness, Warmer
from api.recommend.search import QueryVectors
from api.routes import docs, encoding, health, imports, items, jobs, keys, photos, recommend, search
from infra.blob import BlobStore
from infra.changes import ChangeFeed
from infra.db import Database
from infra.encoder import EncoderClient
from infra.secret import load_secret
from infra.settings import Settings
from tenants.directory import Directory

ROUTES: list[HTTPRouteHandler] = [
    *(health.live, health.ready),
    *(docs.openapi, docs.docs_page, docs.docs_errors, docs.docs_asset),
    *(items.put_item, items.patch_item, items.get_item, items.delete_item),
    *(items.bulk_items, items.list_items, items.delete_items),
    *(photos.put_photo, photos.get_photo, photos.delete_photo, photos.show_photo),
    *(imports.create_import, imports.confirm_import, imports.cancel_import),
    *(jobs.get_job, jobs.list_jobs, jobs.job_errors),
    *(keys.create_key, keys.list_keys, keys.revoke_key),
    *(recommend.recommend, recommend.similar, search.search, encoding.encoding),
    *(demo.demo_page, demo.demo_asset),
]
"""Every route."""


class Application(Edge):
    """What the server runs; `services` and `framework` are for tests and for who embeds it."""

    def __init__(self, framework: Litestar, services: Services) -> None:
        super().__init__(framework, services.authenticator)
        self.framework = framework
        self.services = services


def create_app(
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    *,
    clock: Clock = utc_now,
    warmers: Sequence[Warmer] = (),
) -> Application:
    """The ASGI application over these parts.

    On start it opens the database and begins to follow the changes; on shutdown it closes both.
    """
    secret = load_secret(settings)
    feed = ChangeFeed(database)
    services = Services(
        settings=settings,
        database=database,
        blobs=blobs,
        feed=feed,
        directory=Directory(database, feed),
        authenticator=Authenticator(database, feed, secret=secret, clock=clock),
        readiness=Readiness(database, feed, warmers=list(warmers)),
        query_vectors=QueryVectors(EncoderClient(settings.encoder_address)),
        secret=secret,
        clock=clock,
    )
    framework = Litestar(
        route_handlers=ROUTES,
        guards=[requires],
        exception_handlers={Exception: answer_problem},
        lifespan=[_running(services)],
        state=State({"services": services}),
        openapi_config=None,
        logging_config=None,
        # The edge limits bodies by route, while they stream.
        request_max_body_size=None,
    )
    for _ in operations(framework):  # raises for a route that says nothing of itself, before anybody calls it
        pass
    return Application(framework, services)


def _running(services: Services) -> Any:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await services.database.open()
        await services.feed.start()
        try:
            yield
        finally:
            await services.feed.close()
            await services.query_vectors.close()
            await services.database.close()
            await services.blobs.aclose()

    return lifespan
