"""How far the encoding of a catalogue is: `GET /v1/encoding`."""

from typing import Any, Final

from litestar import Request, Response, get
from msgspec import Struct

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import answer
from tenants.catalog.store import count_states


class States(Struct, frozen=True, kw_only=True):
    """Items by the state of one modality."""

    pending: int
    done: int
    failed: int
    absent: int


class Progress(Struct, frozen=True, kw_only=True):
    """Items by the states of both modalities."""

    text: States
    image: States


@get(
    "/v1/encoding",
    opt=contract(
        scope="catalog:read",
        tag="Catalogue",
        summary="How far the encoding is",
        answer=Progress,
        answer_example=Progress(
            text=States(pending=0, done=320, failed=0, absent=0), image=States(pending=12, done=300, failed=1, absent=7)
        ),
    ),
)
async def encoding(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Counts of the whole catalogue; `GET /v1/items/{id}` says why one item failed."""
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        counts = await count_states(conn, tenant_id)
    return answer(Progress(text=States(**counts["text"]), image=States(**counts["image"])))


ROUTES: Final = (encoding,)
