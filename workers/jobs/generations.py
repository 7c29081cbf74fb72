"""Generations: gives new tenants their first, fills those of another encoder, and measures calibrations."""

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.apart import apart
from infra.db import Database, TenantId, driver
from tenants.vectors.calibration import measure, milestone
from tenants.vectors.encoding import count_pending
from tenants.vectors.generations import (
    GenerationState,
    abandon_filling,
    activate,
    ensure_generation,
    list_generations,
    list_new_tenants,
    missing,
    open_generation,
    queue_missing,
    refill,
)
from tenants.vectors.shards import are_built, graphs_of
from workers.models import Models

log = structlog.get_logger(__name__)

_CHUNK = 256
"""Items queued at a time while a generation fills: an item that changes now waits behind these at most."""


class Keeper:
    """Keeps every tenant's generations in order. `wanted` are the encoders that the settings name."""

    def __init__(self, database: Database, wanted: Models) -> None:
        self._database = database
        self._wanted = wanted
        self._walked: dict[tuple[TenantId, int], int] = {}
        self._counted: dict[TenantId, dict[str, int]] = {}
        self._touched: set[TenantId] = set()
        self._graphs: dict[tuple[TenantId, int], list[str]] = {}

    def stored(self, tenant_id: TenantId, modality: str, items: int) -> None:
        """Told by the encode loops after each batch."""
        counted = self._counted.setdefault(tenant_id, {})
        counted[modality] = counted.get(modality, 0) + items
        self._touched.add(tenant_id)

    async def tick(self) -> None:
        """One round; cheap where there is nothing to do."""
        async with self._database.system_session(reason="tenants without a generation") as system:
            new = await list_new_tenants(system)
        for tenant_id in new:
            with apart("first generation", tenant_id):
                async with self._database.tenant_session(tenant_id) as conn:
                    await ensure_generation(conn, tenant_id, self._wanted.layout.layout_id, self._wanted.calibration)
        async with self._database.system_session(reason="generations that fill") as system:
            filling = [
                TenantId(row.tenant_id)
                for row in await system.execute(
                    text(
                        "select distinct g.tenant_id from generations g join tenants t on t.tenant_id = g.tenant_id "
                        "where g.status = 'filling' and t.deleted_at is null"
                    )
                )
            ]
        for tenant_id in filling:
            with apart("fill", tenant_id):
                await self._fill(tenant_id)
        for tenant_id in list(self._touched):
            with apart("calibrate", tenant_id):
                await self.calibrate(tenant_id)

    async def retarget(self) -> None:
        """See to it that every tenant comes to be served by the wanted encoders: called when a worker starts."""
        layout_id = self._wanted.layout.layout_id
        async with self._database.system_session(reason="tenants of other encoders") as system:
            rows = await system.execute(
                text(
                    "select t.tenant_id from tenants t join generations g on g.tenant_id = t.tenant_id "
                    "and (g.gen = t.active_gen or g.status = 'filling') "
                    "where t.deleted_at is null and g.layout_id <> :layout"
                ),
                {"layout": layout_id},
            )
            others = [TenantId(row.tenant_id) for row in rows]
        for tenant_id in dict.fromkeys(others):
            with apart("retarget", tenant_id):
                async with self._database.tenant_session(tenant_id) as conn:
                    await self._want(conn, tenant_id)

    async def _want(self, conn: AsyncConnection, tenant_id: TenantId) -> None:
        layout_id = self._wanted.layout.layout_id
        await abandon_filling(conn, tenant_id, but_layout=layout_id)
        known = await list_generations(conn, tenant_id, all_=True)
        own = [state for state in known if state.layout.layout_id == layout_id]
        if any(state.active or state.status == "filling" for state in own):
            return
        reason = f"encoders {self._wanted.names[0]} and {self._wanted.names[2]}"
        if own:
            # It was served before: switched back to when it has caught up.
            await refill(conn, tenant_id, own[-1].gen, reason=reason)
            gen = own[-1].gen
        else:
            gen = await open_generation(
                conn,
                tenant_id,
                layout_id,
                reason=reason,
                calibration=self._wanted.calibration,
            )
        log.info("generations.filling", tenant_id=str(tenant_id), gen=gen, reason=reason)

    async def _fill(self, tenant_id: TenantId) -> None:
        """Queue the next items of a generation that fills; activate it once nothing is missing."""
        async with self._database.tenant_session(tenant_id) as conn:
            for state in await list_generations(conn, tenant_id):
                if state.status != "filling" or state.layout.layout_id != self._wanted.layout.layout_id:
                    continue
                if await count_pending(conn, tenant_id, "text") or await count_pending(conn, tenant_id, "image"):
                    return
                place = (tenant_id, state.gen)
                if not await are_built(conn, self._graphs.get(place, [])):
                    return
                last = await queue_missing(
                    conn, tenant_id, state.layout, after_no=self._walked.get(place, 0), limit=_CHUNK
                )
                if last >= 0:
                    self._walked[place] = last
                    continue
                self._walked.pop(place, None)
                left = await missing(conn, tenant_id, state.layout)
                if left:
                    log.info("generations.walked_again", tenant_id=str(tenant_id), gen=state.gen, missing=left)
                    continue
                # A tenant with its own shard would be answered by scans meanwhile: upkeep builds what is lacking.
                graphs = await graphs_of(conn, tenant_id, state.layout.layout_id)
                if not await are_built(conn, graphs):
                    self._graphs[place] = graphs
                    log.info("generations.unindexed", tenant_id=str(tenant_id), gen=state.gen, graphs=graphs)
                    continue
                self._graphs.pop(place, None)
                await self._measured_activation(conn, tenant_id, state)

    async def _measured_activation(self, conn: AsyncConnection, tenant_id: TenantId, state: GenerationState) -> None:
        await activate(conn, tenant_id, state.gen)
        log.info("generations.activated", tenant_id=str(tenant_id), gen=state.gen)
        self._counted.pop(tenant_id, None)
        self._touched.add(tenant_id)

    async def calibrate(self, tenant_id: TenantId) -> None:
        """Measure the serving spaces again where the tenant has come to 100, 200, 400, … items."""
        self._touched.discard(tenant_id)
        async with self._database.tenant_session(tenant_id) as conn:
            active = next((s for s in await list_generations(conn, tenant_id) if s.active), None)
            if active is None or active.layout.layout_id != self._wanted.layout.layout_id:
                return
            counted = self._counted.get(tenant_id, {})
            if counted.get("exact") and _weight(counted) <= active.measured_items:
                return
            raw = await driver(conn)
            shard, texts, images = await raw.fetchrow(
                "select t.shard, count(*) filter (where v.text_space > 0), count(*) filter (where v.image_space > 0) "
                "from tenants t left join fused_vectors v on v.tenant_id = t.tenant_id and v.layout_id = $2 "
                "and v.shard = t.shard where t.tenant_id = $1 group by t.shard",
                tenant_id,
                active.layout.layout_id,
            )
            self._counted[tenant_id] = {"text": texts, "image": images, "exact": 1}
            reached = _weight(self._counted[tenant_id])
            if reached <= active.measured_items:
                return
            measured = await measure(conn, tenant_id, active.layout, shard=shard)
            gen = await open_generation(
                conn,
                tenant_id,
                active.layout.layout_id,
                reason="calibrated on the shop's own items",
                calibration={**self._wanted.calibration, **measured},
                measured_items=reached,
            )
            await activate(conn, tenant_id, gen)
        log.info("generations.calibrated", tenant_id=str(tenant_id), gen=gen, texts=texts, photos=images)


def _weight(counted: dict[str, int]) -> int:
    """Both halves count: photos come later than texts, and need figures of their own."""
    return milestone(counted.get("text", 0)) + milestone(counted.get("image", 0))
