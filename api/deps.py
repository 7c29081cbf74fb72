"""What handlers are given: the parts of this process, who asks, and the time.

A handler opens its own transaction, `async with services.database.tenant_session(caller.tenant_id)`, after it has
read the body: a slow client must not hold one of three connections. The `with` ends, and so commits, before the
answer is made; a failing commit is a 500.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from msgspec import Struct

from api.auth import Authenticator, Caller
from api.bots import Rates
from api.contract import KEY, Contract
from api.ingest import Ingest
from api.key_usage import KeyUsage
from api.limits.gate import Gate
from api.readiness import Readiness
from api.recommend.answering import Answering
from api.recommend.log import AnswerLog
from api.recommend.search import QueryVectors
from api.sessions import Sessions
from api.wire import AnyRequest
from billing.entitlements import Entitlements
from billing.plans import Plan
from infra.blob import BlobStore
from infra.changes import ChangeFeed
from infra.clock import Clock
from infra.db import Database
from infra.oidc import OidcProvider
from infra.secret import Secret
from infra.settings import Settings
from tenants.accounts.deletion import AccountDeletion
from tenants.accounts.doors import Doors
from tenants.accounts.membership import Memberships
from tenants.accounts.second_step import SecondSteps
from tenants.audience.shoppers import ShopperIds
from tenants.directory import Directory
from tenants.lifecycle import TenantRef
from tenants.limits.leases import Leases
from tenants.usage import Usage


class Services(Struct, frozen=True, kw_only=True):
    """The parts of one API process; made in `create_app`, found in `request.app.state.services`."""

    settings: Settings
    database: Database
    blobs: BlobStore
    feed: ChangeFeed
    directory: Directory
    authenticator: Authenticator
    key_usage: KeyUsage
    readiness: Readiness
    query_vectors: QueryVectors
    answer_log: AnswerLog
    answering: Answering
    ingest: Ingest
    shopper_ids: ShopperIds
    entitlements: Entitlements
    leases: Leases
    usage: Usage
    gate: Gate
    doors: Doors
    memberships: Memberships
    account_deletion: AccountDeletion
    second_steps: SecondSteps
    provider: OidcProvider | None
    sessions: Sessions
    rates: Rates
    secret: Secret
    clock: Clock


def services_of(request: AnyRequest) -> Services:
    """The parts of this process."""
    services: Services = request.app.state.services
    return services


def caller_of(request: AnyRequest) -> Caller:
    """Who asks; the guard of the route has checked it."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


async def tenant_of(request: AnyRequest) -> TenantRef:
    """The tenant who asks, with its active generation. Raises TenantNotFound."""
    return await services_of(request).directory.get(caller_of(request).tenant_id)


async def plan_of(request: AnyRequest) -> Plan:
    """What the tenant who asks may do. Raises TenantNotFound."""
    return await services_of(request).entitlements.plan_of(caller_of(request).tenant_id)


async def spend_rows(request: AnyRequest, rows: int) -> None:
    """Say how many uses the call is, whose route names `Cost(rows=…)`; one was spent before. Raises TooManyRequests."""
    state = request.scope["state"]
    state["rows"] = rows
    await services_of(request).gate.spend(state["standing"], rows - 1)


async def enters(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard of every route: one that reads no body is being answered from here on; the edge says so of the
    others, once the body is whole. Raises TooManyAtOnce."""
    said = handler.opt.get(KEY)
    if not (isinstance(said, Contract) and said.takes_body):
        connection.scope["state"]["sent"].enter()


async def metered(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard of every route: the month's quota of what the route names has something left.

    Raises MonthlyQuotaReached.
    """
    meter = handler.opt.get("meter")
    state = connection.scope["state"]
    if meter is not None and isinstance(state.get("caller"), Caller):
        connection.app.state.services.gate.require(state["standing"], meter)
