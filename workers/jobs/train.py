"""Training: makes a tenant's models out of its events, holds them against the ones before, and lets them serve."""

import asyncio
import hashlib
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

import workers.training.behaviour
import workers.training.shop
from infra.errors import Overloaded
from infra.telemetry import Children, counter, histogram
from tenants.jobs import ClaimedJob, advance, finish, restart
from tenants.learned.models import (
    ModelFiles,
    Trained,
    TrainJob,
    close_model,
    copy_events,
    copy_likes,
    copy_served,
    find_model,
    list_due,
    open_model,
    queue_training,
    retire_models,
    serve_model,
    store_rows,
)
from tenants.lifecycle import TenantRef, load_tenant
from workers.jobs.in_child import InChild
from workers.training.child import Usage, scratch
from workers.training.shop.plan import (
    EVENTS,
    LIKES,
    LISTS,
    OF_EACH,
    PLAN,
    RESULT,
    SCORES,
    SERVED,
    SERVED_LISTS,
    SERVED_VECTORS,
    SHOPPERS,
    VECTORS,
    Champion,
    FitPlan,
    FitResult,
)

log = structlog.get_logger(__name__)

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


class Training(InChild):
    """The handler of `train` jobs."""

    async def _run(self, job: ClaimedJob) -> None:
        """Train all models of the job's tenant, and let them serve where they may."""
        now = self._clock()
        async with self._database.tenant_session(job.tenant_id) as conn:
            await restart(conn, job)
            tenant = await load_tenant(conn, job.tenant_id)
            if tenant.generation.gen == 0:
                raise Overloaded("The shop is not a second old; its first training begins in a moment.")
            model = await open_model(conn, job.tenant_id, code_version(), now)
        async with scratch(self._folder) as folder:
            await self._gather(tenant, folder, now)
            began = asyncio.get_running_loop().time()
            usage = await self._child("behaviour", folder, job, after=1)
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
            champion = await self._copy_champion(conn, tenant, folder)
        plan = FitPlan(now=int(now.timestamp()), weights=weights, likes=likes, champion=champion)
        (folder / PLAN).write_bytes(msgspec.json.encode(plan))

    async def _copy_champion(self, conn: AsyncConnection, tenant: TenantRef, folder: Path) -> Champion | None:
        """What serves, and its rows in files; None where nothing does, or nobody can say what it was trained on."""
        number = tenant.generation.behaviour_model
        known = None if number is None else await find_model(conn, tenant.tenant_id, number)
        if known is None or known.window_to is None:
            return None
        settings = msgspec.json.decode(known.settings)
        if "space" not in settings:
            return None  # of what goes together alone: nothing of it is mixed into `for_you`
        await copy_served(conn, tenant.tenant_id, known.model, SERVED, folder / SERVED_LISTS, folder / SERVED_VECTORS)
        return Champion(
            model=known.model,
            space=settings["space"],
            alpha=settings["alpha"],
            dims=settings["dims"],
            until=int(known.window_to.timestamp()),
            blend=dict(tenant.generation.blend),
        )

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
            reason, active = verdict(result, champion=champion, asked=asked)
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
        return await self._queue(due, partial(queue_training, asked=False))


def verdict(result: FitResult, *, champion: int | None, asked: bool) -> tuple[str, bool]:
    """Why the new model serves or not, and whether. `champion`: the one that serves. Pure."""
    if not result.trusted:
        return "more than half of the events name items that the catalogue does not have", False
    if not result.trained:
        return "there is too little to learn from yet; see readiness", False
    if asked or champion is None:
        return "asked for" if asked else "the first", True
    held = result.comparison
    if held is not None and held.worse:
        return (
            f"recall@20 of {held.shoppers} shoppers is {held.recall:.3f}, that of model {held.model} "
            f"{held.champion_recall:.3f}: significantly worse (difference {held.low:.3f} to {held.high:.3f}); "
            "activate it at /v1/models if it is right",
            False,
        )
    return "newer events", True


def code_version() -> str:
    """A hash of the sources that train: the same, whatever else was released."""
    total = hashlib.sha256()
    for package in (workers.training.behaviour, workers.training.shop):
        for folder in sorted(package.__path__):
            for path in sorted(Path(folder).glob("*.py")):
                total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
