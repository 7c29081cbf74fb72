"""What a route says of itself, as data: who may call it, what it takes, what it answers, with examples.

The guard, the body limit and the OpenAPI document read it; a route without it does not start.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from api.limits.cost import Cost
from billing.plans import Meter
from tenants.keys import Scope

KEY: Final = "contract"


class Contract(Struct, frozen=True, kw_only=True):
    """One operation. `body`, `answer`, `query` are the types that the handler really reads and writes."""

    summary: str
    tag: str
    body: Any = None
    body_example: object = None
    body_types: Mapping[str, object] = {}
    """Further media types of the body, each with an example."""
    body_required: bool = True
    answer: Any = None
    answer_example: object = None
    answer_types: Sequence[str] = ()
    """Media types of an answer that is not JSON."""
    query: type[Struct] | None = None
    status: int = 200
    conditional: bool = False
    """Whether `If-Match` is heeded."""
    also: Mapping[int, str] = {}
    """Further statuses that are no errors."""


def contract(
    *,
    scope: Scope | Literal["public"],
    summary: str,
    tag: str,
    max_body: int | Literal["default"] | None = "default",
    direct: object = None,
    cost: Cost | None = None,
    meter: Meter | None = None,
    **said: Any,
) -> dict[str, Any]:
    """The `opt` of a route. `max_body` is in bytes, None for any size; `direct`: a `DirectHandler` (api/direct.py);
    `cost`: of its rate limits, one use where nothing is said; `meter`: what of the month's quota an answer uses."""
    opt: dict[str, Any] = {"scope": scope, KEY: Contract(summary=summary, tag=tag, **said)}
    if max_body != "default":
        opt["max_body"] = max_body
    if direct is not None:
        opt["direct"] = direct
    if cost is not None:
        opt["cost"] = cost
    if meter is not None:
        opt["meter"] = meter
    return opt
