"""Runs jobs: claims one, does a piece of it, and decides what a failure means."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import structlog
from msgspec import Struct
from sqlalchemy import text

from infra.clock import Clock, utc_now
from infra.db import Database
from infra.errors import KindredError, Overloaded, UpstreamFailed
from infra.telemetry import Children, counter
from tenants.jobs import ClaimedJob, LostClaimError, claim_job, finish, postpone

log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 8
"""Failures in a row after which a job is dead."""

_FIRST_S: Final = 2.0
_LONGEST_S: Final = 600.0
_IDLE_S: Final = 0.25
_RENEW_S: Final = 15.0

jobs_run = Children(counter("jobs_total", "Pieces of jobs by how they ended", ["kind", "status"]))


class Retry(Struct, frozen=True, kw_only=True):
    """Try again after so many seconds."""

    after_s: float


class Dead(Struct, frozen=True, kw_only=True):
    """Trying again would not help."""


def plan_retry(attempt: int, error: BaseException, *, luck: float = 0.5) -> Retry | Dead:
    """What to do after failure number `attempt` (from 1). Pure.

    Trouble elsewhere passes, and so may what nobody foresaw; what a caller has to change does not. The pause
    doubles from 2 s to 10 minutes; `luck` in [0, 1) spreads it over half to one and a half of that, so that jobs
    that failed together are not tried together.
    """
    passing = isinstance(error, Overloaded | UpstreamFailed) or not isinstance(error, KindredError)
    if not passing or attempt >= MAX_ATTEMPTS:
        return Dead()
    return Retry(after_s=min(_FIRST_S * 2 ** (attempt - 1), _LONGEST_S) * (0.5 + luck))


Handler = Callable[[ClaimedJob], Awaitable[None]]
"""Does a piece of a job in transactions of its own, and notes in them how far it got (`advance`, `finish`)."""


async def run_job(
    database: Database, job: ClaimedJob, handler: Handler, *, clock: Clock = utc_now, luck: float | None = None
) -> None:
    """One piece of a claimed job. Never raises but for a database that is away."""
    structlog.contextvars.bind_contextvars(job_id=str(job.job_id), tenant_id=str(job.tenant_id))
    renewing = asyncio.create_task(_renew(database, job, clock))
    status = "ok"
    try:
        await handler(job)
    except LostClaimError:
        # Its worker was taken for dead. The other one goes on from the last commit.
        log.warning("jobs.claim_lost", kind=job.kind)
        status = "lost"
    except Exception as error:
        attempt = job.attempts + 1
        plan = plan_retry(attempt, error, luck=random.random() if luck is None else luck)  # noqa: S311 - no secret
        detail = (
            error.detail if isinstance(error, KindredError) else "An unexpected failure; it is in the worker's log."
        )
        status = "retried" if isinstance(plan, Retry) else "dead"
        log.log(30 if isinstance(error, KindredError) else 40, f"jobs.{status}", kind=job.kind, exc_info=error)
        async with database.tenant_session(job.tenant_id) as conn:
            if isinstance(plan, Retry):
                await postpone(conn, job, now=clock(), after_s=plan.after_s, error=detail)
            else:
                with suppress(LostClaimError):
                    await finish(conn, job, "failed", now=clock(), error=detail)
    finally:
        renewing.cancel()
        jobs_run(job.kind, status).inc()
        structlog.contextvars.unbind_contextvars("job_id", "tenant_id")


async def _renew(database: Database, job: ClaimedJob, clock: Clock) -> None:
    """Say that the job is in good hands while a long step (a download) says nothing."""
    while True:
        await asyncio.sleep(_RENEW_S)
        async with database.tenant_session(job.tenant_id) as conn:
            await conn.execute(
                text(
                    "update jobs set due = greatest(due, cast(:now as timestamptz) + interval '60 seconds') "
                    "where tenant_id = :tenant and job_id = :job and status = 'running' "
                    "and (state ->> 'claim')::int = :claim"
                ),
                {"now": clock(), "tenant": job.tenant_id, "job": job.job_id, "claim": job.claim},
            )


class JobLoop:
    """Runs the jobs that are due, one at a time, those that waited longest first. Several loops may run at once."""

    def __init__(self, database: Database, handlers: Mapping[str, Handler], *, clock: Clock = utc_now) -> None:
        self._database = database
        self._handlers = handlers
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; the piece in hand is finished."""
        while not stop.is_set():
            if not await self.step():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _IDLE_S)

    async def step(self) -> bool:
        """One piece of one job; False when none was due."""
        async with self._database.system_session(reason="claim a job") as system:
            job = await claim_job(system, list(self._handlers), self._clock())
        if job is None:
            return False
        await run_job(self._database, job, self._handlers[job.kind], clock=self._clock)
        return True
