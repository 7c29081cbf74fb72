"""Popularity and trend by their formulas, per segment, from people's events alone."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from infra.db import Database, TenantId, driver
from infra.ids import uuid7
from tenants.learned.popularity import refresh_popularity
from tests.integration.tenants.conftest import MakeTenant

pytestmark = pytest.mark.anyio

WEIGHTS = {"view": 1.0, "purchase": 10.0, "refund": -10.0}


async def _store(database: Database, tenant_id: TenantId, now: datetime, events: Sequence[tuple[Any, ...]]) -> None:
    """(item, days ago, type, shopper, flags)"""
    async with database.tenant_session(tenant_id) as conn:
        await (await driver(conn)).executemany(
            "insert into events (tenant_id, ts, event_no, type, shopper_no, item_no, flags) "
            "values ($1, $2, $3, $4, $5, $6, $7)",
            [
                (tenant_id, now - timedelta(days=ago), uuid7(), kind, shopper, item, flags)
                for item, ago, kind, shopper, flags in events
            ],
        )


async def _refresh(database: Database, tenant_id: TenantId, now: datetime, model: int = 0) -> int | None:
    async with database.tenant_session(tenant_id) as conn:
        return await refresh_popularity(conn, tenant_id, WEIGHTS, model=model, now=now)


async def _scores(database: Database, tenant_id: TenantId, segment: str = "") -> dict[int, tuple[float, float, int]]:
    async with database.tenant_session(tenant_id) as conn:
        records = await (await driver(conn)).fetch(
            "select item_no, popularity, trend, events from item_scores where tenant_id = $1 and segment = $2",
            tenant_id,
            segment,
        )
    return {record["item_no"]: (record["popularity"], record["trend"], record["events"]) for record in records}


async def test_the_scores_are_those_of_the_formulas(database: Database, make_tenant: MakeTenant, clock: Any) -> None:
    """Half after a half-life; a bot's events, and those of no item or no weight, count nothing."""
    tenant_id = (await make_tenant()).tenant_id
    events = [(1, 1, "purchase", 1, 0), (2, 7.6, "view", 1, 0), (2, 3, "view", 2, 0), (3, 2, "view", 3, 1)]
    events += [(4, 1, "search", 1, 0), (None, 1, "view", 1, 0), (5, 1, "refund", 1, 0)]
    await _store(database, tenant_id, clock(), events)
    assert await _refresh(database, tenant_id, clock()) == 3
    scores = await _scores(database, tenant_id)
    assert set(scores) == {1, 2, 5}
    decay = {days: 0.5 ** (days / 14) for days in (1, 3, 7.6)}
    assert scores[1][0] == 1
    assert scores[2][0] == pytest.approx((decay[3] + decay[7.6]) / (10 * decay[1]), rel=1e-5)
    assert scores[5][0] == 0
    steady = (decay[3] + decay[7.6]) * math.log(2) / 4
    rise = (1 - steady) / math.sqrt(steady + 1)
    assert scores[2][1] == pytest.approx(rise / (rise + 3), rel=1e-5)
    assert scores[2][2] == 2


async def test_a_segment_has_scores_of_its_own(database: Database, make_tenant: MakeTenant, clock: Any) -> None:
    """What its shoppers like, which others do not."""
    tenant_id = (await make_tenant()).tenant_id
    async with database.tenant_session(tenant_id) as conn:
        await (await driver(conn)).execute(
            "insert into users (tenant_id, shopper_no, segments) values ($1, 1, '{vip,new}'), ($1, 2, '{}')", tenant_id
        )
    await _store(database, tenant_id, clock(), [(1, 1, "view", 1, 0), (2, 1, "purchase", 2, 0)])
    await _refresh(database, tenant_id, clock())
    assert {item: score[0] for item, score in (await _scores(database, tenant_id)).items()} == pytest.approx(
        {1: 0.1, 2: 1.0}
    )
    for segment in ("vip", "new"):
        assert {item: score[0] for item, score in (await _scores(database, tenant_id, segment)).items()} == {1: 1.0}


async def test_only_what_moved_is_written(database: Database, make_tenant: MakeTenant, clock: Any) -> None:
    """A second run writes nothing; what nobody asks for any more goes."""
    tenant_id = (await make_tenant()).tenant_id
    await _store(database, tenant_id, clock(), [(1, 40, "view", 1, 0), (2, 1, "view", 2, 0)])
    assert await _refresh(database, tenant_id, clock()) == 2
    assert await _refresh(database, tenant_id, clock()) == 0
    clock.advance(112 * 86_400)
    assert await _refresh(database, tenant_id, clock()) == 2
    assert set(await _scores(database, tenant_id)) == {2}
    assert await _refresh(database, tenant_id, clock(), model=4) == 1


async def test_two_workers_do_not_meet(database: Database, make_tenant: MakeTenant, clock: Any) -> None:
    """While one is at a tenant, another leaves it alone."""
    tenant_id = (await make_tenant()).tenant_id
    async with database.tenant_session(tenant_id) as conn:
        await refresh_popularity(conn, tenant_id, WEIGHTS, model=0, now=clock())
        assert await _refresh(database, tenant_id, clock()) is None
