"""May this tenant, and how much? The plan that holds for it, known to each process and dropped by the change feed."""

from typing import Final, Literal

from billing.plans import UNLIMITED, Feature, Plan, plan_with, stored_plan
from infra.db import TenantId
from infra.errors import PaymentRequired
from tenants.directory import Directory
from tenants.lifecycle import TenantRef

Mode = Literal["plans", "licence"]
"""`plans`: each tenant's row names its plan (hosted). `licence`: the row is ignored, the core is unlimited."""


class FeatureNotInPlan(PaymentRequired):
    """The plan of the tenant does not have this feature."""

    code = "feature_not_in_plan"
    title = "The plan does not include this"


class Entitlements:
    """The plan of a tenant: in memory once known, and right again within a second of a change."""

    def __init__(self, mode: Mode, directory: Directory) -> None:
        self._mode: Final = mode
        self._directory = directory

    def known_plan(self, tenant_id: TenantId) -> Plan | None:
        """The plan that holds now, where this process knows it."""
        if self._mode == "licence":
            return UNLIMITED
        tenant = self._directory.known(tenant_id)
        return None if tenant is None else stored_plan(tenant.plan)

    async def plan_of(self, tenant_id: TenantId) -> Plan:
        """The plan that holds now. Raises TenantNotFound, and what asyncpg raises where nothing is known of it."""
        if self._mode == "licence":
            return UNLIMITED
        return plan_for(self._mode, await self._directory.get(tenant_id))


def plan_for(mode: Mode, tenant: TenantRef) -> Plan:
    """The plan of a tenant that is known."""
    return UNLIMITED if mode == "licence" else stored_plan(tenant.plan)


def require_feature(plan: Plan, feature: Feature) -> None:
    """Raises FeatureNotInPlan, naming the plan that has it."""
    if feature not in plan.features:
        raise FeatureNotInPlan(
            f"The plan {plan.name} does not include {feature}; {plan_with(feature).name} does. Change the plan, "
            "or ask whoever runs this installation for a licence."
        )
