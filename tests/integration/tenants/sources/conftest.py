"""A shop with shoppers, events and learned rows of known content."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.db import Database, driver
from tenants.catalog import store as catalog
from tenants.catalog.item import Item
from tenants.lifecycle import TenantRef
from tenants.retrieval.wanted import Found, Wanted
from tenants.sources.scene import Asked, Chosen
from tenants.sources.shopper import ShopperKey
from tenants.sources.statement import find_blended
from tenants.vectors.form import halfvec_text
from tests.integration.tenants.conftest import MakeTenant, make_tenant

__all__ = ["make_tenant"]

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
MODEL = 7
BUILD = 3


class Floor:
    """One tenant; items are known by their place, whose id is its text."""

    def __init__(self, database: Database, tenant: TenantRef, numbers: list[int]) -> None:
        self.database = database
        self.tenant = msgspec.structs.replace(
            tenant,
            generation=msgspec.structs.replace(tenant.generation, behaviour_model=MODEL, neighbours_build=None),
        )
        self.numbers = numbers
        self._shoppers: dict[ShopperKey, int] = {}

    async def execute(self, statement: str, *args: Any) -> None:
        """Run a statement over the tenant's rows; $1 is the tenant."""
        async with self.database.tenant_session(self.tenant.tenant_id) as connection:
            await (await driver(connection)).execute(statement, self.tenant.tenant_id, *args)

    async def shopper(self, key: ShopperKey, *, merged_into: ShopperKey | None = None) -> int:
        """The number of a shopper, who is made at first sight."""
        if key not in self._shoppers:
            self._shoppers[key] = len(self._shoppers) + 1
            into = None if merged_into is None else await self.shopper(merged_into)
            await self.execute(
                "insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key, merged_into) "
                "values ($1, $2, $3, $4, 0, $5)",
                self._shoppers[key],
                key.kind,
                key.id,
                into,
            )
        return self._shoppers[key]

    async def events(self, key: ShopperKey, rows: Sequence[tuple[str, int, float]], *, flags: int = 0) -> None:
        """Store (type, place, days ago) events of a shopper."""
        number = await self.shopper(key)
        await self.execute(
            "insert into events (tenant_id, ts, event_no, type, shopper_no, item_no, flags) "
            "select $1, r.ts, r.event_no, r.type, $2, r.item_no, $3 "
            "from unnest($4::timestamptz[], $5::uuid[], $6::text[], $7::int4[]) r(ts, event_no, type, item_no)",
            number,
            flags,
            [NOW - timedelta(days=days) for _, _, days in rows],
            [uuid4() for _ in rows],
            [type_ for type_, _, _ in rows],
            [self.numbers[place] for _, place, _ in rows],
        )

    async def neighbours(self, kind: int, lists: Mapping[int, Mapping[int, float]], *, build: int = MODEL) -> None:
        """Store lists of place -> {place: score}."""
        for place, others in lists.items():
            order = sorted(others, key=lambda other: -others[other])
            await self.execute(
                "insert into item_neighbours (tenant_id, kind, build, item_no, others, scores) "
                "values ($1, $2, $3, $4, $5, $6)",
                kind,
                build,
                self.numbers[place],
                [self.numbers[other] for other in order],
                [round(others[other] * 32767) for other in order],
            )

    async def scores(
        self, rows: Mapping[int, tuple[float, float, float | None]], *, model: int = MODEL, segment: str = ""
    ) -> None:
        """Store place -> (popularity, trend, days between purchases)."""
        for place, (popularity, trend, days) in rows.items():
            await self.execute(
                "insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events, "
                "repurchase_days) values ($1, $2, $3, $4, $5, $6, 1, $7)",
                model,
                segment,
                self.numbers[place],
                popularity,
                trend,
                days,
            )

    async def behaviour(self, rows: NDArray[np.float32], own: NDArray[np.float32]) -> None:
        """Store source ‖ target of every item, float32[n, 2d]."""
        await self.execute(
            "insert into behaviour_vectors (tenant_id, model, item_no, own, vec) "
            "select $1, $2, r.item_no, r.own, r.vec::halfvec "
            "from unnest($3::int4[], $4::float4[], $5::text[]) r(item_no, own, vec)",
            MODEL,
            self.numbers,
            own.tolist(),
            [halfvec_text(row) for row in rows],
        )

    async def find(
        self,
        sources: Sequence[Chosen] | Sequence[str],
        *,
        limit: int = 10,
        wanted: Mapping[str, Any] | None = None,
        everything: bool = False,
        **asked: Any,
    ) -> Found:
        """The blended list of these sources."""
        chosen = [Chosen(name=each, weight=1.0) if isinstance(each, str) else each for each in sources]
        return await find_blended(
            self.database,
            self.tenant,
            Wanted(now=NOW, limit=limit, **(wanted or {})),
            Asked(sources=chosen, **({"fallback": False} | asked)),
            everything=everything,
        )


def places(found: Found) -> list[int]:
    """The list as places."""
    return [int(hit.id) for hit in found.hits]


@pytest.fixture
async def floor(database: Database, make_tenant: MakeTenant) -> Floor:
    """Forty items, all of which can be shown, the highest place the newest."""
    tenant = await make_tenant()
    items = [
        Item(id=str(place), title=f"item {place}", brand=f"b{place % 4}", price=1000 + 10 * place)
        for place in range(40)
    ]
    numbers: list[int] = []
    async with database.tenant_session(tenant.tenant_id) as connection:
        for place, item in enumerate(items):
            created = NOW - timedelta(days=60) + timedelta(minutes=place)
            await catalog.upsert_items(connection, tenant, [item], now=created)
        found = await catalog.item_numbers(connection, tenant.tenant_id, [item.id for item in items])
        numbers = [found[item.id] for item in items]
    return Floor(database, tenant, numbers)
