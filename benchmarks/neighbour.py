"""A noisy neighbour: one tenant at a hundred times its rate, and what another one notices.

    python -m benchmarks.neighbour [--seconds 6] [--pairs 5]

The quiet one asks ten times a second, every other list new and so not kept. The noisy one has the free plan (10 calls
a second) and sends a thousand a second from a process of its own. Measured alone and beside it, in turns.
"""

import argparse
import asyncio
import statistics
import sys
from uuid import UUID

import msgspec
import uvloop

from benchmarks.load import paced, post
from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, percentile
from infra.db import TenantId
from tenants.lifecycle import set_plan

_QUIET_PER_S = 10.0
_NOISY_PER_S = 1_000.0


def _body(brand: str) -> bytes:
    return msgspec.json.encode({"strategy": "popular", "filter": {"eq": ["brand", brand]}, "count": 10})


async def _noise(port: int, key: str, seconds: float) -> None:
    """Send, and print what came back."""
    tally = await paced([port], [post("/v1/recommend", key, _body("b1"))], _NOISY_PER_S, seconds, each=16)
    print(msgspec.json.encode({str(status): count for status, count in tally.statuses.items()}).decode())


async def _run(seconds: float, pairs: int) -> list[Line]:
    with Stage(workers=False, environment={"KINDRED_ENTITLEMENTS": "plans"}) as stage:
        quiet, noisy = stage.make_tenant(), stage.make_tenant()
        database = stage.database(hot=0)
        await set_plan(database, TenantId(UUID(quiet.tenant_id)), "pro")
        await database.close()
        for tenant in (quiet, noisy):
            async with stage.client(tenant) as client:
                items = [{"id": f"item-{n:04}", "title": f"lamp {n}", "brand": f"b{n % 7}"} for n in range(1_000)]
                (await client.post("/v1/items/bulk", json=items)).raise_for_status()
        port = stage.settings.port
        ratios, alone_ms, beside_ms, errors = [], [], [], 0
        noise: dict[str, int] = {}
        turns = iter(range(10**6))

        async def measure() -> float:
            nonlocal errors
            brands = [f"b{next(turns) if at % 2 else at % 7}" for at in range(round(_QUIET_PER_S * seconds))]
            requests = [post("/v1/recommend", quiet.secret_key, _body(brand)) for brand in brands]
            tally = await paced([port], requests, _QUIET_PER_S, seconds, each=2)
            errors += sum(count for status, count in tally.statuses.items() if status != 200)
            return percentile(tally.times, 0.95) * 1000

        await measure()
        for _ in range(pairs):
            alone = await measure()
            command = ["-m", "benchmarks.neighbour", "--noise", noisy.secret_key, "--port", str(port)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--seconds", str(seconds + 4), stdout=asyncio.subprocess.PIPE
            )
            await asyncio.sleep(3)  # until it sends
            beside = await measure()
            told, _ = await process.communicate()
            for status, count in msgspec.json.decode(told, type=dict[str, int]).items():
                noise[status] = noise.get(status, 0) + count
            ratios.append(beside / alone)
            alone_ms.append(alone)
            beside_ms.append(beside)
    ratio = statistics.median(ratios)
    return [
        Line("quiet tenant alone: p95", f"{statistics.median(alone_ms):.1f} ms", None, None),
        Line("beside a neighbour at 100 × its rate: p95", f"{statistics.median(beside_ms):.1f} ms", None, None),
        Line("beside / alone", f"{ratio:.2f}", "≤ 1.5", ratio <= 1.5),
        Line("errors of the quiet tenant", str(errors), "0", errors == 0),
        Line("what the neighbour got", str(noise), None, None),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--noise", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.noise is not None:
        uvloop.run(_noise(arguments.port, arguments.noise, arguments.seconds))
        return
    print_report("neighbour", uvloop.run(_run(arguments.seconds, arguments.pairs)))


if __name__ == "__main__":
    main()
