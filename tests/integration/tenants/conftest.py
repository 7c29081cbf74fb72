"""Tenants with items and vectors of known content."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from sqlalchemy import text

from infra.db import Database, TenantId
from tenants.lifecycle import Generation, SpaceRef, TenantRef

MakeTenant = Callable[[], Awaitable[TenantRef]]


@pytest.fixture
def make_tenant(database: Database) -> MakeTenant:
    """Make a new, empty tenant; text has 8 dimensions, images 4."""

    async def make() -> TenantRef:
        tenant_id = TenantId(uuid4())
        async with database.system_session(reason="test set-up") as connection:
            await connection.execute(
                text("insert into tenants (tenant_id, name) values (:tenant, :name)"),
                {"tenant": tenant_id, "name": str(tenant_id)},
            )
            await connection.execute(
                text("insert into tenant_counters (tenant_id) values (:tenant)"), {"tenant": tenant_id}
            )
        return TenantRef(
            tenant_id=tenant_id,
            name=str(tenant_id),
            shard=0,
            currency="EUR",
            generation=Generation(
                gen=1,
                layout_id=1,
                text=SpaceRef(space_id=1, name="text", dim=8, mean=0.2, dev=0.3),
                ngrams=SpaceRef(space_id=2, name="ngrams", dim=8, mean=0.1, dev=0.2),
                image=SpaceRef(space_id=3, name="image", dim=4, mean=0.3, dev=0.4),
                text_weight=0.5,
                image_weight=0.5,
            ),
        )

    return make
