"""Drift: measured once a day for every tenant that has a model."""

from contextlib import suppress

import structlog

from infra.apart import apart
from infra.clock import Clock, utc_now
from infra.db import Database
from tenants.learned.drift import list_due, measure_drift
from tenants.lifecycle import TenantNotFound, load_tenant

log = structlog.get_logger(__name__)


class DriftWatch:
    """A task across tenants; a second run on a day finds nothing to do."""

    def __init__(self, database: Database, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def tick(self) -> int:
        """Measure those whose day has come; how many."""
        now = self._clock()
        async with self._database.system_session(reason="drift not measured today") as system:
            due = await list_due(system, now)
        for tenant_id in due:
            with apart("drift", tenant_id), suppress(TenantNotFound):
                async with self._database.tenant_session(tenant_id) as conn:
                    drift = await measure_drift(conn, await load_tenant(conn, tenant_id), now)
                if drift is not None and drift.state == "drifted":
                    log.warning("models.drifted", tenant_id=str(tenant_id), event_mix=drift.event_mix, ctr=drift.ctr)
        return len(due)
