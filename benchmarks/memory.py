"""Memory of each process after the demo shop is loaded and has been browsed (proportional set size).

python -m benchmarks.memory
"""

import asyncio

import numpy as np
from rich.console import Console

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, memory_mb
from infra.demo.load import load_demo, wait_until_encoded

_BROWSED = 300


async def _browse(stage: Stage) -> None:
    async with stage.client(stage.make_tenant()) as client:
        await load_demo(client, Console())
        await wait_until_encoded(client, Console())
        items = (await client.get("/v1/items", params={"limit": 400})).json()["items"]
        rng = np.random.default_rng(1)
        for number in range(_BROWSED):
            item = items[int(rng.integers(0, len(items)))]
            item_id = item.get("id") or item["item"]["id"]
            await client.post("/v1/recommend", json={"strategy": "similar", "item_ids": [item_id], "fields": ["title"]})
            await client.post("/v1/search", json={"query": f"lamp {number}"})


def main() -> None:
    """Run and print."""
    with Stage() as stage:
        asyncio.run(_browse(stage))
        api, worker = memory_mb(stage.api_pid), memory_mb(stage.worker_pid)
        postgres = sum(memory_mb(pid) for pid in stage.postgres_pids)
    print_report(
        "memory",
        [
            Line("API", f"{api:.0f} MB", "≤ 120 MB", api <= 120),
            Line("encode worker", f"{worker:.0f} MB", "≤ 250 MB", worker <= 250),
            Line("embedded PostgreSQL, all processes", f"{postgres:.0f} MB", "≤ 150 MB", postgres <= 150),
        ],
    )


if __name__ == "__main__":
    main()
