"""create_app: the parts of an API process put together. Start reading here."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from litestar import Litestar
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from api.auth import Authenticator, requires
from api.bots import Rates
from api.console.pages import account, assets, delete_account, demo, members, second_step, shops, signin, signup, sso
from api.deps import Services, enters, metered
from api.direct import direct_routes
from api.edge import BODY_TIMEOUT_S, MAX_BODY, Edge
from api.ingest import Ingest
from api.key_usage import KeyUsage
from api.limits.cost import costs_of
from api.limits.gate import STRANGERS, Gate
from api.negotiation import acceptable
from api.openapi import operations
from api.problems import answer_problem
from api.readiness import Readiness, Warmer
from api.recommend.answering import Answering
from api.recommend.cache import AnswerCache
from api.recommend.log import AnswerLog
from api.recommend.profiles import Profiles
from api.recommend.search import QueryVectors
from api.recommend.warming import Warming
from api.routes import (
    analytics,
    audit,
    docs,
    encoding,
    events,
    exports,
    health,
    imports,
    inspector,
    items,
    jobs,
    keys,
    models,
    photos,
    placements,
    recommend,
    recommendations,
    retention,
    search,
    segments,
    signups,
    tenant,
    usage,
    users,
    visitor_secrets,
    webhooks,
)
from api.sessions import Sessions
from api.work import Repeated, answer_repeat, intended
from billing.entitlements import Entitlements
from billing.organisations import room_check
from infra.blob import BlobStore
from infra.changes import ChangeFeed
from infra.clock import Clock, ServerClock
from infra.db import Database
from infra.encoder import EncoderClient
from infra.lone import LoneConnection
from infra.oidc import OidcProvider
from infra.secret import load_secret
from infra.settings import Settings
from tenants.accounts.deletion import AccountDeletion
from tenants.accounts.doors import Doors
from tenants.accounts.membership import Memberships
from tenants.accounts.second_step import SecondSteps
from tenants.accounts.sso import SsoRules
from tenants.audience.shoppers import ShopperIds
from tenants.directory import Directory
from tenants.limits.leases import Leases
from tenants.limits.store import PostgresBuckets
from tenants.placements import Placements
from tenants.usage import Usage

ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (
    *health.ROUTES,
    *docs.ROUTES,
    *items.ROUTES,
    *photos.ROUTES,
    *encoding.ROUTES,
    *imports.ROUTES,
    *jobs.ROUTES,
    *recommend.ROUTES,
    *recommendations.ROUTES,
    *analytics.ROUTES,
    *search.ROUTES,
    *placements.ROUTES,
    *events.ROUTES,
    *inspector.ROUTES,
    *users.ROUTES,
    *segments.ROUTES,
    *keys.ROUTES,
    *visitor_secrets.ROUTES,
    *tenant.ROUTES,
    *exports.ROUTES,
    *retention.ROUTES,
    *models.ROUTES,
    *usage.ROUTES,
    *webhooks.ROUTES,
    *audit.ROUTES,
    *demo.ROUTES,
    *signups.ROUTES,
    *assets.ROUTES,
    *signup.ROUTES,
    *signin.ROUTES,
    *second_step.ROUTES,
    *sso.ROUTES,
    *shops.ROUTES,
    *account.ROUTES,
    *delete_account.ROUTES,
    *members.ROUTES,
)
"""Every route."""


class Application(Edge):
    """What the server runs; `services` and `framework` are for tests and for who embeds it."""

    def __init__(self, framework: Litestar, services: Services, *, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        super().__init__(
            framework,
            services.authenticator,
            direct_routes(ROUTES, services),
            services.gate,
            sessions=services.sessions,
            body_timeout_s=body_timeout_s,
            usage=services.key_usage,
        )
        self.framework = framework
        self.services = services


def create_app(
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    *,
    clock: Clock | None = None,
    warmers: Sequence[Warmer] = (),
) -> Application:
    """The ASGI application over these parts.

    On start it opens the database and begins to follow the changes; on shutdown it closes both. `clock` is the time of
    the database's server where none is given.
    """
    server_clock = ServerClock(database)
    clock = clock or server_clock
    secret = load_secret(settings)
    feed = ChangeFeed(database)
    encoder = EncoderClient(settings.encoder_address)
    answer_log = AnswerLog(database, feed)
    directory = Directory(database, feed)
    placed = Placements(database, feed)
    entitlements = Entitlements(settings.entitlements, directory)
    # What both write must not wait behind requests: when those wait for a connection is when limits matter.
    lone = LoneConnection(database, name="kindred limits")
    leases = Leases(PostgresBuckets(lone))
    used = Usage(lone, clock=clock)
    answering = Answering(
        database,
        placed,
        answer_log,
        AnswerCache(feed, max_bytes=settings.cache_mb * 1_000_000),
        Profiles(database, feed),
        secret=secret,
        clock=clock,
    )
    provider, rules = _sso(settings, clock)
    room = room_check(settings.entitlements)
    doors = Doors(
        database, secret=secret, cell=settings.cell, signup=settings.signup, clock=clock, sso=rules, room=room
    )
    services = Services(
        settings=settings,
        database=database,
        blobs=blobs,
        feed=feed,
        directory=directory,
        authenticator=Authenticator(database, feed, secret=secret, clock=clock),
        key_usage=KeyUsage(database, secret=secret, clock=clock, trusted=settings.trusted_proxies),
        readiness=Readiness(
            database,
            feed,
            warmers=list(warmers),
            fill=Warming(database, directory, placed, answering, clock=clock).run,
        ),
        query_vectors=QueryVectors(encoder),
        answer_log=answer_log,
        answering=answering,
        ingest=Ingest(database, clock=clock),
        shopper_ids=ShopperIds(database, feed),
        entitlements=entitlements,
        leases=leases,
        usage=used,
        gate=Gate(
            leases,
            entitlements,
            used,
            trusted=settings.trusted_proxies,
            strangers=STRANGERS[settings.entitlements],
            costs=costs_of(ROUTES, MAX_BODY),
            secret=secret.current,
            clock=clock,
        ),
        doors=doors,
        memberships=Memberships(database, doors, secret=secret, clock=clock, room=room),
        account_deletion=AccountDeletion(database, doors, secret=secret, clock=clock),
        second_steps=SecondSteps(database, doors.attempts, secret=secret, clock=clock),
        provider=provider,
        sessions=Sessions(database, secret=secret, origin=settings.public_origin, clock=clock, sso=rules),
        rates=Rates(),
        secret=secret,
        clock=clock,
    )
    framework = Litestar(
        route_handlers=ROUTES,
        guards=[requires, acceptable, enters, metered, intended],
        exception_handlers={Repeated: answer_repeat, Exception: answer_problem},
        lifespan=[_running(services, encoder, server_clock)],
        state=State({"services": services}),
        openapi_config=None,
        logging_config=None,
        # The edge limits bodies by route, while they stream.
        request_max_body_size=None,
    )
    for _ in operations(framework):  # raises for a route that says nothing of itself, before anybody calls it
        pass
    return Application(framework, services, body_timeout_s=settings.body_timeout_s)


def _sso(settings: Settings, clock: Clock) -> tuple[OidcProvider | None, SsoRules | None]:
    """The provider that people sign in with, and who does; nobody where no issuer is set."""
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None, None
    provider = OidcProvider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret,
        redirect_uri=settings.public_origin + sso.CALLBACK,
        clock=clock,
    )
    rules = SsoRules(
        name=settings.oidc_name,
        domains=settings.oidc_domains,
        role=settings.oidc_role,
        organisation=settings.oidc_organisation,
    )
    return provider, rules


def _running(services: Services, encoder: EncoderClient, server_clock: ServerClock) -> Any:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await services.database.open()
        if services.clock is server_clock:
            await server_clock.start()
        await services.feed.start()
        services.answer_log.start()
        services.key_usage.start()
        services.leases.start()
        services.usage.start()
        try:
            yield
        finally:
            await services.answering.close()
            await services.answer_log.close()
            # Requests are answered by now; what waits is of clients that hung up.
            await services.ingest.close()
            await services.key_usage.close()
            await services.usage.close()
            await services.leases.close()
            await services.feed.close()
            await server_clock.close()
            await encoder.close()
            if services.provider is not None:
                await services.provider.aclose()
            await services.database.close()
            await services.blobs.aclose()

    return lifespan
