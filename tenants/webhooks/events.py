"""What webhooks tell: the types of event, and the data of each, whose schemas the OpenAPI document shows."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, get_args
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

Subscribable = Literal["job.finished", "import.held", "quota.near", "model.activated"]
"""What an endpoint can ask to be told."""

EventType = Subscribable | Literal["webhook.test"]

SUBSCRIBABLE: Final[tuple[Subscribable, ...]] = get_args(Subscribable)


class JobFinished(Struct, frozen=True, kw_only=True):
    """A job has ended; `GET /v1/jobs/{job_id}` says more. `total`, `done` and `failed` count its rows."""

    job_id: UUID
    kind: str
    status: Literal["done", "failed", "cancelled"]
    total: int | None
    done: int
    failed: int
    error: str | None


class ImportHeld(Struct, frozen=True, kw_only=True):
    """A full import would remove suspiciously much, and waits for `POST /v1/imports/{job_id}/confirm` or `…/cancel`."""

    job_id: UUID
    items: Annotated[int, Meta(description="Items of the catalogue.")]
    would_remove: int


class QuotaNear(Struct, frozen=True, kw_only=True):
    """So many per cent of a month's quota are used."""

    meter: str
    percent: int
    used: int
    quota: int
    period: Annotated[date, Meta(description="The first day of the month, in UTC.")]


class ModelActivated(Struct, frozen=True, kw_only=True):
    """Another model of behaviour serves from now on; `GET /v1/models` shows it."""

    model: int
    generation: int
    reason: str


class WebhookTest(Struct, frozen=True, kw_only=True):
    """Sent to one endpoint by `POST /v1/webhooks/{webhook_id}/test`."""

    webhook_id: UUID


EventData = JobFinished | ImportHeld | QuotaNear | ModelActivated | WebhookTest

DATA: Final[Mapping[EventType, type[Struct]]] = {
    "job.finished": JobFinished,
    "import.held": ImportHeld,
    "quota.near": QuotaNear,
    "model.activated": ModelActivated,
    "webhook.test": WebhookTest,
}
"""The data of each type."""

EXAMPLES: Final[Mapping[EventType, EventData]] = {
    "job.finished": JobFinished(
        job_id=UUID("01920000-0000-7000-8000-000000000001"),
        kind="import",
        status="done",
        total=1200,
        done=1198,
        failed=2,
        error=None,
    ),
    "import.held": ImportHeld(job_id=UUID("01920000-0000-7000-8000-000000000001"), items=1200, would_remove=700),
    "quota.near": QuotaNear(meter="recommendations", percent=80, used=80_000, quota=100_000, period=date(2026, 1, 1)),
    "model.activated": ModelActivated(model=7, generation=12, reason="model 7 of behaviour"),
    "webhook.test": WebhookTest(webhook_id=UUID("01920000-0000-7000-8000-000000000002")),
}


def encode_body(type_: str, at: datetime, data: str) -> bytes:
    """The body of a message (Standard Webhooks: `type`, `timestamp`, `data`); the same bytes for each attempt."""
    return msgspec.json.encode({"type": type_, "timestamp": at, "data": msgspec.Raw(data.encode())})


def message_schema(type_: EventType) -> dict[str, Any]:
    """The JSON Schema of a whole message, its data by reference to `#/components/schemas`."""
    return {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "enum": [type_]},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
            "data": {"$ref": f"#/components/schemas/{DATA[type_].__name__}"},
        },
    }
