"""The statement of `similar`: one text for all tenants of a layout, planned once."""

import pytest
from msgspec.structs import replace

from infra.db import Database
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.wanted import Wanted
from tests.integration.tenants.conftest import MakeTenant, make_tenant
from tests.integration.tenants.test_shards import NOW

pytestmark = pytest.mark.anyio
__all__ = ["make_tenant"]


async def test_a_busy_connection_plans_it_once(database: Database, make_tenant: MakeTenant) -> None:
    """Whatever the seed, the dial, the count and the tenant's calibration: planning took 1.2 ms of 8."""
    tenant = await make_tenant()
    for turn in range(12):
        generation = tenant.generation
        text = replace(generation.text, mean=0.01 * turn)
        shop = replace(tenant, generation=replace(generation, text=text))
        likeness = Likeness(seeds=[str(turn)], text_weight=0.1 * turn, image_weight=0.5)
        await find_similar(database, shop, Wanted(now=NOW, limit=10 + turn // 6), likeness)
    prepared = await database.hot.fetch(
        "select generic_plans from pg_prepared_statements "
        "where statement like '%cosine%' and statement not like '%passed%'"
    )
    assert [row["generic_plans"] for row in prepared] == [12]
