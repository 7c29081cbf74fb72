"""What a route says of itself, as data: who may call it, what it takes, what it answers, with examples.

The guard, the body limit and the OpenAPI document read it; a route without it does not start.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, structs

from api.limits.cost import Cost
from billing.plans import Meter
from tenants.keys import Scope

KEY: Final = "contract"


class WriteQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a write; one that takes more derives from it. A mistyped `dry_run` must not write in earnest."""

    dry_run: Annotated[bool, Meta(description="Answer as the request would be answered, and change nothing.")] = False


class NoQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of what takes none."""


class Contract(Struct, frozen=True, kw_only=True):
    """One operation. `body`, `answer`, `query` are the types that the handler really reads and writes."""

    summary: str
    tag: str
    body: Any = None
    body_example: object = None
    body_types: Mapping[str, object] = {}
    """Further media types of the body, each with an example."""
    body_required: bool = True
    body_optional: Sequence[str] = ()
    """Fields of the body that may be left out, although its type has them always: the address says them."""
    answer: Any = None
    answer_example: object = None
    answer_types: Sequence[str] = ()
    """Media types of an answer that is not JSON."""
    query: type[Struct] | None = None
    status: int = 200
    tagged: bool = False
    """Whether the answer has an `ETag`, so that `If-None-Match` is heeded, and `If-Match` where the route writes."""
    audit: str | None = None
    """The action that a write notes in the audit log, as `key.create`."""
    unaudited: str | None = None
    """Why a write notes nothing there."""
    computes: bool = False
    """Whether a POST only answers, and changes nothing: no write."""
    refusals: Sequence[int] = ()
    """Statuses of errors beyond those that every such route has."""
    also: Mapping[int, str] = {}
    """Further statuses that are no errors."""

    @property
    def takes_body(self) -> bool:
        """Whether it reads a body."""
        return self.body is not None or bool(self.body_types)

    @property
    def writes(self) -> bool:
        """Whether it changes anything. A write takes `dry_run`, and as a POST an Idempotency-Key."""
        return self.audit is not None or self.unaudited is not None


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
    made = Contract(summary=summary, tag=tag, **said)
    if made.writes and made.query is None:
        made = structs.replace(made, query=WriteQuery)
    opt: dict[str, Any] = {"scope": scope, KEY: made}
    if max_body != "default":
        opt["max_body"] = max_body
    if direct is not None:
        opt["direct"] = direct
    if cost is not None:
        opt["cost"] = cost
    if meter is not None:
        opt["meter"] = meter
    return opt
