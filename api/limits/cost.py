"""What a call costs of its rate limits, as data of its route.

A call costs one use. One that carries many things costs more, told by the size of its body before that is read, or
by its handler, which knows how many there are.
"""

from collections.abc import Iterable, Mapping

from litestar.handlers import HTTPRouteHandler
from msgspec import Struct


class Cost(Struct, frozen=True, kw_only=True):
    """One use, and one more for each `body_bytes` of the body that are full; `rows`: the handler spends the rest."""

    body_bytes: int | None = None
    rows: str | None = None
    """What the handler counts: one use for each but the first."""

    def of(self, length: int | None, limit: int) -> int:
        """Uses of a body of that length; of the largest there may be, where it is not said."""
        return (
            1 if self.body_bytes is None else 1 + (limit if length is None else min(length, limit)) // self.body_bytes
        )

    def __str__(self) -> str:
        if self.rows is not None:
            return f"one for each of its {self.rows}"
        if self.body_bytes is not None:
            return f"one, and one more for each {self.body_bytes // 1000:,} kB of its body"
        return "one"


def costs_of(handlers: Iterable[HTTPRouteHandler], default_limit: int) -> Mapping[tuple[str, str], tuple[Cost, int]]:
    """By method and path, what costs more by its body, with the largest body. Raises TypeError for a path with parts.

    The edge asks before the call is routed, so it looks whole paths up.
    """
    found = {}
    for handler in handlers:
        cost = handler.opt.get("cost")
        if cost is None or cost.body_bytes is None:
            continue
        limit = handler.opt.get("max_body", default_limit)
        for path in handler.paths:
            if "{" in path or limit is None:
                raise TypeError(f"{path}: a cost by the body needs a whole path and a limit of the body")
            found.update({(str(method), path): (cost, limit) for method in handler.http_methods})
    return found
