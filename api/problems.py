"""Every exception -> RFC 9457 `application/problem+json`; the one place where a kind of error meets a status."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException
from msgspec import Struct

from infra.decode import MalformedJson
from infra.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    KindredError,
    NotFound,
    Overloaded,
    PaymentRequired,
    PreconditionFailed,
    QuotaExceeded,
    RateLimited,
    TooLarge,
    Unauthenticated,
    UpstreamFailed,
)
from infra.outage import AWAY

_log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


class RouteNotFound(NotFound):
    """No route has this path."""

    code = "route_not_found"
    title = "There is no such address"


class MethodNotAllowed(Invalid):
    """The path exists, but not with this method (405)."""

    code = "method_not_allowed"
    title = "The method is not allowed here"


class NotAcceptable(Invalid):
    """The client accepts no form that the route answers in (406)."""

    code = "not_acceptable"
    title = "There is no answer in a form that you accept"


class UnsupportedMediaType(Invalid):
    """The body is of a type that the route does not take (415)."""

    code = "unsupported_media_type"
    title = "The body's type is not taken here"


class BadRequest(Invalid):
    """The request breaks the protocol itself: its address, its headers, its encoding (400)."""

    code = "bad_request"
    title = "The request cannot be read"


class RequestTimeout(Invalid):
    """The client did not send what it began to (408)."""

    code = "request_timeout"
    title = "The request took too long to arrive"


class RangeNotSatisfiable(Invalid):
    """The range of a request lies behind the end of the file (416)."""

    code = "range_not_satisfiable"
    title = "The range is not within the file"


class NulCharacter(Invalid):
    """A text holds a NUL character, which PostgreSQL does not store."""

    code = "nul_character"
    title = "The request holds a NUL character"


class DatabaseAway(Overloaded):
    """The database does not answer; nothing was stored."""

    code = "database_unavailable"
    title = "The database is not available"


class InternalError(KindredError):
    """A defect of ours; the request id finds it in the log."""

    code = "internal_error"
    title = "Something went wrong on our side"


# The nearest class in the error's ancestry decides.
STATUS: Final[Mapping[type[KindredError], int]] = {
    BadRequest: 400,
    MalformedJson: 400,
    Unauthenticated: 401,
    PaymentRequired: 402,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    NotAcceptable: 406,
    RequestTimeout: 408,
    Conflict: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    RangeNotSatisfiable: 416,
    Invalid: 422,
    QuotaExceeded: 429,
    RateLimited: 429,
    KindredError: 500,
    Overloaded: 503,
    UpstreamFailed: 503,
}

_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"www-authenticate": 'Bearer realm="kindred"'},
    # What is left of the body is not waited for.
    408: {"connection": "close"},
    413: {"connection": "close"},
    429: {"retry-after": "1"},
    503: {"retry-after": "1"},
}


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every error (RFC 9457). `type` is an address of this server's documentation."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: Sequence[FieldError] = ()


def status_of(kind: type[KindredError]) -> int:
    """The HTTP status of a kind of error."""
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def problem(error: KindredError, *, path: str, request_id: str) -> Problem:
    """The error as the API tells it."""
    return Problem(
        type=f"/docs/errors#{error.code}",
        title=error.title,
        status=status_of(type(error)),
        detail=error.detail,
        instance=path,
        code=error.code,
        request_id=request_id,
        errors=error.errors,
    )


def headers_of(status: int) -> dict[str, str]:
    """The headers that go with a status."""
    return dict(_HEADERS.get(status, {}))


def headers_for(error: KindredError) -> dict[str, str]:
    """The headers that go with an error."""
    headers = headers_of(status_of(type(error)))
    if error.retry_s is not None:
        headers["retry-after"] = str(error.retry_s)
    return headers


_NUL: Final = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)
_RETRY: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)


def known(error: Exception) -> KindredError:
    """The error itself, or what stands for it; a defect of ours is logged here and says nothing of its inside."""
    if isinstance(error, KindredError):
        if status_of(type(error)) == 500:
            _log.error("http.failed", exc_info=error)
        return error
    if isinstance(error, HTTPException):
        return _of_the_framework(error)
    cause = getattr(error, "orig", None)
    cause = getattr(cause, "__cause__", None) or cause
    if isinstance(error, AWAY) or isinstance(cause, AWAY) or getattr(error, "connection_invalidated", False):
        _log.warning("http.database_away", error=type(error).__name__)
        return DatabaseAway(
            "The database does not answer just now. Send the request again in a second: it may not be stored."
        )
    if isinstance(error, _NUL) or isinstance(cause, _NUL):
        return NulCharacter("A text of the request holds a NUL character (\\u0000); remove it.")
    if isinstance(error, _RETRY) or isinstance(cause, _RETRY):
        _log.warning("http.write_collided", error=type(cause or error).__name__)
        return DatabaseAway("Two writes of the same items met. Nothing of this one was stored; send it again.")
    _log.error("http.failed", exc_info=error)
    return InternalError("Nothing was lost that was acknowledged. Tell us the request id if it happens again.")


def _of_the_framework(error: HTTPException) -> KindredError:
    if error.status_code == 404:
        return RouteNotFound("There is nothing at this address; /docs lists the addresses that there are.")
    if isinstance(error, MethodNotAllowedException) or error.status_code == 405:
        return MethodNotAllowed("This address exists, but not with this method; the Allow header names those it has.")
    if error.status_code == 413:
        return TooLarge("The body is too large; nothing of it was stored.")
    if error.status_code == 415:
        return UnsupportedMediaType("The body's Content-Type is not taken here.")
    if error.status_code < 500:
        return BadRequest(error.detail or "The request cannot be read.")
    _log.error("http.failed", exc_info=error)
    return InternalError("Nothing was lost that was acknowledged. Tell us the request id if it happens again.")


def answer_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for all exceptions."""
    told = known(error)
    state = request.scope["state"]
    request_id: str = state.get("request_id", "")
    body = problem(told, path=state.get("path", request.scope["path"]), request_id=request_id)
    headers = headers_for(told)
    if isinstance(error, HTTPException) and error.headers and "allow" in {name.lower() for name in error.headers}:
        headers["allow"] = next(value for name, value in error.headers.items() if name.lower() == "allow")
    state["error_code"] = told.code
    return Response(msgspec.json.encode(body), status_code=body.status, media_type=MEDIA_TYPE, headers=headers)
