"""Training: makes a tenant's models out of its events, holds them against the ones before, and lets them serve."""

import asyncio
import hashlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

import workers.training.behaviour
import workers.training.shop
from infra.db import Database, TenantId
from infra.telemetry import Children, counter, histogram
from tenants.jobs import ClaimedJob, advance, finish, restart
from tenants.learned.borrowing import lend, list_newcomers
from tenants.learned.models import (
    ModelFiles,
    Trained,
    TrainJob,
    close_model,
    copy_events,
    copy_likes,
    list_due,
    list_models,
    open_model,
    queue_training,
    retire_models,
    serve_model,
    store_rows,
)
from tenants.lifecycle import TenantNotFound, TenantRef, load_tenant
from workers.jobs.encode import Clock, utc_now
from workers.training.child import StoppedError, Usage, run_child, scratch
from workers.training.shop.plan import (
    EVENTS,
    LIKES,
    LISTS,
    OF_EACH,
    PLAN,
    RESULT,
    SCORES,
    SHOPPERS,
    VECTORS,
    FitPlan,
    FitResult,
)

log = structlog.get_logger(__name__)

WORSE: Final = 0.7
"""A new model whose validation recall is below this share of that of the one that serves does not take over by
itself: something is wrong with its events."""

models_trained = Children(counter("models_trained_total", "Trainings by what came of them", ["outcome"]))
training_seconds = Children(histogram("training_seconds", "Time of the training's process", ["outcome"]))


class TrainReport(Struct, frozen=True, kw_only=True):
    """What a training job answers: the model, whether it serves now and why not, what it holds."""

    model: int
    status: str
    active: bool
    reason: str
    trained: list[str]
    readiness: list[dict[str, Any]]
    peak_mb: float
    cpu_s: float


class Training:
    """The handler of `train` jobs. `folder`: where the files of a run lie meanwhile."""

    def __init__(
        self,
        database: Database,
        *,
        folder: Path | None = None,
        stop: asyncio.Event | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._folder = folder
        self._stop = stop
        self._clock = clock
        self._lent: dict[tuple[TenantId, int], datetime] = {}

    async def __call__(self, job: ClaimedJob) -> None:
        """Train all models of the job's tenant; until they are whole the ones before serve."""
        try:
            await self._train(job)
        except StoppedError:
            async with self._database.tenant_session(job.tenant_id) as conn:
                await advance(conn, job, now=self._clock(), lease=timedelta(0))

    async def _train(self, job: ClaimedJob) -> None:
        now = self._clock()
        async with self._database.tenant_session(job.tenant_id) as conn:
            await restart(conn, job)
            tenant = await load_tenant(conn, job.tenant_id)
            if tenant.generation.gen == 0:
                raise RuntimeError("the tenant has no generation yet")  # tried again soon
            model = await open_model(conn, job.tenant_id, code_version(), now)
        async with scratch(self._folder) as folder:
            await self._gather(tenant, folder, now)
            told = 0

            async def on_progress(done: int, total: int) -> None:
                nonlocal told
                before, told = told, done
                async with self._database.tenant_session(job.tenant_id) as conn:
                    await advance(conn, job, now=self._clock(), done=told - before, total=total + 1)

            began = asyncio.get_running_loop().time()
            usage = await run_child("behaviour", folder, on_progress, stop=self._stop)
            took = asyncio.get_running_loop().time() - began
            result = msgspec.json.decode((folder / RESULT).read_bytes(), type=FitResult)
            report = await self._keep(job, tenant, model, result, usage, folder)
        outcome = "active" if report.active else report.status
        models_trained(outcome).inc()
        training_seconds(outcome).observe(took)
        log.info("models.trained", model=model, outcome=outcome, trained=result.trained, events=result.counts.events)
        async with self._database.tenant_session(job.tenant_id) as conn:
            await retire_models(conn, job.tenant_id)

    async def _gather(self, tenant: TenantRef, folder: Path, now: datetime) -> None:
        weights = [(name, weight) for name, weight in sorted(tenant.event_weights.items()) if weight != 0]
        async with self._database.tenant_session(tenant.tenant_id) as conn:
            await copy_events(conn, tenant.tenant_id, [name for name, _ in weights], folder / EVENTS, now=now)
        async with self._database.tenant_session(tenant.tenant_id) as conn:
            likes = await copy_likes(conn, tenant.tenant_id, OF_EACH, folder / LIKES)
        plan = FitPlan(now=int(now.timestamp()), weights=weights, likes=likes)
        (folder / PLAN).write_bytes(msgspec.json.encode(plan))

    async def _keep(
        self, job: ClaimedJob, tenant: TenantRef, model: int, result: FitResult, usage: Usage, folder: Path
    ) -> TrainReport:
        """Store the rows and let them serve, in one transaction: killed half-way, nothing of it is there."""
        files = ModelFiles(
            lists=folder / LISTS, vectors=folder / VECTORS, scores=folder / SCORES, shoppers=folder / SHOPPERS
        )
        champion = tenant.generation.behaviour_model
        asked = msgspec.json.decode(job.payload, type=TrainJob).asked
        async with self._database.tenant_session(job.tenant_id) as conn:
            before = None
            for known in await list_models(conn, job.tenant_id):
                if known.model == champion:
                    before = _recall(msgspec.json.decode(known.metrics))
            reason, active = verdict(result, champion=champion, before=before, asked=asked)
            status = "ready" if result.trained else "waiting"
            if result.trained:
                await store_rows(conn, job.tenant_id, model, files, champion or 0)
            await close_model(
                conn,
                job.tenant_id,
                model,
                Trained(
                    status="ready" if result.trained else "waiting",
                    window_from=result.window_from,
                    window_to=result.window_to,
                    counts=result.counts,
                    content_hash=bytes.fromhex(result.content_hash),
                    sha256=bytes.fromhex(result.sha256),
                    settings={**result.settings, "blend": result.blend},
                    metrics={**result.metrics, "usage": msgspec.structs.asdict(usage)},
                    readiness=result.readiness,
                ),
            )
            if active:
                await serve_model(conn, job.tenant_id, model, reason=f"model {model} of behaviour")
            report = TrainReport(
                model=model,
                status=status,
                active=active,
                reason=reason,
                trained=result.trained,
                readiness=[msgspec.to_builtins(line) for line in result.readiness],
                peak_mb=usage.peak_mb,
                cpu_s=usage.cpu_s,
            )
            await advance(conn, job, now=self._clock(), done=1)
            await finish(conn, job, "done", now=self._clock(), report=report)
        return report

    async def schedule(self) -> int:
        """Queue the trainings that are due; how many."""
        async with self._database.system_session(reason="models that are out of date") as system:
            due = await list_due(system, self._clock())
        for tenant_id in due:
            async with self._database.tenant_session(tenant_id) as conn:
                await queue_training(conn, tenant_id, asked=False)
        return len(due)

    async def lend(self) -> int:
        """Give items that were encoded since their tenant's training a place in behaviour space; how many."""
        async with self._database.system_session(reason="items without a place in behaviour space") as system:
            newcomers = await list_newcomers(system, self._lent)
        placed = 0
        for each in newcomers:
            try:
                async with self._database.tenant_session(each.tenant_id) as conn:
                    tenant = await load_tenant(conn, each.tenant_id)
                    placed += await lend(conn, tenant, each)
            except TenantNotFound:
                continue
            self._lent[each.tenant_id, each.model] = each.latest
        return placed


def verdict(result: FitResult, *, champion: int | None, before: float | None, asked: bool) -> tuple[str, bool]:
    """Why the new model serves or not, and whether. `before`: the champion's recall on its own last weeks. Pure."""
    if not result.trusted:
        return "more than half of the events name items that the catalogue does not have", False
    if not result.trained:
        return "there is too little to learn from yet; see readiness", False
    if asked or champion is None:
        return "asked for" if asked else "the first", True
    now = _recall(result.metrics)
    if before is not None and now is not None and now < WORSE * before:
        return f"recall@20 fell from {before:.3f} to {now:.3f}; activate it at /v1/models if it is right", False
    return "newer events", True


def _recall(metrics: dict[str, Any]) -> float | None:
    """Of the blend, on the validation window."""
    found: float | None = metrics.get("validation", {}).get("recall@20", {}).get("blend")
    return found


def code_version() -> str:
    """A hash of the sources that train: the same, whatever else was released."""
    total = hashlib.sha256()
    for package in (workers.training.behaviour, workers.training.shop):
        for folder in sorted(package.__path__):
            for path in sorted(Path(folder).glob("*.py")):
                total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
