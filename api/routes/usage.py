"""`GET /v1/usage`: the plan, its rate limits, and what of it is used."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from litestar import Response, get
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import caller_of, plan_of, services_of
from api.limits.gate import key_rate
from api.wire import AnyRequest, answer
from billing.plans import MONTHLY, Beyond, Meter, Plan
from tenants.limits.gcra import Rate
from tenants.usage import end_of, load_month, load_stock


class Period(Struct, frozen=True, kw_only=True):
    """The month that is counted, in UTC."""

    begins: datetime
    ends: datetime


class RateLimit(Struct, frozen=True, kw_only=True):
    """`quota` calls in each `window_s` seconds, up to `burst` of them at once; of all keys together, or of this one."""

    name: str
    of: Literal["tenant", "key"]
    quota: int
    window_s: int
    burst: int


class MeterUsage(Struct, frozen=True, kw_only=True):
    """One thing that the plan counts. `limit` is null where it is not limited; `beyond` says what happens then."""

    meter: Meter
    used: Annotated[int, Meta(ge=0)]
    limit: int | None
    beyond: Beyond | None
    per: Literal["month", "total"]


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """What holds now."""

    plan: str
    period: Period
    rate_limits: list[RateLimit]
    meters: list[MeterUsage]


_SHOWN: Final[tuple[Meter, ...]] = ("requests", "events", "items", "placements")


@get(
    "/v1/usage",
    opt=contract(
        scope="billing:read",
        tag="Usage",
        summary="Show limits and usage",
        answer=UsageAnswer,
        answer_example={
            "plan": "free",
            "period": {"begins": "2026-11-01T00:00:00Z", "ends": "2026-12-01T00:00:00Z"},
            "rate_limits": [{"name": "sustained", "of": "tenant", "quota": 600, "window_s": 60, "burst": 60}],
            "meters": [{"meter": "requests", "used": 812, "limit": 50_000, "beyond": "refuse", "per": "month"}],
        },
    ),
)
async def show_usage(request: AnyRequest) -> Response[bytes]:
    """The plan with its rate limits, what was used this month, and what there is; a second old at most.

    This is what limits go by. What is billed is counted from the answers themselves.
    """
    services = services_of(request)
    caller = caller_of(request)
    plan = await plan_of(request)
    period = services.usage.period
    async with services.database.tenant_session(caller.tenant_id) as conn:
        used = await load_month(conn, caller.tenant_id, period)
        used |= await load_stock(conn, caller.tenant_id)
    for meter in MONTHLY:
        # What this process counted and has not added up yet is used too.
        used[meter] = max(used.get(meter, 0), services.usage.used(caller.tenant_id, meter))
    limits = [_limit(rate, "tenant") for rate in plan.rates]
    own = plan.key if caller.rate_per_min is None else key_rate(caller.rate_per_min)
    if own is not None:
        limits.append(_limit(own, "key"))
    begins = datetime.combine(period, datetime.min.time(), UTC)
    return answer(
        UsageAnswer(
            plan=plan.name,
            period=Period(begins=begins, ends=end_of(period)),
            rate_limits=limits,
            meters=[_meter(plan, meter, used.get(meter, 0)) for meter in _SHOWN],
        )
    )


def _limit(rate: Rate, of: Literal["tenant", "key"]) -> RateLimit:
    return RateLimit(name=rate.name, of=of, quota=rate.quota, window_s=rate.window_s, burst=rate.burst)


def _meter(plan: Plan, meter: Meter, used: int) -> MeterUsage:
    quota = plan.quotas.get(meter)
    return MeterUsage(
        meter=meter,
        used=used,
        limit=None if quota is None else quota.limit,
        beyond=None if quota is None else quota.beyond,
        per="month" if meter in MONTHLY else "total",
    )


ROUTES: Final = (show_usage,)
