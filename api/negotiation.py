"""Whether a client takes the form in which a route answers (RFC 9110, 12.5.1)."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from api.contract import KEY, Contract
from api.problems import MEDIA_TYPE, NotAcceptable


async def acceptable(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar guard: the Accept header, where there is one, takes an answer of the route. Raises NotAcceptable."""
    accept = connection.headers.get("accept")
    if accept is None or "*/*" in accept:
        return
    said = handler.opt.get(KEY)
    if not isinstance(said, Contract) or said.status == 204:
        return
    offered = [*said.answer_types] or ["application/json"]
    if said.answer is not None and said.answer_types:
        offered.append("application/json")
    if not any(_takes(accept, media_type) for media_type in offered):
        raise NotAcceptable(f"This answers {' or '.join(offered)} (and errors as {MEDIA_TYPE}); accept that, or */*.")


def _takes(accept: str, media_type: str) -> bool:
    kind = media_type.partition("/")[0]
    for part in accept.lower().split(","):
        given, _, parameters = part.partition(";")
        if given.strip() in (media_type, f"{kind}/*") and parameters.replace(" ", "") not in ("q=0", "q=0.0"):
            return True
    return False
