"""When a message is sent again, and what an answer means. Pure."""

from datetime import timedelta
from typing import Final, Literal

from msgspec import Struct

TIMEOUT_S: Final = 15.0
"""An answer that comes later is none."""

RETRIES: Final[tuple[timedelta, ...]] = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The pause after each failure, as Standard Webhooks suggests: ten attempts in a little more than three days."""

JITTER: Final = 0.2
"""By how much of itself a pause is longer at most, so that what failed together is not tried together."""

FAILING_AFTER: Final = timedelta(days=5)
"""An endpoint that fails for so long without one success is disabled."""

SURE_AFTER: Final = 4
"""Failures in a row of one message after which the failing is believed to go on."""

GONE: Final = 410


class Verdict(Struct, frozen=True, kw_only=True):
    """What becomes of a message after an attempt. `after`: the pause before the next; `gone`: there is no endpoint."""

    status: Literal["pending", "delivered", "failed"]
    after: timedelta | None = None
    gone: bool = False


def judge(tries: int, status_code: int | None, *, luck: float) -> Verdict:
    """What follows from attempt number `tries` (from 1) that was answered so, or not at all.

    `luck` in [0, 1) chooses the jitter. A redirect is a failure: what is signed for one address is sent to no other.
    """
    if status_code is not None and 200 <= status_code < 300:
        return Verdict(status="delivered")
    if status_code == GONE:
        return Verdict(status="failed", gone=True)
    if tries > len(RETRIES):
        return Verdict(status="failed")
    return Verdict(status="pending", after=RETRIES[tries - 1] * (1 + JITTER * luck))
