"""The outbox: what happened is noted in the transaction in which it happens, with who is to be told."""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from infra.ids import uuid7
from tenants.webhooks.events import DATA, EventData, EventType

# One statement, and nothing is stored where nobody wants to know.
_EMIT = """
with moment as (
    select coalesce($5, clock_timestamp()) as now
), told as (
    select e.endpoint_id from webhook_endpoints e
    where e.tenant_id = $1 and e.enabled and ($6::uuid is null and $3 = any(e.events) or e.endpoint_id = $6)
), happened as (
    insert into webhook_events (tenant_id, event_id, type, data, at)
    select $1, $2, $3, $4::text::json, m.now from moment m where exists (select 1 from told)
)
insert into webhook_deliveries (tenant_id, endpoint_id, event_id, due, created_at)
select $1, t.endpoint_id, $2, m.now, m.now from told t, moment m
"""


async def emit(
    conn: AsyncConnection,
    tenant_id: TenantId,
    type_: EventType,
    data: EventData,
    *,
    now: datetime | None = None,
    only: UUID | None = None,
) -> UUID:
    """Tell the tenant's endpoints that something happened, if and when the transaction of `conn` commits.

    Those that are enabled now and asked for this type; `only` names one instead. `conn` is a session of the tenant or
    of the system; `now` is the server's time where nothing is said. Returns the event's id, the same in every message.
    """
    assert isinstance(data, DATA[type_]), f"{type_} tells a {DATA[type_].__name__}"
    event_id = uuid7()
    await (await driver(conn)).execute(
        _EMIT,
        tenant_id,
        event_id,
        type_,
        msgspec.json.encode(data).decode(),
        now,
        only,
    )
    return event_id
