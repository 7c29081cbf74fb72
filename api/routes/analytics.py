"""/v1/analytics: what answers led to."""

from datetime import datetime
from typing import Annotated, Final

from litestar import Response, get
from msgspec import Meta, Struct, field

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer, read_query
from tenants.analytics import AnalyticsRow, By, analytics
from tenants.catalog.item import Moment


class AnalyticsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /v1/analytics`: a range of at most 92 days, and what to sum by."""

    start: Annotated[Moment, Meta(description="The first moment.", examples=["2026-01-01T00:00:00Z"])] = field(
        name="from"
    )
    end: Annotated[Moment, Meta(description="The moment after the last.", examples=["2026-02-01T00:00:00Z"])] = field(
        name="to"
    )
    by: By = "placement"


class Analytics(Struct, frozen=True, kw_only=True):
    """Sums by one dimension."""

    start: datetime = field(name="from")
    end: datetime = field(name="to")
    by: By
    rows: list[AnalyticsRow]


@get(
    "/v1/analytics",
    opt=contract(
        scope="analytics:read",
        tag="Analytics",
        summary="Sum up what answers led to",
        query=AnalyticsQuery,
        answer=Analytics,
        answer_example={
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-08T00:00:00Z",
            "by": "placement",
            "rows": [
                {
                    "key": "product-page",
                    "answers": 1200,
                    "impressions": 9400,
                    "clicks": 310,
                    "purchases": 12,
                    "ctr": 0.032979,
                    "revenue": [{"currency": "EUR", "amount": 58800}],
                }
            ],
        },
    ),
)
async def get_analytics(request: AnyRequest) -> Response[bytes]:
    """Answers in the range, and the impressions, clicks and purchases in the range that name an answer in their
    `recommendation_id`. Revenue is price times quantity in minor units, by currency. Bots are left out."""
    query = read_query(request, AnalyticsQuery)
    rows = await analytics(
        services_of(request).database, caller_of(request).tenant_id, start=query.start, end=query.end, by=query.by
    )
    return answer(Analytics(start=query.start, end=query.end, by=query.by, rows=rows))


ROUTES: Final = (get_analytics,)
