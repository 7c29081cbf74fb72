"""/v1/tenant: the tenant that a key is of, deleted by its own wish."""

from datetime import datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, delete
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import services_of
from api.wire import AnyRequest, answer, read_json
from api.work import writing
from tenants.deletion import delete_tenant as remove


class DeleteTenant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: the tenant's exact name, typed by whoever deletes it."""

    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]


class TenantDeleted(Struct, frozen=True, kw_only=True):
    """Until `erase_after` whoever runs this installation can give everything back; then it is erased."""

    tenant_id: UUID
    deleted_at: datetime
    erase_after: datetime


_MOMENT: Final = datetime.fromisoformat("2026-01-15T12:00:00+00:00")


@delete(
    "/v1/tenant",
    status_code=202,
    opt=contract(
        scope="admin",
        tag="Account",
        summary="Delete this tenant with all it has",
        audit="tenant.delete",
        body=DeleteTenant,
        body_example={"name": "My shop"},
        answer=TenantDeleted,
        answer_example=TenantDeleted(
            tenant_id=UUID("0198c0de-0000-7000-8000-000000000000"),
            deleted_at=_MOMENT,
            erase_after=_MOMENT + timedelta(days=7),
        ),
        status=202,
    ),
)
async def delete_tenant(request: AnyRequest) -> Response[bytes]:
    """Every key stops, here at once and within a second everywhere, this one too.

    The data stays for the days of grace of this installation, for a deletion that was a mistake; then every row and
    file is erased, and a signed certificate of it is kept, which names nobody.
    """
    wanted = await read_json(request, DeleteTenant)
    services = services_of(request)
    grace = timedelta(days=services.settings.tenant_grace_days)
    async with writing(request) as work:
        deletion = await remove(work.conn, work.tenant_id, now=work.now, grace=grace, typed=wanted.name)
        await work.note(str(work.tenant_id), erase_after=deletion.erase_after.isoformat())
        told = TenantDeleted(tenant_id=work.tenant_id, deleted_at=deletion.deleted_at, erase_after=deletion.erase_after)
        return work.answered(answer(told, status=202))


ROUTES: Final = (delete_tenant,)
