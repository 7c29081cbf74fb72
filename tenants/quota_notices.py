"""Telling tenants that they near a quota: each notice once, by their webhooks and by mail to who looks after the shop.

Notices are noted by whoever counts (tenants/usage.py); the headers of answers tell of them at once.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from tenants.accounts.outbox import About, QuotaReached, queue_mail
from tenants.webhooks.events import QuotaNear
from tenants.webhooks.outbox import emit

_AT_ONCE: Final = 100

_TAKE: Final = """
with untold as (
    select n.tenant_id, n.period, n.meter, n.percent, t.name, t.org_id from quota_notices n
    join tenants t on t.tenant_id = n.tenant_id and t.deleted_at is null
    where n.told_at is null order by n.at limit $2 for update of n skip locked
)
update quota_notices n set told_at = $1 from untold u
where (n.tenant_id, n.period, n.meter, n.percent) = (u.tenant_id, u.period, u.meter, u.percent)
returning n.tenant_id, n.period, n.meter, n.percent, n.used, n.quota, u.name,
    (select array_agg(p.email order by p.email) from members m join people p on p.person_id = m.person_id
        where m.org_id = u.org_id and m.role in ('owner', 'admin', 'billing')) as addresses
"""


async def tell_near(conn: AsyncConnection, *, now: datetime) -> int:
    """Have the tenants told of some of what they were not told of yet; how many notices. `conn` is a system session.

    The messages are sent if and when its transaction commits.
    """
    rows: Any = await (await driver(conn)).fetch(_TAKE, now, _AT_ONCE)
    for row in rows:
        figures = {name: row[name] for name in ("meter", "percent", "used", "quota")}
        near = QuotaNear(**figures, period=row["period"])
        await emit(conn, TenantId(row["tenant_id"]), "quota.near", near, now=now)
        reached = QuotaReached(**figures, tenant_id=row["tenant_id"], shop=row["name"])
        for address in row["addresses"] or ():
            await queue_mail(conn, "quota", address, now=now, about=About(reached=reached))
    return len(rows)
