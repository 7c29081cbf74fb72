"""Bulk upsert of 10,000 items over HTTP, against COPY of the very same rows into identical tables without RLS.

    python -m benchmarks.bulk_upsert [--data ../shared/data] [--rounds 5]

Each round: a new tenant, one POST /v1/items/bulk (new rows), the rows it made copied out in binary, and COPYed
into copies of the tables (same columns and indexes, no row-level security) in one transaction. Then the same feed
again, unchanged. Reported: medians, the ratio round by round, and the API's memory before and after.
"""

import argparse
import asyncio
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, peak_memory_mb

ROWS = 10_000
_TABLES = ("item_ids", "items", "item_facets", "item_attrs", "item_text")


def feed(data: Path, rows: int) -> list[dict[str, Any]]:
    """Items of retail_demo_store, repeated under new ids until there are enough."""
    with (data / "retail_demo_store" / "items.jsonl").open() as lines:
        source = [json.loads(line) for line in lines]
    return [
        {
            "id": f"{row['id']}-{number}",
            "title": row["title"],
            "description": row["description"],
            "categories": [f"{row['category']} > {row['style']}"],
            "price": round(row["price"] * 100),
            "attributes": {"gender_affinity": row.get("gender_affinity") or "U", "style": row["style"]},
        }
        for number, row in ((number, source[number % len(source)]) for number in range(rows))
    ]


async def _copy(superuser_url: str, tenant_id: str) -> float:
    """Seconds that COPY needs for the rows of one tenant, into empty copies of the tables."""
    owner = await asyncpg.connect(superuser_url)
    try:
        await owner.execute("drop schema if exists bench cascade; create schema bench")
        for table in _TABLES:
            await owner.execute(f"create table bench.{table} (like public.{table} including all)")
        sources = {}
        for table in _TABLES:
            rows = io.BytesIO()
            await owner.copy_from_query(
                f"select * from public.{table} where tenant_id = '{tenant_id}'", output=rows, format="binary"
            )
            sources[table] = rows.getvalue()
        started = time.perf_counter()
        async with owner.transaction():
            for table in _TABLES:
                await owner.copy_to_table(
                    table, schema_name="bench", source=io.BytesIO(sources[table]), format="binary"
                )
        return time.perf_counter() - started
    finally:
        await owner.execute("drop schema if exists bench cascade")
        await owner.close()


async def _run(data: Path, rounds: int) -> list[Line]:
    body = msgspec.json.encode(feed(data, ROWS))
    fresh, copied, unchanged = [], [], []
    with Stage(workers=False) as stage:
        superuser = stage.superuser_url
        async with httpx.AsyncClient(base_url=stage.url, timeout=120) as client:
            before = peak_memory_mb(stage.api_pid)
            for _ in range(rounds):
                tenant = stage.make_tenant()
                headers = {"Authorization": f"Bearer {tenant.secret_key}", "Content-Type": "application/json"}

                async def post(headers: dict[str, str] = headers) -> float:
                    started = time.perf_counter()
                    answer = await client.post("/v1/items/bulk", content=body, headers=headers)
                    seconds = time.perf_counter() - started
                    assert answer.json()["accepted"] == ROWS, answer.text[:500]
                    return seconds

                fresh.append(await post())
                copied.append(await _copy(superuser, tenant.tenant_id))
                unchanged.append(await post())
            grown = peak_memory_mb(stage.api_pid) - before
    ratios = [copy / ours for copy, ours in zip(copied, fresh, strict=True)]
    return [
        Line("new rows, HTTP", f"{ROWS / statistics.median(fresh):,.0f} rows/s", None, None),
        Line("the same rows, COPY", f"{ROWS / statistics.median(copied):,.0f} rows/s", None, None),
        Line("ratio", f"{statistics.median(ratios):.2f}", "≥ 0.7", statistics.median(ratios) >= 0.7),
        Line(
            "unchanged feed",
            f"{ROWS / statistics.median(unchanged):,.0f} rows/s",
            "≥ 40,000 rows/s",
            ROWS / statistics.median(unchanged) >= 40_000,
        ),
        Line("growth of the API's peak memory", f"{grown:.0f} MB", "< 50 MB", grown < 50),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print_report("bulk_upsert", asyncio.run(_run(arguments.data, arguments.rounds)))


if __name__ == "__main__":
    main()
