"""Jobs whose work a child process does: files in, files out, and a job that is given back when the worker ends."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from infra.apart import apart
from infra.clock import Clock, utc_now
from infra.db import Database, TenantId
from tenants.jobs import ClaimedJob, advance
from workers.training.child import StoppedError, Task, Usage, run_child

Queue = Callable[[AsyncConnection, TenantId], Awaitable[object]]


class InChild(ABC):
    """A handler of such jobs. `folder`: where the files of a run lie meanwhile; `stop` is set when the worker ends."""

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
        """Do the job whole; what serves is what served before until then. Another worker begins it anew at once where
        this one ends.
        """
        try:
            await self._run(job)
        except StoppedError:
            async with self._database.tenant_session(job.tenant_id) as conn:
                await advance(conn, job, now=self._clock(), lease=timedelta(0))

    @abstractmethod
    async def _run(self, job: ClaimedJob) -> None: ...

    async def _child(self, task: Task, folder: Path, job: ClaimedJob, *, after: int = 0) -> Usage:
        """Run the task on the folder's files, and write how far it is; `after`: steps that follow it."""
        told = 0

        async def on_progress(done: int, total: int) -> None:
            nonlocal told
            before, told = told, done
            async with self._database.tenant_session(job.tenant_id) as conn:
                await advance(conn, job, now=self._clock(), done=told - before, total=total + after)

        return await run_child(task, folder, on_progress, stop=self._stop)

    async def _queue(self, due: Sequence[TenantId], queue: Queue) -> int:
        """Queue a job of each tenant; how many."""
        for tenant_id in due:
            with apart("queue", tenant_id):
                async with self._database.tenant_session(tenant_id) as conn:
                    await queue(conn, tenant_id)
        return len(due)
