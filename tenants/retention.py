"""How long each class of data is kept: one table, which upkeep enforces and docs/privacy.md shows.

A tenant may have some of it kept for less than the installation does, never for longer. What is dropped by whole
partitions is dropped row by row as well, where a day is promised.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.apart import apart
from infra.db import Database, TenantId, driver, fetch
from infra.decode import InvalidFields
from infra.errors import FieldError
from infra.partitions import most_days
from tenants.answers import first_id
from tenants.catalog.imports import HISTORY_JOB, IMPORT_JOB
from tenants.portability.exports import EXPORT_JOB, OVERTAKEN, export_key
from tenants.portability.exports import KEPT as EXPORTS_KEPT
from tenants.webhooks.deliveries import KEPT as DELIVERIES_KEPT

Chosen = Literal["events", "answers"]
"""The classes of which a tenant may choose the days."""

FOR_EVER: Final = None
_BATCH: Final = 5000

JUST_SENT: Final = timedelta(hours=1)
"""A file's row comes a moment after its bytes; older ones that no work needs are left behind by something."""


class DataClass(Struct, frozen=True, kw_only=True):
    """`days` since `since` that it is kept; None where `note` says until when. `setting`: what decides instead."""

    name: str
    what: str
    where: str
    since: str
    days: float | None
    note: str = ""
    setting: str | None = None
    tenant_chooses: bool = False


CLASSES: Final[Sequence[DataClass]] = (
    DataClass(
        name="events",
        what="what shoppers did",
        where="events",
        since="the event",
        days=800,
        setting="KINDRED_EVENTS_RETENTION_DAYS",
        tenant_chooses=True,
    ),
    DataClass(
        name="answers",
        what="which lists were shown to whom",
        where="answers",
        since="the answer",
        days=92,
        tenant_chooses=True,
    ),
    DataClass(
        name="event_ids",
        what="the ids of events, by which a repeat is told",
        where="event_seen",
        since="the event was taken",
        days=most_days("event_seen"),
    ),
    DataClass(
        name="minutes",
        what="counts of an item's events by the minute, of nobody",
        where="item_minutes",
        since="the minute",
        days=most_days("item_minutes"),
    ),
    DataClass(
        name="uploads",
        what="files of feeds and of old events",
        where="object store, imports/",
        since="the upload",
        days=7,
        note="gone as soon as the import has ended",
    ),
    DataClass(
        name="reports",
        what="the faults of an import, line by line",
        where="job_faults",
        since="the job ended",
        days=30,
    ),
    DataClass(
        name="jobs",
        what="jobs and their sums",
        where="jobs",
        since="the job ended, or was held",
        days=90,
    ),
    DataClass(
        name="exports",
        what="bundles of all that a tenant has",
        where="object store, exports/",
        since="the bundle was made",
        days=EXPORTS_KEPT.days,
        note="the latest two of a tenant; gone as soon as a person is erased",
    ),
    DataClass(
        name="deliveries",
        what="what webhooks were told, and how that went",
        where="webhook_events, webhook_deliveries, webhook_attempts",
        since="the event",
        days=DELIVERIES_KEPT.days,
    ),
    DataClass(
        name="changes",
        what="what tells the processes of a change, of nobody",
        where="changes",
        since="the change",
        days=1 / 24,
    ),
    DataClass(
        name="deleted_tenants",
        what="all that a deleted tenant has",
        where="every table, object store",
        since="the deletion",
        days=7,
        setting="KINDRED_TENANT_GRACE_DAYS",
    ),
    DataClass(
        name="people",
        what="users, visitors and their segments",
        where="shopper_ids, users",
        since="",
        days=FOR_EVER,
        note="until the person is erased, or the tenant",
    ),
    DataClass(
        name="accounts",
        what="people who sign in: addresses, sessions, mails",
        where="people, members, invitations, sessions, signups, one_time_tokens, address_changes, mails, attempts",
        since="",
        days=FOR_EVER,
        note="until the account is deleted; mails, tokens and unproved accounts 7 days after their end, an address 7 "
        "days after it was changed",
    ),
    DataClass(
        name="departures",
        what="keyed hashes of who deleted an account of a sign-in provider, with their role",
        where="sso_departures",
        since="",
        days=FOR_EVER,
        note="365 days, or until they come back; only of who had less than a newcomer gets",
    ),
    DataClass(
        name="audit",
        what="who changed what: keys, hashes of networks and of erased ids",
        where="audit, audit_seals, audit_unsealed",
        since="",
        days=FOR_EVER,
        note="400 days after they were sealed",
    ),
    DataClass(
        name="repeats",
        what="answers to requests with an Idempotency-Key, encrypted",
        where="idempotency",
        since="",
        days=FOR_EVER,
        note="24 hours",
    ),
    DataClass(
        name="usage",
        what="how much of its plan a tenant has used, in numbers",
        where="usage_months, quota_notices",
        since="",
        days=FOR_EVER,
        note="until the tenant is erased",
    ),
    DataClass(
        name="catalogue",
        what="items, photos, vectors, placements, models",
        where="items and others, object store, photos/",
        since="",
        days=FOR_EVER,
        note="until it is deleted; photos that no item shows, two hours",
    ),
    DataClass(
        name="erasures",
        what="keyed hashes of the ids of erased people",
        where="erasures; object store, erasures/",
        since="",
        days=FOR_EVER,
        note="so that a restored backup brings nobody back",
    ),
    DataClass(
        name="certificates",
        what="what was erased of a tenant, in numbers",
        where="erasure_certificates",
        since="",
        days=FOR_EVER,
        note="it names nobody",
    ),
    DataClass(
        name="logs",
        what="one line for each request and each thing that went wrong",
        where="standard error of each process",
        since="",
        days=FOR_EVER,
        note="as whoever runs the processes keeps them",
    ),
)
"""Every class of data there is."""

_DAYS: Final = {each.name: timedelta(days=each.days) for each in CLASSES if each.days is not None}


def kept(name: str) -> timedelta:
    """How long a class is kept, where no setting says otherwise."""
    return _DAYS[name]


def markdown() -> str:
    """The table of docs/privacy.md."""
    lines = ["| data | what it is | where | kept |", "|---|---|---|---|"]
    for each in CLASSES:
        terms = ["" if each.days is None else f"{_span(each.days)} after {each.since}", each.note]
        if each.setting is not None:
            terms.append(f"`{each.setting}`")
        if each.tenant_chooses:
            terms.append("a tenant may choose less")
        lines.append(f"| {each.name} | {each.what} | {each.where} | {'; '.join(filter(None, terms))} |")
    return "\n".join(lines) + "\n"


def _span(days: float) -> str:
    return f"{days:g} days" if days >= 1 else f"{days * 24:g} h"


Days = Annotated[int, Meta(ge=1, le=36_500)]


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The days that a tenant has chosen; what is left out is kept for as long as the installation keeps it."""

    events: Days | None = None
    answers: Days | None = None


def longest(events_days: int | None) -> Mapping[Chosen, int | None]:
    """The days of this installation, which are the most that a tenant may choose; None: for ever."""
    return {"events": events_days, "answers": kept("answers").days}


# No other class that a restored shop may have brought along.
_CHOSEN: Final = """jsonb_build_object('events', settings #> '{retention,events}',
    'answers', settings #> '{retention,answers}')::text"""


async def get_retention(conn: AsyncConnection, tenant_id: TenantId) -> Retention:
    """What the tenant has chosen."""
    chosen = await (await driver(conn)).fetchval(f"select {_CHOSEN} from tenants where tenant_id = $1", tenant_id)
    return msgspec.json.decode(chosen or b"{}", type=Retention)


async def set_retention(
    conn: AsyncConnection, tenant_id: TenantId, chosen: Retention, *, events_days: int | None
) -> None:
    """Keep the tenant's data for so long from upkeep's next turn on. Raises InvalidFields for more than there is."""
    faults = [
        FieldError(pointer=f"/{name}", code="out_of_range", message=f"It is kept for {most} days here at most.")
        for name, most in longest(events_days).items()
        if most is not None and (getattr(chosen, name) or 0) > most
    ]
    if faults:
        raise InvalidFields("Choose fewer days than the installation keeps, or leave the field out.", errors=faults)
    await (await driver(conn)).execute(
        "update tenants set settings = settings || jsonb_build_object('retention', $2::text::jsonb) "
        "where tenant_id = $1",
        tenant_id,
        msgspec.json.encode(chosen).decode(),
    )


_OLD: Final[Mapping[Chosen, str]] = {
    "events": "{alias}.tenant_id = $1 and {alias}.ts < $2",
    "answers": "{alias}.tenant_id = $1 and {alias}.answer_id < $2",
}


async def drop_old_rows(database: Database, *, now: datetime, events_days: int | None) -> int:
    """Remove every tenant's events and answers that are older than they are kept; how many rows."""
    async with database.system_session(reason="how long tenants keep what") as conn:
        records = await fetch(
            conn,
            f"select tenant_id, {_CHOSEN} as chosen from tenants where deleted_at is null order by tenant_id",
        )
    dropped = 0
    for record in records:
        with apart("retain", record["tenant_id"]):
            chosen = msgspec.json.decode(record["chosen"], type=Retention)
            for name, most in longest(events_days).items():
                days = min((each for each in (most, getattr(chosen, name)) if each is not None), default=None)
                if days is not None:
                    dropped += await _drop(database, record["tenant_id"], name, now - timedelta(days=days))
    return dropped


async def _drop(database: Database, tenant_id: TenantId, name: Chosen, before: datetime) -> int:
    bound: datetime | UUID = first_id(before) if name == "answers" else before
    outer, inner = (_OLD[name].format(alias=alias) for alias in ("o", "i"))
    statement = (
        f"delete from {name} o where {outer} and o.ctid = any(array("
        f"select i.ctid from {name} i where {inner} limit {_BATCH}))"
    )
    dropped = 0
    while True:
        async with database.tenant_session(tenant_id) as conn:
            done: str = await (await driver(conn)).execute(statement, tenant_id, bound)
        count = int(done.rpartition(" ")[2])
        dropped += count
        if not count:
            return dropped


async def prune(conn: AsyncConnection, *, now: datetime) -> int:
    """Remove changes, reports and jobs that are older than they are kept; how many rows. `conn` is a system session."""
    raw = await driver(conn)
    rows = 0
    for statement, name in (
        ("delete from changes where at < $1", "changes"),
        (
            "delete from job_faults f using jobs j where j.tenant_id = f.tenant_id and j.job_id = f.job_id "
            "and coalesce(j.finished_at, case when j.status = 'held' then j.created_at end) < $1",
            "reports",
        ),
        (
            "delete from jobs where status not in ('queued', 'running') and coalesce(finished_at, created_at) < $1",
            "jobs",
        ),
    ):
        done: str = await raw.execute(statement, now - kept(name))
        rows += int(done.rpartition(" ")[2])
    return rows


async def files_in_use(conn: AsyncConnection, *, now: datetime) -> frozenset[str]:
    """The keys of uploads that work needs, and of bundles that can be fetched. `conn` is a system session.

    A bundle is none any more once a person was erased that it may hold.
    """
    raw = await driver(conn)
    uploads = await raw.fetch(
        "select j.payload -> 'source' ->> 'key' as given, j.state ->> 'key' as fetched from jobs j "
        "where j.kind = any($1::text[]) and j.status in ('queued', 'running', 'held')",
        [IMPORT_JOB, HISTORY_JOB],
    )
    bundles = await raw.fetch(
        "select j.tenant_id, j.job_id from jobs j where j.kind = $1 and (j.status in ('queued', 'running') "
        f"or j.status = 'done' and j.finished_at > $2 and not {OVERTAKEN})",
        EXPORT_JOB,
        now - kept("exports"),
    )
    named = {key for record in uploads for key in record if key is not None}
    return frozenset(named | {export_key(record["tenant_id"], record["job_id"]) for record in bundles})
