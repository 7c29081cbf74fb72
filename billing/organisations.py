"""The plan of an organisation: the most generous one among its shops'. Members and shops are counted against it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from billing.entitlements import Mode
from billing.plans import FREE, PLANS, UNLIMITED, Plan, stored_plan
from billing.quotas import require_room
from tenants.accounts.holdings import CheckRoom, load_holdings, lock_organisation

_ORDER: Final = list(PLANS)


def organisation_plan(mode: Mode, plans: Sequence[str]) -> Plan:
    """The plan that holds for an organisation whose shops have these; the smallest where it has no shop."""
    if mode == "licence":
        return UNLIMITED
    return max((stored_plan(plan) for plan in plans), key=lambda plan: _ORDER.index(plan.name), default=FREE)


def room_check(mode: Mode) -> CheckRoom:
    """What refuses a member or a shop too many, by QuotaReached."""

    def check(plans: Sequence[str], meter: Literal["members", "shops"], has: int) -> None:
        require_room(organisation_plan(mode, plans), meter, has=has, adding=1)

    return check


async def make_room_for_shop(conn: AsyncConnection, mode: Mode, org_id: UUID, *, now: datetime) -> None:
    """Look, in the transaction that makes it, whether an organisation has room for one more shop; others wait.

    `conn` is a session in that organisation. Raises QuotaReached.
    """
    await lock_organisation(conn, org_id)
    held = await load_holdings(conn, org_id, now=now)
    room_check(mode)(held.plans, "shops", held.shops)
