"""What becomes of a job whose worker is killed over it, or was only told to end."""

import asyncio
from uuid import UUID

import pytest
from msgspec import Struct

from infra.db import Database, TenantId, driver
from tenants.jobs import ClaimedJob, advance, claim_job, create_job, finish, get_job
from tenants.lifecycle import create_tenant
from tests.conftest import FrozenClock
from workers.runner import MAX_ATTEMPTS, JobLoop

pytestmark = pytest.mark.anyio

KIND = "of_this_test"


class Nothing(Struct):
    """A payload, and a state."""


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """A database of the test's own: a claim takes any shop's job."""
    return fresh_database_url


@pytest.fixture
async def queued(database: Database) -> tuple[TenantId, UUID]:
    """A shop and its job."""
    tenant_id = await create_tenant(database, "shop")
    async with database.tenant_session(tenant_id) as conn:
        return tenant_id, await create_job(conn, tenant_id, KIND, Nothing())


async def _killed(database: Database, clock: FrozenClock) -> ClaimedJob:
    """A worker takes the job and is never heard of again."""
    async with database.system_session(reason="test") as conn:
        job = await claim_job(conn, [KIND], clock())
    assert job is not None
    clock.advance(61)
    return job


async def _work(database: Database, clock: FrozenClock) -> list[ClaimedJob]:
    """What a healthy worker does, once: the jobs that its handler was given."""
    given = []

    async def handle(job: ClaimedJob) -> None:
        given.append(job)
        async with database.tenant_session(job.tenant_id) as conn:
            await finish(conn, job, "done", now=clock())

    await JobLoop(database, {KIND: handle}, clock=clock).step()
    return given


async def test_a_job_that_kills_its_worker_is_dead_at_last(
    database: Database, queued: tuple[TenantId, UUID], clock: FrozenClock
) -> None:
    """After as many tries as any job has; it says why, and what to do, and no worker takes it up again."""
    for _ in range(MAX_ATTEMPTS):
        await _killed(database, clock)
    assert await _work(database, clock) == []
    async with database.tenant_session(queued[0]) as conn:
        job = await get_job(conn, *queued)
    assert (job.status, "worker was killed" in (job.error or "")) == ("failed", True)
    assert job.finished_at is not None


async def test_the_last_try_is_a_try(database: Database, queued: tuple[TenantId, UUID], clock: FrozenClock) -> None:
    """A job whose workers died one time less is done by the next."""
    for _ in range(MAX_ATTEMPTS - 1):
        await _killed(database, clock)
    assert len(await _work(database, clock)) == 1


async def test_progress_between_two_kills_counts(
    database: Database, queued: tuple[TenantId, UUID], clock: FrozenClock
) -> None:
    """Workers may die as often as they like while each leaves a state from which the next goes on."""
    for _ in range(3 * MAX_ATTEMPTS):
        job = await _killed(database, clock)
        async with database.tenant_session(job.tenant_id) as conn:
            await advance(conn, job, now=clock(), done=1, state=Nothing())
        clock.advance(61)
    assert [job.attempts for job in await _work(database, clock)] == [1]


async def test_progress_that_is_lost_does_not_count(
    database: Database, queued: tuple[TenantId, UUID], clock: FrozenClock
) -> None:
    """A job that begins anew each time is not saved by how far it came."""
    for _ in range(MAX_ATTEMPTS):
        job = await _killed(database, clock)
        async with database.tenant_session(job.tenant_id) as conn:
            await advance(conn, job, now=clock(), done=1)
        clock.advance(61)
    assert await _work(database, clock) == []


async def test_a_worker_that_was_told_to_end_is_no_failure_of_the_job(
    database: Database, queued: tuple[TenantId, UUID], clock: FrozenClock
) -> None:
    """It says so at once, in case that it is killed before it is done with its piece: a deploy costs no attempt."""
    leaving = "select count(*) from jobs where tenant_id = $1 and state -> 'leaving' = state -> 'claim'"

    async def handle(job: ClaimedJob) -> None:
        stop.set()
        noted = 0
        while not noted:
            async with database.tenant_session(job.tenant_id) as conn:
                noted = await (await driver(conn)).fetchval(leaving, job.tenant_id)
        raise KeyboardInterrupt  # as a kill would: nothing more is written

    for _ in range(MAX_ATTEMPTS):
        stop = asyncio.Event()
        with pytest.raises(KeyboardInterrupt):
            await JobLoop(database, {KIND: handle}, clock=clock).step(stop)
        clock.advance(61)
    assert [job.attempts for job in await _work(database, clock)] == [0]
