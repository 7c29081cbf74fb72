"""Entries of the audit log: noted in the transaction of what they tell of, and read again.

An entry names no shopper: where one is the subject, it is by the keyed hash that an erasure leaves too. The network of
the caller is a keyed hash as well.
"""

import getpass
import hmac
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from infra.ids import uuid7

ActorKind = Literal["key", "person", "command", "system"]


class Actor(Struct, frozen=True, kw_only=True):
    """Who did it: an API key by its id, a person by theirs, a command by who ran it, or Kindred itself."""

    kind: ActorKind
    id: str


SYSTEM: Final = Actor(kind="system", id="kindred")


def command_line() -> Actor:
    """Who runs this command: the user of this machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = f"uid {os.getuid()}"
    return Actor(kind="command", id=name)


class Entry(Struct, frozen=True, kw_only=True):
    """What was done. `action` is `noun.verb`, `subject` the id of what it was done to, `details` depend on the action.

    `network`: a keyed hash of the caller's network, hexadecimal; null where nobody called.
    """

    id: UUID
    at: datetime
    actor: Actor
    action: str
    subject: str
    details: Mapping[str, Any]
    network: str | None
    request_id: str | None


_line: Final = msgspec.json.Encoder(order="sorted").encode


def line_of(entry: Entry) -> bytes:
    """The entry as a line of an export: the one form that it is hashed in."""
    return _line(entry)


def network_hash(secret: bytes, network: str) -> bytes:
    """Keyed hash (HMAC-SHA256, 128 bits) of a network as `network_of` names it: no address can be read from it."""
    return hmac.digest(secret, b"network " + network.encode(), "sha256")[:16]


_NOTE: Final = """
with noted as (
    insert into audit (tenant_id, audit_id, at, actor_kind, actor, action, subject, details, network, request_id)
    values ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9, $10)
)
insert into audit_unsealed (tenant_id, audit_id) values ($1, $2)
"""


async def note(
    conn: AsyncConnection,
    tenant_id: TenantId,
    actor: Actor,
    action: str,
    *,
    subject: str = "",
    details: Mapping[str, Any] | None = None,
    network: bytes | None = None,
    request_id: str | None = None,
    now: datetime,
) -> UUID:
    """Note what this transaction does: the entry is committed with it or not at all; its id. Writers never wait.

    `details` are plain JSON, without secrets and ids of shoppers.
    """
    audit_id = uuid7()
    await (await driver(conn)).execute(
        _NOTE,
        tenant_id,
        audit_id,
        now,
        actor.kind,
        actor.id,
        action,
        subject,
        msgspec.json.encode(details or {}).decode(),
        network,
        request_id,
    )
    return audit_id


COLUMNS: Final = """a.audit_id, a.at, a.actor_kind, a.actor, a.action, a.subject, a.details::text as details, a.network,
    a.request_id"""


def entry_of(record: Any) -> Entry:
    """The entry of a row of `COLUMNS`."""
    return Entry(
        id=UUID(int=record["audit_id"].int),
        at=record["at"],
        actor=Actor(kind=record["actor_kind"], id=record["actor"]),
        action=record["action"],
        subject=record["subject"],
        details=msgspec.json.decode(record["details"]),
        network=None if record["network"] is None else record["network"].hex(),
        request_id=record["request_id"],
    )


Position = tuple[datetime, UUID]
"""Where a page ends: the moment and id of its last entry."""


class Wanted(Struct, frozen=True, kw_only=True):
    """Which entries: of one action, at or after `start`, before `end`."""

    action: str | None = None
    start: datetime | None = None
    end: datetime | None = None


async def list_entries(
    conn: AsyncConnection, tenant_id: TenantId, wanted: Wanted, *, before: Position | None = None, limit: int
) -> list[Entry]:
    """Entries, the newest first; `before` continues the list after its last one."""
    records = await (await driver(conn)).fetch(
        f"select {COLUMNS} from audit a where a.tenant_id = $1 and ($2::text is null or a.action = $2) "
        "and a.at >= coalesce($3::timestamptz, '-infinity') and a.at < coalesce($4::timestamptz, 'infinity') "
        "and ($5::timestamptz is null or (a.at, a.audit_id) < ($5, $6::uuid)) "
        "order by a.at desc, a.audit_id desc limit $7",
        tenant_id,
        wanted.action,
        wanted.start,
        wanted.end,
        None if before is None else before[0],
        None if before is None else before[1],
        limit,
    )
    return [entry_of(record) for record in records]
