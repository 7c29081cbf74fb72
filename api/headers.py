"""The headers that every answer has, whatever made it; and which pages of other origins may read it."""

from collections.abc import Sequence
from typing import Final

from api.auth import Caller, OriginRefused

Header = tuple[bytes, bytes]

API: Final = "/v1/"

# Answers are data: nothing in them runs, is framed, or is sniffed to be something else. A page brings a policy of its
# own (api/routes/docs.py, api/console/pages), and what it brings stays.
_ALWAYS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Whoever asks by a key is told what no cache may keep for another; and by which origin it may be read.
_OF_API: Final[tuple[Header, ...]] = (*_ALWAYS, (b"cache-control", b"no-store"), (b"vary", b"Origin"))
# Two years, as lists of browsers ask for. Sent over HTTPS alone: by itself, or as the proxy before us says.
_HTTPS: Final[Header] = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")

_OPEN: Final = ("/photos/", "/openapi.json")
"""What any page may read: it needs no key."""
_EXPOSED: Final[Header] = (
    b"access-control-expose-headers",
    b"x-request-id, retry-after, ratelimit, ratelimit-policy, kindred-quota, idempotent-replayed",
)
_PREFLIGHT: Final[tuple[Header, ...]] = (
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        b"authorization, x-api-key, x-visitor-token, content-type, x-request-id, idempotency-key",
    ),
    (b"access-control-max-age", b"86400"),
)


_BROUGHT: Final = frozenset(name for name, _ in _OF_API)


def safe(given: Sequence[Header], path: str, *, https: bool) -> list[Header]:
    """The headers of an answer with those that it lacks; names are in lower case (ASGI)."""
    every = _OF_API if path.startswith(API) else _ALWAYS
    names = {name for name, _ in given}
    if not names.isdisjoint(_BROUGHT):
        every = tuple(header for header in every if header[0] not in names)
    return [*given, *every, _HTTPS] if https else [*given, *every]


def cross_origin(origin: str, path: str, caller: object, *, preflight: bool) -> tuple[Header, ...]:
    """What lets a page of this origin read the answer; nothing for a page that may not.

    `caller` is a Caller, or the exception that says why there is none. A publishable key that is bound to origins has
    been held to them by then; a secret key is for servers. A preflight carries no key, so it is answered to any origin,
    and says of the key nothing. No cookie is ever allowed (`Access-Control-Allow-Credentials` is never sent).
    """
    if path.startswith(_OPEN):
        return ((b"access-control-allow-origin", b"*"),)
    if not path.startswith(API):
        return ()
    allowed: Header = (b"access-control-allow-origin", origin.encode("latin-1"))
    if preflight:
        return (allowed, *_PREFLIGHT)
    if isinstance(caller, Caller):
        return (allowed, _EXPOSED) if caller.kind == "publishable" else ()
    # A page must be able to read why its key is refused, but not on which pages it would work.
    return () if isinstance(caller, OriginRefused) else (allowed, _EXPOSED)
