"""Recommendations: `POST /v1/recommend`, and the convenience GET beside an item."""

from typing import Annotated, Any, Final

from litestar import Request, Response, get, post
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import caller_of, services_of, tenant_of
from api.recommend.types import Answer, Count, Query, Weight, Weights
from api.wire import JSON, decode_id, encoded, expect_media_type, read_query

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


@post(
    "/v1/recommend",
    status_code=200,
    opt=contract(
        scope="recommend",
        summary="Recommend items",
        tag=_TAG,
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
    body = await request.body()
    tenant = await tenant_of(request)
    return encoded(await services_of(request).answering.recommend(caller_of(request), tenant, body))


class SimilarQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query string of the convenience GET."""

    count: Count = 10
    text: Annotated[Weight, Meta(description="Weight of the text.")] | None = None
    image: Annotated[Weight, Meta(description="Weight of the photos.")] | None = None
    fields: Annotated[str, Meta(description="Names, separated by commas.", examples=["title,price"])] = ""
    explain: bool = False


@get(
    "/v1/items/{item_id:str}/similar",
    opt=contract(
        scope="recommend",
        summary="Items similar to one",
        tag=_TAG,
        query=SimilarQuery,
        answer=Answer,
        answer_example=_ANSWER,
    ),
)
async def similar(request: Request[Any, Any, Any], item_id: FromPath[str]) -> Response[bytes]:
    """`POST /v1/recommend` with `strategy: similar` and one seed."""
    asked = read_query(request, SimilarQuery)
    query = Query(
        strategy="similar",
        item_ids=[decode_id(item_id)],
        count=asked.count,
        weights=Weights(text=asked.text, image=asked.image),
        fields=[name for name in asked.fields.split(",") if name],
        explain=asked.explain,
    )
    tenant = await tenant_of(request)
    return encoded(await services_of(request).answering.recommend_query(caller_of(request), tenant, query))


ROUTES: Final = (recommend, similar)
