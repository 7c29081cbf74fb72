"""`kindred demo`: the demo shop, drawn and uploaded through the public API like anybody's catalogue."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import httpx
from rich.console import Console

from infra.demo.catalogue import DemoItem, demo_items
from infra.demo.shop import DemoVisitor
from infra.demo.shoppers import PERSONAS, demo_events, visitor_id
from infra.importer import ImportRefused, problem_text, progress_bar

NAME: Final = "demo"
_BATCH: Final = 200
_EVENTS: Final = 1000
_CONCURRENT: Final = 8
_POLL_S: Final = 0.2


async def load_demo(client: httpx.AsyncClient, console: Console) -> None:
    """Draw the products, store them with their photos. Raises ImportRefused."""
    with progress_bar(console) as bars:
        bar = bars.add_task("Drawing the demo shop", total=None)

        def drawn(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

        items = await asyncio.to_thread(lambda: list(demo_items(progress=drawn)))
    with progress_bar(console) as bars:
        bar = bars.add_task("Uploading products and photos", total=len(items))
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            answer = await client.post("/v1/items/bulk", json=[item.item for item in batch])
            if not answer.is_success or answer.json()["rejected"]:
                raise ImportRefused(problem_text(answer) if not answer.is_success else answer.text[:500])
            await _upload(client, batch)
            bars.advance(bar, len(batch))


async def _upload(client: httpx.AsyncClient, batch: Sequence[DemoItem]) -> None:
    limit = asyncio.Semaphore(_CONCURRENT)

    async def one(item_id: str, position: int, photo: bytes) -> None:
        async with limit:
            answer = await client.put(
                f"/v1/items/{quote(item_id, safe='')}/images/{position}",
                content=photo,
                headers={"Content-Type": "image/jpeg"},
            )
        if not answer.is_success:
            raise ImportRefused(problem_text(answer))

    await asyncio.gather(
        *(one(str(item.item["id"]), position, photo) for item in batch for position, photo in enumerate(item.photos))
    )


async def load_shoppers(client: httpx.AsyncClient, console: Console, *, now: datetime) -> None:
    """Tell what the simulated shoppers did in the week before `now`. Raises ImportRefused."""
    events = await asyncio.to_thread(lambda: list(demo_events(now)))
    with progress_bar(console) as bars:
        bar = bars.add_task("Two thousand shoppers", total=len(events))
        for start in range(0, len(events), _EVENTS):
            batch = events[start : start + _EVENTS]
            answer = await client.post("/v1/events", json={"events": batch})
            if not answer.is_success or answer.json()["rejected"]:
                raise ImportRefused(problem_text(answer) if not answer.is_success else answer.text[:500])
            bars.advance(bar, len(batch))


async def learn(client: httpx.AsyncClient, console: Console) -> None:
    """Have a worker learn from what was told, and wait for it. Raises ImportRefused."""
    with console.status("Learning from what they did"):
        answer = await client.post("/v1/models/train")
        if not answer.is_success:
            raise ImportRefused(problem_text(answer))
        address = f"/v1/jobs/{answer.json()['job_id']}"
        job: dict[str, Any] = {"status": "queued"}
        while job["status"] in ("queued", "running"):
            await asyncio.sleep(_POLL_S)
            job = (await client.get(address)).json()
    if job["status"] != "done":
        raise ImportRefused(job["error"] or "The training did not end well; the workers' log says why.")


def demo_visitors() -> list[DemoVisitor]:
    """Those whom the storefront lets one shop as."""
    return [DemoVisitor(name=persona.name, visitor_id=visitor_id(number)) for number, persona in enumerate(PERSONAS)]


async def wait_until_encoded(client: httpx.AsyncClient, console: Console) -> dict[str, Any]:
    """Follow the encoding of the catalogue to its end; returns the counts by modality and state."""
    with progress_bar(console) as bars:
        rows = {kind: bars.add_task(f"Encoding {kind}", total=None) for kind in ("text", "image")}
        while True:
            answer = await client.get("/v1/encoding")
            if not answer.is_success:
                raise ImportRefused(problem_text(answer))
            counts: dict[str, Any] = answer.json()
            for kind, row in rows.items():
                states = counts[kind]
                total = sum(states.values()) - states["absent"]
                bars.update(row, completed=total - states["pending"], total=total)
            if not any(counts[kind]["pending"] for kind in rows):
                return counts
            await asyncio.sleep(_POLL_S)
