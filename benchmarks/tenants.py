"""Memory of one API process that serves many shops and has filled its caches.

    python -m benchmarks.tenants [--tenants 50] [--items 2000] [--requests 600]

Each shop has its items with texts and photos, as the worker stores them, and is asked for lists with the fields that a
page shows: like an item, of the whole shop, and each shopper's own. The caches are full when they drop entries for want
of room, or hold every list that was asked for.
"""

import argparse
import asyncio

import msgspec
import numpy as np
import uvloop

from benchmarks.report import Line, print_report
from benchmarks.similar import Shop, fill, served
from benchmarks.stage import Stage, Tenant, memory_mb
from benchmarks.wire import Wire

_FIELDS = ["title", "price", "attributes"]


async def _browse(stage: Stage, tenant: Tenant, items: int, requests: int) -> None:
    rng = np.random.default_rng(3)
    async with Wire(stage, tenant) as wire:
        for number in range(requests):
            match number % 3:
                case 0:
                    body = {"strategy": "similar", "item_ids": [str(rng.integers(0, items))]}
                case 1:
                    body = {"strategy": "popular", "filter": {"lt": ["attributes.k", int(rng.integers(1, 1000))]}}
                case _:
                    body = {"strategy": "for_you", "visitor_id": f"{int(rng.integers(0, 1000)):032x}"}
            await wire.post("/v1/recommend", msgspec.json.encode({**body, "fields": _FIELDS, "count": 20}))
            assert wire.status == 200, wire.status


async def _run(tenants: int, items: int, requests: int) -> list[Line]:
    with Stage() as stage:
        shops = [stage.make_tenant() for _ in range(tenants)]
        for shop in shops:
            await served(stage, shop)
        stage.stop_worker()
        vectors = Shop(items)
        for shop in shops:
            await fill(stage, shop, vectors)
        idle = memory_mb(stage.api_pid)
        for at in range(0, tenants, 4):
            await asyncio.gather(*(_browse(stage, shop, items, requests) for shop in shops[at : at + 4]))
        held = sum(stage.metrics("cache_held_bytes").values()) / 1e6
        used = memory_mb(stage.api_pid)
    return [
        Line(f"API before {tenants} shops of {items:,} items are browsed (PSS)", f"{idle:.0f} MB", None, None),
        Line("held by its caches afterwards", f"{held:.0f} MB", None, None),
        Line("API with its caches warm (PSS)", f"{used:.0f} MB", "≤ 300 MB", used <= 300),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--requests", type=int, default=600)
    given = parser.parse_args()
    print_report("tenants", uvloop.run(_run(given.tenants, given.items, given.requests)))


if __name__ == "__main__":
    main()
