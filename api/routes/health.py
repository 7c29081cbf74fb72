"""Whether this process lives, and whether it is ready to serve, with what is missing."""

from typing import Final, Literal

from litestar import Response, get
from msgspec import Struct

from api.contract import contract
from api.deps import services_of
from api.wire import AnyRequest, answer


class Live(Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Missing(Struct, frozen=True, kw_only=True):
    """One thing that is not there yet, and what to do when it does not come by itself."""

    what: str
    why: str


class Ready(Struct, frozen=True, kw_only=True):
    """`ready` when nothing is missing."""

    status: Literal["ready", "not_ready"]
    missing: list[Missing]


@get(
    "/health/live",
    opt=contract(scope="public", tag="Health", summary="Is the process alive?", answer=Live, answer_example=Live()),
)
async def live() -> Response[bytes]:
    """Answers 200 as long as the process can answer at all; asks nothing of the database."""
    return answer(Live())


@get(
    "/health/ready",
    opt=contract(
        scope="public",
        tag="Health",
        summary="Is the service ready?",
        answer=Ready,
        answer_example=Ready(status="ready", missing=[]),
        also={503: "Something is missing yet; `missing` says what."},
    ),
)
async def ready(request: AnyRequest) -> Response[bytes]:
    """Answers 200 when the service can answer recommendations at full speed, else 503 with what is missing."""
    missing = [Missing(what=what, why=why) for what, why in (await services_of(request).readiness.missing()).items()]
    body = Ready(status="not_ready" if missing else "ready", missing=missing)
    return answer(body, status=503 if missing else 200, headers={"cache-control": "no-store"})


ROUTES: Final = (live, ready)
