"""The statement of a search under a generic plan, which is what a busy connection runs from the sixth time on."""

from typing import Any

import asyncpg
import numpy as np
import pytest

from infra.db import Database, TenantId, scoped
from infra.roles import APP, role_url
from tenants.retrieval.search import Spoken, find_spoken
from tenants.retrieval.wanted import Wanted
from tests.integration.tenants.conftest import MakeTenant, make_tenant
from tests.integration.tenants.test_shards import NOW

pytestmark = pytest.mark.anyio
__all__ = ["make_tenant"]


class _Explained(Exception):
    """Ends a list whose statement was explained instead of run."""


async def test_a_query_is_not_parsed_for_each_row(
    database: Database, make_tenant: MakeTenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words and vectors are read once: 20,000 items took 2.3 s where the vector was read for each."""
    tenant = await make_tenant()
    plans: list[str] = []

    async def explain(_: Database, tenant_id: TenantId, inner: str, *args: object) -> Any:
        connection = await asyncpg.connect(role_url(database_url, APP), server_settings={"jit": "off"})
        rows = await connection.fetch(
            f"explain (verbose, generic_plan) {scoped(inner)}", str(tenant_id), tenant_id, *args
        )
        await connection.close()
        plans.extend(row[0] for row in rows)
        raise _Explained

    monkeypatch.setattr(Database, "fetch_scoped", explain)
    spoken = Spoken(
        tokens=["red", "lamp"],
        text=np.ones(8, dtype=np.float32),
        ngrams=np.ones(8, dtype=np.float32),
        image=np.ones(4, dtype=np.float32),
    )
    with pytest.raises(_Explained):
        await find_spoken(database, tenant, Wanted(now=NOW, limit=10), spoken)
    compared = [line for line in plans if "<#>" in line or "@@" in line]
    assert compared
    for line in compared:
        assert "::halfvec" not in line, line
        assert "::tsquery" not in line, line
