"""Old events, stored in bulk: up to two years back, once each however often their file is imported."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from infra.db import TenantId
from tenants.events.event import AHEAD, EventRow, Window

HISTORY: Final = timedelta(days=731)
"""How old an imported event may be."""


def history_window(now: datetime) -> Window:
    """Of imported events: two years."""
    return Window(
        oldest=now - HISTORY, latest=now + AHEAD, what="An imported event is at most 2 years old and 5 minutes ahead."
    )


# By (event_id, ts): event ids are not unique across partitions, and the index by time finds both. The times of a
# batch first, as arrays, so that the planner sees index probes and no scan of everything.
_KNOWN: Final = """
select distinct e.event_id, e.ts from unnest($2::timestamptz[]) g(ts)
join lateral (select e.event_id, e.ts from events e
    where e.tenant_id = $1 and e.ts = g.ts and e.event_id = any($3::text[])) e on true
"""

_STORE: Final = """
insert into events (tenant_id, ts, event_no, line, type, shopper_no, item_no, quantity, price, value,
    currency, order_id, answer_id, position, placement, session_id, event_id, rating, flags, context)
select $1, m, e, coalesce(l, 0), y, s, i, q, p, v, c, o, a, x, w, z, d, g, coalesce(f, 0), k
from jsonb_to_recordset($2::text::jsonb) as r(
    e uuid, l int2, y text, m timestamptz, s int8, i int, q real, p int8, v int8, c text, o text,
    a uuid, x int2, w text, z text, d text, g real, f int2, k jsonb)
"""

_encode = msgspec.json.Encoder().encode


async def store_history(raw: Any, tenant_id: TenantId, events: Sequence[Sequence[EventRow]]) -> int:
    """Store the rows of these events, but for those whose id and time are known; how many events were new.

    Every event has an id. `raw` is the connection of a `tenant_session`.
    """
    first: dict[tuple[str | None, datetime], Sequence[EventRow]] = {}
    for rows in events:
        first.setdefault((rows[0].d, rows[0].m), rows)
    if not first:
        return 0
    known = await raw.fetch(
        _KNOWN, tenant_id, sorted({ts for _, ts in first}), sorted({event_id or "" for event_id, _ in first})
    )
    for record in known:
        first.pop((record["event_id"], record["ts"]), None)
    if first:
        rows = [row for each in first.values() for row in each]
        await raw.execute(_STORE, tenant_id, _encode(rows).decode())
    return len(first)
