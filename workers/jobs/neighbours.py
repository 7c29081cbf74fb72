"""Neighbours: builds the precomputed lists of a tenant, and sees when the next build is due."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import Database
from tenants.jobs import ClaimedJob, advance, finish, prune_jobs, restart
from tenants.learned.neighbours import (
    KIND_CONTENT,
    KIND_PHOTOS,
    NEIGHBOURS_JOB,
    OpenBuild,
    copy_lists,
    copy_vectors,
    drop_old_builds,
    finish_build,
    list_due,
    open_build,
    queue_build,
)
from tenants.lifecycle import Generation, load_tenant
from tenants.vectors.generations import activate_model
from workers.jobs.encode import Clock, utc_now
from workers.training.child import StoppedError, Usage, run_child, scratch
from workers.training.content.nearest import KEPT, Dial, Half
from workers.training.content.task import LISTS, PLAN, VECTORS, Plan, count_items

log = structlog.get_logger(__name__)

JOBS_KEPT: Final = timedelta(days=1)
"""For so long a finished build is among the tenant's jobs."""


class Neighbours:
    """The handler of `neighbours` jobs. `folder`: where the files of a build lie meanwhile."""

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

    async def __call__(self, job: ClaimedJob) -> None:
        """Build all lists of the job's tenant and switch to them; until then the ones before serve."""
        try:
            await self._build(job)
        except StoppedError:
            async with self._database.tenant_session(job.tenant_id) as conn:
                await advance(conn, job, now=self._clock(), lease=timedelta(0))

    async def _build(self, job: ClaimedJob) -> None:
        async with self._database.tenant_session(job.tenant_id) as conn:
            await restart(conn, job)
            generation = (await load_tenant(conn, job.tenant_id)).generation
            build = await open_build(conn, job.tenant_id)
        if build is None or build.layout_id != generation.layout_id:
            async with self._database.tenant_session(job.tenant_id) as conn:
                await finish(conn, job, "done", now=self._clock())
            return
        async with scratch(self._folder) as folder:
            # Not the transaction that took the watermark: what is committed in between belongs to the build.
            async with self._database.tenant_session(job.tenant_id) as conn:
                await copy_vectors(conn, job.tenant_id, build, folder / VECTORS)
            plan = plan_lists(generation)
            (folder / PLAN).write_bytes(msgspec.json.encode(plan))
            items = count_items(folder, plan)
            told = 0

            async def on_progress(done: int, total: int) -> None:
                nonlocal told
                before, told = told, done * items // max(1, total)
                async with self._database.tenant_session(job.tenant_id) as conn:
                    await advance(conn, job, now=self._clock(), done=told - before, total=items)

            usage = await run_child("neighbours", folder, on_progress, stop=self._stop)
            async with self._database.tenant_session(job.tenant_id) as conn:
                await self._switch(conn, job, build, folder, usage)
        async with self._database.tenant_session(job.tenant_id) as conn:
            await drop_old_builds(conn, job.tenant_id)

    async def _switch(
        self, conn: AsyncConnection, job: ClaimedJob, build: OpenBuild, folder: Path, usage: Usage
    ) -> None:
        """Store the lists and serve from them, all in one transaction: killed half-way, nothing of it is there."""
        rows = await copy_lists(conn, job.tenant_id, build.build, folder / LISTS)
        serves = await finish_build(conn, job.tenant_id, build)
        if serves:
            await activate_model(
                conn, job.tenant_id, reason="neighbours of the catalogue", neighbours_build=build.build
            )
        await finish(conn, job, "done", now=self._clock(), report=usage)
        log.info("neighbours.built", rows=rows, build=build.build, serves=serves)

    async def schedule(self) -> int:
        """Queue the builds that are due; how many."""
        async with self._database.system_session(reason="neighbours that are out of date") as system:
            await prune_jobs(system, [NEIGHBOURS_JOB], self._clock() - JOBS_KEPT)
            due = await list_due(system)
        for tenant_id in due:
            async with self._database.tenant_session(tenant_id) as conn:
                await queue_build(conn, tenant_id)
        return len(due)


def plan_lists(generation: Generation) -> Plan:
    """The lists of a generation: at its own weights of text and photos, and by photos alone."""
    texts = {space.space_id: (space.mean, space.dev) for space in (generation.text, generation.ngrams)}
    photos = {generation.image.space_id: (generation.image.mean, generation.image.dev)}
    return Plan(
        text_dim=generation.text.dim,
        image_dim=generation.image.dim,
        keep=KEPT,
        dials=[
            Dial(kind=kind, text=Half(weight=text, spread=texts), image=Half(weight=image, spread=photos))
            for kind, text, image in (
                (KIND_CONTENT, generation.text_weight, generation.image_weight),
                (KIND_PHOTOS, 0.0, 1.0),
            )
        ],
    )
