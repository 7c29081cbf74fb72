"""The statements over the answer log and the moments of items read what they ask for, and no more."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from infra.db import Database, driver, scoped
from infra.ids import uuid7
from infra.partitions import PARTITIONED, floor_to, make_partition, next_of
from infra.roles import APP, SYSTEM, role_url
from tenants.analytics import DIMENSIONS, By, analytics
from tenants.answers import _BUSY, first_id, get_answer
from tenants.catalog.validity import next_boundary
from tests.integration.tenants.conftest import MakeTenant, make_tenant

pytestmark = pytest.mark.anyio
__all__ = ["make_tenant"]

FIRST = datetime(2031, 1, 1, tzinfo=UTC)


class _Explained(Exception):
    """Ends a statement that was explained instead of run."""


@pytest.fixture
def plans(database_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the plans of what is fetched from now on: custom ones, as partitions are chosen by values."""
    lines: list[str] = []

    async def explain(_: Database, tenant_id: Any, inner: str, *args: object, **__: Any) -> Any:
        connection = await asyncpg.connect(role_url(database_url, APP), server_settings={"jit": "off"})
        await connection.execute("set enable_seqscan = off")
        rows = await connection.fetch(f"explain {scoped(inner)}", str(tenant_id), tenant_id, *args)
        await connection.close()
        lines.extend(row[0] for row in rows)
        raise _Explained

    monkeypatch.setattr(Database, "fetch_scoped", explain)
    return lines


async def _partitions(database: Database) -> None:
    async with database.system_session(reason="test set-up") as conn:
        raw = await driver(conn)
        for plan in PARTITIONED:
            first = floor_to("month", FIRST)
            for _ in range(6) if plan.step == "month" else ():
                await make_partition(raw, plan.table, plan.step, first)
                first = next_of(plan.step, first)


@pytest.mark.parametrize("by", DIMENSIONS)
async def test_sums_read_the_partitions_of_their_range(
    database: Database, make_tenant: MakeTenant, plans: list[str], by: By
) -> None:
    """A week of March: no event of another month, no answer older than one can be reacted to, all by index."""
    await _partitions(database)
    tenant = await make_tenant()
    start = datetime(2031, 3, 10, tzinfo=UTC)
    with pytest.raises(_Explained):
        await analytics(database, tenant.tenant_id, start=start, end=start + timedelta(days=7), by=by)
    text = "\n".join(plans)
    assert set(re.findall(r"on (events_\d+)", text)) == {"events_20310301"}
    assert set(re.findall(r"on (answers_\d+)", text)) <= {"answers_20310201", "answers_20310301"}
    assert "Seq Scan on answers" not in text
    assert "Seq Scan on events" not in text


async def test_one_answer_is_one_probe(database: Database, make_tenant: MakeTenant, plans: list[str]) -> None:
    """Of the partition that its id names."""
    await _partitions(database)
    tenant = await make_tenant()
    with pytest.raises(_Explained):
        await get_answer(database, tenant.tenant_id, uuid7(), now=datetime.now(UTC))
    assert len(set(re.findall(r"on (answers_\d+)", "\n".join(plans)))) <= 1


async def test_the_next_boundary_is_two_probes(database: Database, make_tenant: MakeTenant, plans: list[str]) -> None:
    """Each of the index that holds only moments that are not for ever."""
    tenant = await make_tenant()
    with pytest.raises(_Explained):
        await next_boundary(database, tenant.tenant_id, FIRST)
    text = "\n".join(plans)
    assert "item_facets_comes" in text
    assert "item_facets_goes" in text


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_busy_lists_are_found_by_the_key(
    database: Database, database_url: str, make_tenant: MakeTenant, mode: str
) -> None:
    """The latest answers of each tenant, in the order of the index: none of the log is read beyond them."""
    await _partitions(database)
    await make_tenant()
    settings = {"plan_cache_mode": mode, "jit": "off", "enable_seqscan": "off"}
    connection = await asyncpg.connect(role_url(database_url, SYSTEM), server_settings=settings)
    try:
        way = "explain (generic_plan)" if mode == "force_generic_plan" else "explain"
        rows = await connection.fetch(f"{way} {_BUSY}", first_id(FIRST), 200)
    finally:
        await connection.close()
    text = "\n".join(row[0] for row in rows)
    assert "Seq Scan on answers" not in text
    assert re.search(r"Index Scan Backward using answers_\d+_pkey", text)
    assert not re.search(r"Sort Key: a[_0-9]*\.answer_id", text)
