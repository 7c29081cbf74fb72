"""Neighbours: builds the precomputed lists of a tenant, and sees when the next build is due."""

from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from tenants.jobs import ClaimedJob, finish, prune_jobs, restart
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
from workers.jobs.in_child import InChild
from workers.training.child import Usage, scratch
from workers.training.content.nearest import KEPT, Dial, Half
from workers.training.content.task import LISTS, PLAN, VECTORS, Plan

log = structlog.get_logger(__name__)

JOBS_KEPT: Final = timedelta(days=1)
"""For so long a finished build is among the tenant's jobs."""


class Neighbours(InChild):
    """The handler of `neighbours` jobs."""

    async def _run(self, job: ClaimedJob) -> None:
        """Build all lists of the job's tenant and switch to them."""
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
            usage = await self._child("neighbours", folder, job)
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
        return await self._queue(due, queue_build)


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
