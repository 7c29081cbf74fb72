"""/v1/retention: how long a tenant's data is kept, and for how much less it may be."""

from typing import Final

from litestar import Response, get, put
from msgspec import Struct

from api.contract import contract
from api.deps import Services, caller_of, services_of
from api.wire import AnyRequest, answer, read_json
from api.work import writing
from tenants import retention
from tenants.retention import CLASSES, Retention, longest


class Kept(Struct, frozen=True, kw_only=True):
    """A class of data: `days` that it is kept (null: `note` says until when), `most` that may be chosen."""

    name: str
    what: str
    days: float | None
    note: str
    may_choose: bool
    most: float | None


class RetentionTable(Struct, frozen=True, kw_only=True):
    """Every class of data that there is."""

    classes: list[Kept]


_EXAMPLE: Final = {"events": 365, "answers": 30}


def _days(services: Services) -> int | None:
    return services.settings.events_retention_days or None


def _table(services: Services, chosen: Retention) -> RetentionTable:
    settings: dict[str, int | None] = {"deleted_tenants": services.settings.tenant_grace_days}
    settings.update(longest(_days(services)).items())
    return RetentionTable(
        classes=[
            Kept(
                name=each.name,
                what=each.what,
                days=getattr(chosen, each.name, None) or settings.get(each.name, each.days),
                note=each.note,
                may_choose=each.tenant_chooses,
                most=settings.get(each.name, each.days),
            )
            for each in CLASSES
        ]
    )


@get(
    "/v1/retention", opt=contract(scope="admin", tag="Account", summary="How long data is kept", answer=RetentionTable)
)
async def get_retention(request: AnyRequest) -> Response[bytes]:
    """Every class of data, what it is, and for how many days this tenant's is kept."""
    services = services_of(request)
    tenant_id = caller_of(request).tenant_id
    async with services.database.tenant_session(tenant_id) as conn:
        chosen = await retention.get_retention(conn, tenant_id)
    return answer(_table(services, chosen))


@put(
    "/v1/retention",
    status_code=200,
    opt=contract(
        scope="admin",
        tag="Account",
        summary="Have data kept for less",
        audit="retention.put",
        body=Retention,
        body_example=_EXAMPLE,
        answer=RetentionTable,
    ),
)
async def put_retention(request: AnyRequest) -> Response[bytes]:
    """Replaces what was chosen before. What is older is removed within an hour, and is in no later backup."""
    chosen = await read_json(request, Retention)
    services = services_of(request)
    async with writing(request) as work:
        await retention.set_retention(work.conn, work.tenant_id, chosen, events_days=_days(services))
        await work.note(events=chosen.events, answers=chosen.answers)
        return work.answered(answer(_table(services, chosen)))


ROUTES: Final = (get_retention, put_retention)
