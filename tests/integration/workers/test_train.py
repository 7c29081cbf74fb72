"""Training: from events to models that serve, and what comes of too little, of odd and of endless events."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from infra.db import Database, TenantId, driver
from infra.ids import uuid7
from tenants.jobs import Job, list_jobs
from tenants.learned.models import TRAIN_JOB, ModelInfo, ModelNotReady, list_models, queue_training, serve_model
from tenants.learned.neighbours import NEIGHBOURS_JOB
from tenants.lifecycle import create_tenant, load_tenant
from tenants.retrieval.wanted import Wanted
from tenants.sources.scene import Asked, Chosen
from tenants.sources.statement import find_blended
from tests.integration.workers.test_neighbours import items
from workers.jobs import in_child
from workers.jobs.encode import TextLoop
from workers.jobs.generations import Keeper
from workers.jobs.lend import Lending
from workers.jobs.neighbours import Neighbours
from workers.jobs.train import Training
from workers.models import Models
from workers.runner import JobLoop
from workers.training.child import TrainingFailedError

pytestmark = pytest.mark.anyio

Row = tuple[int, int, float, str]
"""Shopper, item, days ago, type."""

Store = Callable[..., Awaitable[None]]
Run = Callable[..., Awaitable[Job]]


def tastes(shoppers: int, items: int, each: int, seed: int = 3) -> list[Row]:
    """Shoppers of two tastes who meet items of their half, over 25 days; some buy two at once, some again."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for shopper in range(1, shoppers + 1):
        half = items // 2
        for _ in range(each):
            item = 1 + shopper % 2 * half + int(rng.integers(0, half))
            ago = float(rng.uniform(0.1, 25))
            rows.append((shopper, item, ago, str(rng.choice(["view", "click", "add_to_cart"]))))
            if rng.random() < 0.3:
                rows += [(shopper, item, ago, "purchase"), (shopper, 1 + shopper % 2 * half, ago, "purchase")]
    return rows


@pytest.fixture
def store(database: Database, clock: Any) -> Store:
    """Store events of a tenant."""

    async def run(tenant_id: TenantId, rows: Sequence[Row], *, flags: int = 0) -> None:
        async with database.tenant_session(tenant_id) as conn:
            await (await driver(conn)).executemany(
                "insert into events (tenant_id, ts, event_no, type, shopper_no, item_no, flags) "
                "values ($1, $2, $3, $4, $5, $6, $7)",
                [
                    (tenant_id, clock() - timedelta(days=ago), uuid7(), kind, shopper, item, flags)
                    for shopper, item, ago, kind in rows
                ],
            )
            await (await driver(conn)).execute(
                "insert into shopper_ids (tenant_id, shopper_no, kind, external_id, bucket_key) "
                "select $1, n, 1, n::text, 0 from generate_series(1, $2) n on conflict do nothing",
                tenant_id,
                max((row[0] for row in rows), default=0),
            )

    return run


@pytest.fixture
def run(database: Database, clock: Any) -> Run:
    """Train a tenant; the finished job."""

    async def train_now(tenant_id: TenantId, *, asked: bool = True) -> Job:
        async with database.tenant_session(tenant_id) as conn:
            await queue_training(conn, tenant_id, asked=asked)
        handler = Training(database, clock=clock)
        while await JobLoop(database, {TRAIN_JOB: handler}, clock=clock).step():
            pass
        async with database.tenant_session(tenant_id) as conn:
            return (await list_jobs(conn, tenant_id))[0]

    return train_now


async def _models(database: Database, tenant_id: TenantId) -> list[ModelInfo]:
    async with database.tenant_session(tenant_id) as conn:
        return await list_models(conn, tenant_id)


async def test_a_model_serves_after_training(
    database: Database, make_shop: Any, store: Store, run: Run, query: Any, clock: Any
) -> None:
    """Every table has its rows, the neighbours are of one taste, and the record says what it was made of."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, tastes(120, 40, 8))
    job = await run(tenant_id)
    assert (job.status, job.error, job.done) == ("done", None, job.total)
    report = msgspec.json.decode(job.report)
    assert report["active"]
    assert set(report["trained"]) >= {"graph", "also_viewed", "bought_together", "item_cf", "user_cf", "buy_again"}
    generation = (await load_tenant(database, tenant_id)).generation
    assert generation.behaviour_model == 1
    (model,) = await _models(database, tenant_id)
    assert (model.status, model.active) == ("ready", True)
    counts = msgspec.json.decode(model.counts)
    assert counts["shoppers"] == 120
    assert model.window_from is not None
    assert clock() - timedelta(days=26) < model.window_from < clock()
    assert model.content_hash is not None
    assert model.sha256 is not None
    assert {"graph", "popular"} <= msgspec.json.decode(model.metrics)["validation"]["recall@20"].keys()
    kinds = "select kind, count(*)::int from item_neighbours where tenant_id = $1 and build = 1 group by 1 order by 1"
    assert [kind for kind, _ in await query(tenant_id, kinds)] == [3, 4, 5, 6]
    lists = "select item_no, others, scores from item_neighbours where tenant_id = $1 and kind = 3 and build = 1"
    for item_no, others, scores in await query(tenant_id, lists):
        assert item_no not in others
        assert scores == sorted(scores, reverse=True)
        assert all((other > 20) == (item_no > 20) for other in others[:5])
    vectors = "select count(*)::int, min(vector_dims(vec)) % 2 from behaviour_vectors where tenant_id = $1"
    assert await query(tenant_id, vectors) == [(40, 0)]
    near = "select count(*)::int from shopper_neighbours where tenant_id = $1 and model = 1"
    assert (await query(tenant_id, near))[0][0] > 100
    days = "select count(*)::int from item_scores where tenant_id = $1 and model = 1 and repurchase_days > 0"
    assert (await query(tenant_id, days))[0][0] > 0


async def test_the_same_events_make_the_same_model(database: Database, make_shop: Any, store: Store, run: Run) -> None:
    """Run twice, hashes and all; the third retires the first, and going back is one step."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, tastes(120, 40, 8))
    for _ in range(3):
        await run(tenant_id)
    third, second, first = await _models(database, tenant_id)
    assert (first.status, second.status, third.status) == ("retired", "ready", "ready")
    assert first.content_hash == second.content_hash == third.content_hash
    assert second.sha256 == third.sha256
    async with database.tenant_session(tenant_id) as conn:
        await serve_model(conn, tenant_id, second.model, reason="test")
        with pytest.raises(ModelNotReady):
            await serve_model(conn, tenant_id, first.model, reason="test")
    assert (await load_tenant(database, tenant_id)).generation.behaviour_model == 2


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="empty"),
        pytest.param([(1, 1, 1.0, "view")], id="one event"),
        pytest.param([(1, 1 + at % 40, 1.0 + at / 100, "view") for at in range(700)], id="one shopper"),
        pytest.param([(1, 1, 1.0, "view")] * 700, id="all duplicates"),
        pytest.param([(1, 1, 1.0, "impression")] * 700, id="impressions only"),
        pytest.param([(at, 1 + at % 40, 1.0, "refund") for at in range(1, 700)], id="refunds only"),
    ],
)
async def test_too_little_ends_with_what_is_missing(
    database: Database, make_shop: Any, store: Store, run: Run, rows: list[Row]
) -> None:
    """No error, nothing serves, and the lines say what there is, what is needed and what answers meanwhile."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, rows)
    job = await run(tenant_id)
    assert (job.status, job.error) == ("done", None)
    assert (await load_tenant(database, tenant_id)).generation.behaviour_model is None
    (model,) = await _models(database, tenant_id)
    assert model.status == "waiting"
    lines = {line["model"]: line for line in msgspec.json.decode(model.readiness)}
    graph = lines["graph"]
    assert not graph["ready"]
    assert any(graph["has"][name] < least for name, least in graph["needs"].items())
    assert graph["meanwhile"]


async def test_bots_and_strangers_are_not_learned_from(
    database: Database, make_shop: Any, store: Store, run: Run
) -> None:
    """Bots' events are not read at all; where most items are unknown, the ids do not match, and nothing is trained."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, tastes(120, 40, 8), flags=1)
    await run(tenant_id)
    await store(tenant_id, [(shopper, item + 1000, ago, kind) for shopper, item, ago, kind in tastes(120, 40, 8)])
    job = await run(tenant_id)
    unjoined, bots = await _models(database, tenant_id)
    assert msgspec.json.decode(bots.counts)["rows"] == 0
    assert unjoined.status == "waiting"
    assert "catalogue" in msgspec.json.decode(job.report)["reason"]


async def test_a_killed_training_leaves_what_serves(
    database: Database, make_shop: Any, store: Store, run: Run, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is tried again, and the half-made model has failed."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, tastes(120, 40, 8))
    await run(tenant_id)

    async def killed(*_: object, **__: object) -> None:
        raise TrainingFailedError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(in_child, "run_child", killed)
        assert (await run(tenant_id)).status == "queued"
    assert (await load_tenant(database, tenant_id)).generation.behaviour_model == 1
    clock.advance(120)
    assert await JobLoop(database, {TRAIN_JOB: Training(database, clock=clock)}, clock=clock).step()
    assert [model.status for model in await _models(database, tenant_id)] == ["ready", "failed", "ready"]
    assert (await load_tenant(database, tenant_id)).generation.behaviour_model == 3


async def test_a_shop_of_this_moment_is_trained_a_moment_later(database: Database, run: Run) -> None:
    """Before a worker has given it its first generation; the job says so, and it is no defect."""
    job = await run(await create_tenant(database, f"new {uuid7()}"))
    assert (job.status, job.error) == ("queued", "The shop is not a second old; its first training begins in a moment.")


async def test_a_worker_that_ends_lets_go_of_its_training(
    database: Database, make_shop: Any, store: Store, query: Any, clock: Any
) -> None:
    """Another takes it up at once."""
    tenant_id = await make_shop(items(0, 40))
    stop = asyncio.Event()
    stop.set()
    async with database.tenant_session(tenant_id) as conn:
        first = await queue_training(conn, tenant_id, asked=True)
        assert await queue_training(conn, tenant_id, asked=True) == first
    await JobLoop(database, {TRAIN_JOB: Training(database, stop=stop, clock=clock)}, clock=clock).step()
    assert await query(tenant_id, "select status, done from jobs where tenant_id = $1") == [("queued", 0)]


async def test_training_is_due_daily_and_after_many_events(
    database: Database, make_shop: Any, store: Store, run: Run, clock: Any
) -> None:
    """Not without new events, and not twice in half an hour."""
    tenant_id = await make_shop(items(0, 40))
    handler = Training(database, clock=clock)
    assert await handler.schedule() == 0
    await store(tenant_id, tastes(30, 40, 4))
    assert await handler.schedule() == 1
    assert await handler.schedule() == 0
    await JobLoop(database, {TRAIN_JOB: handler}, clock=clock).step()
    await store(tenant_id, [(1, 1, 0.0, "view")] * 600)
    assert await handler.schedule() == 0
    clock.advance(1900)
    await store(tenant_id, [(1, 1, 0.0, "view")] * 300)
    assert await handler.schedule() == 1
    await JobLoop(database, {TRAIN_JOB: handler}, clock=clock).step()
    clock.advance(86_500)
    assert await handler.schedule() == 0
    await store(tenant_id, [(1, 1, 0.0, "view")])
    assert await handler.schedule() == 1


async def test_a_new_item_borrows_a_place_as_soon_as_it_is_encoded(
    database: Database, tiny: Models, make_shop: Any, store_items: Any, store: Store, run: Run, query: Any, clock: Any
) -> None:
    """That of its likes in content: its vector points where theirs do, and its list names what theirs name."""
    tenant_id = await make_shop(items(0, 40))

    async def encode() -> None:
        keeper = Keeper(database, tiny)
        texts = TextLoop(database, [tiny], clock=clock, stored=keeper.stored)
        while await texts.step():
            pass

    await encode()
    builds = Neighbours(database, clock=clock)
    await builds.schedule()
    await JobLoop(database, {NEIGHBOURS_JOB: builds}, clock=clock).step()
    await store(tenant_id, tastes(120, 40, 8))
    await run(tenant_id)
    handler = Lending(database)
    assert await handler.lend() == 0
    await store_items(tenant_id, [{"id": "new", "title": items(7, 8)[0]["title"]}])
    await encode()
    assert await handler.lend() == 1
    assert await handler.lend() == 0
    cosine = (
        "select 1 - (a.vec <=> b.vec) from behaviour_vectors a join behaviour_vectors b on b.tenant_id = $1 "
        "and b.item_no = 8 where a.tenant_id = $1 and a.item_no = 41"
    )
    assert (await query(tenant_id, cosine))[0][0] > 0.2
    others = "select others, scores from item_neighbours where tenant_id = $1 and kind = 3 and item_no = 41"
    ((named, scores),) = await query(tenant_id, others)
    assert 41 not in named
    assert scores == sorted(scores, reverse=True)


async def test_a_new_item_is_in_the_lists_of_others_as_soon_as_it_is_encoded(
    database: Database, tiny: Models, make_shop: Any, store_items: Any, store: Store, run: Run, query: Any, clock: Any
) -> None:
    """Before the next build and training: like an older item by content, and shown to whoever met one of its likes."""
    tenant_id = await make_shop(items(0, 40))

    async def encode() -> None:
        keeper = Keeper(database, tiny)
        texts = TextLoop(database, [tiny], clock=clock, stored=keeper.stored)
        while await texts.step():
            pass

    async def found(source: str, **asked: Any) -> list[str]:
        tenant = await load_tenant(database, tenant_id)
        assert tenant.generation.neighbours_build == tenant.generation.behaviour_model == 1
        wanted = Wanted(now=clock(), limit=50)
        chosen = Asked(sources=[Chosen(name=source, weight=1.0)], fallback=False, **asked)
        return [hit.id for hit in (await find_blended(database, tenant, wanted, chosen)).hits]

    await encode()
    builds = Neighbours(database, clock=clock)
    await builds.schedule()
    await JobLoop(database, {NEIGHBOURS_JOB: builds}, clock=clock).step()
    await store(tenant_id, tastes(120, 40, 8))
    await run(tenant_id)
    lending = Lending(database)
    await lending.lend()
    await store_items(tenant_id, [{"id": "new", "title": items(7, 8)[0]["title"]}])
    await encode()
    assert (await found("similar", seeds=["i007"], anchor="seeds", leave_out="anchor", absolute=True))[0] == "new"
    assert "new" not in await found("graph", recent=["i007"])
    await lending.lend()
    assert "new" in await found("graph", recent=["i007"])
    lists = "select others, scores from item_neighbours where tenant_id = $1 and kind = 3 and build = 1 and item_no = 8"
    before = await query(tenant_id, lists)
    assert 41 in before[0][0]
    assert before[0][1] == sorted(before[0][1], reverse=True)
    # A worker that starts anew does it again.
    await Lending(database).lend()
    assert await query(tenant_id, lists) == before


async def test_a_significantly_worse_model_does_not_take_over(
    database: Database, make_shop: Any, store: Store, run: Run, clock: Any
) -> None:
    """The generation stays, the report and the model say by how much and how sure; a person may still activate it."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, tastes(120, 40, 8))
    await run(tenant_id)
    before = (await load_tenant(database, tenant_id)).generation.gen
    clock.advance(2 * 86_400)
    # The history is lost but for the first event of each, and another is imported that knows no taste.
    first: dict[int, Row] = {}
    for who, what, ago, kind in tastes(120, 40, 8):
        first.setdefault(who, (who, what, ago + 2, kind))
    async with database.tenant_session(tenant_id) as conn:
        await (await driver(conn)).execute("delete from events where tenant_id = $1", tenant_id)
    rng = np.random.default_rng(5)
    wrong = [(1000 + at // 30, 1 + int(rng.integers(40)), float(rng.uniform(3, 25)), "view") for at in range(3000)]
    await store(tenant_id, [*first.values(), *wrong])
    await store(tenant_id, [(who, what, ago / 15, kind) for who, what, ago, kind in tastes(120, 40, 4, seed=9)])
    job = await run(tenant_id, asked=False)
    report = msgspec.json.decode(job.report)
    assert not report["active"]
    assert "significantly worse" in report["reason"]
    generation = (await load_tenant(database, tenant_id)).generation
    assert (generation.gen, generation.behaviour_model) == (before, 1)
    comparison = msgspec.json.decode((await _models(database, tenant_id))[0].metrics)["comparison"]
    assert comparison["model"] == 1
    assert comparison["shoppers"] >= 30
    assert comparison["low"] < comparison["high"] < 0
    async with database.tenant_session(tenant_id) as conn:
        await serve_model(conn, tenant_id, 2, reason="test")
    assert (await load_tenant(database, tenant_id)).generation.behaviour_model == 2


async def test_a_model_that_is_not_significantly_worse_takes_over(
    database: Database, make_shop: Any, store: Store, run: Run, clock: Any
) -> None:
    """Of the same taste, learned from two days more; and where nobody did anything new, there is nothing to hold."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, tastes(120, 40, 8))
    await run(tenant_id)
    clock.advance(2 * 86_400)
    await store(tenant_id, [(who, what, ago / 15, kind) for who, what, ago, kind in tastes(120, 40, 4, seed=9)])
    job = await run(tenant_id, asked=False)
    assert msgspec.json.decode(job.report)["active"]
    assert (await load_tenant(database, tenant_id)).generation.behaviour_model == 2
    comparison = msgspec.json.decode((await _models(database, tenant_id))[0].metrics)["comparison"]
    assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    assert comparison["high"] >= 0
    assert msgspec.json.decode((await run(tenant_id, asked=False)).report)["active"]
    assert "comparison" not in msgspec.json.decode((await _models(database, tenant_id))[0].metrics)


async def test_kill_9_in_training_leaves_the_old_generation(
    database: Database, make_shop: Any, store: Store, run: Run, query: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that trains is killed half-way: nothing of its model is stored, the job is tried again."""
    tenant_id = await make_shop(items(0, 40))
    await store(tenant_id, tastes(120, 40, 8))
    await run(tenant_id)
    before = (await load_tenant(database, tenant_id)).generation
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def remembered(*command: Any, **more: Any) -> asyncio.subprocess.Process:
        started.append(await start(*command, **more))
        return started[-1]

    run_whole = in_child.run_child

    async def run_until_killed(task: Any, folder: Any, on_progress: Any, **more: Any) -> Any:
        async def kill(done: int, total: int) -> None:
            await on_progress(done, total)
            started[-1].kill()

        return await run_whole(task, folder, kill, **more)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "create_subprocess_exec", remembered)
        patch.setattr(in_child, "run_child", run_until_killed)
        assert (await run(tenant_id)).status == "queued"
    assert started[-1].returncode == -signal.SIGKILL
    assert (await load_tenant(database, tenant_id)).generation == before
    for table, number in (("item_neighbours", "build"), ("behaviour_vectors", "model"), ("item_scores", "model")):
        of_others = f"select count(*)::int from {table} where tenant_id = $1 and {number} <> {before.behaviour_model}"
        assert await query(tenant_id, of_others) == [(0,)]
    clock.advance(120)
    assert await JobLoop(database, {TRAIN_JOB: Training(database, clock=clock)}, clock=clock).step()
    assert (await load_tenant(database, tenant_id)).generation.behaviour_model == 3
