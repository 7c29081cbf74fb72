"""`similar` over a shop of 10,000 items: latency above the bare SQL, CPU of the API, and exactness against numpy.

    python -m benchmarks.similar [--items 10000] [--requests 400]

Vectors are clustered and jittered, 384 + 256 dimensions, stored as the worker stores them; items without text or photo
and groups are among them. The bare alternative is the very statement the API sends, run by asyncpg on one connection in
the same interleaved run. Exactness: recall@50 against numpy over the stored half-precision values, ties by item number.
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, Tenant, cpu_s, percentile
from benchmarks.wire import Wire
from infra.db import Database, TenantId, driver, scoped
from tenants.catalog.filters import parse_filter
from tenants.lifecycle import TenantRef, load_tenant
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.wanted import Wanted
from tenants.vectors.form import halfvec_text

_TEXT, _IMAGE = 384, 256
_FILTERS: dict[str, dict[str, Any] | None] = {
    "no filter": None,
    "0.1 %": {"eq": ["attributes.k", 7]},
    "1 %": {"lt": ["attributes.k", 10]},
    "10 %": {"lt": ["attributes.k", 100]},
    "100 %": {"exists": "attributes.k"},
}
_WEIGHTS = ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))


class Shop:
    """The stored vectors, as numpy needs them."""

    def __init__(self, items: int) -> None:
        rng = np.random.default_rng(11)
        centres = rng.normal(size=(max(20, items // 50), _TEXT + _IMAGE)).astype(np.float32)
        vectors = centres[rng.integers(0, len(centres), items)]
        vectors = vectors + 0.7 * rng.normal(size=vectors.shape).astype(np.float32) + 0.3
        for half in (slice(0, _TEXT), slice(_TEXT, None)):
            vectors[:, half] /= np.linalg.norm(vectors[:, half], axis=1, keepdims=True)
        self.has_text = rng.random(items) > 0.02
        self.has_image = rng.random(items) > 0.1
        vectors[~self.has_text, :_TEXT] = 0
        vectors[~self.has_image, _TEXT:] = 0
        self.stored: NDArray[np.float16] = vectors.astype(np.float16)
        self.exact: NDArray[np.float64] = self.stored.astype(np.float64)
        self.groups = [f"g{n // 20}" if n % 10 == 0 else None for n in range(items)]
        self.numbers: NDArray[np.int64] = np.zeros(items, np.int64)

    def expected(
        self, seed: int, weights: tuple[float, float], tenant: TenantRef, below: int | None, k: int
    ) -> list[int]:
        """Places of the best k items, by numpy."""
        generation = tenant.generation
        total = np.zeros(len(self.exact))
        norm = np.zeros(len(self.exact))
        for weight, space, has, half in (
            (weights[0], generation.text, self.has_text, slice(0, _TEXT)),
            (weights[1], generation.image, self.has_image, slice(_TEXT, None)),
        ):
            if weight and has[seed]:
                cosine = self.exact[:, half] @ self.exact[seed, half]
                total += np.where(has, weight * (cosine - space.mean) / space.dev, 0)
                norm += np.where(has, weight**2, 0)
        score = np.where(norm > 0, total / np.sqrt(np.where(norm > 0, norm, 1)), -np.inf)
        groups = {self.groups[seed]} - {None}
        best: list[int] = []
        for place in np.lexsort((self.numbers, -score)):
            group = self.groups[place]
            allowed = below is None or place % 1000 < below if below != -7 else place % 1000 == 7
            if score[place] == -np.inf or not allowed or place == seed or (group is not None and group in groups):
                continue
            groups |= {group} - {None}
            best.append(int(place))
            if len(best) == k:
                break
        return best


async def served(stage: Stage, tenant: Tenant) -> None:
    """Wait until the worker has given a new tenant its spaces."""
    database = stage.database(hot=1)
    await database.open()
    while not (await load_tenant(database, TenantId(UUID(tenant.tenant_id)))).generation.gen:
        await asyncio.sleep(0.1)
    await database.close()


async def fill(stage: Stage, tenant: Tenant, shop: Shop) -> TenantRef:
    """Store the items over HTTP and their vectors as the worker would."""
    count = len(shop.stored)
    async with stage.client(tenant) as client:
        for start in range(0, count, 5000):
            rows = [
                {
                    "id": str(n),
                    "title": f"item {n}",
                    "price": n,
                    "attributes": {"k": n % 1000},
                    **({"group_id": shop.groups[n]} if shop.groups[n] else {}),
                }
                for n in range(start, min(count, start + 5000))
            ]
            (await client.post("/v1/items/bulk", json=rows)).raise_for_status()
    database = stage.database(hot=1)
    await database.open()
    tenant_id = TenantId(UUID(tenant.tenant_id))
    ref = await load_tenant(database, tenant_id)
    generation = ref.generation
    async with database.tenant_session(tenant_id) as conn:
        raw = await driver(conn)
        numbers = dict(await raw.fetch("select external_id, item_no from item_ids where tenant_id = $1", tenant_id))
        shop.numbers = np.array([numbers[str(n)] for n in range(count)])
        for start in range(0, count, 2000):
            part = slice(start, start + 2000)
            await raw.execute(
                "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
                "select 0, $1, $2, n, t, i, v::halfvec from unnest($3::int4[], $4::int2[], $5::int2[], $6::text[]) "
                "x(n, t, i, v) where t > 0 or i > 0",
                tenant_id,
                generation.layout_id,
                shop.numbers[part].tolist(),
                np.where(shop.has_text[part], generation.text.space_id, 0).tolist(),
                np.where(shop.has_image[part], generation.image.space_id, 0).tolist(),
                [halfvec_text(row) for row in shop.stored[part].astype(np.float32)],
            )
    await database.close()
    superuser = await asyncpg.connect(stage.superuser_url)
    await superuser.execute("vacuum analyze")
    await superuser.close()
    return ref


async def _exactness(database: Database, ref: TenantRef, shop: Shop) -> list[Line]:
    rng = np.random.default_rng(5)
    lines = []
    for weights in _WEIGHTS:
        worst, short = 1.0, 0
        for name, tree in _FILTERS.items():
            below = {"no filter": None, "0.1 %": -7, "1 %": 10, "10 %": 100, "100 %": None}[name]
            for seed in rng.integers(0, len(shop.stored), 12):
                expected = shop.expected(int(seed), weights, ref, below, 50)
                wanted = Wanted(now=datetime.now(UTC), limit=50, filter=parse_filter(tree) if tree else None)
                likeness = Likeness(seeds=[str(seed)], text_weight=weights[0], image_weight=weights[1])
                hits = (await find_similar(database, ref, wanted, likeness)).hits
                short += len(hits) != len(expected)
                if expected:
                    worst = min(worst, len({int(hit.id) for hit in hits} & set(expected)) / len(expected))
        lines.append(
            Line(f"recall@50, weights {weights}, filters 0.1–100 %, worst list", f"{worst:.3f}", "1.0", worst == 1.0)
        )
        lines.append(Line(f"lists of a wrong length, weights {weights}", str(short), "0", short == 0))
    return lines


async def _statement(database: Database, ref: TenantRef, tree: dict[str, Any] | None) -> tuple[str, list[Any]]:
    """The statement that a request sends, and its parameters for one seed."""
    seen: list[tuple[str, tuple[Any, ...]]] = []
    original = database.fetch_scoped

    async def listen(tenant_id: TenantId, inner: str, *args: object) -> Any:
        seen.append((inner, args))
        return await original(tenant_id, inner, *args)

    database.fetch_scoped = listen  # type: ignore[method-assign]
    wanted = Wanted(now=datetime.now(UTC), limit=20, filter=parse_filter(tree) if tree else None)
    generation = ref.generation
    await find_similar(
        database,
        ref,
        wanted,
        Likeness(seeds=["1"], text_weight=generation.text_weight, image_weight=generation.image_weight),
    )
    database.fetch_scoped = original  # type: ignore[method-assign]
    inner, args = seen[0]
    return scoped(inner), [str(ref.tenant_id), ref.tenant_id, *args]


async def _latency(
    stage: Stage, tenant: Tenant, database: Database, ref: TenantRef, requests: int, items: int
) -> list[Line]:
    lines = []
    rng = np.random.default_rng(3)
    bare = await asyncpg.connect(stage.server.url("kindred_app"), server_settings={"jit": "off"})
    async with Wire(stage, tenant) as client:
        for name, tree in (("filter off", None), ("filter on (10 %)", _FILTERS["10 %"])):
            sql, args = await _statement(database, ref, tree)
            place = next(at for at, value in enumerate(args) if value == "1")
            ours, theirs = [], []
            cpu = cpu_s(stage.api_pid)
            for number in range(requests + 20):
                seed = str(rng.integers(0, items))
                args[place] = seed
                started = time.perf_counter()
                await bare.fetch(sql, *args)
                middle = time.perf_counter()
                body = {"strategy": "similar", "item_ids": [seed], "count": 20}
                if tree is not None:
                    body["filter"] = tree
                answer = await client.post("/v1/recommend", msgspec.json.encode(body))
                ended = time.perf_counter()
                assert answer.count(b'"rank":') == 20, answer[:300]
                if number == 19:
                    cpu = cpu_s(stage.api_pid)
                if number >= 20:
                    theirs.append(middle - started)
                    ours.append(ended - middle)
            used = (cpu_s(stage.api_pid) - cpu) / requests * 1e6
            above = (statistics.median(ours) - statistics.median(theirs)) * 1e3
            lines += [
                Line(f"{name}: own SQL, p50", f"{statistics.median(theirs) * 1e3:.2f} ms", None, None),
                Line(f"{name}: request above own SQL, p50", f"{above:.2f} ms", "≤ 0.6 ms", above <= 0.6),
                Line(f"{name}: CPU of the API per request", f"{used:.0f} µs", "≤ 450 µs", used <= 450),
            ]
    await bare.close()
    return [*lines, *await _eight_clients(stage, tenant, requests, items)]


async def _eight_clients(stage: Stage, tenant: Tenant, requests: int, items: int) -> list[Line]:
    rng = np.random.default_rng(4)
    times: list[float] = []

    async def one(seeds: list[str]) -> None:
        async with Wire(stage, tenant) as client:
            for seed in seeds:
                started = time.perf_counter()
                body = msgspec.json.encode({"strategy": "similar", "item_ids": [seed], "count": 20})
                answer = await client.post("/v1/recommend", body)
                times.append(time.perf_counter() - started)
                assert answer.count(b'"rank":') == 20, answer[:300]

    cpu = cpu_s(stage.api_pid)
    share = [[str(n) for n in rng.integers(0, items, requests // 4)] for _ in range(8)]
    await asyncio.gather(*(one(seeds) for seeds in share))
    used = (cpu_s(stage.api_pid) - cpu) / len(times) * 1e6
    p99 = percentile(times, 0.99) * 1e3
    return [
        Line("8 clients, p99", f"{p99:.0f} ms (p50 {statistics.median(times) * 1e3:.0f} ms)", "< 80 ms", p99 < 80),
        Line("8 clients: CPU of the API per request", f"{used:.0f} µs", "≤ 450 µs", used <= 450),
    ]


async def _run(items: int, requests: int) -> list[Line]:
    with Stage() as stage:
        tenant = stage.make_tenant()
        await served(stage, tenant)
        stage.stop_worker()
        shop = Shop(items)
        ref = await fill(stage, tenant, shop)
        database = stage.database(hot=2)
        await database.open()
        try:
            lines = await _latency(stage, tenant, database, ref, requests, items)
            return [*lines, *await _exactness(database, ref, shop)]
        finally:
            await database.close()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=400)
    arguments = parser.parse_args()
    print_report("similar", uvloop.run(_run(arguments.items, arguments.requests)))


if __name__ == "__main__":
    main()
