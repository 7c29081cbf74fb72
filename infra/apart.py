"""Rounds over all tenants, in which what fails for one is no other's affair."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog

log = structlog.get_logger(__name__)


@contextmanager
def apart(task: str, tenant_id: UUID) -> Iterator[None]:
    """One tenant's part of a round: whatever goes wrong in it is logged with the tenant, and the round goes on."""
    try:
        yield
    except Exception:
        log.exception("tenant.left_out", task=task, tenant_id=str(tenant_id))
