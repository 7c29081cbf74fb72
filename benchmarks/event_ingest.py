"""Events over HTTP in batches of 1,000, against the same SQL statement alone; and single events of many clients.

    python -m benchmarks.event_ingest [--batches 40] [--rounds 5]

Rounds alternate between the two: `take_events` by one connection with rows made beforehand, and POST /v1/events with
three calls in flight. Every event has an `event_id`, a shopper and an item: 500 shoppers, 2,000 items, types as a
shop has them. Reported: medians, the ratio round by round, the API's CPU per event.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, Tenant, cpu_s, percentile
from benchmarks.wire import Wire
from infra.roles import INGEST, role_url
from tenants.events.event import Event, ids_of, numbered, rows_of

BATCH = 1000
IN_FLIGHT = 3
SINGLES = 64
_TAKE = "select event_no::text, same_body from take_events($1::text::jsonb, $2)"


def batch(rng: random.Random) -> list[dict[str, Any]]:
    """A thousand events as shops send them."""
    now = datetime.now(UTC).isoformat()
    kinds = rng.choices(["impression", "view", "click", "add_to_cart", "purchase"], [50, 30, 15, 4, 1], k=BATCH)
    return [
        {
            "event_id": uuid4().hex,
            "type": kind,
            "user_id": f"shopper-{rng.randrange(500)}",
            "item_id": f"item-{rng.randrange(2000)}",
            "session_id": f"session-{rng.randrange(800)}",
            "ts": now,
            **({"position": rng.randrange(20), "placement": "home"} if kind in ("impression", "click") else {}),
            **({"price": rng.randrange(100, 9000), "quantity": 1, "currency": "EUR"} if kind == "purchase" else {}),
        }
        for kind in kinds
    ]


def document(tenant: Tenant, events: list[dict[str, Any]]) -> str:
    """The same events as `take_events` takes them."""
    made = msgspec.convert(events, list[Event])
    shoppers, items = ids_of(made)
    rows = rows_of(
        UUID(tenant.tenant_id),
        made,
        numbered(len(made)),
        [0] * len(made),
        shoppers={key: int(key.rpartition("-")[2]) + 1 for key in shoppers},
        items={item: int(item.rpartition("-")[2]) + 1 for item in items},
        now=datetime.now(UTC),
        secret=b"benchmark",
    )
    return msgspec.json.encode([row for lines in rows for row in lines]).decode()


async def _alone(connection: Any, documents: list[str]) -> float:
    started = time.perf_counter()
    for rows in documents:
        assert not await connection.fetch(_TAKE, rows, datetime.now(UTC))
    return time.perf_counter() - started


async def _over_http(wires: Sequence[Wire], bodies: list[bytes]) -> float:
    """Seconds until all are answered, one call in flight on each connection."""
    waiting = list(bodies)

    async def lane(wire: Wire) -> None:
        while waiting:
            answer = await wire.post("/v1/events", waiting.pop())
            assert wire.status == 200, answer[:500]
            assert b'"rejected":0' in answer[:80], answer[:500]

    started = time.perf_counter()
    await asyncio.gather(*(lane(wire) for wire in wires))
    return time.perf_counter() - started


async def _run(batches: int, rounds: int) -> list[Line]:
    rng = random.Random(7)
    alone, served, cpu = [], [], []
    with Stage(workers=False) as stage:
        tenant = stage.make_tenant()
        connection = await asyncpg.connect(role_url(stage.owner_url, INGEST), server_settings={"jit": "off"})
        async with AsyncExitStack() as opened:
            wires = [await opened.enter_async_context(Wire(stage, tenant)) for _ in range(SINGLES)]
            for number in range(rounds + 1):
                bodies = [msgspec.json.encode({"events": batch(rng)}) for _ in range(batches)]
                documents = [document(tenant, batch(rng)) for _ in range(batches)]
                seconds = await _alone(connection, documents)
                before = cpu_s(stage.api_pid)
                took = await _over_http(wires[:IN_FLIGHT], bodies)
                if number:  # the first warms both
                    alone.append(seconds)
                    served.append(took)
                    cpu.append((cpu_s(stage.api_pid) - before) / (batches * BATCH))
            singles = [msgspec.json.encode({"events": [event]}) for _ in range(4) for event in batch(rng)]
            before = cpu_s(stage.api_pid)
            many = await _over_http(wires, singles)
            single_cpu = (cpu_s(stage.api_pid) - before) / len(singles)
            bodies = [msgspec.json.encode({"events": [event]}) for event in batch(rng)[:300]]
            latencies = [await _over_http(wires[:1], [body]) for body in bodies]
        await connection.close()
    ratio = statistics.median(a / s for a, s in zip(alone, served, strict=True))
    per_event = statistics.median(cpu) * 1e6
    rows = batches * BATCH
    return [
        Line("the statement alone", f"{rows / statistics.median(alone):,.0f} events/s", None, None),
        Line("batches of 1,000 over HTTP", f"{rows / statistics.median(served):,.0f} events/s", None, None),
        Line("ratio", f"{ratio:.2f}", "≥ 0.8", ratio >= 0.8),
        Line("API's CPU per event", f"{per_event:.1f} µs", "≤ 10 µs", per_event <= 10),
        Line(f"single events, {SINGLES} clients", f"{len(singles) / many:,.0f} events/s", None, None),
        Line("API's CPU per single event", f"{single_cpu * 1e6:.0f} µs", None, None),
        Line("a single event alone, p50", f"{percentile(latencies, 0.5) * 1000:.1f} ms", None, None),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print_report("event_ingest", asyncio.run(_run(arguments.batches, arguments.rounds)))


if __name__ == "__main__":
    main()
