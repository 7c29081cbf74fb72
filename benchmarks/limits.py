"""Three API processes at ten times a limit: how many calls pass.

    python -m benchmarks.limits [--seconds 60] [--per-min 60,300,1200,6000]

The limits are those of keys (`rate_per_min`), so each also has a burst of two seconds; what passes is held against
burst + rate × time. Clients send evenly, whatever comes back, over all three processes.
"""

import argparse
import time
from collections.abc import Sequence

import msgspec
import uvloop

from api.limits.gate import key_rate
from benchmarks.load import paced, post
from benchmarks.report import Line, print_report
from benchmarks.stage import Stage

_FEW: int = 4
_FAST_PER_MIN: int = 1_200


async def _run(seconds: float, limits: Sequence[int]) -> list[Line]:
    lines = []
    with Stage(workers=False) as stage:
        tenant = stage.make_tenant()
        async with stage.client(tenant) as client:
            items = [{"id": f"item-{n:04}", "title": f"lamp {n}"} for n in range(100)]
            (await client.post("/v1/items/bulk", json=items)).raise_for_status()
        ports = [stage.settings.port, stage.start_second_api(), stage.start_second_api()]
        body = msgspec.json.encode({"strategy": "popular"})
        await paced(ports, [post("/v1/recommend", tenant.secret_key, body)], 50, 2)
        for per_min in limits:
            rate = key_rate(per_min)
            key = stage.make_key(tenant, rate_per_min=per_min)
            began = time.perf_counter()
            tally = await paced(ports, [post("/v1/recommend", key, body)], 10 * per_min / 60, seconds)
            took = time.perf_counter() - began
            expected = rate.burst + took / rate.interval_s
            passed = tally.statuses[200]
            off = passed - expected
            met = abs(off) <= (0.05 * expected if per_min >= _FAST_PER_MIN else _FEW)
            others = {status: count for status, count in tally.statuses.items() if status not in (200, 429)}
            lines.append(
                Line(
                    f"{per_min / 60:g}/s, {sum(tally.statuses.values()):,} calls in {took:.0f} s: passed",
                    f"{passed:,} of {expected:,.0f} ({off / expected:+.1%})" + (f", errors {others}" if others else ""),
                    "± 5 %" if per_min >= _FAST_PER_MIN else f"± {_FEW}",
                    met and not others,
                )
            )
    return lines


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-min", default="60,300,1200,6000")
    arguments = parser.parse_args()
    limits = [int(each) for each in arguments.per_min.split(",")]
    print_report("limits", uvloop.run(_run(arguments.seconds, limits)))


if __name__ == "__main__":
    main()
