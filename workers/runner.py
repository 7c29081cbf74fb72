"""Runs jobs: claims one, does a piece of it, and decides what a failure means."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import structlog
from msgspec import Struct

from infra.clock import Clock, utc_now
from infra.db import Database
from infra.errors import KindredError, Overloaded, UpstreamFailed
from infra.telemetry import Children, counter
from tenants.jobs import ClaimedJob, LostClaimError, claim_job, finish, hold, postpone

log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 8
"""Failures in a row after which a job is dead."""

_KILLS: Final = (
    f"It was tried {MAX_ATTEMPTS} times without getting further, and the last time its worker was killed over it, "
    "perhaps for want of memory. Try less at once (a feed in several files), or ask whoever runs the workers."
)

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
    database: Database,
    job: ClaimedJob,
    handler: Handler,
    *,
    clock: Clock = utc_now,
    luck: float | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """One piece of a claimed job. Never raises but for a database that is away. `stop` is set when the worker ends."""
    structlog.contextvars.bind_contextvars(job_id=str(job.job_id), tenant_id=str(job.tenant_id))
    renewing = asyncio.create_task(_renew(database, job, clock, stop or asyncio.Event()))
    status = "ok"
    try:
        if job.attempts >= MAX_ATTEMPTS:
            status = "dead"
            log.error("jobs.dead", kind=job.kind, attempts=job.attempts)
            await _end_dead(database, job, clock, _KILLS)
        else:
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
        if isinstance(plan, Retry):
            async with database.tenant_session(job.tenant_id) as conn:
                await postpone(conn, job, now=clock(), after_s=plan.after_s, error=detail)
        else:
            with suppress(LostClaimError):
                await _end_dead(database, job, clock, detail)
    finally:
        renewing.cancel()
        jobs_run(job.kind, status).inc()
        structlog.contextvars.unbind_contextvars("job_id", "tenant_id")


async def _end_dead(database: Database, job: ClaimedJob, clock: Clock, error: str) -> None:
    async with database.tenant_session(job.tenant_id) as conn:
        await finish(conn, job, "failed", now=clock(), error=error)


async def _renew(database: Database, job: ClaimedJob, clock: Clock, stop: asyncio.Event) -> None:
    """Say that the job is in good hands while a long step (a download) says nothing, and once when the worker ends."""
    leaving = False
    while True:
        if leaving:
            await asyncio.sleep(_RENEW_S)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _RENEW_S)
        leaving = stop.is_set()
        try:
            async with database.tenant_session(job.tenant_id) as conn:
                await hold(conn, job, now=clock(), leaving=leaving)
        except Exception as error:
            # The next time will do: the lease is four times as long.
            log.warning("jobs.renewal_failed", kind=job.kind, error=type(error).__name__)


class JobLoop:
    """Runs the jobs that are due, one at a time, those that waited longest first. Several loops may run at once."""

    def __init__(self, database: Database, handlers: Mapping[str, Handler], *, clock: Clock = utc_now) -> None:
        self._database = database
        self._handlers = handlers
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; the piece in hand is finished."""
        while not stop.is_set():
            if not await self.step(stop):
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _IDLE_S)

    async def step(self, stop: asyncio.Event | None = None) -> bool:
        """One piece of one job; False when none was due. `stop` is set when the worker ends."""
        async with self._database.system_session(reason="claim a job") as system:
            job = await claim_job(system, list(self._handlers), self._clock())
        if job is None:
            return False
        await run_job(self._database, job, self._handlers[job.kind], clock=self._clock, stop=stop)
        return True
