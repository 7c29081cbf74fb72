"""Plans as data: how fast a tenant may ask, how much it may have, and what happens beyond.

docs/limits.md has the table, made from here and checked by a test.
"""

from collections.abc import Mapping
from typing import Final, Literal

import structlog
from msgspec import Struct

from infra.errors import Invalid
from tenants.limits.gcra import Rate

Meter = Literal["requests", "events", "items", "placements", "members", "shops"]
"""What quotas are of. `requests` and `events` are counted by the month, the others are what there is at a time."""

MONTHLY: Final[frozenset[Meter]] = frozenset({"requests", "events"})

Beyond = Literal["refuse", "bill"]

Feature = Literal["rules", "experiments"]

_log = structlog.get_logger(__name__)


class UnknownPlan(Invalid):
    """There is no plan of that name."""

    code = "unknown_plan"
    title = "There is no such plan"


class Quota(Struct, frozen=True, kw_only=True):
    """How much of a meter a plan includes, and whether more is refused or billed."""

    limit: int
    beyond: Beyond


class Plan(Struct, frozen=True, kw_only=True):
    """What a tenant has: `rates` of all its keys together, `key` of each key that names no rate of its own.

    A meter without a quota is not limited.
    """

    name: str
    rates: tuple[Rate, ...] = ()
    key: Rate | None = None
    quotas: Mapping[Meter, Quota] = {}
    features: frozenset[Feature] = frozenset()


def _rates(*, peak_per_s: int, per_min: int) -> tuple[Rate, Rate]:
    """What passes within a second, and what is sustained, with six seconds of it at once after a rest."""
    return (
        Rate(name="burst", quota=peak_per_s, window_s=1, burst=peak_per_s),
        Rate(name="sustained", quota=per_min, window_s=60, burst=per_min // 10),
    )


def _refuse(limit: int) -> Quota:
    return Quota(limit=limit, beyond="refuse")


def _bill(limit: int) -> Quota:
    return Quota(limit=limit, beyond="bill")


FREE: Final = Plan(
    name="free",
    rates=_rates(peak_per_s=25, per_min=600),
    key=Rate(name="key", quota=600, window_s=60, burst=60),
    quotas={
        "requests": _refuse(50_000),
        "events": _refuse(200_000),
        "items": _refuse(2_000),
        "placements": _refuse(5),
        "members": _refuse(2),
        "shops": _refuse(1),
    },
)
PRO: Final = Plan(
    name="pro",
    rates=_rates(peak_per_s=250, per_min=6_000),
    quotas={
        "requests": _bill(1_000_000),
        "events": _bill(5_000_000),
        "items": _bill(100_000),
        "placements": _refuse(100),
        "members": _refuse(20),
        "shops": _refuse(10),
    },
)
ENTERPRISE: Final = Plan(
    name="enterprise",
    rates=_rates(peak_per_s=2_500, per_min=60_000),
    quotas={
        "requests": _bill(50_000_000),
        "events": _bill(250_000_000),
        "items": _bill(2_000_000),
    },
    features=frozenset({"rules", "experiments"}),
)
UNLIMITED: Final = Plan(name="unlimited")
"""What every tenant of an installation of one's own has: nothing but its keys' own rates is limited."""

PLANS: Final[Mapping[str, Plan]] = {plan.name: plan for plan in (FREE, PRO, ENTERPRISE)}
"""The plans of the hosted service, from the smallest on."""


def plan_named(name: str) -> Plan:
    """The plan of that name. Raises UnknownPlan."""
    plan = PLANS.get(name)
    if plan is None:
        raise UnknownPlan(f"There is no plan {name!r}; there are {', '.join(PLANS)}.")
    return plan


def stored_plan(name: str) -> Plan:
    """The plan that a tenant's row names; the smallest where there is none of that name any more."""
    plan = PLANS.get(name)
    if plan is None:
        _log.warning("plans.unknown", plan=name)
        return FREE
    return plan


def plan_with_more(plan: Plan, meter: Meter) -> Plan | None:
    """The smallest plan that has more of a meter, or goes on beyond; None where there is none."""
    own = plan.quotas.get(meter)
    if own is None:
        return None
    for other in PLANS.values():
        quota = other.quotas.get(meter)
        if quota is None or quota.limit > own.limit:
            return other
    return None


def plan_with(feature: Feature) -> Plan:
    """The smallest plan that has a feature."""
    return next(plan for plan in PLANS.values() if feature in plan.features)
