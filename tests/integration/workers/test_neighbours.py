"""Precomputed neighbours: built from what is encoded, served by a generation, renewed, and never half there."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from infra.db import Database
from tenants.jobs import list_jobs
from tenants.learned.neighbours import NEIGHBOURS_JOB
from tenants.lifecycle import load_tenant
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.wanted import Wanted
from workers.jobs import in_child
from workers.jobs.encode import TextLoop
from workers.jobs.generations import Keeper
from workers.jobs.neighbours import Neighbours
from workers.models import Models
from workers.runner import JobLoop
from workers.training.child import TrainingFailedError

pytestmark = pytest.mark.anyio

WORDS = ["red", "blue", "green", "shoe", "shirt", "lamp", "mug", "the"]


def items(first: int, last: int) -> list[dict[str, Any]]:
    """Items of differing texts, some of them variants of one another."""
    return [
        {
            "id": f"i{at:03}",
            "title": " ".join(WORDS[at // 8**place % 8] for place in range(3)),
            **({"group_id": f"g{at // 10}"} if at % 10 < 2 else {}),
        }
        for at in range(first, last)
    ]


@pytest.fixture
def encode(database: Database, tiny: Models, clock: Any) -> Any:
    """Encode all that is pending."""

    async def run() -> None:
        keeper = Keeper(database, tiny)
        texts = TextLoop(database, [tiny], clock=clock, stored=keeper.stored)
        while await texts.step():
            pass
        await keeper.tick()

    return run


@pytest.fixture
def build(database: Database, clock: Any) -> Any:
    """Queue what is due and do it; how many were due."""

    async def run() -> int:
        handler = Neighbours(database, clock=clock)
        due = await handler.schedule()
        while await JobLoop(database, {NEIGHBOURS_JOB: handler}, clock=clock).step():
            pass
        return due

    return run


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds may follow each other, and what was encoded a moment before one counts as in it."""
    monkeypatch.setattr("tenants.learned.neighbours.OFTEN", timedelta(0))
    monkeypatch.setattr("tenants.learned.neighbours.SLACK", timedelta(0))


async def test_the_lists_are_the_live_ones(
    database: Database, make_shop: Any, encode: Any, build: Any, query: Any, clock: Any
) -> None:
    """For every item, in order, by the generation that serves from then on."""
    tenant_id = await make_shop(items(0, 60))
    await encode()
    assert await build() == 1
    tenant = await load_tenant(database, tenant_id)
    assert tenant.generation.neighbours_build == 1
    stored = {
        name: (others, scores)
        for name, others, scores in await query(
            tenant_id,
            "select d.external_id, n.others, n.scores from item_neighbours n join item_ids d on d.tenant_id = $1 "
            "and d.item_no = n.item_no where n.tenant_id = $1 and n.kind = 1 and n.build = 1",
        )
    }
    assert len(stored) == 60
    for name, (others, scores) in stored.items():
        likeness = Likeness(seeds=[name], text_weight=0.5, image_weight=0.5)
        found = await find_similar(database, tenant, Wanted(now=clock(), limit=100), likeness)
        assert [hit.item_no for hit in found.hits] == others
        assert [hit.score for hit in found.hits] == pytest.approx([score / 32767 for score in scores], abs=2e-3)


async def test_a_build_is_due_when_many_items_are_new(
    database: Database, make_shop: Any, store_items: Any, encode: Any, build: Any, query: Any
) -> None:
    """Not for one; the old lists go with the build after the next, and a job says how it went."""
    tenant_id = await make_shop(items(0, 40))
    await encode()
    assert await build() == 1
    await store_items(tenant_id, items(40, 45))
    await encode()
    assert await build() == 0
    await store_items(tenant_id, items(45, 70))
    await encode()
    assert await build() == 1
    await store_items(tenant_id, items(70, 99))
    await encode()
    assert await build() == 1
    builds = "select build, (select count(*) from item_neighbours n where n.tenant_id = $1 and n.build = b.build)::int "
    assert await query(tenant_id, builds + "from neighbour_builds b where tenant_id = $1 order by build") == [
        (2, 70),
        (3, 99),
    ]
    async with database.tenant_session(tenant_id) as conn:
        job = (await list_jobs(conn, tenant_id))[0]
    assert (job.kind, job.status, job.total, job.done) == ("neighbours", "done", 99, 99)


async def test_a_build_is_due_when_many_items_were_encoded_just_before_the_last(
    make_shop: Any, encode: Any, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers scan them beside the lists for as long as that build serves, which after an upload is the whole shop."""
    await make_shop(items(0, 40))
    await encode()
    assert await build() == 1
    assert await build() == 0
    monkeypatch.setattr("tenants.learned.neighbours.SLACK", timedelta(minutes=1))
    assert await build() == 1


async def test_a_new_calibration_asks_for_a_new_build(
    database: Database, make_shop: Any, store_items: Any, encode: Any, build: Any
) -> None:
    """The scores would not be those of the live list any more."""
    tenant_id = await make_shop(items(0, 95))
    await encode()
    await build()
    await store_items(tenant_id, items(95, 101))
    await encode()
    assert await build() == 1
    assert (await load_tenant(database, tenant_id)).generation.neighbours_build == 2


async def test_a_build_that_fails_leaves_what_serves(
    database: Database,
    make_shop: Any,
    store_items: Any,
    encode: Any,
    build: Any,
    query: Any,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a worker that is killed would; the next try clears what it left and takes over."""
    tenant_id = await make_shop(items(0, 40))
    await encode()
    await build()
    await store_items(tenant_id, items(40, 80))
    await encode()

    async def killed(*_: object, **__: object) -> None:
        raise TrainingFailedError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(in_child, "run_child", killed)
        assert await build() == 1
    assert (await load_tenant(database, tenant_id)).generation.neighbours_build == 1
    assert await query(tenant_id, "select count(*)::int from item_neighbours where tenant_id = $1") == [(40,)]
    clock.advance(60)
    await JobLoop(database, {NEIGHBOURS_JOB: Neighbours(database, clock=clock)}, clock=clock).step()
    assert (await load_tenant(database, tenant_id)).generation.neighbours_build == 2
    statuses = "select build, status from neighbour_builds where tenant_id = $1 order by build"
    assert await query(tenant_id, statuses) == [(1, "ready"), (2, "ready")]


async def test_a_worker_that_ends_lets_go_of_its_build(
    database: Database, make_shop: Any, encode: Any, build: Any, query: Any, clock: Any
) -> None:
    """Another begins it anew at once."""
    tenant_id = await make_shop(items(0, 40))
    await encode()
    stop = asyncio.Event()
    stop.set()
    ending = Neighbours(database, stop=stop, clock=clock)
    await ending.schedule()
    await JobLoop(database, {NEIGHBOURS_JOB: ending}, clock=clock).step()
    jobs = "select status, done, attempts from jobs where tenant_id = $1"
    assert await query(tenant_id, jobs) == [("queued", 0, 0)]
    await build()
    assert await query(tenant_id, jobs) == [("done", 40, 0)]


async def test_a_shop_without_vectors_is_left_alone(make_shop: Any, build: Any) -> None:
    """Its lists come from words and age."""
    await make_shop(items(0, 3))
    assert await build() == 0
