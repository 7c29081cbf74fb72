"""What happens at the end of a quota: it is refused, naming the plan that has more, or it goes on and is billed."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from billing.plans import Meter, Plan, plan_with_more
from infra.db import TenantId
from infra.errors import PaymentRequired, QuotaExceeded
from tenants.usage import Usage, add_used, count_fresh, end_of, lock_stock, month_of, note_near


class QuotaReached(PaymentRequired):
    """The plan includes no more of these; nothing of the call was stored."""

    code = "quota_reached"
    title = "The plan includes no more of these"


class MonthlyQuotaReached(QuotaExceeded):
    """What the plan includes for this month is used up."""

    code = "monthly_quota_reached"
    title = "The month's quota is used up"


def require_month(plan: Plan, usage: Usage, tenant_id: TenantId, meter: Meter, *, now: datetime) -> None:
    """Raises MonthlyQuotaReached where the month's quota of a meter is used up and more is refused. Never waits."""
    quota = plan.quotas.get(meter)
    if quota is None or quota.beyond == "bill" or usage.used(tenant_id, meter) < quota.limit:
        return
    raise _month_used(plan, meter, quota.limit, "and they are used.", now)


async def use_month(
    conn: AsyncConnection, plan: Plan, tenant_id: TenantId, meter: Meter, amount: int, *, now: datetime
) -> None:
    """Add to a month's meter in the transaction that uses so much of it, as its last statement: others wait for it.

    Raises MonthlyQuotaReached where that exceeds the quota and more is refused.
    """
    if not amount:
        return
    quota = plan.quotas.get(meter)
    used = await add_used(conn, tenant_id, meter, amount, quota=None if quota is None else quota.limit, now=now)
    if quota is not None and quota.beyond == "refuse" and used > quota.limit:
        said = f"of which {used - amount:,} are used, and this would add {amount:,}. Nothing of it was stored."
        raise _month_used(plan, meter, quota.limit, said, now)


def _month_used(plan: Plan, meter: Meter, limit: int, said: str, now: datetime) -> MonthlyQuotaReached:
    until = end_of(month_of(now))
    return MonthlyQuotaReached(
        f"The plan {plan.name} includes {limit:,} {meter} a month, {said} {_more(plan, meter)} "
        f"The next month begins at {until.isoformat()}.",
        retry_s=math.ceil((until - now).total_seconds()),
    )


_FREED: Final[Mapping[Meter, str]] = {
    "members": "Open invitations count too: withdraw one or remove a member",
    "shops": "Delete one",
}


def require_room(plan: Plan, meter: Meter, *, has: int, adding: int) -> None:
    """Raises QuotaReached where `adding` to what a tenant has of a meter would exceed its plan, and is refused."""
    quota = plan.quotas.get(meter)
    if quota is None or quota.beyond == "bill" or not adding or has + adding <= quota.limit:
        return
    things = meter if quota.limit != 1 else meter.removesuffix("s")
    raise QuotaReached(
        f"The plan {plan.name} includes {quota.limit:,} {things}; you have {has:,}, and this would add {adding:,}. "
        f"Nothing of it was stored. {_FREED.get(meter, 'Delete some')}, or change the plan. {_more(plan, meter)}"
    )


def may_refuse(plan: Plan, meter: Meter) -> bool:
    """Whether a write that adds may be refused: then it is one transaction with the look for room."""
    quota = plan.quotas.get(meter)
    return quota is not None and quota.beyond == "refuse"


async def make_room(
    conn: AsyncConnection,
    plan: Plan,
    tenant_id: TenantId,
    meter: Literal["items", "placements"],
    ids: Sequence[str],
    *,
    now: datetime,
    note: bool = True,
) -> None:
    """Look, in the transaction that writes these and before it does, whether those that are new have room.

    Where more is refused, all who add wait for each other until they have committed. `note`: tell the tenant when few
    are left. Raises QuotaReached.
    """
    quota = plan.quotas.get(meter)
    if quota is None:
        return
    stored, fresh = await count_fresh(conn, tenant_id, meter, ids)
    if fresh and may_refuse(plan, meter):
        await lock_stock(conn, tenant_id, meter)
        # Again: what somebody added meanwhile has taken room. Nobody waits who adds nothing.
        stored, fresh = await count_fresh(conn, tenant_id, meter, ids)
    if not fresh:
        return
    require_room(plan, meter, has=stored, adding=fresh)
    if note:
        await note_near(conn, tenant_id, meter, used=stored + fresh, quota=quota.limit, now=now)


def _more(plan: Plan, meter: Meter) -> str:
    other = plan_with_more(plan, meter)
    return "No plan has more; ask us." if other is None else f"The plan {other.name} has more."
