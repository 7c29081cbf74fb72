"""`GET /v1/usage`: the plan, its rate limits, and what of it is used."""

from datetime import UTC, datetime
from typing import Final, Literal

from litestar import Response, get
from msgspec import Struct

from api.contract import contract
from api.deps import caller_of, plan_of, services_of
from api.limits.gate import key_rate
from api.wire import AnyRequest, answer
from billing.overview import MeterUsage, read_meters, read_organisation_meters
from tenants.limits.gcra import Rate
from tenants.usage import end_of


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


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """What holds now."""

    plan: str
    period: Period
    rate_limits: list[RateLimit]
    meters: list[MeterUsage]


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

    Members and shops are those of the organisation, against the best plan among its shops. This is what limits go by.
    What is billed is counted from the answers themselves.
    """
    services = services_of(request)
    caller = caller_of(request)
    plan = await plan_of(request)
    period = services.usage.period
    meters = await read_meters(services.database, services.usage, caller.tenant_id, plan)
    mode = services.settings.entitlements
    meters += await read_organisation_meters(services.database, caller.tenant_id, mode, now=services.clock())
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
            meters=meters,
        )
    )


def _limit(rate: Rate, of: Literal["tenant", "key"]) -> RateLimit:
    return RateLimit(name=rate.name, of=of, quota=rate.quota, window_s=rate.window_s, burst=rate.burst)


ROUTES: Final = (show_usage,)
