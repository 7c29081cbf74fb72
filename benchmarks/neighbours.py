"""Precomputed neighbours of a shop of 10,000 items: agreement with the live exact list, time and memory of a build.

    python -m benchmarks.neighbours [--items 10000] [--seeds 200]

The shop is that of `benchmarks.similar`: texts and photos in clusters, items that lack one of them, groups of variants.
The live list is what the API answers for `similar` at the shop's weights and for `visually_similar`.
"""

import argparse
import time
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import numpy as np
import uvloop

from benchmarks.report import Line, print_report
from benchmarks.similar import Shop, fill, served
from benchmarks.stage import Stage
from infra.db import Database, TenantId, fetch
from tenants.jobs import list_jobs
from tenants.learned.neighbours import KIND_CONTENT, KIND_PHOTOS, NEIGHBOURS_JOB, queue_build
from tenants.lifecycle import TenantRef, load_tenant
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.wanted import Wanted
from tenants.vectors.generations import activate
from workers.jobs.neighbours import Neighbours
from workers.runner import JobLoop

_K = 20


async def _overlap(
    database: Database, ref: TenantRef, kind: int, seeds: list[int], stored: dict[int, list[int]]
) -> Line:
    weights = (ref.generation.text_weight, ref.generation.image_weight) if kind == KIND_CONTENT else (0.0, 1.0)
    shares = []
    for seed in seeds:
        wanted = Wanted(now=datetime.now(UTC), limit=_K)
        likeness = Likeness(seeds=[str(seed)], text_weight=weights[0], image_weight=weights[1])
        live = [hit.item_no for hit in (await find_similar(database, ref, wanted, likeness)).hits]
        if live:
            shares.append(len(set(live) & set(stored.get(seed, [])[:_K])) / len(live))
    name = "text and photos" if kind == KIND_CONTENT else "photos"
    mean = float(np.mean(shares))
    return Line(
        f"{name}: overlap@{_K} with the live list, {len(shares)} seeds, mean (worst)",
        f"{mean:.4f} ({min(shares):.2f})",
        "≥ 0.99",
        mean >= 0.99,
    )


async def _run(items: int, seeds: int) -> list[Line]:
    with Stage() as stage:
        tenant = stage.make_tenant()
        await served(stage, tenant)
        stage.stop_worker()
        await fill(stage, tenant, Shop(items))
        tenant_id = TenantId(UUID(tenant.tenant_id))
        database = stage.database(hot=2)
        await database.open()
        try:
            async with database.tenant_session(tenant_id) as conn:
                await queue_build(conn, tenant_id)
            began = time.perf_counter()
            await JobLoop(database, {NEIGHBOURS_JOB: Neighbours(database)}).step()
            took = time.perf_counter() - began
            async with database.tenant_session(tenant_id) as conn:
                report = (await list_jobs(conn, tenant_id))[0].report
            peak = msgspec.json.decode(report)["peak_mb"]
            lines = [
                Line(f"build of {items:,} items, two kinds, from Postgres to Postgres", f"{took:.1f} s", None, None),
                Line("peak memory of the child process", f"{peak:.0f} MB", "≤ 200 MB", peak <= 200),
            ]
            async with database.tenant_session(tenant_id) as conn:
                ref = await load_tenant(conn, tenant_id)
                numbers = dict(
                    await fetch(conn, "select item_no, external_id from item_ids where tenant_id = $1", tenant_id)
                )
                rows = await fetch(
                    conn,
                    "select kind, item_no, others from item_neighbours where tenant_id = $1 and build = $2",
                    tenant_id,
                    ref.generation.neighbours_build,
                )
                size = (await fetch(conn, "select pg_total_relation_size('item_neighbours') as bytes"))[0]["bytes"]
                # What answers live below is to know nothing of the build.
                await activate(conn, tenant_id, ref.generation.gen - 1)
            lines.append(Line("size of the lists, index included", f"{size / 1e6:.0f} MB", None, None))
            ref = await load_tenant(database, tenant_id)
            chosen = np.random.default_rng(5).integers(0, items, seeds).tolist()
            for kind in (KIND_CONTENT, KIND_PHOTOS):
                stored = {int(numbers[row["item_no"]]): row["others"] for row in rows if row["kind"] == kind}
                lines.append(await _overlap(database, ref, kind, chosen, stored))
            return lines
        finally:
            await database.close()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=200)
    arguments = parser.parse_args()
    print_report("neighbours", uvloop.run(_run(arguments.items, arguments.seeds)))


if __name__ == "__main__":
    main()
