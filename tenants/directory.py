"""The tenants that this process serves, cached until the change feed says otherwise."""

from infra.changes import ChangeFeed
from infra.db import Database, TenantId
from infra.feedcache import FeedCache
from infra.outage import AWAY
from tenants.lifecycle import TenantRef, load_tenant


class Directory:
    """Looks tenants up by id; a flip of the generation or a move is seen within a second."""

    def __init__(self, database: Database, feed: ChangeFeed) -> None:
        self._database = database
        self._cache: FeedCache[TenantId, TenantRef] = FeedCache(feed, kinds=frozenset({"tenant", "model"}))

    def known(self, tenant_id: TenantId) -> TenantRef | None:
        """The tenant, where it is known without asking."""
        return self._cache.get(tenant_id)

    async def get(self, tenant_id: TenantId) -> TenantRef:
        """The tenant, as it was last known where the database is away. Raises TenantNotFound."""
        found = self._cache.get(tenant_id)
        if found is None:
            mark = self._cache.mark
            try:
                found = await load_tenant(self._database, tenant_id)
            except AWAY:
                found = self._cache.get_stale(tenant_id)
                if found is None:
                    raise
            else:
                self._cache.put(tenant_id, found, tenant_id=tenant_id, mark=mark)
        return found
