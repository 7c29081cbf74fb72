"""How soon an item is recommended after it was stored, and how soon a whole feed is.

    python -m benchmarks.freshness [--data ../shared/data] [--items 40]

Single items: PUT, then `similar` of a known twin is asked until the item is in the list; by its text and by its photo
apart, on an idle system. Feed: retail_demo_store imported as a job; the first answer, and the end of the encoding.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import httpx

from benchmarks.report import Line, print_report
from benchmarks.stage import Stage, percentile, until_encoded
from infra.demo.catalogue import demo_items

_PAUSE_S = 0.02


async def _until_listed(
    client: httpx.AsyncClient, strategy: str, weights: dict[str, float], seed: str, item: str
) -> float:
    started = time.perf_counter()
    body = {"strategy": strategy, "weights": weights, "item_ids": [seed], "count": 20, "fallback": "none"}
    while time.perf_counter() - started < 60:
        answer = (await client.post("/v1/recommend", json=body)).json()
        if any(hit["id"] == item for hit in answer["items"]):
            return time.perf_counter() - started
        await asyncio.sleep(_PAUSE_S)
    raise RuntimeError(f"{item} was not recommended within a minute")


async def _single(stage: Stage, count: int) -> tuple[list[float], list[float]]:
    by_text, by_photo = [], []
    async with stage.client(stage.make_tenant()) as client:
        shop = [product for _, product in zip(range(60), demo_items(), strict=False)]
        await client.post("/v1/items/bulk", json=[product.item for product in shop])
        for product in shop:
            await client.put(
                f"/v1/items/{product.item['id']}/images/0",
                content=product.photos[0],
                headers={"Content-Type": "image/jpeg"},
            )
        await until_encoded(client)
        for number in range(count):
            twin = shop[number % len(shop)]
            seed = str(twin.item["id"])
            text_id, photo_id = f"text-{number}", f"photo-{number}"
            item = {"id": text_id, "title": twin.item["title"], "description": twin.item["description"]}
            (await client.put(f"/v1/items/{text_id}", json=item)).raise_for_status()
            by_text.append(await _until_listed(client, "similar", {"text": 1, "image": 0}, seed, text_id))
            (await client.put(f"/v1/items/{photo_id}", json={"id": photo_id})).raise_for_status()
            (
                await client.put(
                    f"/v1/items/{photo_id}/images/0",
                    content=twin.photos[0],
                    headers={"Content-Type": "image/jpeg"},
                )
            ).raise_for_status()
            by_photo.append(await _until_listed(client, "visually_similar", {}, seed, photo_id))
            for made in (text_id, photo_id):
                await client.delete(f"/v1/items/{made}")
    return by_text, by_photo


async def _feed(stage: Stage, data: Path) -> tuple[float, float, int]:
    feed = data / "retail_demo_store" / "items.jsonl"
    with feed.open() as lines:
        seed = json.loads(lines.readline())["id"]
    async with stage.client(stage.make_tenant()) as client:
        started = time.perf_counter()
        answer = await client.post(
            "/v1/imports",
            params={"format": "ndjson", "file_name": "items.jsonl"},
            content=feed.read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
        )
        answer.raise_for_status()
        body = {"strategy": "similar", "item_ids": [seed], "count": 10, "fallback": "none"}
        while not (await client.post("/v1/recommend", json=body)).json()["items"]:
            await asyncio.sleep(_PAUSE_S)
        first = time.perf_counter() - started
        while (await client.get(f"/v1/jobs/{answer.json()['job_id']}")).json()["status"] != "done":
            await asyncio.sleep(_PAUSE_S)
        counts = await until_encoded(client)
        return first, time.perf_counter() - started, counts["text"]["done"]


async def _fairness(stage: Stage, data: Path) -> float:
    """Seconds until one item of a second shop is recommended while a first shop's 50,000 items are being encoded."""
    from benchmarks.bulk_upsert import feed

    async with stage.client(stage.make_tenant()) as big, stage.client(stage.make_tenant()) as small:
        rows = feed(data, 50_000)
        await small.put("/v1/items/seed", json={"id": "seed", "title": "Red woollen scarf"})
        await until_encoded(small)
        for start in range(0, len(rows), 5000):
            (await big.post("/v1/items/bulk", json=rows[start : start + 5000])).raise_for_status()
        waits = []
        for number in range(10):
            item_id = f"late-{number}"
            await small.put(f"/v1/items/{item_id}", json={"id": item_id, "title": "Red woollen scarf"})
            waits.append(await _until_listed(small, "similar", {"text": 1, "image": 0}, "seed", item_id))
        return max(waits)


async def _run(arguments: argparse.Namespace) -> list[Line]:
    with Stage() as stage:
        first, whole, encoded = await _feed(stage, arguments.data)
        by_text, by_photo = await _single(stage, arguments.items)
        wait = await _fairness(stage, arguments.data)
    text, photo = percentile(by_text, 0.95), percentile(by_photo, 0.95)
    return [
        Line("feed of 2,465 texts → first answer", f"{first:.1f} s", "≤ 5 s", first <= 5),
        Line(f"feed of 2,465 texts → all encoded ({encoded:,})", f"{whole:.1f} s", "≤ 60 s", whole <= 60),
        Line("item → recommended by its text, p95", f"{text:.2f} s", "≤ 2 s", text <= 2),
        Line("item → recommended by its photo, p95", f"{photo:.2f} s", "≤ 5 s", photo <= 5),
        Line("the same during another shop's 50,000 items, longest of 10", f"{wait:.2f} s", "≤ 5 s", wait <= 5),
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--items", type=int, default=40)
    print_report("freshness", asyncio.run(_run(parser.parse_args())))


if __name__ == "__main__":
    main()
