"""A tenant's own shard: its lists open the graphs of the halves they need, and no other partition."""

from typing import Any

import asyncpg
import numpy as np
import pytest
from msgspec.structs import replace

from infra.db import Database, TenantId, scoped
from infra.roles import APP, role_url
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.search import Spoken, find_spoken
from tenants.retrieval.wanted import Wanted
from tenants.vectors import shards
from tests.integration.tenants.conftest import MakeTenant, make_tenant
from tests.integration.tenants.test_shards import NOW, make_shop

pytestmark = pytest.mark.anyio
__all__ = ["make_tenant"]


class _Explained(Exception):
    """Ends a list whose statement was explained instead of run."""


async def test_the_graphs_are_used_and_other_shards_are_not(
    database: Database, make_tenant: MakeTenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the application role, custom and generic plans: the graph of each space that the tenant has, no more."""
    tenant = await make_shop(database, make_tenant, 6000, items=False)
    shard = await shards.move_to_own_shard(database, tenant.tenant_id, memory_mb=64)
    moved = replace(tenant, shard=shard)
    generation, own = tenant.generation, f"fused_vectors_shard_{shard}"
    plans: list[str] = []

    async def explain(_: Database, tenant_id: TenantId, inner: str, *args: object) -> Any:
        connection = await asyncpg.connect(role_url(database_url, APP), server_settings={"jit": "off"})
        for how in ("explain", "explain (generic_plan)"):
            rows = await connection.fetch(f"{how} {scoped(inner)}", str(tenant_id), tenant_id, *args)
            plans.append("\n".join(row[0] for row in rows))
        await connection.execute("set enable_seqscan = off")
        for (line,) in await connection.fetch(f"explain {scoped(inner)}", str(tenant_id), tenant_id, *args):
            # With so few rows it would be right; where it cannot be avoided, 200,000 are read for each candidate.
            assert "Seq Scan on item_facets" not in line, line
        await connection.close()
        raise _Explained

    monkeypatch.setattr(Database, "fetch_scoped", explain)
    wanted = Wanted(now=NOW, limit=50)
    with pytest.raises(_Explained):
        await find_similar(database, moved, wanted, Likeness(seeds=["7"], text_weight=0.5, image_weight=0.5))
    spoken = Spoken(tokens=["item"], text=np.ones(8, dtype=np.float32), image=np.ones(4, dtype=np.float32))
    with pytest.raises(_Explained):
        await find_spoken(database, moved, wanted, spoken)
    assert len(plans) == 4
    for plan in plans:
        for space in (generation.text, generation.image):
            assert f"Index Scan using {own}_l{generation.layout_id}_s{space.space_id}" in plan, plan
        assert f"Seq Scan on {own}" not in plan, plan
        assert "fused_vectors_shard_0" not in plan, plan
        assert "item_text_shard_0" not in plan, plan
