"""Who may use a connection: no tenant takes all of them, and those who wait are served tenant by tenant.

One tenant's flood waits behind itself. Of `slots` it holds all but one at most, so another one's request finds a
free one, or waits for the shortest of them; of those who wait each tenant has its turn, whoever has asked most. How
many may wait is for who lets them in.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID


class Turns:
    """`slots` are how many may be at it at a time."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._each = max(1, slots - 1)
        self._held: dict[UUID, int] = {}
        self._waiting: OrderedDict[UUID, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, tenant_id: UUID) -> AsyncIterator[None]:
        """Hold a slot for a tenant."""
        if self._free and self._held.get(tenant_id, 0) < self._each:
            self._take(tenant_id)
        else:
            await self._wait(tenant_id)
        try:
            yield
        finally:
            self._give_back(tenant_id)

    def _take(self, tenant_id: UUID) -> None:
        self._free -= 1
        self._held[tenant_id] = self._held.get(tenant_id, 0) + 1

    async def _wait(self, tenant_id: UUID) -> None:
        queue = self._waiting.setdefault(tenant_id, deque())
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._give_back(tenant_id)
            raise

    def _give_back(self, tenant_id: UUID) -> None:
        self._free += 1
        held = self._held[tenant_id] - 1
        if held:
            self._held[tenant_id] = held
        else:
            del self._held[tenant_id]
        self._call_next()

    def _call_next(self) -> None:
        """The first of the tenant whose turn it is; the tenant goes behind the others."""
        for tenant_id in list(self._waiting):
            queue = self._waiting[tenant_id]
            while queue and queue[0].done():  # cancelled meanwhile
                queue.popleft()
            if not queue:
                del self._waiting[tenant_id]
            elif self._held.get(tenant_id, 0) < self._each:
                self._take(tenant_id)
                queue.popleft().set_result(None)
                if queue:
                    self._waiting.move_to_end(tenant_id)
                else:
                    del self._waiting[tenant_id]
                return
