"""/v1/webhooks: where a tenant's own systems are told what happened, and how telling them went."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from litestar import Response, delete, get, patch, post
from litestar.params import FromPath
from msgspec import Meta, Struct

from api.contract import contract
from api.deps import caller_of, services_of
from api.wire import AnyRequest, answer, no_content, read_json, read_query
from api.work import Work, writing
from infra.addresses import Policy
from infra.clock import within_reach
from tenants.webhooks import deliveries, endpoints
from tenants.webhooks.deliveries import Delivery, DeliveryStatus, delivery_not_found
from tenants.webhooks.endpoints import (
    NewSecret,
    Rotation,
    Webhook,
    WebhookChange,
    WebhookRequest,
    webhook_not_found,
)

_TAG: Final = "Webhooks"
_UNSEEN: Final = {"cache-control": "no-store"}
_IN_THE_LOG: Final = "the webhook's own log shows it"
_URL: Final = "https://shop.example/hooks/kindred"


class WebhookList(Struct, frozen=True, kw_only=True):
    """All webhooks of a tenant, the newest first."""

    webhooks: list[Webhook]


class DeliveryPage(Struct, frozen=True, kw_only=True):
    """Some deliveries, the newest event first; `next_cursor` is null at the end."""

    deliveries: list[Delivery]
    next_cursor: str | None


class DeliveriesQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a webhook's log."""

    cursor: Annotated[UUID, Meta(description="`next_cursor` of the page before.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=100, description="Deliveries on a page.")] = 50
    status: Annotated[DeliveryStatus, Meta(description="Only those that are so.")] | None = None


class Sent(Struct, frozen=True, kw_only=True):
    """A message that is being sent; the log shows what comes of it."""

    delivery_id: UUID


class ReplayRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/webhooks/{webhook_id}/replay`."""

    since: Annotated[datetime, Meta(tz=True, description="Of events since then; 30 days are kept.")]


class Replayed(Struct, frozen=True, kw_only=True):
    """How many messages are sent again; 10,000 at most, so ask again until it is 0."""

    replayed: int


@post(
    "/v1/webhooks",
    status_code=201,
    opt=contract(
        scope="admin",
        tag=_TAG,
        summary="Make a webhook",
        body=WebhookRequest,
        body_example={"url": _URL, "events": ["job.finished", "import.held"], "description": "back office"},
        answer=NewSecret,
        audit="webhook.create",
        status=201,
    ),
)
async def create_webhook(request: AnyRequest) -> Response[bytes]:
    """The answer holds the secret that messages are signed with, for the only time. A tenant has at most 20 webhooks.

    The address is public and begins with https://; on-prem, KINDRED_FETCH_ALLOW adds others.
    """
    wanted = await read_json(request, WebhookRequest)
    async with writing(request) as work:
        made = await endpoints.create_webhook(
            work.conn,
            work.tenant_id,
            wanted,
            policy=_policy(request),
            secret=services_of(request).secret.current,
            now=work.now,
        )
        await work.note(str(made.webhook.id), events=made.webhook.events)
        return work.answered(answer(_kept(work, made), status=201, headers=_UNSEEN))


@get("/v1/webhooks", opt=contract(scope="admin", tag=_TAG, summary="List webhooks", answer=WebhookList))
async def list_webhooks(request: AnyRequest) -> Response[bytes]:
    """All webhooks, the newest first; their secrets were shown once, when they were made."""
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await endpoints.list_webhooks(conn, tenant_id)
    return answer(WebhookList(webhooks=found))


@get(
    "/v1/webhooks/{webhook_id:str}",
    opt=contract(scope="admin", tag=_TAG, summary="Show a webhook", answer=Webhook),
)
async def get_webhook(request: AnyRequest, webhook_id: FromPath[str]) -> Response[bytes]:
    """`disabled` says why and since when nothing is sent to it, where that was not your doing."""
    endpoint_id = _webhook_id(webhook_id)
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await endpoints.get_webhook(conn, tenant_id, endpoint_id)
    return answer(found)


@patch(
    "/v1/webhooks/{webhook_id:str}",
    opt=contract(
        scope="admin",
        tag=_TAG,
        summary="Change a webhook",
        body=WebhookChange,
        body_example={"events": ["job.finished"], "enabled": True},
        answer=Webhook,
        audit="webhook.change",
    ),
)
async def change_webhook(request: AnyRequest, webhook_id: FromPath[str]) -> Response[bytes]:
    """What is absent stays. What waits is sent to the new address. Disabled, what waits has failed and can be replayed;
    enabled, it is sent to as if it had never failed."""
    endpoint_id = _webhook_id(webhook_id)
    change = await read_json(request, WebhookChange)
    async with writing(request) as work:
        changed = await endpoints.change_webhook(
            work.conn, work.tenant_id, endpoint_id, change, policy=_policy(request), now=work.now
        )
        # Not the address, which may hold a secret of its receiver.
        await work.note(webhook_id, events=changed.events, enabled=changed.enabled)
        return work.answered(answer(changed))


@delete(
    "/v1/webhooks/{webhook_id:str}",
    status_code=204,
    opt=contract(scope="admin", tag=_TAG, summary="Delete a webhook", audit="webhook.delete", status=204),
)
async def delete_webhook(request: AnyRequest, webhook_id: FromPath[str]) -> Response[None]:
    """With its log; what waits is not sent."""
    endpoint_id = _webhook_id(webhook_id)
    async with writing(request) as work:
        await endpoints.delete_webhook(work.conn, work.tenant_id, endpoint_id)
        await work.note(webhook_id)
        return work.answered(no_content())


@post(
    "/v1/webhooks/{webhook_id:str}/rotate",
    status_code=200,
    opt=contract(
        scope="admin",
        tag=_TAG,
        summary="Change the secret of a webhook",
        body=Rotation,
        body_example={"overlap_s": 86_400},
        answer=NewSecret,
        audit="webhook.rotate",
    ),
)
async def rotate_webhook(request: AnyRequest, webhook_id: FromPath[str]) -> Response[bytes]:
    """The answer holds the new secret, for the only time. For the overlap, a day where nothing is said, messages are
    signed with both, so that the receiver can be changed meanwhile; 0 ends the old secret at once."""
    endpoint_id = _webhook_id(webhook_id)
    rotation = await read_json(request, Rotation)
    async with writing(request) as work:
        made = await endpoints.rotate_secret(
            work.conn, work.tenant_id, endpoint_id, rotation, secret=services_of(request).secret.current, now=work.now
        )
        await work.note(webhook_id, overlap_s=rotation.overlap_s)
        return work.answered(answer(_kept(work, made), headers=_UNSEEN))


@post(
    "/v1/webhooks/{webhook_id:str}/test",
    status_code=202,
    opt=contract(
        scope="admin", tag=_TAG, summary="Send a test message", answer=Sent, unaudited=_IN_THE_LOG, status=202
    ),
)
async def send_test_message(request: AnyRequest, webhook_id: FromPath[str]) -> Response[bytes]:
    """Sends a `webhook.test`, whatever events the webhook is for; the log shows what came of it, within seconds."""
    endpoint_id = _webhook_id(webhook_id)
    async with writing(request) as work:
        delivery_id = await endpoints.send_test(work.conn, work.tenant_id, endpoint_id, now=work.now)
        return work.answered(answer(Sent(delivery_id=delivery_id), status=202))


_DELIVERY: Final[dict[str, Any]] = {
    "id": "01920000-0000-7000-8000-000000000003",
    "event": "import.held",
    "data": {"job_id": "01920000-0000-7000-8000-000000000001", "items": 1200, "would_remove": 700},
    "status": "pending",
    "created_at": "2026-01-15T12:00:00Z",
    "finished_at": None,
    "next_attempt_at": "2026-01-15T12:00:05Z",
    "attempts": [
        {
            "attempt": 1,
            "at": "2026-01-15T12:00:00Z",
            "status_code": 503,
            "error": None,
            "answer": "try later",
            "duration_ms": 87,
        }
    ],
}


@get(
    "/v1/webhooks/{webhook_id:str}/deliveries",
    opt=contract(
        scope="admin",
        tag=_TAG,
        summary="The log of a webhook",
        query=DeliveriesQuery,
        answer=DeliveryPage,
        answer_example={"deliveries": [_DELIVERY], "next_cursor": None},
    ),
)
async def list_deliveries(request: AnyRequest, webhook_id: FromPath[str]) -> Response[bytes]:
    """What was told, or is to be, in the last 30 days: each message with its attempts, the answers and the next one."""
    endpoint_id = _webhook_id(webhook_id)
    query = read_query(request, DeliveriesQuery)
    tenant_id = caller_of(request).tenant_id
    async with services_of(request).database.tenant_session(tenant_id) as conn:
        found = await deliveries.list_deliveries(
            conn, tenant_id, endpoint_id, before=query.cursor, limit=query.limit + 1, status=query.status
        )
    more = len(found) > query.limit
    found = found[: query.limit]
    return answer(DeliveryPage(deliveries=found, next_cursor=str(found[-1].id) if more else None))


@post(
    "/v1/webhooks/{webhook_id:str}/deliveries/{delivery_id:str}/replay",
    status_code=202,
    opt=contract(
        scope="admin", tag=_TAG, summary="Send a message again", answer=Delivery, unaudited=_IN_THE_LOG, status=202
    ),
)
async def replay_delivery(
    request: AnyRequest, webhook_id: FromPath[str], delivery_id: FromPath[str]
) -> Response[bytes]:
    """Under the same `webhook-id`, so that a receiver which has it already knows; with all its attempts."""
    endpoint_id, event_id = _webhook_id(webhook_id), _delivery_id(delivery_id)
    async with writing(request) as work:
        delivery = await deliveries.replay_delivery(work.conn, work.tenant_id, endpoint_id, event_id, now=work.now)
        return work.answered(answer(delivery, status=202))


@post(
    "/v1/webhooks/{webhook_id:str}/replay",
    status_code=202,
    opt=contract(
        scope="admin",
        tag=_TAG,
        summary="Send all failed messages again",
        body=ReplayRequest,
        body_example={"since": "2026-01-14T00:00:00Z"},
        answer=Replayed,
        audit="webhook.replay",
        status=202,
    ),
)
async def replay_failed(request: AnyRequest, webhook_id: FromPath[str]) -> Response[bytes]:
    """For a receiver that was away: what has failed since then, the oldest first."""
    endpoint_id = _webhook_id(webhook_id)
    since = within_reach((await read_json(request, ReplayRequest)).since)
    async with writing(request) as work:
        count = await deliveries.replay_failed(work.conn, work.tenant_id, endpoint_id, since=since, now=work.now)
        await work.note(webhook_id, since=since.isoformat(), replayed=count)
        return work.answered(answer(Replayed(replayed=count), status=202))


def _kept(work: Work, made: NewSecret) -> NewSecret:
    """Nobody is to keep a secret that signs nothing."""
    return NewSecret(secret="(none: dry run)", webhook=made.webhook) if work.dry_run else made  # noqa: S106 - no secret


def _policy(request: AnyRequest) -> Policy:
    return Policy(allow=services_of(request).settings.fetch_allow)


def _webhook_id(raw: str) -> UUID:
    """A webhook's id out of the address. Raises WebhookNotFound."""
    try:
        return UUID(raw)
    except ValueError as error:
        raise webhook_not_found(raw) from error


def _delivery_id(raw: str) -> UUID:
    """A delivery's id out of the address. Raises DeliveryNotFound."""
    try:
        return UUID(raw)
    except ValueError as error:
        raise delivery_not_found(raw) from error


ROUTES: Final = (
    create_webhook,
    list_webhooks,
    get_webhook,
    change_webhook,
    delete_webhook,
    rotate_webhook,
    send_test_message,
    list_deliveries,
    replay_delivery,
    replay_failed,
)
