"""A shop's usage as the console tells it: bars, and a notice of what is near its quota or beyond."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

from msgspec import Struct

from api.deps import Services
from billing.overview import Level, MeterUsage, read_meters
from billing.plans import Meter, Plan, plan_with_more
from infra.db import TenantId
from tenants.usage import NEAR, end_of, load_notices

_PERCENT: Final[Mapping[Level, int]] = {"near": NEAR[0], "used_up": NEAR[1]}


class QuotaNotice(Struct, frozen=True, kw_only=True):
    """What is near its quota or beyond; `said` is what happens then, and what to do about it."""

    level: Level
    title: str
    said: str


class ShopUsage(Struct, frozen=True, kw_only=True):
    """What the page of a shop shows. `plan` is None where nothing is limited."""

    plan: str | None
    month: str
    meters: Sequence[MeterUsage]
    notices: Sequence[QuotaNotice]


async def usage_of(services: Services, tenant_id: TenantId) -> ShopUsage:
    """What a shop uses, now. Raises TenantNotFound."""
    plan = await services.entitlements.plan_of(tenant_id)
    period = services.usage.period
    meters = await read_meters(services.database, services.usage, tenant_id, plan)
    async with services.database.tenant_session(tenant_id) as conn:
        noticed = await load_notices(conn, tenant_id, period)
    since = {(each.meter, each.percent): each.at for each in noticed}
    return ShopUsage(
        plan=plan.name if plan.quotas else None,
        month=f"{period:%B %Y}",
        meters=meters,
        notices=[
            _notice(plan, each, since.get((each.meter, _PERCENT[each.level])), end_of(period).date())
            for each in meters
            if each.level != "within"
        ],
    )


def _notice(plan: Plan, shown: MeterUsage, since: datetime | None, ends: date) -> QuotaNotice:
    monthly = shown.per == "month"
    of = f"{shown.used:,} of {shown.limit:,}"
    from_then = "" if since is None else f" since {since:%-d %B}"
    if shown.level == "used_up":
        what = "this month’s quota is used up" if monthly else "the quota is used up"
        title = f"{shown.meter.capitalize()}: {what}{from_then} ({of})"
    else:
        title = f"{shown.meter.capitalize()}: {shown.percent} % of {'this month’s' if monthly else 'the'} quota ({of})"
    return QuotaNotice(level=shown.level, title=title, said=f"{_beyond(shown, ends)} {_remedy(plan, shown)}")


def _beyond(shown: MeterUsage, ends: date) -> str:
    until = f" until {ends:%-d %B}, when the next month begins" if shown.per == "month" else ""
    if shown.level == "used_up":
        told = {"bill": "More are billed", "refuse": "More are refused"}
    else:
        told = {"bill": "Nothing is billed yet; beyond the quota, more are", "refuse": "Beyond it, more are refused"}
    assert shown.beyond is not None  # a meter without a quota is near nothing
    return f"{told[shown.beyond]}{until if shown.beyond == 'refuse' else ''}."


def _remedy(plan: Plan, shown: MeterUsage) -> str:
    other = plan_with_more(plan, shown.meter)
    more = "No plan has more; ask us." if other is None else f"The plan {other.name} has more."
    return f"{more} Whoever runs this installation changes the plan{_DELETE.get(shown.meter, '')}."


_DELETE: Final[Mapping[Meter, str]] = {
    "items": "; deleting items makes room",
    "placements": "; deleting placements makes room",
}
