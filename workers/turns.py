"""Whose turn it is: tenants with pending items are served one batch at a time, the least recently served first."""

import asyncio
import itertools

from infra.db import TenantId

_KEEP = 10_000


class Turns:
    """Round robin over whoever waits; a tenant that comes new goes first."""

    def __init__(self, *, rest_s: float) -> None:
        """`rest_s`: how long a tenant is passed over after it had nothing to claim."""
        self._rest_s = rest_s
        self._count = itertools.count(1)
        self._served: dict[TenantId, int] = {}
        self._rested: dict[TenantId, float] = {}

    def order(self, waiting: list[TenantId]) -> list[TenantId]:
        """Those that may be served now, in their order."""
        now = asyncio.get_running_loop().time()
        awake = [tenant_id for tenant_id in waiting if self._rested.get(tenant_id, 0) <= now]
        return sorted(awake, key=lambda tenant_id: self._served.get(tenant_id, 0))

    def served(self, tenant_id: TenantId) -> None:
        """It had its turn."""
        if len(self._served) > _KEEP:
            self._served.clear()
        self._served[tenant_id] = next(self._count)

    def rest(self, tenant_id: TenantId) -> None:
        """It had nothing to claim: what is pending is in hand, or is tried again later."""
        if len(self._rested) > _KEEP:
            self._rested.clear()
        self._rested[tenant_id] = asyncio.get_running_loop().time() + self._rest_s
