"""Popularity: keeps the best sellers and the risers of every tenant up to the minute."""

from contextlib import suppress
from datetime import timedelta
from time import perf_counter
from typing import Final

import structlog

from infra.apart import apart
from infra.clock import Clock, utc_now
from infra.db import Database, TenantId
from tenants.learned.popularity import list_active, refresh_popularity
from tenants.lifecycle import TenantNotFound, load_tenant

log = structlog.get_logger(__name__)

EVERY_S: Final = 20.0
"""How often it is looked whose events are new."""

CALM: Final = timedelta(minutes=10)
"""A tenant without new events has its turn so often: trends end, too."""

_SHARE: Final = 0.05
"""Of the time at most, for one tenant: one whose events take a second to read is done every 20 s."""


class Popularity:
    """A task across tenants, which may run in several workers and be repeated at any time."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._next: dict[TenantId, tuple[float, float]] = {}  # not before, and at the latest; seconds

    async def tick(self) -> int:
        """Refresh those that are due; how many tenants."""
        now = self._clock()
        async with self._database.system_session(reason="tenants with events") as system:
            active = await list_active(system, now, since=timedelta(seconds=3 * EVERY_S + 60))
        done = 0
        for each in active:
            not_before, latest = self._next.get(each.tenant_id, (0.0, 0.0))
            if now.timestamp() < (not_before if each.lively else latest):
                continue
            began = perf_counter()
            changed = None
            with apart("popularity", each.tenant_id), suppress(TenantNotFound):
                async with self._database.tenant_session(each.tenant_id) as conn:
                    tenant = await load_tenant(conn, each.tenant_id)
                    changed = await refresh_popularity(
                        conn,
                        each.tenant_id,
                        tenant.event_weights,
                        model=tenant.generation.behaviour_model or 0,
                        now=now,
                    )
            took = perf_counter() - began
            self._next[each.tenant_id] = (
                now.timestamp() + took / _SHARE,
                now.timestamp() + max(CALM.total_seconds(), took / _SHARE),
            )
            done += changed is not None
            log.debug("popularity.refreshed", tenant_id=str(each.tenant_id), changed=changed, took_s=round(took, 3))
        self._next = {
            tenant_id: self._next[tenant_id] for tenant_id in self._next.keys() & {e.tenant_id for e in active}
        }
        return done
