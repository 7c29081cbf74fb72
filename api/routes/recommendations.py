"""/v1/recommendations: what was answered, shown again."""

from typing import Final
from uuid import UUID

from litestar import Response, get
from litestar.params import FromPath

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer
from tenants.answers import PastAnswer, RecommendationNotFound, get_answer


@get(
    "/v1/recommendations/{recommendation_id:str}",
    opt=contract(
        scope="analytics:read",
        tag="Recommendations",
        summary="Show an answer again",
        answer=PastAnswer,
        answer_example={
            "recommendation_id": "01993b6e-7a10-7cc3-9f0e-3f6f6a4f2b11",
            "kind": "recommend",
            "at": "2026-01-15T12:00:00Z",
            "placement": "product-page",
            "strategy": "similar+popular",
            "variant": None,
            "generation": 2,
            "key_id": "0Zk3bQ9xYa",
            "request": {"placement": "product-page", "item_ids": ["lamp-1"]},
            "items": [{"id": "lamp-7", "rank": 1, "score": 0.8312, "source": "similar", "fallback": False}],
            "candidates": [
                {
                    "id": "lamp-7",
                    "rank": 1,
                    "score": 0.8312,
                    "fallback": False,
                    "parts": {"similar": 0.8312},
                    "because": "lamp-1",
                    "text_similarity": 0.7421,
                    "image_similarity": None,
                }
            ],
            "took_ms": 3.1,
        },
    ),
)
async def get_recommendation(request: AnyRequest, recommendation_id: FromPath[str]) -> Response[bytes]:
    """The answer with that id, for 30 days: what was asked, and the list as it was given, whatever the items are now.

    It is written within a second of the answer. Who asked is not shown. Publishable keys may not read it. `candidates`
    says why: the best 200 that the list was chosen from, where the request said `explain`, and of one answer in a
    hundred; null for all others.
    """
    services = services_of(request)
    try:
        answer_id = UUID(recommendation_id)
    except ValueError as error:
        raise RecommendationNotFound("A recommendation's id is a UUID, as `recommendation_id` of an answer.") from error
    tenant_id = caller_of(request).tenant_id
    return answer(await get_answer(services.database, tenant_id, answer_id, now=services.clock()))


ROUTES: Final = (get_recommendation,)
