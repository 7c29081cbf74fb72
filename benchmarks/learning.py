"""All learning jobs of one large shop, from Postgres to Postgres: time and memory.

    python -m benchmarks.learning [--shoppers 100000] [--items 50000] [--events 2000000] [--content]

Shoppers of 50 tastes meet items by Zipf's law in visits over 180 days; a tenth of the events are purchases. Measured is
what a worker does: popularity, the training job (events read, every model fitted and validated, rows stored, the model
activated) and, with --content, the neighbours by text and photos of all items (640 dimensions), which are then lent
from. Memory is the peak of the child process and of the worker's own. Last, shoppers are answered by the behaviour
source alone of the model that was trained: one statement, as it stands in every personal list.
"""

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import numpy as np
import uvloop

from benchmarks.report import Line, print_report
from infra import migrate
from infra.copybinary import HEADER, TRAILER, pack_rows
from infra.db import Database, TenantId, driver
from infra.embedded import EmbeddedPostgres
from infra.partitions import ensure_partitions
from infra.roles import APP, OWNER, SYSTEM, database_url
from tenants.jobs import list_jobs
from tenants.learned.models import TRAIN_JOB, list_models, queue_training
from tenants.learned.neighbours import NEIGHBOURS_JOB, queue_build
from tenants.learned.popularity import refresh_popularity
from tenants.lifecycle import create_tenant, load_tenant
from tenants.retrieval.wanted import Wanted
from tenants.sources.scene import Asked, Chosen, ShopperKey
from tenants.sources.statement import find_blended
from tenants.vectors.generations import ensure_generation, ensure_layout, ensure_space
from workers.jobs.neighbours import Neighbours
from workers.jobs.train import Training
from workers.runner import JobLoop

_TYPES = ("click", "view", "add_to_cart", "purchase")
_TASTES = 50
_DIM = 640
_DAYS = 180
_DAY_US = 86_400_000_000
_WARM = 20
_ANSWERS = 400
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def draw(folder: Path, shoppers: int, items: int, events: int, content: bool, now_us: int) -> None:
    """Write the log and the vectors as binary COPY; in a process of its own, so that its memory is not the worker's."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, items + 1) ** 0.8
    activity = rng.pareto(1.5, shoppers) + 1
    shopper = rng.choice(shoppers, events, p=activity / activity.sum())
    taste, of_taste = rng.integers(0, _TASTES, shoppers), rng.integers(0, _TASTES, items)
    item = rng.choice(items, events, p=share / share.sum())
    own = rng.random(events) < 0.6
    for each in range(_TASTES):
        members = np.flatnonzero(of_taste == each)
        rows = np.flatnonzero(own & (taste[shopper] == each))
        item[rows] = rng.choice(members, len(rows), p=share[members] / share[members].sum())
    day = rng.integers(0, _DAYS, events)
    # A shopper's events of one day fall within one visit.
    second = (shopper * 7919 + day * 104729) % 80_000 + rng.integers(0, 1200, events)
    ts = now_us - (day + 1) * _DAY_US + second * 1_000_000
    kind = rng.choice(len(_TYPES), events, p=[0.2, 0.6, 0.1, 0.1])
    columns: list[Any] = [("int8", ts), ("int2", kind), ("int8", shopper + 1), ("int4", item + 1)]
    (folder / "events.copy").write_bytes(HEADER + pack_rows(columns) + TRAILER)
    if content:
        centres = rng.normal(size=(items // 40 + 1, _DIM)).astype(np.float32)
        with (folder / "vectors.copy").open("wb") as file:
            file.write(HEADER)
            for at in range(0, items, 8192):
                rows = np.arange(at, min(items, at + 8192))
                near = _TASTES * (rows // (40 * _TASTES)) + of_taste[rows]
                vectors = centres[near % len(centres)] + 0.7 * rng.normal(size=(len(rows), _DIM)).astype(np.float32)
                for half in (slice(0, 384), slice(384, None)):
                    vectors[:, half] /= np.linalg.norm(vectors[:, half], axis=1, keepdims=True)
                file.write(pack_rows([("int4", rows + 1), ("halfvec", vectors)]))
            file.write(TRAILER)


async def _fill(superuser: str, tenant_id: TenantId, layout: tuple[int, int, int], folder: Path, args: Any) -> None:
    connection = await asyncpg.connect(superuser)
    await connection.execute("create temporary table log (ts int8, kind int2, shopper_no int8, item_no int4)")
    await connection.copy_to_table("log", source=str(folder / "events.copy"), format="binary")
    await connection.execute(
        "insert into events (tenant_id, ts, event_no, type, shopper_no, item_no) select $1, "
        "$2::timestamptz + l.ts * interval '1 microsecond', gen_random_uuid(), ($3::text[])[l.kind + 1], "
        "l.shopper_no, l.item_no from log l order by l.ts",
        tenant_id,
        _EPOCH,
        list(_TYPES),
    )
    await connection.execute(
        "insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key) "
        "select $1, n, 1, n::text, 0 from generate_series(1, $2) n",
        tenant_id,
        args.shoppers,
    )
    await connection.execute(
        "insert into item_ids (tenant_id, item_no, external_id) select $1, n, n::text from generate_series(1, $2) n",
        tenant_id,
        args.items,
    )
    await connection.execute(
        "insert into item_facets (tenant_id, item_no, currency, availability, hidden, available_from, expires_at, "
        "created_at) select $1, n, 'USD', 0, false, '-infinity', 'infinity', now() from generate_series(1, $2) n",
        tenant_id,
        args.items,
    )
    if args.content:
        await connection.execute("create temporary table halves (item_no int4, vec halfvec)")
        await connection.copy_to_table("halves", source=str(folder / "vectors.copy"), format="binary")
        await connection.execute(
            "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
            "select 0, $1, $2, h.item_no, $3, $4, h.vec from halves h",
            tenant_id,
            *layout,
        )
    await connection.execute("vacuum analyze")
    await connection.close()


async def _run(args: argparse.Namespace) -> list[Line]:
    folder = Path(tempfile.mkdtemp(prefix="kindred-bench-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder)
    server.start()
    now = datetime.now(UTC)
    try:
        await migrate.upgrade(server.url(OWNER))
        system = await asyncpg.connect(server.url(SYSTEM))
        for month in range(_DAYS // 30 + 1, -1, -1):
            await ensure_partitions(system, datetime.fromtimestamp(now.timestamp() - month * 30 * 86_400, UTC))
        await system.close()
        now_us = int((now - _EPOCH).total_seconds() * 1e6)
        drawing = multiprocessing.get_context("spawn").Process(
            target=draw, args=(folder, args.shoppers, args.items, args.events, args.content, now_us)
        )
        drawing.start()
        drawing.join()
        database = Database(server.url(APP), hot=1, sessions=2)
        await database.open()
        tenant_id = await create_tenant(database, "bench")
        async with database.system_session(reason="benchmark") as conn:
            text = await ensure_space(conn, name="text", kind="text", dim=384)
            image = await ensure_space(conn, name="image", kind="image", dim=_DIM - 384)
            layout = await ensure_layout(conn, text, image)
        async with database.tenant_session(tenant_id) as conn:
            await ensure_generation(conn, tenant_id, layout, {text: (0.2, 0.2), image: (0.2, 0.2)})
        await _fill(database_url(server.superuser_url, "kindred"), tenant_id, (layout, text, image), folder, args)
        return await _measure(database, tenant_id, args, now)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(server.home, ignore_errors=True)


async def _measure(database: Database, tenant_id: TenantId, args: argparse.Namespace, now: datetime) -> list[Line]:
    lines = []
    total = 0.0
    peak = 0.0
    if args.content:
        async with database.tenant_session(tenant_id) as conn:
            await queue_build(conn, tenant_id)
        took, job_peak = await _job(database, tenant_id, {NEIGHBOURS_JOB: Neighbours(database)})
        total, peak = total + took, max(peak, job_peak)
        lines.append(Line("neighbours by text and photos, two kinds", f"{took:.0f} s, {job_peak:.0f} MB", None, None))
    began = time.perf_counter()
    async with database.tenant_session(tenant_id) as conn:
        tenant = await load_tenant(conn, tenant_id)
        await refresh_popularity(conn, tenant_id, tenant.event_weights, model=0, now=now)
    took = time.perf_counter() - began
    total += took
    lines.append(Line("popularity and trend", f"{took:.1f} s", None, None))
    async with database.tenant_session(tenant_id) as conn:
        await queue_training(conn, tenant_id, asked=True)
    took, job_peak = await _job(database, tenant_id, {TRAIN_JOB: Training(database)})
    total, peak = total + took, max(peak, job_peak)
    async with database.tenant_session(tenant_id) as conn:
        (model,) = await list_models(conn, tenant_id)
    metrics = msgspec.json.decode(model.metrics)
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in metrics["seconds"].items())
    cpu = metrics["usage"]["cpu_s"]
    lines.append(Line("training, from events to serving", f"{took:.0f} s ({steps})", None, None))
    lines.append(Line("CPU of the training's process, both cores", f"{cpu:.0f} s", None, None))
    recall = metrics["validation"]["recall@20"]
    lines.append(Line("recall@20 on the held-out window", str(recall), None, None))
    lines.append(await _recall_stage(database, tenant_id, args, now))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines += [
        Line("all of it", f"{total:.0f} s", "≤ 180 s", total <= 180),
        Line("peak memory: child process", f"{peak:.0f} MB", "≤ 1200 MB", peak <= 1200),
        Line("peak memory: the worker's own", f"{own:.0f} MB", None, None),
    ]
    await database.close()
    return lines


async def _recall_stage(database: Database, tenant_id: TenantId, args: argparse.Namespace, now: datetime) -> Line:
    async with database.system_session(reason="benchmark") as conn:
        for table in ("item_neighbours", "behaviour_vectors", "behaviour_models", "item_scores"):
            await (await driver(conn)).execute(f"analyze {table}")
    tenant = await load_tenant(database, tenant_id)
    space = "als" if "als" in tenant.generation.blend else "graph"
    asked = Asked(sources=[Chosen(name=space, weight=1.0)], fallback=False)
    took, full = [], 0
    for number in np.random.default_rng(1).integers(1, args.shoppers + 1, _WARM + _ANSWERS).tolist():
        one = msgspec.structs.replace(asked, shopper=ShopperKey(kind=1, id=str(number)))
        began = time.perf_counter()
        found = await find_blended(database, tenant, Wanted(now=now, limit=20), one)
        took.append((time.perf_counter() - began) * 1000)
        full += len(found.hits) == 20
    p50, p99 = np.percentile(took[_WARM:], [50, 99])
    return Line(
        f"recall stage ({space}), {_ANSWERS} shoppers: p99 (p50, lists that are full)",
        f"{p99:.1f} ms ({p50:.1f} ms, {full / len(took):.0%})",
        "≤ 20 ms",
        bool(p99 <= 20),
    )


async def _job(database: Database, tenant_id: TenantId, handlers: Any) -> tuple[float, float]:
    """Run the job that waits; seconds, and the child's peak in MB."""
    began = time.perf_counter()
    await JobLoop(database, handlers).step()
    took = time.perf_counter() - began
    async with database.tenant_session(tenant_id) as conn:
        job = (await list_jobs(conn, tenant_id))[0]
    assert job.status == "done", (job.error, job.status)
    return took, msgspec.json.decode(job.report)["peak_mb"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shoppers", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--content", action="store_true")
    print_report("learning", uvloop.run(_run(parser.parse_args())))


if __name__ == "__main__":
    main()
