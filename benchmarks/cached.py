"""Answers from the cache against a bare Litestar route that takes and gives the same structs, behind the same server.

    python -m benchmarks.cached [--seconds 4] [--rounds 3]

Both get the same bodies over the same connections, in turns. Ours authenticates, limits, counts, logs a line and writes
every answer into the answer log; the rows are counted at the end. With shoppers, each request names one of 5,000
(Zipf, s = 1.05), whose profile is looked up twice a second.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import uvloop
from litestar import Litestar
from litestar import post as route

from api.recommend.types import Answer, Query, RecommendedItem
from benchmarks.load import CLIENTS, load, post
from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, Tenant, cpu_s
from infra.db import driver

_ITEMS: Final = [
    RecommendedItem(id=f"item-{rank:04}", score=round(1 / rank, 4), rank=rank, source="new", fallback=False)
    for rank in range(1, 11)
]


def bare() -> Litestar:
    """An application of one route that does nothing."""

    @route("/v1/recommend", status_code=200)
    async def recommend(data: Query) -> Answer:
        return Answer(
            recommendation_id="01993b6e-7a10-7cc3-9f0e-3f6f6a4f2b11",
            items=_ITEMS[: data.count],
            model_version="g1:none+none",
            fallback_used=False,
            took_ms=0.1,
            cursor="x" * 80,
        )

    return Litestar([recommend], openapi_config=None, logging_config=None)


def _requests(tenant: Tenant, *, shoppers: bool) -> list[bytes]:
    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, 5001) ** 1.05
    names = rng.choice(5000, 20_000, p=weights / weights.sum())
    made = []
    for at, name in enumerate(names):
        query: dict[str, Any] = {"strategy": ("new", "popular")[at % 2], "count": 10}
        if at % 4 > 1:
            query["filter"] = {"eq": ["brand", f"b{at % 7}"]}
        if shoppers:
            query["user_id"] = f"shopper-{name}"
        body = msgspec.json.encode(query)
        made.append(post("/v1/recommend", tenant.secret_key, body))
    return made


async def _stock(client: httpx.AsyncClient) -> None:
    items = [{"id": f"item-{n:04}", "title": f"lamp {n}", "brand": f"b{n % 7}"} for n in range(1000)]
    (await client.post("/v1/items/bulk", json=items)).raise_for_status()


async def _rows(stage: Stage) -> int:
    database = stage.database(hot=0)
    async with database.system_session(reason="benchmark") as conn:
        count: int = await (await driver(conn)).fetchval("select count(*) from answers")
    await database.close()
    return count


async def _up(port: int) -> None:
    for _ in range(300):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise RuntimeError("the bare server did not start")


async def _run(seconds: float, rounds: int) -> list[Line]:
    with Stage(workers=False) as stage, socket.create_server(("127.0.0.1", 0)) as free:
        tenant = stage.make_tenant()
        async with stage.client(tenant) as client:
            await _stock(client)
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.cached:bare", "--port", str(port)]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        server = subprocess.Popen(command, env=dict(os.environ))
        try:
            await _up(port)
            lines = []
            for what, shoppers in (("without a shopper", False), ("with shoppers", True)):
                lines += await _compare(stage, port, _requests(tenant, shoppers=shoppers), what, seconds, rounds)
            return lines
        finally:
            server.terminate()
            server.wait(10)


async def _compare(
    stage: Stage, port: int, requests: Sequence[bytes], what: str, seconds: float, rounds: int
) -> list[Line]:
    ours, theirs, cpu = [], [], []
    own = stage.settings.port
    await load(own, requests, 1)
    await asyncio.sleep(1)
    before, answered = await _rows(stage), 0
    for _ in range(rounds):
        theirs.append(len(await load(port, requests, seconds)) / seconds)
        used = cpu_s(stage.api_pid)
        times = await load(own, requests, seconds)
        cpu.append((cpu_s(stage.api_pid) - used) / len(times) * 1e6)
        ours.append(len(times) / seconds)
        answered += len(times)
    await asyncio.sleep(2)
    logged = await _rows(stage) - before
    share = statistics.median(ours) / statistics.median(theirs)
    return [
        Line(f"{what}: bare route", f"{statistics.median(theirs):,.0f} requests/s", None, None),
        Line(f"{what}: cached answers", f"{statistics.median(ours):,.0f} requests/s", None, None),
        Line(f"{what}: cached / bare", f"{share:.2f}", "≥ 0.5", share >= 0.5),
        Line(f"{what}: CPU of the API per request", f"{statistics.median(cpu):.0f} µs", None, None),
        Line(
            f"{what}: answers in the log",
            f"{logged:,} of {answered:,}",
            "all",
            abs(logged - answered) <= CLIENTS * rounds,
        ),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print_report("cached", uvloop.run(_run(arguments.seconds, arguments.rounds)))


if __name__ == "__main__":
    main()
