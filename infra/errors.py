"""The kinds of error, which know no HTTP.

A concrete error lives beside the code that raises it, as a subclass of a kind
with its own stable `code` and `title`. `api/problems.py` alone maps a kind to
a status.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One bad field: `pointer` is an RFC 6901 JSON pointer, `index` the row in a bulk call."""

    pointer: str
    code: str
    message: str
    index: int | None = None


class KindredError(Exception):
    """Base of all errors that a caller is told about; `detail` says what to do."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    retry_s: int | None = None
    """Seconds after which the very same request may succeed, where that is known."""

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), retry_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        if retry_s is not None:
            self.retry_s = retry_s


class Invalid(KindredError):
    """The request is understood but its content cannot be used."""

    code = "invalid"
    title = "The request has invalid fields"


class NotFound(KindredError):
    """There is no such thing, or it belongs to somebody else."""

    code = "not_found"
    title = "Not found"


class Conflict(KindredError):
    """The request contradicts the present state."""

    code = "conflict"
    title = "Conflict with the present state"


class PreconditionFailed(KindredError):
    """What the request says must be so is not so."""

    code = "precondition_failed"
    title = "A condition of the request does not hold"


class Unauthenticated(KindredError):
    """No key, or none that is valid."""

    code = "unauthenticated"
    title = "A valid API key is needed"


class Forbidden(KindredError):
    """The key is valid but may not do this."""

    code = "forbidden"
    title = "The key may not do this"


class QuotaExceeded(KindredError):
    """A limit of the plan is reached."""

    code = "quota_exceeded"
    title = "A limit of the plan is reached"


class RateLimited(KindredError):
    """Too many requests in too short a time."""

    code = "rate_limited"
    title = "Too many requests"


class PaymentRequired(KindredError):
    """The plan does not include this."""

    code = "payment_required"
    title = "The plan does not include this"


class TooLarge(KindredError):
    """The request is larger than the limit; nothing of it was stored."""

    code = "too_large"
    title = "The request is too large"


class Overloaded(KindredError):
    """Kindred is too busy or not ready; trying again later will work."""

    code = "overloaded"
    title = "Temporarily unavailable"


class UpstreamFailed(KindredError):
    """Somebody else's server failed; trying again later may work."""

    code = "upstream_failed"
    title = "Another server failed"
