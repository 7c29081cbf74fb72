"""What fails for one tenant of a round."""

from uuid import UUID

import pytest
from structlog.testing import capture_logs

from infra.apart import apart

ONE, OTHER = UUID(int=1), UUID(int=2)


def test_the_round_goes_on_with_the_next() -> None:
    """And the log names the tenant that was left out, and of what."""
    done = []
    with capture_logs() as lines:
        for tenant_id in (ONE, OTHER):
            with apart("sweep", tenant_id):
                if tenant_id == ONE:
                    raise ValueError("its own affair")
                done.append(tenant_id)
    assert done == [OTHER]
    assert [(line["event"], line["task"], line["tenant_id"]) for line in lines] == [
        ("tenant.left_out", "sweep", str(ONE))
    ]


def test_who_is_told_to_end_ends() -> None:
    """Cancelling a worker's task is no failure of a tenant."""
    with pytest.raises(KeyboardInterrupt), apart("sweep", ONE):
        raise KeyboardInterrupt
