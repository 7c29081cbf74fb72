"""Endpoints: where a tenant wants to be told what happened, and the secrets that their messages are signed with."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.addresses import BlockedAddress, Policy
from infra.crypt import decrypt, encrypt, sealed_under
from infra.db import TenantId, driver
from infra.decode import InvalidFields
from infra.errors import Conflict, FieldError, Forbidden, NotFound
from infra.fetch import BadUrl, check_receiver
from infra.ids import uuid7
from infra.secret import Secret, mark_of
from tenants.webhooks import signature
from tenants.webhooks.events import SUBSCRIBABLE, Subscribable, WebhookTest
from tenants.webhooks.outbox import emit

MAX_ENDPOINTS: Final = 20
"""Endpoints of one tenant."""

OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 7 * 86_400

_PURPOSE: Final = "webhook secrets"

DisabledFor = Literal["gone", "failing"]
"""`gone`: it answered 410; `failing`: every attempt failed for five days."""


class WebhookNotFound(NotFound):
    """The tenant has no such webhook."""

    code = "webhook_not_found"
    title = "There is no such webhook"


class TooManyWebhooks(Forbidden):
    """The tenant has as many webhooks as it may have."""

    code = "too_many_webhooks"
    title = "There are too many webhooks"


class WebhookDisabled(Conflict):
    """Nothing is sent to a webhook that is disabled."""

    code = "webhook_disabled"
    title = "The webhook is disabled"


Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2048,
        pattern=r"^https?://[^\s\x00-\x1f\x7f]+$(?!\n)",
        examples=["https://shop.example/hooks/kindred"],
        description="A public address, by https.",
    ),
]
Events = Annotated[
    list[Subscribable], Meta(min_length=1, max_length=2 * len(SUBSCRIBABLE), description="What it is told.")
]
Description = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]


class WebhookRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/webhooks`."""

    url: Url
    events: Events
    description: Description = ""
    enabled: bool = True


class WebhookChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PATCH /v1/webhooks/{id}`: what is absent stays."""

    url: Url | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/webhooks/{id}/rotate`."""

    overlap_s: Annotated[
        int, Meta(ge=0, le=MAX_OVERLAP_S, description="Seconds in which messages are signed with both secrets.")
    ] = OVERLAP_S


class Disabled(Struct, frozen=True, kw_only=True):
    """That we disabled a webhook, why and when; `PATCH {"enabled": true}` tries again."""

    reason: DisabledFor
    at: datetime


class Webhook(Struct, frozen=True, kw_only=True):
    """An endpoint as its owner sees it. `failing_since`: the first failure since the last success."""

    id: UUID
    url: str
    events: list[str]
    description: str
    enabled: bool
    disabled: Disabled | None
    failing_since: datetime | None
    previous_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class NewSecret(Struct, frozen=True, kw_only=True):
    """An endpoint and the secret that its messages are signed with, which is shown this once."""

    secret: str
    webhook: Webhook


_COLUMNS: Final = """endpoint_id as id, url, events, description, enabled, disabled_for, disabled_at, failing_since,
    previous_until, created_at, updated_at"""


def _webhook(record: Any) -> Webhook:
    reason = record["disabled_for"]
    return Webhook(
        id=UUID(int=record["id"].int),
        url=record["url"],
        events=list(record["events"]),
        description=record["description"],
        enabled=record["enabled"],
        disabled=None if reason is None else Disabled(reason=reason, at=record["disabled_at"]),
        failing_since=record["failing_since"],
        previous_secret_until=record["previous_until"],
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )


def _check(url: str, policy: Policy) -> None:
    try:
        check_receiver(url, policy)
    except (BadUrl, BlockedAddress) as error:
        fault = FieldError(pointer="/url", code=error.code, message=error.detail)
        raise InvalidFields(f"Mend /url: {error.detail}", errors=[fault]) from error


def _about(tenant_id: TenantId, endpoint_id: UUID) -> bytes:
    return tenant_id.bytes + endpoint_id.bytes


def _seal(secret: bytes, key: bytes, tenant_id: TenantId, endpoint_id: UUID) -> bytes:
    return encrypt(secret, key, purpose=_PURPOSE, about=_about(tenant_id, endpoint_id))


def unseal(secrets: Sequence[bytes], stored: bytes, tenant_id: TenantId, endpoint_id: UUID) -> bytes:
    """The key that messages are signed with, out of what is stored. Raises Undecipherable."""
    return decrypt(secrets, stored, purpose=_PURPOSE, about=_about(tenant_id, endpoint_id))


async def count_secrets(system: AsyncConnection, secret: Secret) -> Counter[str]:
    """Secrets of webhooks by the mark of the installation's that they are stored under; "unknown" for none believed."""
    counts: Counter[str] = Counter()
    for record in await (await driver(system)).fetch(
        "select tenant_id, endpoint_id, unnest(array[secret, previous_secret]) as secret from webhook_endpoints"
    ):
        if record["secret"] is not None:
            about = _about(TenantId(record["tenant_id"]), UUID(int=record["endpoint_id"].int))
            under = sealed_under(secret.every, record["secret"], purpose=_PURPOSE, about=about)
            counts["unknown" if under is None else mark_of(under)] += 1
    return counts


async def reseal_secrets(conn: AsyncConnection, secrets: Sequence[bytes]) -> int:
    """Store under the current secret of the installation, the first, what is stored under another; how many endpoints.

    `conn` is a system session. One that none of them decrypts is left as it is.
    """
    raw = await driver(conn)
    resealed = 0
    for record in await raw.fetch(
        "select tenant_id, endpoint_id, secret, previous_secret from webhook_endpoints for no key update"
    ):
        tenant_id, endpoint_id = TenantId(record["tenant_id"]), UUID(int=record["endpoint_id"].int)
        anew = [
            None if stored is None else _under_the_first(secrets, stored, tenant_id, endpoint_id)
            for stored in (record["secret"], record["previous_secret"])
        ]
        if anew == [record["secret"], record["previous_secret"]]:
            continue
        await raw.execute(
            "update webhook_endpoints set secret = $3, previous_secret = $4 where tenant_id = $1 and endpoint_id = $2",
            tenant_id,
            endpoint_id,
            *anew,
        )
        resealed += 1
    return resealed


def _under_the_first(secrets: Sequence[bytes], stored: bytes, tenant_id: TenantId, endpoint_id: UUID) -> bytes:
    about = _about(tenant_id, endpoint_id)
    if sealed_under(secrets, stored, purpose=_PURPOSE, about=about) in (secrets[0], None):
        return stored
    return _seal(secrets[0], unseal(secrets, stored, tenant_id, endpoint_id), tenant_id, endpoint_id)


async def create_webhook(
    conn: AsyncConnection, tenant_id: TenantId, wanted: WebhookRequest, *, policy: Policy, secret: bytes, now: datetime
) -> NewSecret:
    """Make an endpoint; what happened before is not told. Raises InvalidFields, TooManyWebhooks.

    `secret` is the installation's, under which the endpoint's own is stored.
    """
    _check(wanted.url, policy)
    raw = await driver(conn)
    # Two that are made at once are counted one after the other.
    await raw.execute("select pg_advisory_xact_lock(hashtextextended('webhooks of ' || $1::text, 0))", str(tenant_id))
    if await raw.fetchval("select count(*) from webhook_endpoints where tenant_id = $1", tenant_id) >= MAX_ENDPOINTS:
        raise TooManyWebhooks(f"A tenant has at most {MAX_ENDPOINTS} webhooks; delete one that is not used.")
    endpoint_id, key = uuid7(), signature.new_secret()
    record = await raw.fetchrow(
        "insert into webhook_endpoints (tenant_id, endpoint_id, url, events, description, enabled, secret, created_at, "
        f"updated_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $8) returning {_COLUMNS}",
        tenant_id,
        endpoint_id,
        wanted.url,
        sorted(set(wanted.events)),
        wanted.description,
        wanted.enabled,
        _seal(secret, key, tenant_id, endpoint_id),
        now,
    )
    return NewSecret(secret=signature.shown(key), webhook=_webhook(record))


async def list_webhooks(conn: AsyncConnection, tenant_id: TenantId) -> list[Webhook]:
    """All endpoints, the newest first."""
    records = await (await driver(conn)).fetch(
        f"select {_COLUMNS} from webhook_endpoints where tenant_id = $1 order by endpoint_id desc", tenant_id
    )
    return [_webhook(record) for record in records]


async def get_webhook(conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID) -> Webhook:
    """One endpoint. Raises WebhookNotFound."""
    record = await (await driver(conn)).fetchrow(
        f"select {_COLUMNS} from webhook_endpoints where tenant_id = $1 and endpoint_id = $2", tenant_id, endpoint_id
    )
    return _webhook(_found(record, endpoint_id))


async def change_webhook(
    conn: AsyncConnection,
    tenant_id: TenantId,
    endpoint_id: UUID,
    change: WebhookChange,
    *,
    policy: Policy,
    now: datetime,
) -> Webhook:
    """Change what is given. What waits is sent to the new address; disabled, it has failed and can be replayed.

    Enabling forgets that it failed. Raises WebhookNotFound, InvalidFields.
    """
    if change.url is not UNSET:
        _check(change.url, policy)
    raw = await driver(conn)
    record = await raw.fetchrow(
        "update webhook_endpoints set url = coalesce($3, url), events = coalesce($4, events), "
        "description = coalesce($5, description), enabled = coalesce($6, enabled), "
        "disabled_for = case when $6 is null then disabled_for end, "
        "disabled_at = case when $6 is null then disabled_at end, "
        "failing_since = case when $6 then null else failing_since end, updated_at = $7 "
        f"where tenant_id = $1 and endpoint_id = $2 returning {_COLUMNS}",
        tenant_id,
        endpoint_id,
        None if change.url is UNSET else change.url,
        None if change.events is UNSET else sorted(set(change.events)),
        None if change.description is UNSET else change.description,
        None if change.enabled is UNSET else change.enabled,
        now,
    )
    _found(record, endpoint_id)
    if change.enabled is False:
        await give_up_pending(raw, tenant_id, endpoint_id, now=now)
    return _webhook(record)


async def give_up_pending(raw: Any, tenant_id: TenantId, endpoint_id: UUID, *, now: datetime) -> None:
    """What waits for an endpoint that is disabled has failed."""
    await raw.execute(
        "update webhook_deliveries set status = 'failed', finished_at = $3 "
        "where tenant_id = $1 and endpoint_id = $2 and status = 'pending'",
        tenant_id,
        endpoint_id,
        now,
    )


async def delete_webhook(conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID) -> None:
    """Delete an endpoint with its log; nothing more is sent to it. Raises WebhookNotFound."""
    raw = await driver(conn)
    record = await raw.fetchrow(
        "delete from webhook_endpoints where tenant_id = $1 and endpoint_id = $2 returning 1", tenant_id, endpoint_id
    )
    _found(record, endpoint_id)
    for table in ("webhook_attempts", "webhook_deliveries", "webhook_notices"):
        await raw.execute(f"delete from {table} where tenant_id = $1 and endpoint_id = $2", tenant_id, endpoint_id)


async def rotate_secret(
    conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID, rotation: Rotation, *, secret: bytes, now: datetime
) -> NewSecret:
    """Make another secret; for the overlap messages are signed with the old one too. Raises WebhookNotFound.

    Of three only the last two sign: one that is still in its overlap ends.
    """
    key = signature.new_secret()
    record = await (await driver(conn)).fetchrow(
        "update webhook_endpoints set secret = $3, previous_secret = case when $4 then secret end, "
        "previous_until = case when $4 then $5::timestamptz end, updated_at = $6 "
        f"where tenant_id = $1 and endpoint_id = $2 returning {_COLUMNS}",
        tenant_id,
        endpoint_id,
        _seal(secret, key, tenant_id, endpoint_id),
        rotation.overlap_s > 0,
        now + timedelta(seconds=rotation.overlap_s),
        now,
    )
    return NewSecret(secret=signature.shown(key), webhook=_webhook(_found(record, endpoint_id)))


async def send_test(conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID, *, now: datetime) -> UUID:
    """Tell one endpoint a `webhook.test`; the delivery's id. Raises WebhookNotFound, WebhookDisabled."""
    await check_enabled(conn, tenant_id, endpoint_id)
    return await emit(conn, tenant_id, "webhook.test", WebhookTest(webhook_id=endpoint_id), now=now, only=endpoint_id)


async def check_enabled(conn: AsyncConnection, tenant_id: TenantId, endpoint_id: UUID) -> None:
    """Raises WebhookNotFound, WebhookDisabled. It stays as it is until the transaction ends."""
    record = await (await driver(conn)).fetchrow(
        "select enabled from webhook_endpoints where tenant_id = $1 and endpoint_id = $2 for share",
        tenant_id,
        endpoint_id,
    )
    if not _found(record, endpoint_id)["enabled"]:
        raise WebhookDisabled('Nothing is sent to it. Enable it first: PATCH with {"enabled": true}.')


def _found(record: Any, endpoint_id: UUID) -> Any:
    if record is None:
        raise webhook_not_found(str(endpoint_id))
    return record


def webhook_not_found(name: str) -> WebhookNotFound:
    """What is no UUID names no webhook either."""
    return WebhookNotFound(f"There is no webhook {name!r}. They are listed at /v1/webhooks.")
