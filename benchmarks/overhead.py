"""What knowing the caller and its limits costs a cached answer, and what a refusal costs.

    python -m benchmarks.overhead [--seconds 4] [--rounds 5]

Three processes over one database answer the same requests in turns: one as it is, whose caller has a plan with two
rates and a key with a third; one that takes everybody for that caller and limits nobody; and again the first, for a
key that is over its limit. CPU is that of the process, so the settling of the limits in the background is in it.
"""

import argparse
import asyncio
import statistics
import sys
from typing import Any, Final
from uuid import UUID

import msgspec
import uvloop

import api.__main__ as server
from api.app import ROUTES, Application, create_app
from api.auth import Caller
from api.direct import direct_routes
from api.edge import Edge
from benchmarks.load import load, post
from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, cpu_s
from billing import plans
from infra.db import TenantId
from tenants.keys import SCOPES
from tenants.lifecycle import set_plan

_MUCH: Final = 10_000_000


class _Anybody:
    """Takes everybody for one caller."""

    def __init__(self, tenant_id: str) -> None:
        self._caller = Caller(
            tenant_id=TenantId(UUID(tenant_id)),
            key_id="0",
            kind="secret",
            scopes=frozenset(SCOPES),
            placements=None,
            rate_per_min=None,
        )

    async def authenticate(self, *_: object) -> Caller:
        return self._caller


class _Open(Edge):
    """The application without keys and limits."""

    def __init__(self, whole: Application, tenant_id: str) -> None:
        anybody: Any = _Anybody(tenant_id)
        super().__init__(whole.framework, anybody, direct_routes(ROUTES, whole.services))


def _serve(tenant_id: str | None) -> int:
    """`python -m api`, with plans that nobody reaches the end of; with a tenant, open to everybody as that one."""
    rates = tuple(msgspec.structs.replace(rate, quota=_MUCH, burst=_MUCH) for rate in plans.ENTERPRISE.rates)
    plans.PLANS = {**plans.PLANS, "enterprise": msgspec.structs.replace(plans.ENTERPRISE, rates=rates)}  # type: ignore[misc]
    if tenant_id is not None:
        server.create_app = lambda *args, **more: _Open(create_app(*args, **more), tenant_id)  # type: ignore[assignment]
    return server.main()


async def _run(seconds: float, rounds: int) -> list[Line]:
    with Stage(workers=False, environment={"KINDRED_ENTITLEMENTS": "plans"}) as stage:
        tenant = stage.make_tenant()
        database = stage.database(hot=0)
        await set_plan(database, TenantId(UUID(tenant.tenant_id)), "enterprise")
        await database.close()
        limited, refused = stage.make_key(tenant, rate_per_min=_MUCH), stage.make_key(tenant, rate_per_min=1)
        async with stage.client(tenant) as client:
            items = [{"id": f"item-{n:04}", "title": f"lamp {n}", "brand": f"b{n % 7}"} for n in range(1000)]
            (await client.post("/v1/items/bulk", json=items)).raise_for_status()
        ports = {
            "whole": stage.start_second_api("benchmarks.overhead", "--serve"),
            "open": stage.start_second_api("benchmarks.overhead", "--serve", tenant.tenant_id),
        }
        pids = {"whole": stage.pid_of(-2), "open": stage.pid_of(-1)}
        bodies = [
            msgspec.json.encode({"strategy": ("new", "popular")[at % 2], "filter": {"eq": ["brand", f"b{at % 7}"]}})
            for at in range(1600)
        ]
        calls = {
            ("open", 200): [post("/v1/recommend", limited, body) for body in bodies],
            ("whole", 200): [post("/v1/recommend", limited, body) for body in bodies],
            ("whole", 429): [post("/v1/recommend", refused, body) for body in bodies],
        }
        await load(ports["whole"], calls["whole", 200], 1)
        await load(ports["open"], calls["open", 200], 1)
        used: dict[tuple[str, int], list[float]] = {call: [] for call in calls}
        await _drain(ports["whole"], refused)
        for _ in range(rounds):
            for call, requests in calls.items():
                name, status = call
                before = cpu_s(pids[name])
                times = await load(ports[name], requests, seconds, expected=status)
                used[call].append((cpu_s(pids[name]) - before) / len(times) * 1e6)
    median = {call: statistics.median(found) for call, found in used.items()}
    added = statistics.median(
        [whole / alone - 1 for whole, alone in zip(used["whole", 200], used["open", 200], strict=True)]
    )
    share = statistics.median(
        [refusal / whole for refusal, whole in zip(used["whole", 429], used["whole", 200], strict=True)]
    )
    return [
        Line("cached answer, no keys, no limits", f"{median['open', 200]:.0f} µs", None, None),
        Line("cached answer, keys and limits", f"{median['whole', 200]:.0f} µs", None, None),
        Line("added by keys and limits", f"{added:.0%}", "≤ 25 %", added <= 0.25),
        Line("refusal (429)", f"{median['whole', 429]:.0f} µs", None, None),
        Line("refusal / cached answer", f"{share:.2f}", "≤ 0.35", share <= 0.35),
    ]


async def _drain(port: int, key: str) -> None:
    """Have the key used up, so that from here on each of its calls is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = msgspec.json.encode({"requests": [{"strategy": "new"}] * 20})
    for _ in range(3):
        writer.write(post("/v1/recommend/batch", key, body))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
    writer.close()


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs="?", const="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return _serve(arguments.serve or None)
    print_report("overhead", uvloop.run(_run(arguments.seconds, arguments.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
