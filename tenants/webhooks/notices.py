"""Telling the people of a shop that one of its webhooks was disabled: each of them once, by mail."""

from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import driver
from tenants.accounts.outbox import About, DisabledWebhook, queue_mail

_AT_ONCE: Final = 100

_TAKE: Final = """
with untold as (
    select n.tenant_id, n.notice_id, e.url, t.name, t.org_id from webhook_notices n
    join webhook_endpoints e using (tenant_id, endpoint_id)
    join tenants t on t.tenant_id = n.tenant_id and t.deleted_at is null
    where n.told_at is null order by n.at limit $2 for update of n skip locked
)
update webhook_notices n set told_at = $1 from untold u
where (n.tenant_id, n.notice_id) = (u.tenant_id, u.notice_id)
returning n.tenant_id, n.endpoint_id, n.reason, u.url, u.name,
    (select array_agg(p.email order by p.email) from members m join people p on p.person_id = m.person_id
        where m.org_id = u.org_id and m.role in ('owner', 'admin', 'developer')) as addresses
"""


async def tell_disabled(conn: AsyncConnection, *, now: datetime) -> int:
    """Have shops told of some webhooks that they were not told of yet; how many. `conn` is a system session.

    The mails are sent if and when its transaction commits. They name the host: an address may hold a password.
    """
    rows: Any = await (await driver(conn)).fetch(_TAKE, now, _AT_ONCE)
    for row in rows:
        disabled = DisabledWebhook(
            shop=row["name"],
            webhook_id=row["endpoint_id"],
            host=urlsplit(row["url"]).hostname or "",
            reason=row["reason"],
        )
        for address in row["addresses"] or ():
            await queue_mail(conn, "webhook_disabled", address, now=now, about=About(disabled=disabled))
    return len(rows)
