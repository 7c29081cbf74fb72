"""docs/limits.md says what the plans are."""

import re
from pathlib import Path

from api.limits.crowd import MAX_AT_ONCE
from api.routes import events, items
from billing.plans import PLANS, Plan, Quota

_ROOT = Path(__file__).parents[2]


def _quota(quota: Quota | None) -> str:
    return "–" if quota is None else f"{quota.limit:,}, then {'billed' if quota.beyond == 'bill' else 'refused'}"


def _column(plan: Plan) -> list[str]:
    burst, sustained = plan.rates
    assert (burst.window_s, sustained.window_s) == (1, 60)
    assert burst.burst == burst.quota
    quotas = [_quota(plan.quotas.get(meter)) for meter in ("requests", "events", "items", "placements")]
    quotas += [_quota(plan.quotas.get(meter)) for meter in ("members", "shops")]
    return [
        plan.name,
        f"{burst.quota:,}",
        f"{sustained.quota:,}",
        f"{sustained.burst:,}",
        "–" if plan.key is None else f"{plan.key.quota:,}",
        *quotas,
        ", ".join(sorted(plan.features)) or "–",
    ]


def test_the_table_is_made_of_the_plans() -> None:
    """Row by row."""
    page = (_ROOT / "docs" / "limits.md").read_text()
    table = re.search(r"^\| \| free.*?(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    assert table is not None
    rows = [line.strip("|").split("|") for line in table.group().splitlines() if not line.startswith("|---")]
    shown = [[cell.strip() for cell in row[1:]] for row in rows]
    assert shown == [list(row) for row in zip(*(_column(plan) for plan in PLANS.values()), strict=True)]


def test_the_costs_are_those_of_the_routes() -> None:
    """By the body."""
    page = (_ROOT / "docs" / "limits.md").read_text()
    assert "(one more for each 20 kB of\nits body)" in page
    assert events.post_events.opt["cost"].body_bytes == 20_000
    assert "(one more for each 100 kB)" in page
    assert items.bulk_items.opt["cost"].body_bytes == 100_000
    assert f"{MAX_AT_ONCE} of your calls" in page
