"""What a shop uses of its plan: the one reckoning that `GET /v1/usage` and the console show."""

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from billing.entitlements import Mode
from billing.organisations import organisation_plan
from billing.plans import MONTHLY, Beyond, Meter, Plan
from infra.db import Database, TenantId
from tenants.accounts.holdings import load_holdings
from tenants.accounts.organisations import organisation_of
from tenants.usage import NEAR, Usage, load_month, load_stock

Level = Literal["within", "near", "used_up"]

_SHOWN: Final[tuple[Meter, ...]] = ("requests", "events", "items", "placements")


class MeterUsage(Struct, frozen=True, kw_only=True):
    """One thing that the plan counts. `limit` is null where it is not limited; `beyond` says what happens then."""

    meter: Meter
    used: Annotated[int, Meta(ge=0)]
    limit: int | None
    beyond: Beyond | None
    per: Literal["month", "total"]

    @property
    def percent(self) -> int:
        """Whole per cent of the limit that are used, rounded down; 0 where nothing limits it."""
        return self.used * 100 // self.limit if self.limit else 0

    @property
    def level(self) -> Level:
        """How near the limit is, by the steps at which a tenant is told."""
        return "used_up" if self.percent >= NEAR[1] else "near" if self.percent >= NEAR[0] else "within"


async def read_meters(database: Database, usage: Usage, tenant_id: TenantId, plan: Plan) -> list[MeterUsage]:
    """What the shop used this month and what it has; a second old at most."""
    async with database.tenant_session(tenant_id) as conn:
        used = await load_month(conn, tenant_id, usage.period)
        used |= await load_stock(conn, tenant_id)
    for meter in MONTHLY:
        # What this process counted and has not added up yet is used too.
        used[meter] = max(used.get(meter, 0), usage.used(tenant_id, meter))
    return [meter_usage(plan, meter, used.get(meter, 0)) for meter in _SHOWN]


async def read_organisation_meters(
    database: Database, tenant_id: TenantId, mode: Mode, *, now: datetime
) -> list[MeterUsage]:
    """Members, with open invitations, and shops of the organisation of a shop; nothing where it is of none."""
    async with database.tenant_session(tenant_id) as conn:
        org_id = await organisation_of(conn, tenant_id)
    if org_id is None:
        return []
    async with database.person_session(org_id=org_id) as conn:
        held = await load_holdings(conn, org_id, now=now)
    plan = organisation_plan(mode, held.plans)
    return [meter_usage(plan, "members", held.invited), meter_usage(plan, "shops", held.shops)]


def meter_usage(plan: Plan, meter: Meter, used: int) -> MeterUsage:
    """So much of a meter, beside what the plan includes of it."""
    quota = plan.quotas.get(meter)
    return MeterUsage(
        meter=meter,
        used=used,
        limit=None if quota is None else quota.limit,
        beyond=None if quota is None else quota.beyond,
        per="month" if meter in MONTHLY else "total",
    )
