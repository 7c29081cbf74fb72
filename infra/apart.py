"""Rounds over all tenants, in which what fails for one is no other's affair."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import structlog

from infra.telemetry import Children, counter

_left_out: Final = Children(
    counter("tenants_left_out_total", "Parts of rounds over all tenants that failed, by the round.", ["task"])
)

log = structlog.get_logger(__name__)


@contextmanager
def apart(task: str, tenant_id: UUID) -> Iterator[None]:
    """One tenant's part of a round: whatever goes wrong in it is logged with the tenant, and the round goes on."""
    try:
        yield
    # Of any kind: a row of one shop that nobody foresaw must not end deletion by age, or training, for all others. The
    # next round tries again. Where the database is away every part fails alike, and says so.
    except Exception:
        _left_out(task).inc()
        log.exception("tenant.left_out", task=task, tenant_id=str(tenant_id))
