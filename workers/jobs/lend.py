"""Lending: new items get a place in behaviour space as soon as they are encoded, until the next training."""

from contextlib import suppress
from datetime import datetime

from infra.apart import apart
from infra.db import Database, TenantId
from tenants.learned.borrowing import lend, list_newcomers
from tenants.lifecycle import TenantNotFound, load_tenant


class Lending:
    """Remembers until when each model is done; a worker that starts anew does some again, which changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lent: dict[tuple[TenantId, int], datetime] = {}

    async def lend(self) -> int:
        """Give items that were encoded since their tenant's training a place in behaviour space; how many."""
        async with self._database.system_session(reason="items without a place in behaviour space") as system:
            newcomers = await list_newcomers(system, self._lent)
        placed = 0
        for each in newcomers:
            with apart("lend", each.tenant_id), suppress(TenantNotFound):
                async with self._database.tenant_session(each.tenant_id) as conn:
                    tenant = await load_tenant(conn, each.tenant_id)
                    placed += await lend(conn, tenant, each)
                self._lent[each.tenant_id, each.model] = each.latest
        return placed
