"""What handlers are given: the parts of this process, who asks, and the time.

A handler opens its own transaction, `async with services.database.tenant_session(caller.tenant_id)`, after it has
read the body: a slow client must not hold one of three connections. The `with` ends, and so commits, before the
answer is made; a failing commit is a 500.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from api.auth import Authenticator, Caller
from api.bots import Rates
from api.ingest import Ingest
from api.key_usage import KeyUsage
from api.readiness import Readiness
from api.recommend.answering import Answering
from api.recommend.log import AnswerLog
from api.recommend.search import QueryVectors
from api.sessions import Sessions
from api.wire import AnyRequest
from infra.blob import BlobStore
from infra.changes import ChangeFeed
from infra.db import Database
from infra.secret import Secret
from infra.settings import Settings
from tenants.accounts.doors import Doors
from tenants.audience.shoppers import ShopperIds
from tenants.directory import Directory
from tenants.lifecycle import TenantRef

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


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
    doors: Doors
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
