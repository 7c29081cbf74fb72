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
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, Tenant, cpu_s, percentile
from infra.roles import INGEST, role_url
from tenants.events import Event, ids_of, numbered, rows_of

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


async def _over_http(client: httpx.AsyncClient, headers: dict[str, str], bodies: list[bytes], lanes: int) -> float:
    waiting = list(bodies)

    async def lane() -> None:
        while waiting:
            answer = await client.post("/v1/events", content=waiting.pop(), headers=headers)
            assert answer.json()["rejected"] == 0, answer.text[:500]

    started = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(lanes)))
    return time.perf_counter() - started


async def _run(batches: int, rounds: int) -> list[Line]:
    rng = random.Random(7)
    alone, served, cpu = [], [], []
    latencies: list[float] = []
    with Stage(workers=False) as stage:
        tenant = stage.make_tenant()
        headers = {"Authorization": f"Bearer {tenant.secret_key}", "Content-Type": "application/json"}
        connection = await asyncpg.connect(role_url(stage.owner_url, INGEST), server_settings={"jit": "off"})
        limits = httpx.Limits(max_connections=SINGLES)
        async with httpx.AsyncClient(base_url=stage.url, timeout=60, trust_env=False, limits=limits) as client:
            for number in range(rounds + 1):
                bodies = [msgspec.json.encode({"events": batch(rng)}) for _ in range(batches)]
                documents = [document(tenant, batch(rng)) for _ in range(batches)]
                seconds = await _alone(connection, documents)
                before = cpu_s(stage.api_pid)
                took = await _over_http(client, headers, bodies, IN_FLIGHT)
                if number:  # the first warms both
                    alone.append(seconds)
                    served.append(took)
                    cpu.append((cpu_s(stage.api_pid) - before) / (batches * BATCH))
            singles = [msgspec.json.encode({"events": [event]}) for event in batch(rng) + batch(rng) + batch(rng)]
            many = await _over_http(client, headers, singles, SINGLES)
            for body in singles[:300]:
                started = time.perf_counter()
                await client.post(
                    "/v1/events", content=body.replace(b'"event_id":"', b'"event_id":"x'), headers=headers
                )
                latencies.append(time.perf_counter() - started)
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
