"""The standard mix: what a request costs, how often a cache answers, and how soon an event counts.

    python -m benchmarks.traffic [--items 10000] [--shoppers 5000] [--seconds 300] [--clients 8]

Shoppers are drawn by Zipf's law (s = 1.05) and so are items; each request is one of four placements (a shopper's own
row, similar to an item, bought with it, what is popular in a category), and one in twenty is an event. Items are
encoded and behaviour is learned by the worker before the clock starts. CPU is of the API and of all of PostgreSQL's
processes. Statements above 50 ms are counted in the log of PostgreSQL. Freshness: a view told to one API process, then
asked of another.
"""

import argparse
import asyncio
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, Tenant, cpu_s, memory_mb, percentile, until_encoded
from benchmarks.wire import Wire

_S = 1.05
_EVENTS = 0.05
_CATEGORIES = 20


def zipf(count: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`size` numbers below `count`, the n-th as likely as n to the power of -1.05."""
    weights = np.arange(1, count + 1, dtype=float) ** -_S
    return rng.choice(count, size, p=weights / weights.sum())


def visitor(number: int) -> str:
    """A visitor id as long as a browser's."""
    return f"{number:032x}"


async def stock(stage: Stage, tenant: Tenant, items: int) -> None:
    """A shop of items with titles of a few words, encoded."""
    rng = np.random.default_rng(7)
    words = [f"{first}{second}" for first in ("bra", "sto", "li", "ka", "mo") for second in ("ndo", "ner", "mpa", "sk")]
    async with stage.client(tenant) as client:
        for start in range(0, items, 5000):
            rows = [
                {"id": str(n), "title": " ".join(rng.choice(words, 4)), "price": n, "attributes": {"k": n % 1000}}
                for n in range(start, min(items, start + 5000))
            ]
            (await client.post("/v1/items/bulk", json=rows)).raise_for_status()
        await until_encoded(client)


async def tell_history(stage: Stage, tenant: Tenant, items: int, shoppers: int) -> None:
    """Ten events of each shopper in the last week."""
    rng = np.random.default_rng(8)
    now = datetime.now(UTC)
    total = shoppers * 10
    who = np.concatenate([np.arange(shoppers), rng.integers(0, shoppers, total - shoppers)])
    # A shopper's items lie beside each other, so that there is something to learn.
    what = (who * 37 + zipf(items, total, rng)) % items
    kinds = rng.choice(["view", "add_to_cart", "purchase"], total, p=[0.85, 0.1, 0.05])
    async with stage.client(tenant) as client:
        for start in range(0, total, 1000):
            events = [
                {
                    "type": str(kinds[at]),
                    "visitor_id": visitor(int(who[at])),
                    "item_id": str(what[at]),
                    "ts": (now - timedelta(seconds=int(rng.integers(60, 6 * 86400)))).isoformat(),
                }
                for at in range(start, min(total, start + 1000))
            ]
            answer = (await client.post("/v1/events", json={"events": events})).raise_for_status().json()
            assert answer["accepted"] == len(events), answer


async def learn(stage: Stage, tenant: Tenant) -> None:
    """Have the worker learn from the events, and wait until the model serves."""
    async with stage.client(tenant) as client:
        job = (await client.post("/v1/models/train")).raise_for_status().json()["job_id"]
        while (state := (await client.get(f"/v1/jobs/{job}")).json())["status"] in ("queued", "running"):
            await asyncio.sleep(0.5)
        assert state["status"] == "done", state


async def settle(stage: Stage) -> None:
    """Wait for what the first minutes bring: popularity, neighbours of all items, statistics for the planner."""
    superuser = await asyncpg.connect(stage.superuser_url)
    while not await superuser.fetchval(
        "select exists (select 1 from item_scores s join generations g on g.tenant_id = s.tenant_id "
        "and g.behaviour_model = s.model where s.popularity > 0) "
        "and exists (select 1 from tenants t join generations g on g.tenant_id = t.tenant_id and g.gen = t.active_gen "
        "join neighbour_builds b on b.tenant_id = t.tenant_id and b.build = g.neighbours_build "
        "where b.watermark - interval '1 minute' > (select max(v.encoded_at) from item_vectors v))"
    ):
        await asyncio.sleep(0.5)
    await superuser.execute("vacuum analyze")
    await superuser.close()


class Mix:
    """The requests of the mix, in an order that a seed decides."""

    def __init__(self, items: int, shoppers: int, requests: int) -> None:
        rng = np.random.default_rng(9)
        self.shoppers = zipf(shoppers, requests, rng)
        self.items = zipf(items, requests, rng)
        self.kinds = rng.integers(0, 4, requests)
        self.tells = rng.random(requests) < _EVENTS

    def request(self, at: int) -> tuple[str, dict[str, Any]]:
        """Path and body of request number `at`; begins anew after the last."""
        at %= len(self.kinds)
        who, what = visitor(int(self.shoppers[at])), str(self.items[at])
        if self.tells[at]:
            return "/v1/events", {"events": [{"type": "view", "visitor_id": who, "item_id": what}]}
        match int(self.kinds[at]):
            case 0:
                return "/v1/recommend", {"strategy": "for_you", "visitor_id": who}
            case 1:
                return "/v1/recommend", {"strategy": "similar", "item_ids": [what]}
            case 2:
                return "/v1/recommend", {"strategy": "bought_together", "item_ids": [what]}
            case _:
                below = {"lt": ["attributes.k", 50 * (1 + int(what) % _CATEGORIES)]}
                return "/v1/recommend", {"strategy": "popular", "filter": below}


def _cpu(stage: Stage) -> float:
    return cpu_s(stage.api_pid) + sum(cpu_s(pid) for pid in stage.postgres_pids)


async def _drive(stage: Stage, tenant: Tenant, mix: Mix, clients: int, seconds: float) -> list[Line]:
    times: dict[str, list[float]] = {}
    failed: Counter[int] = Counter()
    turn = iter(range(1 << 60))
    ends = time.perf_counter() + seconds

    async def one() -> None:
        async with Wire(stage, tenant) as wire:
            while time.perf_counter() < ends:
                path, body = mix.request(next(turn))
                sent = msgspec.json.encode(body)
                began = time.perf_counter()
                await wire.post(path, sent)
                times.setdefault(body.get("strategy", "event"), []).append(time.perf_counter() - began)
                if wire.status != 200:
                    failed[wire.status] += 1

    before = _cpu(stage)
    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    took = time.perf_counter() - began
    used = _cpu(stage) - before
    every = [value for values in times.values() for value in values]
    each = used / len(every) * 1e6
    p99 = percentile(every, 0.99) * 1e3
    lines = [
        Line("requests", f"{len(every):,} in {took:.0f} s, {len(every) / took:.0f}/s", None, None),
        Line("CPU per request, API and PostgreSQL", f"{each:.0f} µs", "≤ 800 µs", each <= 800),
        Line("p99", f"{p99:.0f} ms", "< 80 ms", p99 < 80),
        Line("answers other than 200", str(dict(failed) or 0), "0", not failed),
    ]
    for name, values in sorted(times.items()):
        figure = f"{percentile(values, 0.5) * 1e3:.1f} · {percentile(values, 0.99) * 1e3:.0f} ms of {len(values):,}"
        lines.append(Line(f"p50 · p99 of {name}", figure, None, None))
    return lines


async def _freshness(stage: Stage, tenant: Tenant, items: int, rounds: int) -> list[Line]:
    """A view told to one process, until the other one's recently_viewed begins with it."""
    port = stage.start_second_api()
    rng = np.random.default_rng(10)
    waits = []
    async with Wire(stage, tenant) as teller, Wire(stage, tenant, port=port) as asker:
        for number in range(rounds):
            who, what = visitor(1_000_000 + number % 20), str(rng.integers(0, items))
            event = {"type": "view", "visitor_id": who, "item_id": what}
            await teller.post("/v1/events", msgspec.json.encode({"events": [event]}))
            assert teller.status == 200
            began = time.perf_counter()
            body = msgspec.json.encode({"strategy": "recently_viewed", "visitor_id": who, "count": 1})
            while True:
                answer = msgspec.json.decode(await asker.post("/v1/recommend", body))
                if [item["id"] for item in answer["items"]] == [what]:
                    break
            waits.append(time.perf_counter() - began)
    p95, p99 = percentile(waits, 0.95), percentile(waits, 0.99)
    return [
        Line("event → another process's next answer, p95", f"{p95 * 1e3:.0f} ms", "≤ 1 s", p95 <= 1),
        Line("the same, p99", f"{p99 * 1e3:.0f} ms", "≤ 2 s", p99 <= 2),
    ]


async def _log_slow(stage: Stage) -> None:
    """Have PostgreSQL log each statement that takes longer than `_SLOW_MS`."""
    superuser = await asyncpg.connect(stage.superuser_url)
    await superuser.execute(f"alter system set log_min_duration_statement = {_SLOW_MS}")
    await superuser.execute("select pg_reload_conf()")
    await superuser.close()


def _slow(stage: Stage) -> Line:
    """What it has logged."""
    slow = [
        float(found[1]) for found in re.finditer(r"duration: ([\d.]+) ms", stage.server.log_file.read_text("utf-8"))
    ]
    figure = f"{len(slow)}" + (f", the slowest {max(slow):.0f} ms" if slow else "")
    return Line(f"statements above {_SLOW_MS} ms in the database's log", figure, "0", not slow)


_SLOW_MS = 50
_LISTS = ("answers", "shoppers", "lists")
"""The levels of `cache_lookups_total` that hold whole answers: L1, L1 of one shopper each, L2."""


def _lookups(stage: Stage) -> Counter[tuple[str, str]]:
    """Look-ups so far by (level, yes or no)."""
    counts: Counter[tuple[str, str]] = Counter()
    for labels, value in stage.metrics("cache_lookups_total").items():
        level, hit = (labels.split(f'{name}="')[1].split('"')[0] for name in ("level", "hit"))
        counts[level, hit] += int(value)
    return counts


def _hit_ratio(counts: Counter[tuple[str, str]]) -> Line:
    """The share of the answers asked for that were kept."""
    hits = {level: counts[level, "yes"] for level in _LISTS}
    asked = {level: counts[level, "yes"] + counts[level, "no"] for level in _LISTS}
    total = sum(asked.values())
    share = sum(hits.values()) / max(total, 1)
    each = ", ".join(f"{level} {hits[level] / max(asked[level], 1):.0%}" for level in _LISTS)
    return Line("answers that were kept (L1 + L2)", f"{share:.0%} of {total:,} ({each})", "≥ 70 %", share >= 0.7)


async def _run(items: int, shoppers: int, seconds: float, clients: int) -> list[Line]:
    with Stage() as stage:
        tenant = stage.make_tenant()
        await stock(stage, tenant, items)
        await tell_history(stage, tenant, items, shoppers)
        await learn(stage, tenant)
        await settle(stage)
        stage.stop_worker()
        mix = Mix(items, shoppers, 200_000)
        await _drive(stage, tenant, mix, clients, 5)
        await _log_slow(stage)
        before = _lookups(stage)
        lines = await _drive(stage, tenant, mix, clients, seconds)
        lines += [_hit_ratio(_lookups(stage) - before), _slow(stage)]
        lines.append(Line("API memory (PSS)", f"{memory_mb(stage.api_pid):.0f} MB", None, None))
        return [*lines, *await _freshness(stage, tenant, items, 200)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--shoppers", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    print_report("traffic", uvloop.run(_run(given.items, given.shoppers, given.seconds, given.clients)))


if __name__ == "__main__":
    main()
