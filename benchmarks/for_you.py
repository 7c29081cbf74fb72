"""`for_you` and precomputed `similar` over 10,000 items and 5,000 shoppers: latency above the bare SQL, CPU of the API.

    python -m benchmarks.for_you [--items 10000] [--shoppers 5000] [--requests 300]

Events are 40 per shopper within two months; the learned rows (200 neighbours an item of each kind, vectors of 256
dimensions, popularity) are of the size that training leaves, their content is drawn. Nothing is cached: each request
names another shopper. The bare alternative is the very statement the API sends, run by asyncpg on one connection in the
same interleaved run.
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import msgspec
import numpy as np
import uvloop

from api.recommend.pipeline import serve
from api.recommend.types import Query
from benchmarks.report import Line, print_report
from benchmarks.similar import Shop, fill, served
from benchmarks.stage import Stage, Tenant, cpu_s, percentile
from benchmarks.wire import Wire
from infra.changes import record_change
from infra.db import Database, scoped
from infra.secret import Secret
from tenants.lifecycle import TenantRef, load_tenant

_NEIGHBOURS = """
insert into item_neighbours (tenant_id, kind, build, item_no, others, scores)
select $1, k, 1, i, (select array_agg((i * 7919 + k * 31 + n * n * 13 + n) % $2 + 1) from generate_series(1, 200) n),
    (select array_agg((32767 / (1 + n * 0.05))::int2 order by n) from generate_series(1, 200) n)
from unnest($3::int2[]) k, generate_series(1, $2) i
"""
_VECTORS = """
insert into behaviour_vectors (tenant_id, model, item_no, own, vec)
select $1, 1, i, 0.1, (select array_agg(random() - 0.5) from generate_series(1, 512) n where i > 0)::real[]::halfvec
from generate_series(1, $2) i
"""
_SCORES = """
insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events, repurchase_days)
select $1, 1, '', i, 1.0 / i, random(), 10, 30 from generate_series(1, $2) i
"""
_EVENTS = """
insert into events (tenant_id, ts, event_no, type, shopper_no, item_no)
select $1, now() - random() * interval '20 days', gen_random_uuid(),
    (array['view', 'view', 'view', 'click', 'add_to_cart', 'purchase'])[1 + floor(random() * 6)::int], s,
    1 + floor(random() * random() * $2)::int
from generate_series(1, $3) s, generate_series(1, 40)
"""


async def learn(stage: Stage, ref: TenantRef, items: int, shoppers: int) -> None:
    """Store what shoppers did and what was learned of it."""
    superuser = await asyncpg.connect(stage.superuser_url)
    tenant_id = ref.tenant_id
    await superuser.execute(_NEIGHBOURS, tenant_id, items, [1, 2, 3, 4, 5])
    await superuser.execute(_VECTORS, tenant_id, items)
    await superuser.execute(_SCORES, tenant_id, items)
    await superuser.execute(
        "insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key) "
        "select $1, s, 1, 'u' || s, 0 from generate_series(1, $2) s",
        tenant_id,
        shoppers,
    )
    await superuser.execute(_EVENTS, tenant_id, items, shoppers)
    await superuser.execute(
        "insert into neighbour_builds (tenant_id, build, layout_id, recipe, watermark, items, status) "
        "select $1, 1, g.layout_id, '', now(), $2, 'ready' from generations g where g.tenant_id = $1 limit 1",
        tenant_id,
        items,
    )
    await superuser.execute(
        "update generations set behaviour_model = 1, neighbours_build = 1 where tenant_id = $1", tenant_id
    )
    await superuser.execute("vacuum analyze")
    await superuser.close()
    database = stage.database(hot=0)
    async with database.tenant_session(tenant_id) as conn:
        await record_change(conn, tenant_id, "tenant")
    await database.close()


async def _statement(database: Database, ref: TenantRef, query: Query) -> tuple[str, list[Any]]:
    """The statement that a request sends, and its parameters."""
    seen: list[tuple[str, tuple[Any, ...]]] = []
    original = database.fetch_scoped

    async def listen(tenant_id: Any, inner: str, *args: object, **more: Any) -> Any:
        seen.append((inner, args))
        return await original(tenant_id, inner, *args, **more)

    database.fetch_scoped = listen  # type: ignore[method-assign]
    await serve(database, ref, query, now=datetime.now(UTC), secret=Secret(current=b"x" * 32))
    database.fetch_scoped = original  # type: ignore[method-assign]
    assert len(seen) == 1, [inner[:200] for inner, _ in seen]
    inner, args = seen[0]
    return scoped(inner), [str(ref.tenant_id), ref.tenant_id, *args]


async def _latency(
    stage: Stage, tenant: Tenant, database: Database, ref: TenantRef, requests: int, size: int, field: str
) -> list[Line]:
    """One kind of request: `field` names what is different each time."""
    rng = np.random.default_rng(3)

    def query(number: int) -> dict[str, Any]:
        if field == "user_id":
            return {"user_id": f"u{number}", "count": 20}
        return {"strategy": "similar", "item_ids": [str(number - 1)], "count": 20}

    sql, args = await _statement(database, ref, msgspec.convert(query(7), Query))
    wanted = "u7" if field == "user_id" else ["6"]
    places = [at for at, value in enumerate(args) if value == wanted]
    bare = await asyncpg.connect(
        stage.server.url("kindred_app"),
        server_settings={"jit": "off", "plan_cache_mode": "force_generic_plan"},
        max_cacheable_statement_size=0,
    )
    ours, theirs = [], []
    cpu = 0.0
    async with Wire(stage, tenant) as client:
        for number in range(requests + 20):
            body = query(int(rng.integers(1, size)))
            for place in places:
                args[place] = body["user_id"] if field == "user_id" else body["item_ids"]
            started = time.perf_counter()
            await bare.fetch(sql, *args)
            middle = time.perf_counter()
            answer = await client.post("/v1/recommend", msgspec.json.encode(body))
            ended = time.perf_counter()
            assert answer.count(b'"rank":') == 20, answer[:300]
            if number == 19:
                cpu = cpu_s(stage.api_pid)
            if number >= 20:
                theirs.append(middle - started)
                ours.append(ended - middle)
    await bare.close()
    used = (cpu_s(stage.api_pid) - cpu) / requests * 1e6
    above = (statistics.median(ours) - statistics.median(theirs)) * 1e3
    name = "for_you" if field == "user_id" else "similar"
    p99 = await _eight_clients(stage, tenant, requests, size, query)
    return [
        Line(f"{name}: own SQL, p50", f"{statistics.median(theirs) * 1e3:.2f} ms", None, None),
        Line(f"{name}: request above own SQL, p50", f"{above:.2f} ms", "≤ 0.8 ms", above <= 0.8),
        Line(f"{name}: CPU of the API per request", f"{used:.0f} µs", "≤ 500 µs", used <= 500),
        Line(f"{name}: 8 clients, p99", f"{p99:.0f} ms", "< 80 ms", p99 < 80),
    ]


_PLANNED = 10


async def _eight_clients(stage: Stage, tenant: Tenant, requests: int, size: int, query: Any) -> float:
    rng = np.random.default_rng(4)
    times: list[float] = []

    async def one(client: httpx.AsyncClient, numbers: list[int]) -> None:
        for at, number in enumerate(numbers):
            started = time.perf_counter()
            (await client.post("/v1/recommend", json=query(number))).raise_for_status()
            # The first ones are planned, once for each connection of the API.
            if at >= _PLANNED:
                times.append(time.perf_counter() - started)

    async with stage.client(tenant) as client:
        share = [rng.integers(1, size, _PLANNED + max(20, requests // 4)).tolist() for _ in range(8)]
        await asyncio.gather(*(one(client, numbers) for numbers in share))
    return percentile(times, 0.99) * 1e3


async def _run(items: int, shoppers: int, requests: int) -> list[Line]:
    with Stage() as stage:
        tenant = stage.make_tenant()
        await served(stage, tenant)
        stage.stop_worker()
        ref = await fill(stage, tenant, Shop(items))
        await learn(stage, ref, items, shoppers)
        database = stage.database(hot=2)
        await database.open()
        try:
            ref = await load_tenant(database, ref.tenant_id)
            return [
                *await _latency(stage, tenant, database, ref, requests, shoppers, "user_id"),
                *await _latency(stage, tenant, database, ref, requests, items, "item_ids"),
            ]
        finally:
            await database.close()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--shoppers", type=int, default=5_000)
    parser.add_argument("--requests", type=int, default=300)
    arguments = parser.parse_args()
    print_report("for_you", uvloop.run(_run(arguments.items, arguments.shoppers, arguments.requests)))


if __name__ == "__main__":
    main()
