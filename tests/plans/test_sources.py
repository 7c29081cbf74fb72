"""The statement of a blended list at fifty tenants: every large table is reached through its key, by any plan."""

import asyncpg
import pytest

from infra.db import Database, scoped
from infra.roles import APP, OWNER, role_url
from tenants.retrieval.wanted import Wanted
from tenants.sources.scene import Asked, Chosen, Scene
from tenants.sources.shopper import ShopperKey
from tenants.sources.statement import SOURCES, statement
from tests.integration.tenants.conftest import make_tenant
from tests.integration.tenants.sources.conftest import NOW, Floor, floor

pytestmark = pytest.mark.anyio
__all__ = ["floor", "make_tenant"]

_FILL = (
    "create temporary table t as select gen_random_uuid() as tenant_id from generate_series(1, 50)",
    "insert into t values ('{0}')",
    "insert into item_ids (tenant_id, item_no, external_id) select tenant_id, n, 'x' || n from t, "
    "generate_series(100, 400) n",
    "insert into item_facets (tenant_id, item_no, currency, availability, hidden, available_from, expires_at, "
    "created_at) select tenant_id, n, 'EUR', 0, false, '-infinity', 'infinity', now() from t, "
    "generate_series(100, 400) n",
    "insert into item_attrs (tenant_id, item_no, name, value_text) select tenant_id, n, 'tags', (n % 50)::text from t, "
    "generate_series(100, 400) n",
    "insert into item_neighbours (tenant_id, kind, build, item_no, others, scores) select tenant_id, k, 7, n, "
    "'{{100,101,102}}', '{{3,2,1}}' from t, generate_series(1, 6) k, generate_series(100, 400) n",
    "insert into behaviour_vectors (tenant_id, model, item_no, own, vec) select tenant_id, 7, n, 1, "
    "'[1,2,3,4]'::halfvec from t, generate_series(100, 400) n",
    "insert into item_scores (tenant_id, model, item_no, popularity, trend, events) select tenant_id, 7, n, random(), "
    "random(), 1 from t, generate_series(100, 400) n",
    "insert into events (tenant_id, ts, event_no, type, shopper_no, item_no) select tenant_id, "
    "'2026-01-10T00:00:00Z', gen_random_uuid(), 'view', n, n from t, generate_series(100, 400) n",
    "insert into item_minutes (tenant_id, minute, item_no, views) select tenant_id, '2026-01-15T11:30:00Z', n, 1 "
    "from t, generate_series(100, 400) n",
    "insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key) select tenant_id, n, 1, "
    "'x' || n, 0 from t, generate_series(100, 400) n",
    "insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores) select tenant_id, 7, n, "
    "'{{100,101}}', '{{2,1}}' from t, generate_series(100, 400) n",
    "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
    "select 0, tenant_id, 1, n, 1, 3, '[1,2,3,4,5,6,7,8,9,10,11,12]'::halfvec from t, generate_series(100, 400) n",
)
_SMALL = ("behaviour_models", "neighbour_builds", "users", "item_vectors")
"""Tables of few rows a tenant, or none in this test; a scan of them is as good."""

_ANCHORED = [name for name in SOURCES if name != "on_sale"]


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_every_source_uses_the_keys(floor: Floor, database: Database, database_url: str, mode: str) -> None:
    """No table of many tenants is scanned whole for one of them, under row-level security."""
    async with database.system_session(reason="test set-up") as session:
        for line in _FILL:
            await session.exec_driver_sql(line.format(floor.tenant.tenant_id))
        await session.exec_driver_sql("drop table t")
    owner = await asyncpg.connect(role_url(database_url, OWNER))
    await owner.execute("analyze")
    await owner.close()
    asked = Asked(
        sources=[Chosen(name=name, weight=1.0) for name in _ANCHORED if name != "visually_similar"],
        shopper=ShopperKey(kind=1, id="x100"),
        recent=["x101"],
        purchased=True,
        with_evidence=True,
    )
    scene = Scene(floor.tenant, Wanted(now=NOW, limit=20), asked, cut=200, stop=200)
    sql = scoped(statement(scene))
    # Without it the planner reads a partition whole that holds the handful of rows which other tests left there.
    settings = {"plan_cache_mode": mode, "jit": "off", "enable_seqscan": "off"}
    connection = await asyncpg.connect(role_url(database_url, APP), server_settings=settings)
    try:
        way = "explain (generic_plan)" if mode == "force_generic_plan" else "explain"
        tenant_id = floor.tenant.tenant_id
        explained = await connection.fetch(f"{way} {sql}", str(tenant_id), tenant_id, *scene.args)
    finally:
        await connection.close()
    # An empty partition is scanned for nothing.
    scans = [row[0].strip() for row in explained if "Seq Scan" in row[0] and "cost=0.00..0.00" not in row[0]]
    assert [scan for scan in scans if not any(name in scan for name in _SMALL)] == []
    # Of all months only the few events that decide are read, by their own index, which has all that is asked of them.
    read = [row[0] for row in explained if " on events_" in row[0]]
    decisive = [scan for scan in read if "_type_item_no_ts" in scan]
    assert decisive
    assert [scan for scan in decisive if "Index Only Scan" not in scan] == []
    partitions = {scan.split(" on ")[1].split()[0] for scan in read if scan not in decisive}
    assert len(partitions) <= 5, partitions
