"""The few routes that the edge answers itself.

Routing, guards, request and answer of the framework cost a request 60 µs warm and several times that in a process that
slept meanwhile, as much as the whole list. A route that names a `direct` handler in its contract is spared them where
the request is plain: a known key with the scope, a JSON body of known and moderate length, nothing unusual about the
answer. Every other request goes through the framework, to the same function, and fails there as all others do.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive
from msgspec import Struct

from api.auth import Caller
from api.deps import Services
from billing.plans import Meter

PLAIN_BODY: Final = 1_000_000
"""Bytes; a larger body is for the framework, which knows the limit of the route."""

PLAIN: Final[Mapping[bytes, Callable[[bytes], bool]]] = {
    b"content-type": lambda value: value == b"application/json",
    b"content-encoding": lambda value: value == b"identity",
    b"accept": lambda value: b"*/*" in value or value == b"application/json",
    b"expect": lambda _: False,
}
"""What the headers of a plain request may say."""

DirectHandler = Callable[[Services, Caller, bytes], Awaitable[bytes]]
"""The encoded body of the answer, for a caller who may ask and a JSON body."""


class DirectRoute(Struct, frozen=True):
    """What the edge needs of a route: the scope, the bytes of an answer, and what of a month's quota it uses."""

    scope: str
    handle: Callable[[Caller, bytes], Awaitable[bytes]]
    meter: Meter | None = None


def direct_routes(handlers: Iterable[HTTPRouteHandler], services: Services) -> dict[tuple[str, str], DirectRoute]:
    """By method and path, the routes that name a `direct` handler; their paths have no parameters."""

    def route(scope: str, handler: DirectHandler, meter: Meter | None) -> DirectRoute:
        async def handle(caller: Caller, body: bytes) -> bytes:
            return await handler(services, caller, body)

        return DirectRoute(scope, handle, meter)

    return {
        (method, path): route(handler.opt["scope"], handler.opt["direct"], handler.opt.get("meter"))
        for handler in handlers
        if "direct" in handler.opt
        for method in handler.http_methods
        for path in handler.paths
    }


async def whole_body(receive: Receive) -> bytes:
    """The body of a request. Raises what `receive` raises."""
    message: Any = await receive()
    body: bytes = message["body"]
    if not message["more_body"]:
        return body
    pieces = [body]
    while message["more_body"]:
        message = await receive()
        pieces.append(message["body"])
    return b"".join(pieces)
