"""/v1/jobs: how far long work is, and what went wrong in it."""

from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import NDJSON, AnyRequest, answer, read_query
from tenants import jobs
from tenants.jobs import Job, JobNotFound


class JobPage(Struct, frozen=True, kw_only=True):
    """Some jobs, the newest first; `next_cursor` is null at the end."""

    jobs: list[Job]
    next_cursor: str | None


class JobsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /v1/jobs`."""

    cursor: Annotated[UUID, Meta(description="`next_cursor` of the page before.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="Jobs on a page.")] = 50


def parse_job_id(raw: str) -> UUID:
    """A job's id out of the address. Raises JobNotFound: what is no UUID names no job."""
    try:
        return UUID(raw)
    except ValueError as error:
        raise JobNotFound(f"There is no job {raw!r}. Jobs are listed at /v1/jobs.") from error


@get("/v1/jobs/{job_id:str}", opt=contract(scope="catalog:read", tag="Jobs", summary="Show a job", answer=Job))
async def get_job(request: AnyRequest, job_id: FromPath[str]) -> Response[bytes]:
    """`done` and `failed` count rows; `report` says, when the job has ended, what was converted and why not."""
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        job = await jobs.get_job(conn, tenant_id, parse_job_id(job_id))
    return answer(job)


@get(
    "/v1/jobs",
    opt=contract(scope="catalog:read", tag="Jobs", summary="List jobs", query=JobsQuery, answer=JobPage),
)
async def list_jobs(request: AnyRequest) -> Response[bytes]:
    """All jobs, the newest first."""
    query = read_query(request, JobsQuery)
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await jobs.list_jobs(conn, tenant_id, before=query.cursor, limit=query.limit + 1)
    more = len(found) > query.limit
    found = found[: query.limit]
    return answer(JobPage(jobs=found, next_cursor=str(found[-1].job_id) if more else None))


@get(
    "/v1/jobs/{job_id:str}/errors",
    opt=contract(scope="catalog:read", tag="Jobs", summary="The errors of a job, line by line", answer_types=[NDJSON]),
)
async def job_errors(request: AnyRequest, job_id: FromPath[str]) -> Response[bytes]:
    """NDJSON, one fault a line, in the order of the feed: its line, the item's id, the field, what to mend.

    At most 10,000 are kept; `report` of the job counts them all.
    """
    tenant_id = caller_of(request).tenant_id
    parsed = parse_job_id(job_id)
    encoder, lines = msgspec.json.Encoder(), bytearray()
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        await jobs.get_job(conn, tenant_id, parsed)
        async for fault in jobs.iter_faults(conn, tenant_id, parsed):
            lines += encoder.encode(fault) + b"\n"
    headers = {"content-disposition": f'attachment; filename="{parsed}-errors.ndjson"'}
    return Response(bytes(lines), media_type=NDJSON, headers=headers)


ROUTES: Final = (get_job, list_jobs, job_errors)
