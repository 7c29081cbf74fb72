"""The end of a quota."""

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from billing.entitlements import FeatureNotInPlan, require_feature
from billing.plans import ENTERPRISE, FREE, PRO, UNLIMITED, Plan, UnknownPlan, plan_named, plan_with_more, stored_plan
from billing.quotas import MonthlyQuotaReached, QuotaReached, require_month, require_room
from infra.db import TenantId
from tenants.usage import Usage

TENANT = TenantId(UUID(int=7))
NOW = datetime(2026, 1, 31, 23, 0, tzinfo=UTC)


class _Used:
    """So much was used."""

    def __init__(self, used: int) -> None:
        self._used = used

    def used(self, tenant_id: TenantId, meter: str) -> int:
        return self._used


def _month(plan: Plan, used: int) -> None:
    require_month(plan, cast(Usage, _Used(used)), TENANT, "requests", now=NOW)


def test_a_month_ends_in_a_refusal_that_says_until_when() -> None:
    """With the seconds until the next month, and the plan that has more."""
    _month(FREE, 49_999)
    with pytest.raises(MonthlyQuotaReached, match=r"50,000 requests a month.*The plan pro has more") as caught:
        _month(FREE, 50_000)
    assert caught.value.retry_s == 3_600


def test_what_is_billed_or_not_limited_goes_on() -> None:
    """However much it is."""
    _month(PRO, 10**12)
    _month(UNLIMITED, 10**12)
    require_room(PRO, "items", has=10**9, adding=1)
    require_room(UNLIMITED, "items", has=10**9, adding=1)


def test_room_is_for_what_is_added() -> None:
    """Up to the quota and not one more; who is beyond it, as after a smaller plan, may still change what is there."""
    require_room(FREE, "shops", has=0, adding=1)
    require_room(FREE, "items", has=5_000, adding=0)
    with pytest.raises(QuotaReached, match=r"you have 1, and this would add 1.*The plan pro has more"):
        require_room(FREE, "shops", has=1, adding=1)
    with pytest.raises(QuotaReached):
        require_room(FREE, "items", has=1_999, adding=2)


def test_the_plan_with_more_is_the_smallest() -> None:
    """None where there is no end to reach, or no more to have."""
    assert plan_with_more(FREE, "requests") is PRO
    assert plan_with_more(PRO, "members") is ENTERPRISE
    assert plan_with_more(ENTERPRISE, "requests") is None
    assert plan_with_more(UNLIMITED, "requests") is None


def test_plans_by_name() -> None:
    """A name that nobody may give is refused; one that a row holds is the smallest plan."""
    assert plan_named("pro") is PRO
    with pytest.raises(UnknownPlan, match="free, pro, enterprise"):
        plan_named("gold")
    assert stored_plan("gold") is FREE
    assert stored_plan("enterprise") is ENTERPRISE


def test_a_feature_names_its_plan() -> None:
    """402 with the plan that has it."""
    require_feature(ENTERPRISE, "rules")
    for plan in (FREE, PRO, UNLIMITED):
        with pytest.raises(FeatureNotInPlan, match="enterprise does"):
            require_feature(plan, cast(Any, "rules"))
