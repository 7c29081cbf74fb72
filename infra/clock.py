"""What time it is: by this machine, or by the database's server, whose time all processes share."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time of this machine, with its zone."""
    return datetime.now(UTC)
