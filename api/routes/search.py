"""Search: `POST /v1/search` by words, by photo, by an item, or by several of them."""

from time import perf_counter
from typing import Any, Final

import msgspec
from litestar import Request, Response, post
from msgspec import structs

from api.auth import Caller
from api.contract import contract
from api.deps import Services, services_of
from api.recommend.search import SearchQuery, logged
from api.recommend.search import search as find
from api.recommend.speaking import expect_any_placement, narrow
from api.recommend.types import Answer
from api.wire import JSON, encoded, expect_media_type
from api.work import marked_caller
from infra.decode import decode_json

_encode: Final = msgspec.json.Encoder().encode

MAX_BODY: Final = 15_000_000
"""A photo of 10 MB in base64, and the rest."""


async def answer_search(services: Services, caller: Caller, body: bytes) -> bytes:
    """The answer to a JSON body, encoded. Raises what `decode_json`, `narrow` and `api.recommend.search`
    raise, and PlacementRefused."""
    started = perf_counter()
    query = decode_json(body, SearchQuery)
    expect_any_placement(caller, "a search")
    query = structs.replace(query, filter=narrow(caller, query.filter))
    tenant = await services.directory.get(caller.tenant_id)
    served = await find(
        services.database, services.query_vectors, tenant, query, now=services.clock(), secret=services.secret
    )
    took_s = perf_counter() - started
    services.answering.note(caller, "search", served, strategy="search", request=logged(query), took_s=took_s)
    return _encode(served.answer)


@post(
    "/v1/search",
    status_code=200,
    opt=contract(
        scope="search",
        summary="Search items",
        tag="Search",
        max_body=MAX_BODY,
        direct=answer_search,
        meter="requests",
        computes=True,
        body=SearchQuery,
        body_example={"query": "red desk lamp", "count": 10, "fields": ["title", "price"]},
        answer=Answer,
        answer_example={
            "recommendation_id": "01993b6e-7a10-7cc3-9f0e-3f6f6a4f2b11",
            "items": [
                {
                    "id": "lamp-7",
                    "score": 0.9917,
                    "rank": 1,
                    "source": "search",
                    "fallback": False,
                    "fields": {"title": "Red desk lamp", "price": 4900},
                }
            ],
            "model_version": "g2:all-minilm-l6-v2@1110a243fdf4+kindred-image-v1@7f3a",
            "fallback_used": False,
            "took_ms": 9.4,
            "cursor": None,
        },
    ),
)
async def search(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Words and meaning together. An item is found by its words as soon as it is stored; when the encoder is away,
    words alone answer and `fallback_used` is true."""
    expect_media_type(request, JSON)
    return encoded(await answer_search(services_of(request), await marked_caller(request), await request.body()))


ROUTES: Final = (search,)
