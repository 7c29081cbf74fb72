"""Recommendations: `POST /v1/recommend`, and the convenience GET beside an item."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from msgspec import Meta, Struct, structs

from api.auth import Caller
from api.contract import contract
from api.deps import Services, caller_of, services_of, spend_rows, tenant_of
from api.limits.cost import Cost
from api.problems import known, problem
from api.recommend.batch import MAX_REQUESTS, answer_page
from api.recommend.types import Answer, Count, Query, RerankQuery, Weight, Weights
from api.wire import JSON, decode_id, encoded, expect_media_type, read_json, read_query
from api.work import marked_caller

MAX_BODY: Final = 1_000_000
"""Bytes: every id and filter that a request may have is a part of it."""

MAX_PAGE_BODY: Final = 3_000_000
"""Bytes of a page of up to twenty."""

_TAG: Final = "Recommendations"
_ANSWER: Final = {
    "recommendation_id": "01993b6e-7a10-7cc3-9f0e-3f6f6a4f2b11",
    "items": [
        {
            "id": "lamp-7",
            "score": 0.8312,
            "rank": 1,
            "source": "similar",
            "fallback": False,
            "fields": {"title": "Brass desk lamp", "price": 4900},
            "explain": {"text": 0.4021, "image": 0.4291, "text_similarity": 0.71, "image_similarity": 0.88},
        }
    ],
    "model_version": "g2:all-minilm-l6-v2@1110a243fdf4+kindred-image-v1@7f3a",
    "fallback_used": False,
    "took_ms": 3.1,
    "cursor": None,
}


async def answer_recommend(services: Services, caller: Caller, body: bytes) -> bytes:
    """The answer to a JSON body, encoded. Raises what `Answering.recommend` raises."""
    return await services.answering.recommend(caller, await services.directory.get(caller.tenant_id), body)


@post(
    "/v1/recommend",
    status_code=200,
    opt=contract(
        scope="recommend",
        summary="Recommend items",
        tag=_TAG,
        direct=answer_recommend,
        max_body=MAX_BODY,
        meter="requests",
        computes=True,
        body=Query,
        body_example={
            "strategy": "similar",
            "item_ids": ["lamp-1"],
            "weights": {"text": 0.5, "image": 0.5},
            "count": 10,
            "filter": {"lt": ["price", 5000]},
            "fields": ["title", "price"],
            "explain": True,
        },
        answer=Answer,
        answer_example=_ANSWER,
    ),
)
async def recommend(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A list by one strategy. Unknown seeds are named in `warnings`; a list that its strategy cannot fill is filled
    with popular items, marked `fallback`, unless `fallback` is `none`."""
    expect_media_type(request, JSON)
    return encoded(await answer_recommend(services_of(request), await marked_caller(request), await request.body()))


class BatchRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lists of one page, the most important first. `distinct`: none repeats an item, or a group, of one before."""

    requests: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_REQUESTS)]
    distinct: bool = True


class BatchBody(Struct, frozen=True, kw_only=True):
    """`BatchRequest` as it is documented."""

    requests: Annotated[list[Query], Meta(min_length=1, max_length=MAX_REQUESTS)]
    distinct: bool = True


@post(
    "/v1/recommend/batch",
    status_code=200,
    opt=contract(
        scope="recommend",
        summary="Recommend several lists for one page",
        tag=_TAG,
        cost=Cost(rows="requests"),
        meter="requests",
        max_body=MAX_PAGE_BODY,
        computes=True,
        body=BatchBody,
        body_example={
            "requests": [{"strategy": "for_you", "user_id": "u-1", "count": 5}, {"strategy": "popular", "count": 5}],
            "distinct": True,
        },
        answer=dict[str, Any],
        answer_example={"results": [_ANSWER]},
    ),
)
async def recommend_batch(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Up to 20 requests of `POST /v1/recommend`, answered side by side as `results`, in order; one that cannot be
    answered has its problem in its place. With `distinct`, the default, no list shows an item of a list before it."""
    wanted = await read_json(request, BatchRequest)
    await spend_rows(request, len(wanted.requests))
    services = services_of(request)
    caller = await marked_caller(request)
    tenant = await tenant_of(request)
    page = await answer_page(services.answering, caller, tenant, wanted.requests, distinct=wanted.distinct)
    state = request.scope["state"]
    results = [
        result
        if isinstance(result, bytes)
        else msgspec.json.encode(
            problem(known(result), path=f"{state['path']}#/requests/{at}", request_id=state["request_id"])
        )
        for at, result in enumerate(page)
    ]
    return encoded(b'{"results":[%b]}' % b",".join(results))


class RowQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query string of the convenience GETs of a list."""

    count: Count = 10
    fields: Annotated[str, Meta(description="Names, separated by commas.", examples=["title,price"])] = ""
    explain: bool = False


class SimilarQuery(RowQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same of items like one, with the dial."""

    text: Annotated[Weight, Meta(description="Weight of the text.")] | None = None
    image: Annotated[Weight, Meta(description="Weight of the photos.")] | None = None


@get(
    "/v1/items/{item_id:str}/similar",
    opt=contract(
        scope="recommend",
        summary="Items similar to one",
        tag=_TAG,
        meter="requests",
        query=SimilarQuery,
        answer=Answer,
        answer_example=_ANSWER,
    ),
)
async def similar(request: Request[Any, Any, Any], item_id: FromPath[str]) -> Response[bytes]:
    """`POST /v1/recommend` with `strategy: similar` and one seed."""
    asked = read_query(request, SimilarQuery)
    weights = Weights(text=asked.text, image=asked.image)
    return await _listed(request, asked, Query(strategy="similar", item_ids=[decode_id(item_id)], weights=weights))


@post(
    "/v1/rerank",
    status_code=200,
    opt=contract(
        scope="recommend",
        summary="Put items in a shopper's order",
        tag=_TAG,
        max_body=MAX_BODY,
        meter="requests",
        computes=True,
        body=RerankQuery,
        body_example={"item_ids": ["lamp-1", "lamp-7"], "user_id": "u-1", "explain": True},
        answer=Answer,
        answer_example=_ANSWER,
    ),
)
async def rerank(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The given items in the order in which `for_you` would recommend them; those it says nothing of come last, by
    popularity, marked `fallback`. What may not be shown is left out, what is unknown is named in `warnings`."""
    query = await read_json(request, RerankQuery)
    tenant = await tenant_of(request)
    return encoded(await services_of(request).answering.rerank(await marked_caller(request), tenant, query))


@get(
    "/v1/users/{user_id:str}/recommendations",
    opt=contract(
        scope="recommend",
        summary="Items for a user",
        tag=_TAG,
        meter="requests",
        query=RowQuery,
        answer=Answer,
        answer_example=_ANSWER,
    ),
)
async def for_user(request: Request[Any, Any, Any], user_id: FromPath[str]) -> Response[bytes]:
    """`POST /v1/recommend` with `strategy: for_you` and the user."""
    query = Query(strategy="for_you", user_id=decode_id(user_id))
    return await _listed(request, read_query(request, RowQuery), query)


@get(
    "/v1/trending",
    opt=contract(
        scope="recommend",
        summary="Items on the rise",
        tag=_TAG,
        meter="requests",
        query=RowQuery,
        answer=Answer,
        answer_example=_ANSWER,
    ),
)
async def trending(request: Request[Any, Any, Any]) -> Response[bytes]:
    """`POST /v1/recommend` with `strategy: trending`."""
    return await _listed(request, read_query(request, RowQuery), Query(strategy="trending"))


async def _listed(request: Request[Any, Any, Any], asked: RowQuery, query: Query) -> Response[bytes]:
    fields = [name for name in asked.fields.split(",") if name]
    query = structs.replace(query, count=asked.count, fields=fields, explain=asked.explain)
    tenant = await tenant_of(request)
    return encoded(await services_of(request).answering.recommend_query(caller_of(request), tenant, query))


ROUTES: Final = (recommend, recommend_batch, similar, rerank, for_user, trending)
