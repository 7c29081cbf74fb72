"""One large tenant: moved to its own shard, then asked for items like an item, against exact lists.

    python -m benchmarks.large_tenant --items 200000 --data ../shared/data

Text vectors are those of `retail_demo_store` by the built text pack, each item a jittered copy of one; photo vectors
are drawn around one of 200 photos of the item's category (with `--synthetic`, the text vectors too), so the two halves
agree on the category and on nothing else. The server is an embedded one in a temporary folder, with Kindred's own
settings but for fsync. Prints a table, and one JSON object at the end.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import struct
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from infra import migrate
from infra.db import Database, driver
from infra.embedded import EmbeddedPostgres
from infra.roles import APP, OWNER, SYSTEM, role_url
from tenants.catalog.filters import Filter, parse_filter
from tenants.catalog.words import lexemes
from tenants.lifecycle import TenantRef, create_tenant, load_tenant
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.search import Spoken, find_spoken
from tenants.retrieval.wanted import Wanted
from tenants.vectors import shards
from tenants.vectors.generations import ensure_generation, ensure_layout, ensure_space

_TEXT, _IMAGE, _COUNT = 384, 256, 50
_NOW: Final = datetime(2026, 1, 15, tzinfo=UTC)
_WEIGHTS: Final = ((1.0, 0.0), (0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0.0, 1.0))

Floats = NDArray[np.float32]


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _products(data: Path) -> tuple[Floats, list[str], NDArray[np.int64]]:
    """Text vectors, titles and the number of the category of each product."""
    from workers.encoders.minilm import build_minilm
    from workers.encoders.text import OnnxTextEncoder

    lines = (data / "retail_demo_store" / "items.jsonl").read_text().splitlines()
    products = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        encoder = OnnxTextEncoder(build_minilm(Path(folder) / "pack"), threads=2)
        vectors = encoder.encode([f"{p['title']} {p['description']}"[:300] for p in products])
    names = sorted({p["category"] for p in products})
    return vectors, [p["title"] for p in products], np.array([names.index(p["category"]) for p in products])


def _synthetic(rng: np.random.Generator) -> tuple[Floats, list[str], NDArray[np.int64]]:
    category = rng.integers(20, size=2500)
    vectors = _crowds(rng, 20, _TEXT)[category] + _crowds(rng, 2500, _TEXT)
    return _unit(vectors), [f"product {number % 500} of kind {k}" for number, k in enumerate(category)], category


def _crowds(rng: np.random.Generator, count: int, dim: int) -> Floats:
    """Random directions with a falling spectrum, as encoders have."""
    return np.asarray(rng.normal(size=(count, dim)) / np.sqrt(1 + np.arange(dim) / 8), dtype=np.float32)


def _jittered(rng: np.random.Generator, rows: Floats, jitter: float) -> Floats:
    return _unit(rows + jitter * _unit(np.asarray(rng.normal(size=rows.shape), dtype=np.float32)))


def _catalogue(args: argparse.Namespace) -> tuple[NDArray[np.float16], list[str]]:
    rng = np.random.default_rng(5)
    vectors, titles, category = _synthetic(rng) if args.synthetic else _products(args.data)
    photos = _unit(
        np.repeat(_crowds(rng, category.max() + 1, _IMAGE), 200, axis=0)
        + _crowds(rng, 200 * (int(category.max()) + 1), _IMAGE)
    )
    base = rng.integers(len(vectors), size=args.items)
    photo = category[base] * 200 + rng.integers(200, size=args.items)
    text, image = _jittered(rng, vectors[base], args.jitter), _jittered(rng, photos[photo], args.jitter)
    return np.concatenate([text, image], axis=1).astype(np.float16), [titles[number] for number in base]


def _copy_rows(rows: NDArray[np.float16]) -> bytes:
    """PostgreSQL's binary COPY of (item number, halfvec)."""
    dim = rows.shape[1]
    kind = np.dtype(
        [
            ("fields", ">i2"),
            ("l0", ">i4"),
            ("no", ">i4"),
            ("l1", ">i4"),
            ("dim", ">i2"),
            ("unused", ">i2"),
            ("vec", ">u2", dim),
        ]
    )
    table = np.zeros(len(rows), kind)
    table["fields"], table["l0"], table["l1"], table["dim"] = 2, 4, 4 + 2 * dim, dim
    table["no"], table["vec"] = np.arange(1, len(rows) + 1), rows.view(np.uint16)
    return b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0) + table.tobytes() + struct.pack(">h", -1)


def _random_pairs(rows: NDArray[np.float16]) -> tuple[float, float]:
    sample = rows[:4000].astype(np.float32)
    cosines = (sample[::2] * sample[1::2]).sum(axis=1)
    return float(cosines.mean()), float(cosines.std())


async def _fill(database: Database, rows: NDArray[np.float16], titles: Sequence[str]) -> TenantRef:
    """A tenant with those items, written straight into the tables."""
    async with database.system_session(reason="benchmark") as conn:
        text = await ensure_space(conn, name="benchmark text", kind="text", dim=_TEXT)
        image = await ensure_space(conn, name="benchmark image", kind="image", dim=_IMAGE)
        layout = await ensure_layout(conn, text, image)
    tenant_id = await create_tenant(database, f"large {uuid4()}")
    async with database.system_session(reason="benchmark") as conn:
        calibration = {text: _random_pairs(rows[:, :_TEXT]), image: _random_pairs(rows[:, _TEXT:])}
        await ensure_generation(conn, tenant_id, layout, calibration)
    tenant = await load_tenant(database, tenant_id)
    connection = await asyncpg.connect(role_url(database.direct_url, SYSTEM))
    try:
        await connection.execute("create temporary table given (no int, vec halfvec)")
        await connection.copy_to_table("given", source=BytesIO(_copy_rows(rows)), format="binary")
        await connection.execute("create temporary table said (no int, words text)")
        words = [(number, b" ".join(lexemes(title, title)).decode()) for number, title in enumerate(titles, 1)]
        await connection.copy_records_to_table("said", records=words)
        for statement in (
            "insert into item_ids select $1, no, no::text from given",
            "insert into items (tenant_id, item_no, doc, content_hash, text_hash, image_hash, text_state, image_state, "
            "created_at, updated_at) select $1, no, jsonb_build_object('id', no::text), '', '', '', 1, 1, now(), now() "
            "from given",
            # price: uniform, so that a filter on it passes any share of the items.
            "insert into item_facets (tenant_id, item_no, price, currency, availability, hidden, available_from, "
            "expires_at, created_at) select $1, no, hashint4(no)::int8 + 2147483648, 'EUR', 0, false, '-infinity', "
            "'infinity', '2026-01-01' from given",
            "insert into item_text select 0, $1, no, array_to_tsvector(string_to_array(words, ' ')) from said",
        ):
            await connection.execute(statement, tenant_id)
        await connection.execute(
            f"insert into fused_vectors select 0, $1, {layout}, no, {tenant.generation.text.space_id}, "
            f"{tenant.generation.image.space_id}, vec from given",
            tenant_id,
        )
        await connection.execute(
            "update tenant_counters set next_item_no = $2 where tenant_id = $1", tenant_id, len(rows) + 1
        )
    finally:
        await connection.close()
    owner = await asyncpg.connect(role_url(database.direct_url, OWNER))
    await owner.execute("analyze item_ids, items, item_facets, item_text, fused_vectors")
    await owner.close()
    return tenant


def _percent(share: float) -> Filter:
    return parse_filter({"lt": ["price", int(share * 2**32)]})


class _Exact:
    """The true lists, by numpy over the stored half-precision values."""

    def __init__(self, rows: NDArray[np.float16], tenant: TenantRef, price: NDArray[np.int64]) -> None:
        self.rows = rows.astype(np.float32)
        self.generation = tenant.generation
        self.price = price

    def find(self, seed: int, weights: tuple[float, float], share: float | None) -> set[str]:
        generation = self.generation
        text = self.rows[:, :_TEXT] @ self.rows[seed, :_TEXT] * (weights[0] / generation.text.dev)
        image = self.rows[:, _TEXT:] @ self.rows[seed, _TEXT:] * (weights[1] / generation.image.dev)
        score = text + image
        score[seed] = -np.inf
        if share is not None:
            score[self.price >= int(share * 2**32)] = -np.inf
        best = np.argpartition(-score, _COUNT)[:_COUNT]
        return {str(number + 1) for number in best if np.isfinite(score[number])}


async def _measure(
    database: Database,
    tenant: TenantRef,
    exact: _Exact,
    seeds: Sequence[int],
    weights: tuple[float, float],
    share: float | None,
) -> dict[str, Any]:
    wanted = Wanted(now=_NOW, limit=_COUNT, filter=None if share is None else _percent(share))
    times, recalls = [], []
    for warm in (True, False):
        for seed in seeds[:20] if warm else seeds:
            likeness = Likeness(seeds=[str(seed + 1)], text_weight=weights[0], image_weight=weights[1])
            began = time.perf_counter()
            found = await find_similar(database, tenant, wanted, likeness)
            took = (time.perf_counter() - began) * 1000
            if warm:
                continue
            times.append(took)
            expected = exact.find(seed, weights, share)
            assert len(found.hits) == len(expected), (len(found.hits), len(expected))
            recalls.append(len(expected & {hit.id for hit in found.hits}) / len(expected))
    return {
        "weights": weights,
        "filter": share,
        "recall": round(statistics.fmean(recalls), 4),
        "worst": round(min(recalls), 2),
        **{f"p{p}_ms": round(float(np.percentile(times, p)), 1) for p in (50, 95, 99)},
    }


async def _measure_search(
    database: Database, tenant: TenantRef, exact: _Exact, seeds: Sequence[int], titles: Sequence[str]
) -> dict[str, Any]:
    times = []
    for warm in (True, False):
        for seed in seeds[:5] if warm else seeds:
            tokens = [token.lower() for token in titles[seed].split() if token.isalnum()][:3]
            spoken = Spoken(tokens=tokens, text=exact.rows[seed, :_TEXT])
            began = time.perf_counter()
            found = await find_spoken(database, tenant, Wanted(now=_NOW, limit=_COUNT), spoken)
            assert len(found.hits) == _COUNT
            if not warm:
                times.append((time.perf_counter() - began) * 1000)
    return {"search": True, **{f"p{p}_ms": round(float(np.percentile(times, p)), 1) for p in (50, 95, 99)}}


async def _run(args: argparse.Namespace, server: EmbeddedPostgres) -> dict[str, Any]:
    rows, titles = _catalogue(args)
    await migrate.upgrade(server.url(OWNER))
    database = Database(server.url(APP))
    await database.open()
    began = time.perf_counter()
    tenant = await _fill(database, rows, titles)
    print(f"filled in {time.perf_counter() - began:.0f} s", flush=True)
    async with database.system_session(reason="benchmark") as conn:
        raw = await driver(conn)
        price = np.array(
            [
                r[0]
                for r in await raw.fetch(
                    "select price from item_facets where tenant_id = $1 order by item_no", tenant.tenant_id
                )
            ]
        )
    exact = _Exact(rows, tenant, price)
    seeds = [int(seed) for seed in np.random.default_rng(9).choice(len(rows), args.queries, replace=False)]
    result: dict[str, Any] = {
        "items": args.items,
        "jitter": args.jitter,
        "synthetic": args.synthetic,
        "queries": args.queries,
        "lists": [],
    }

    async def record(name: str, figures: dict[str, Any]) -> None:
        print(f"{name:7}", *(f"{key}={value}" for key, value in figures.items()), flush=True)
        result["lists"].append({"shard": name, **figures})

    await record("shared", await _measure(database, tenant, exact, seeds[:20], (0.5, 0.5), None))
    await record("shared", await _measure_search(database, tenant, exact, seeds[:20], titles))
    steps: list[tuple[str, float]] = []
    shard = await shards.move_to_own_shard(
        database,
        tenant.tenant_id,
        memory_mb=args.memory_mb,
        progress=lambda step: steps.append((step, time.perf_counter())),
    )
    result["move_s"] = {a: round(end - start, 2) for (a, start), (_, end) in itertools.pairwise(steps)}
    print("move, s:", result["move_s"], flush=True)
    async with database.system_session(reason="benchmark") as conn:
        raw = await driver(conn)
        sizes = await raw.fetch(
            "select relname, pg_relation_size(oid) from pg_class where relname like $1 || '%' order by 1",
            f"fused_vectors_shard_{shard}",
        )
    result["megabytes"] = {name: round(size / 1e6, 1) for name, size in sizes}
    print("MB:", result["megabytes"], flush=True)
    moved = replace(tenant, shard=shard)
    # By its size now, the server gets other buffers.
    await database.close()
    server.stop()
    server.start()
    database = Database(server.url(APP))
    await database.open()
    for weights in _WEIGHTS:
        await record("own", await _measure(database, moved, exact, seeds, weights, None))
    for share in (0.001, 0.01, 0.1, 0.5):
        await record("own", await _measure(database, moved, exact, seeds[:30], (0.5, 0.5), share))
    await record("own", await _measure_search(database, moved, exact, seeds[:30], titles))
    await database.close()
    return result


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--synthetic", action="store_true", help="without the text pack and the data")
    parser.add_argument("--jitter", type=float, default=0.5, help="length of the noise added to a vector of length 1")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--json", type=Path, help="write the result here, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kindred-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder), settings={"fsync": "off", "max_wal_size": "4GB"}) as server:
            result = asyncio.run(_run(args, server))
    text = json.dumps(result)
    print(text)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
