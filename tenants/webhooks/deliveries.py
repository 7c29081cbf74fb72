"""Deliveries: that an endpoint is to be told of an event; claimed, attempted, logged, replayed, forgotten."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from infra.errors import NotFound
from infra.ids import uuid7
from tenants.audit import log as audit
from tenants.audit.log import Actor
from tenants.webhooks.endpoints import DisabledFor, check_enabled, get_webhook, give_up_pending
from tenants.webhooks.events import encode_body
from tenants.webhooks.schedule import FAILING_AFTER, SURE_AFTER, Verdict

DeliveryStatus = Literal["pending", "delivered", "failed"]

KEPT: Final = timedelta(days=30)
"""How long deliveries, their attempts and their events are kept, whatever became of them."""

LEASE: Final = timedelta(seconds=60)
"""A delivery whose worker has not told what came of it for this long is claimed by another."""

ANSWER_CHARS: Final = 1024
ATTEMPTS_KEPT: Final = 20
_OURSELVES: Final = Actor(kind="system", id="webhooks")
MAX_REPLAYED: Final = 10_000
"""Deliveries that one call replays."""


class DeliveryNotFound(NotFound):
    """The webhook has no such delivery, or it is more than 30 days old."""

    code = "delivery_not_found"
    title = "There is no such delivery"


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt. `error` says why there is no `status_code`; `answer` is the beginning of the body (1 KB)."""

    attempt: int
    at: datetime
    status_code: int | None
    error: str | None
    answer: str | None
    duration_ms: int


class Delivery(Struct, frozen=True, kw_only=True):
    """A message to one endpoint. `id` is its `webhook-id`; `attempts` are the latest 20, the newest first.

    `next_attempt_at`: when it is tried next at the earliest, null when it is not.
    """

    id: UUID
    event: str
    data: msgspec.Raw
    status: DeliveryStatus
    created_at: datetime
    finished_at: datetime | None
    next_attempt_at: datetime | None
    attempts: list[Attempt]


_LOG: Final = """
select d.event_id, d.status, d.created_at, d.finished_at, case when d.status = 'pending' then d.due end as due,
    e.type, e.data::text as data, (
    select coalesce(json_agg(json_build_object('attempt', a.attempt, 'at', a.at, 'status_code', a.status_code,
        'error', a.error, 'answer', a.answer, 'duration_ms', a.duration_ms) order by a.attempt desc), '[]')::text
    from webhook_attempts a where a.tenant_id = $1 and a.endpoint_id = $2 and a.event_id = d.event_id) as attempts
from webhook_deliveries d join webhook_events e on e.tenant_id = $1 and e.event_id = d.event_id
where d.tenant_id = $1 and d.endpoint_id = $2
"""


async def list_deliveries(
    conn: AsyncConnection,
    tenant_id: TenantId,
    endpoint_id: UUID,
    *,
    before: UUID | None = None,
    limit: int = 50,
    status: DeliveryStatus | None = None,
) -> list[Delivery]:
    """The log from the newest event on; `before` continues it after its last one. Raises WebhookNotFound."""
    await get_webhook(conn, tenant_id, endpoint_id)
    records = await (await driver(conn)).fetch(
        f"{_LOG} and ($3::uuid is null or d.event_id < $3) and ($4::text is null or d.status = $4) "
        "order by d.event_id desc limit $5",
        tenant_id,
        endpoint_id,
        before,
        status,
        limit,
    )
    return [_delivery(record) for record in records]


def _delivery(record: Any) -> Delivery:
    return Delivery(
        id=UUID(int=record["event_id"].int),
        event=record["type"],
        data=msgspec.Raw(record["data"].encode()),
        status=record["status"],
        created_at=record["created_at"],
        finished_at=record["finished_at"],
        next_attempt_at=record["due"],
        attempts=msgspec.json.decode(record["attempts"], type=list[Attempt]),
    )


_REPLAY: Final = """
update webhook_deliveries d set status = 'pending', earlier = d.attempts, claim = d.claim + 1, due = $3,
    finished_at = null
where d.tenant_id = $1 and d.endpoint_id = $2
"""


async def replay_delivery(
    conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID, event_id: UUID, *, now: datetime
) -> Delivery:
    """Send a message again from now on, under its own id and with all its attempts, whatever became of it before.

    Raises WebhookNotFound, WebhookDisabled, DeliveryNotFound.
    """
    await check_enabled(conn, tenant_id, endpoint_id)
    raw = await driver(conn)
    done = await raw.fetchval(f"{_REPLAY} and d.event_id = $4 returning 1", tenant_id, endpoint_id, now, event_id)
    if done is None:
        raise delivery_not_found(str(event_id))
    record = await raw.fetchrow(f"{_LOG} and d.event_id = $3", tenant_id, endpoint_id, event_id)
    return _delivery(record)


async def replay_failed(
    conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID, *, since: datetime, now: datetime
) -> int:
    """Send again what has failed of the events since then, the oldest first; how many, at most MAX_REPLAYED.

    Raises WebhookNotFound, WebhookDisabled.
    """
    await check_enabled(conn, tenant_id, endpoint_id)
    records = await (await driver(conn)).fetch(
        f"{_REPLAY} and d.event_id = any(array(select f.event_id from webhook_deliveries f where f.tenant_id = $1 "
        "and f.endpoint_id = $2 and f.status = 'failed' and f.created_at >= $4 order by f.event_id "
        f"limit {MAX_REPLAYED})) returning 1",
        tenant_id,
        endpoint_id,
        now,
        since,
    )
    return len(records)


def delivery_not_found(name: str) -> DeliveryNotFound:
    """What is no UUID names no delivery either."""
    return DeliveryNotFound(f"There is no delivery {name!r} of this webhook. GET …/deliveries lists those of 30 days.")


# The worker's side


class Claimed(Struct, frozen=True, kw_only=True):
    """A message in a worker's hands. `tries`: attempts since it was made or replayed, without the one to come."""

    tenant_id: TenantId
    endpoint_id: UUID
    event_id: UUID
    claim: int
    tries: int
    url: str
    keys: tuple[bytes, ...]
    """As they are stored, encrypted; the newest first."""
    body: bytes


# Of a deleted tenant nothing is sent, as it may be had back.
_SHUT: Final = "select 1 from tenants t where t.tenant_id = {} and t.deleted_at is not null"

# One probe per tenant with anything pending.
_WAITING: Final = f"""
with recursive pending as (
    (select d.tenant_id from webhook_deliveries d where d.status = 'pending' order by d.tenant_id limit 1)
    union all
    select (select d.tenant_id from webhook_deliveries d where d.status = 'pending' and d.tenant_id > p.tenant_id
        order by d.tenant_id limit 1)
    from pending p where p.tenant_id is not null
)
select p.tenant_id from pending p where exists (
    select 1 from webhook_deliveries d where d.tenant_id = p.tenant_id and d.status = 'pending' and d.due <= $1)
and not exists ({_SHUT.format("p.tenant_id")})
"""


async def list_waiting(conn: AsyncConnection, now: datetime) -> list[TenantId]:
    """Tenants with a message that is due, in any order. `conn` is a system session."""
    records = await (await driver(conn)).fetch(_WAITING, now)
    return [TenantId(record["tenant_id"]) for record in records]


# Materialised, or the planner may run the inner select again and claim a second one.
_CLAIM: Final = f"""
with next as materialized (
    select d.event_id, d.endpoint_id from webhook_deliveries d
    join webhook_endpoints e on e.tenant_id = $1 and e.endpoint_id = d.endpoint_id and e.enabled
    where d.tenant_id = $1 and d.status = 'pending' and d.due <= $2 and d.endpoint_id <> all($4::uuid[])
        and not exists ({_SHUT.format("$1")})
    order by d.due, d.event_id limit 1 for update of d skip locked
)
update webhook_deliveries d set due = $2 + $3::interval, claim = d.claim + 1
from next n, webhook_endpoints e, webhook_events v
where d.tenant_id = $1 and d.endpoint_id = n.endpoint_id and d.event_id = n.event_id
    and e.tenant_id = $1 and e.endpoint_id = n.endpoint_id and v.tenant_id = $1 and v.event_id = n.event_id
returning d.endpoint_id, d.event_id, d.claim, d.attempts - d.earlier as tries, e.url, e.secret,
    case when e.previous_until > $2 then e.previous_secret end as previous_secret, v.type, v.at, v.data::text as data
"""


async def claim_delivery(
    conn: AsyncConnection, tenant_id: TenantId, now: datetime, *, but: Sequence[UUID] = ()
) -> Claimed | None:
    """The tenant's message that has waited longest, of an endpoint that is not among `but`; None when none is due."""
    record = await (await driver(conn)).fetchrow(_CLAIM, tenant_id, now, LEASE, list(but))
    if record is None:
        return None
    previous = record["previous_secret"]
    return Claimed(
        tenant_id=tenant_id,
        endpoint_id=UUID(int=record["endpoint_id"].int),
        event_id=UUID(int=record["event_id"].int),
        claim=record["claim"],
        tries=record["tries"],
        url=record["url"],
        keys=(record["secret"],) if previous is None else (record["secret"], previous),
        body=encode_body(record["type"], record["at"], record["data"]),
    )


async def record_attempt(
    conn: AsyncConnection,
    claimed: Claimed,
    verdict: Verdict,
    *,
    now: datetime,
    status_code: int | None,
    error: str | None,
    answer: str | None,
    duration_ms: int,
) -> DisabledFor | None:
    """Log an attempt and do what follows from it; why the endpoint was disabled, if it was.

    Nothing is noted where another worker has claimed the message meanwhile, or nobody wants it sent any more.
    """
    raw = await driver(conn)
    key = claimed.tenant_id, claimed.endpoint_id, claimed.event_id
    # The endpoint is locked before its messages, as by who disables or deletes it.
    endpoint = await raw.fetchrow(
        "select failing_since from webhook_endpoints where tenant_id = $1 and endpoint_id = $2 and enabled "
        "for no key update",
        claimed.tenant_id,
        claimed.endpoint_id,
    )
    if endpoint is None:
        return None
    attempt: int | None = await raw.fetchval(
        "update webhook_deliveries set attempts = attempts + 1, status = $5, due = $6, "
        "finished_at = case when $5 <> 'pending' then $7::timestamptz end "
        "where tenant_id = $1 and endpoint_id = $2 and event_id = $3 and claim = $4 and status = 'pending' "
        "returning attempts",
        *key,
        claimed.claim,
        verdict.status,
        now + (verdict.after or timedelta(0)),
        now,
    )
    if attempt is None:
        return None
    await raw.execute(
        "insert into webhook_attempts (tenant_id, endpoint_id, event_id, attempt, at, status_code, error, answer, "
        "duration_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        *key,
        attempt,
        now,
        status_code,
        error,
        answer,
        duration_ms,
    )
    if attempt > ATTEMPTS_KEPT:
        await raw.execute(
            "delete from webhook_attempts "
            "where tenant_id = $1 and endpoint_id = $2 and event_id = $3 and attempt <= $4",
            *key,
            attempt - ATTEMPTS_KEPT,
        )
    since: datetime | None = endpoint["failing_since"]
    reason: DisabledFor | None = None
    if verdict.gone:
        reason = "gone"
    # The first failures of a message may pass within minutes, however long ago others began to fail.
    elif verdict.status != "delivered" and since is not None and since <= now - FAILING_AFTER:
        reason = "failing" if claimed.tries + 1 >= SURE_AFTER else None
    if reason is not None:
        await _disable(conn, claimed.tenant_id, claimed.endpoint_id, reason, now=now)
    elif (verdict.status == "delivered") != (since is None):
        await raw.execute(
            "update webhook_endpoints set failing_since = $3 where tenant_id = $1 and endpoint_id = $2",
            claimed.tenant_id,
            claimed.endpoint_id,
            None if verdict.status == "delivered" else now,
        )
    return reason


async def _disable(
    conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID, reason: DisabledFor, *, now: datetime
) -> None:
    raw = await driver(conn)
    await raw.execute(
        "update webhook_endpoints set enabled = false, disabled_for = $3, disabled_at = $4 "
        "where tenant_id = $1 and endpoint_id = $2",
        tenant_id,
        endpoint_id,
        reason,
        now,
    )
    await give_up_pending(raw, tenant_id, endpoint_id, now=now)
    await raw.execute(
        "insert into webhook_notices (tenant_id, notice_id, endpoint_id, reason, at) values ($1, $2, $3, $4, $5)",
        tenant_id,
        uuid7(),
        endpoint_id,
        reason,
        now,
    )
    await audit.note(
        conn, tenant_id, _OURSELVES, "webhook.disable", subject=str(endpoint_id), details={"reason": reason}, now=now
    )


async def count_pending(conn: AsyncConnection) -> int:
    """Messages of all tenants that wait to be sent. `conn` is a system session."""
    count: int = await (await driver(conn)).fetchval(
        f"select count(*) from webhook_deliveries d where d.status = 'pending' "
        f"and not exists ({_SHUT.format('d.tenant_id')})"
    )
    return count


async def prune_deliveries(conn: AsyncConnection, before: datetime) -> int:
    """Forget what is older; how many deliveries. `conn` is a system session."""
    raw = await driver(conn)
    await raw.execute("delete from webhook_attempts where at < $1", before)
    done: str = await raw.execute("delete from webhook_deliveries where created_at < $1", before)
    await raw.execute("delete from webhook_events where at < $1", before)
    return int(done.rpartition(" ")[2])
