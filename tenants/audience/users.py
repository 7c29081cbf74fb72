"""Users as the shop describes them; a visitor who turns out to be one of them; and a person erased for good.

Every function takes the connection of a `tenant_session` and never commits. Who describes, merges or erases a person
holds the person's row of `shopper_ids` until the commit, a user's before a visitor's, and looks again where it is gone.
"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_change
from infra.db import TenantId, driver
from infra.errors import Conflict, FieldError, Invalid, NotFound
from tenants.audience.shoppers import SHOPPER_CHANGE, USER, VISITOR, number_ids, user_key, visitor_key
from tenants.audience.traces import scrub
from tenants.catalog.item import AttributeName, AttributeValue, Id

MAX_USER_BYTES: Final = 16_384


class UserNotFound(NotFound):
    """No event, and no description, names that user."""

    code = "user_not_found"
    title = "There is no such user"


class InvalidUser(Invalid):
    """The user cannot be stored."""

    code = "invalid_user"
    title = "The user cannot be stored"


class MergeWithItself(Invalid):
    """A user and a visitor of one id: whoever sends that has taken one for the other."""

    code = "merge_with_itself"
    title = "A user cannot be merged with itself"


class VisitorMerged(Conflict):
    """The visitor is another user already."""

    code = "visitor_merged"
    title = "The visitor belongs to another user"


class User(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a shop says of a user. `seller_id`: who sells too is never shown the own offers."""

    id: Id
    segments: Annotated[list[Id], Meta(max_length=100)] = []
    attributes: Annotated[dict[AttributeName, AttributeValue], Meta(max_length=100)] = {}
    seller_id: Id | None = None


class KnownUser(Struct, frozen=True, kw_only=True):
    """A user and when the shop first said so; `visitors`: how many visitors turned out to be this user."""

    user: User
    visitors: int
    created_at: datetime
    updated_at: datetime


class Erased(Struct, frozen=True, kw_only=True):
    """What went: the keyed hashes of the person's ids, the numbers that stood for them, and how many rows of events."""

    subjects: list[bytes]
    shopper_nos: list[int]
    events: int


class Merged(Struct, frozen=True, kw_only=True):
    """Whose events were moved: `visitor_no` is None where they had been before."""

    user_no: int
    visitor_no: int | None
    events: int


async def store_user(conn: AsyncConnection, tenant_id: TenantId, user: User, *, now: datetime) -> bool:
    """Store a user whole; whether it is new. Raises InvalidUser."""
    attributes = msgspec.json.encode(user.attributes)
    faults = []
    if len(attributes) > MAX_USER_BYTES:
        faults.append(
            FieldError(pointer="/attributes", code="out_of_range", message="`attributes` may have 16,384 bytes.")
        )
    if b"\\u0000" in attributes:
        faults.append(
            FieldError(pointer="/attributes", code="nul_character", message="It holds a NUL character (\\u0000).")
        )
    if faults:
        raise InvalidUser("Mend the user's attributes.", errors=faults)
    raw = await driver(conn)
    new: bool | None = None
    while new is None:  # once more where the person was erased in between, and is a new one
        numbers, _ = await number_ids(raw, tenant_id, [user_key(user.id)], [])
        new = await raw.fetchval(
            "insert into users (tenant_id, shopper_no, segments, attributes, seller_id, created_at, updated_at) "
            "select $1, s.shopper_no, $3, $4::text::jsonb, $5, $6, $6 from shopper_ids s "
            "where s.tenant_id = $1 and s.shopper_no = $2 for key share on conflict (tenant_id, shopper_no) do update "
            "set segments = excluded.segments, attributes = excluded.attributes, seller_id = excluded.seller_id, "
            "updated_at = excluded.updated_at returning xmax = 0",
            tenant_id,
            numbers[user_key(user.id)],
            list(dict.fromkeys(user.segments)),
            attributes.decode(),
            user.seller_id,
            now,
        )
    return new


async def get_user(conn: AsyncConnection, tenant_id: TenantId, user_id: str) -> KnownUser:
    """A user whom the shop has described, or whom an event names. Raises UserNotFound."""
    record = await (await driver(conn)).fetchrow(
        "select u.segments, u.attributes::text as attributes, u.seller_id, "
        "coalesce(u.created_at, s.created_at) as created_at, coalesce(u.updated_at, s.created_at) as updated_at, "
        "(select count(*) from shopper_ids v where v.tenant_id = $1 and v.merged_into = s.shopper_no) as visitors "
        "from shopper_ids s left join users u on u.tenant_id = $1 and u.shopper_no = s.shopper_no "
        "where s.tenant_id = $1 and s.kind = $2 and s.external_id = $3",
        tenant_id,
        USER,
        user_id,
    )
    if record is None:
        raise _no_user(user_id)
    return KnownUser(
        user=User(
            id=user_id,
            segments=record["segments"] or [],
            attributes=msgspec.json.decode(record["attributes"] or "{}"),
            seller_id=record["seller_id"],
        ),
        visitors=record["visitors"],
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )


async def merge_visitor(
    conn: AsyncConnection, tenant_id: TenantId, user_id: str, visitor_id: str, *, now: datetime
) -> Merged:
    """Let a visitor be a user from now on: what the one did the other has done. Raises VisitorMerged, MergeWithItself.

    Either may be unknown until now. Events and answers are moved here and now, so that readers know one number per
    person; the variant of experiments is that of whom was seen first. Running it again changes nothing. There is no
    circle: a visitor is merged into a user once, a user into nobody.
    """
    if user_id == visitor_id:
        fault = FieldError(pointer="/visitor_id", code="merge_with_itself", message="This is the user's own id.")
        raise MergeWithItself("Give the id that the visitor had before signing in.", errors=[fault])
    raw = await driver(conn)
    records: Sequence[Any] = ()
    while len(records) < 2:  # once more where one of them was erased in between, and is a new one
        await number_ids(raw, tenant_id, [user_key(user_id), visitor_key(visitor_id)], [])
        records = await raw.fetch(
            "select shopper_no, merged_into, bucket_key from shopper_ids where tenant_id = $1 "
            "and ((kind = $2 and external_id = $3) or (kind = $4 and external_id = $5)) order by kind desc for update",
            tenant_id,
            USER,
            user_id,
            VISITOR,
            visitor_id,
        )
    user, visitor = records
    if visitor["merged_into"] == user["shopper_no"]:
        return Merged(user_no=user["shopper_no"], visitor_no=None, events=0)
    if visitor["merged_into"] is not None:
        raise VisitorMerged(
            "This visitor was merged with another user before. Give each person, and each browser after signing out, "
            "a visitor id of its own."
        )
    await raw.execute(
        "update shopper_ids set merged_into = $3, merged_at = $4 where tenant_id = $1 and shopper_no = $2",
        tenant_id,
        visitor["shopper_no"],
        user["shopper_no"],
        now,
    )
    if visitor["shopper_no"] < user["shopper_no"]:
        await raw.execute(
            "update shopper_ids set bucket_key = $3 where tenant_id = $1 and shopper_no = $2",
            tenant_id,
            user["shopper_no"],
            visitor["bucket_key"],
        )
    moved = await move_events(raw, tenant_id, {visitor["shopper_no"]: user["shopper_no"]})
    await record_change(conn, tenant_id, SHOPPER_CHANGE, str(visitor["shopper_no"]))
    return Merged(user_no=user["shopper_no"], visitor_no=visitor["shopper_no"], events=moved)


async def move_events(raw: Any, tenant_id: TenantId, into: Mapping[int, int]) -> int:
    """Give the answers and events of each of these numbers to another; how many rows of events."""
    # One walk along each partition's index, however many numbers.
    moved = [
        await raw.execute(
            f"update {table} set shopper_no = ($3::int8[])[array_position($2::int8[], shopper_no)] "
            "where tenant_id = $1 and shopper_no = any($2::int8[])",
            tenant_id,
            list(into),
            list(into.values()),
        )
        for table in ("answers", "events")
    ]
    return int(moved[-1].rpartition(" ")[2])


async def find_subjects(conn: AsyncConnection, tenant_id: TenantId, user_id: str, *, secret: bytes) -> list[bytes]:
    """The keyed hashes that an erasure of this person would leave. Raises UserNotFound."""
    return list(await _subjects(await driver(conn), tenant_id, user_id, secret))


async def erase_user(
    conn: AsyncConnection, tenant_id: TenantId, user_id: str, *, now: datetime, secret: bytes
) -> Erased:
    """Erase a person: the user, every visitor who was the user, and all they did. Raises UserNotFound.

    Answers keep their place with nobody in it, so that sums stay; what is learned from now on knows nothing of the
    events. A keyed hash of each id is kept, by which a restored backup can be put right (tombstones.py).
    """
    raw = await driver(conn)
    # From here on nobody is merged into the user. Who has been is looked for by a statement of its own, which sees what
    # was committed while this one waited.
    await raw.execute(
        "select 1 from shopper_ids where tenant_id = $1 and kind = $2 and external_id = $3 for update",
        tenant_id,
        USER,
        user_id,
    )
    subjects = await _subjects(raw, tenant_id, user_id, secret)
    numbers = list(subjects.values())
    events = await erase_shoppers(conn, tenant_id, numbers)
    await note_erased(conn, tenant_id, subjects, now)
    return Erased(subjects=list(subjects), shopper_nos=numbers, events=events)


async def _subjects(raw: Any, tenant_id: TenantId, user_id: str, secret: bytes) -> dict[bytes, int]:
    records = await raw.fetch(
        "with u as materialized (select shopper_no from shopper_ids "
        "where tenant_id = $1 and kind = $2 and external_id = $3) "
        "select s.shopper_no, s.kind, s.external_id from shopper_ids s where s.tenant_id = $1 and s.shopper_no = any("
        "array(select shopper_no from u union all select v.shopper_no from shopper_ids v "
        "where v.tenant_id = $1 and v.merged_into = (select shopper_no from u))) order by s.shopper_no",
        tenant_id,
        USER,
        user_id,
    )
    if not records:
        raise _no_user(user_id)
    return {
        subject_hash(secret, tenant_id, record["kind"], record["external_id"]): record["shopper_no"]
        for record in records
    }


async def erase_shoppers(conn: AsyncConnection, tenant_id: TenantId, numbers: Sequence[int]) -> int:
    """Erase who these numbers stand for, and all they did; how many rows of events."""
    raw = await driver(conn)
    # Before anything goes: what is written of them at this moment is waited for, and goes too.
    await raw.execute(
        "select 1 from shopper_ids where tenant_id = $1 and shopper_no = any($2::int8[]) "
        "order by kind desc, shopper_no for update",
        tenant_id,
        numbers,
    )
    events = await erase_numbers(raw, tenant_id, numbers)
    gone = await raw.fetch(
        "delete from shopper_ids where tenant_id = $1 and shopper_no = any($2::int8[]) returning external_id",
        tenant_id,
        numbers,
    )
    # Of a restored backup: who was merged after the restore is not erased, and is nobody's from here on.
    await raw.execute(
        "update shopper_ids set merged_into = null, merged_at = null "
        "where tenant_id = $1 and merged_into = any($2::int8[])",
        tenant_id,
        numbers,
    )
    await scrub(raw, tenant_id, [record["external_id"] for record in gone])
    for number in numbers:
        await record_change(conn, tenant_id, SHOPPER_CHANGE, str(number))
    return events


async def note_erased(conn: AsyncConnection, tenant_id: TenantId, subjects: Mapping[bytes, int], at: datetime) -> None:
    """Remember that these were erased: keyed hashes, and the numbers that stood for them."""
    await (await driver(conn)).execute(
        "insert into erasures (tenant_id, subject, shopper_no, erased_at) "
        "select $1, g.subject, g.number, $4 from unnest($2::bytea[], $3::int8[]) g(subject, number) "
        "on conflict (tenant_id, subject) do update set shopper_no = excluded.shopper_no, erased_at = $4",
        tenant_id,
        list(subjects),
        list(subjects.values()),
        at,
    )


async def erase_numbers(raw: Any, tenant_id: TenantId, numbers: Sequence[int]) -> int:
    """Take away all that is kept under these numbers; how many rows of events."""
    await raw.execute(
        # What a list was chosen from says what the shopper did; what was sent along may say who it was.
        "update answers set shopper_no = null, candidates = null, request = request - 'context' "
        "where tenant_id = $1 and shopper_no = any($2::int8[])",
        tenant_id,
        numbers,
    )
    await raw.execute(
        "delete from shopper_neighbours where tenant_id = $1 "
        "and (shopper_no = any($2::int8[]) or others && $2::int8[])",
        tenant_id,
        numbers,
    )
    await raw.execute("delete from users where tenant_id = $1 and shopper_no = any($2::int8[])", tenant_id, numbers)
    # The ids of the events may be made of the shopper's; that they were taken is forgotten, too.
    rows: int = await raw.fetchval(
        "with gone as materialized (delete from events where tenant_id = $1 and shopper_no = any($2::int8[]) "
        "returning event_id), seen as (delete from event_seen where tenant_id = $1 and event_id = any("
        "array(select event_id from gone where event_id is not null))) select count(*) from gone",
        tenant_id,
        numbers,
    )
    return rows


def subject_hash(secret: bytes, tenant_id: TenantId, kind: int, external_id: str) -> bytes:
    """The keyed hash that an erased id is remembered by (HMAC-SHA256)."""
    return hmac.digest(secret, tenant_id.bytes + bytes([kind]) + external_id.encode(), "sha256")


async def erased_since(
    conn: AsyncConnection, tenant_id: TenantId, subjects: Sequence[bytes], since: datetime
) -> frozenset[bytes]:
    """Which of these keyed hashes are of people who were erased at that time or later."""
    records = await (await driver(conn)).fetch(
        "select subject from erasures where tenant_id = $1 and subject = any($2::bytea[]) and erased_at >= $3",
        tenant_id,
        list(subjects),
        since,
    )
    return frozenset(record["subject"] for record in records)


class Place(Struct, frozen=True, kw_only=True):
    """How far a walk along merges and erasures by their time has come."""

    at: datetime
    tenant_id: UUID = UUID(int=0)
    shopper_no: int = -1


class Settled(Struct, frozen=True, kw_only=True):
    """`rows`: how many were put right. `last`: where to go on; None where nothing is left."""

    rows: int
    last: Place | None


_LATE_AT_ONCE: Final = 2000

_LATE: Final = """
(select s.merged_at as at, s.tenant_id, s.shopper_no, s.merged_into as into from shopper_ids s
where s.merged_at >= $1 and (s.merged_at, s.tenant_id, s.shopper_no) > ($1, $2, $3)
order by s.merged_at, s.tenant_id, s.shopper_no limit $4)
union all
(select e.erased_at, e.tenant_id, e.shopper_no, null from erasures e
where e.erased_at >= $1 and (e.erased_at, e.tenant_id, e.shopper_no) > ($1, $2, $3)
order by e.erased_at, e.tenant_id, e.shopper_no limit $4)
order by 1, 2, 3 limit $4
"""


async def settle_late(raw: Any, since: datetime, *, after: Place | None = None, limit: int = _LATE_AT_ONCE) -> Settled:
    """Put right what was written under a number in the very moment in which it was merged or erased, of so many.

    Another API process may believe for 200 ms what it remembers. `raw` is of the system role.
    """
    place = after or Place(at=since)
    late = await raw.fetch(_LATE, place.at, place.tenant_id, place.shopper_no, limit)
    erased: dict[UUID, list[int]] = {}
    merged: dict[UUID, dict[int, int]] = {}
    for record in late:
        if record["into"] is None:
            erased.setdefault(record["tenant_id"], []).append(record["shopper_no"])
        else:
            merged.setdefault(record["tenant_id"], {})[record["shopper_no"]] = record["into"]
    rows = 0
    for tenant_id, numbers in erased.items():
        rows += await erase_numbers(raw, TenantId(tenant_id), numbers)
    for tenant_id, into in merged.items():
        rows += await move_events(raw, TenantId(tenant_id), into)
    if len(late) < limit:
        return Settled(rows=rows, last=None)
    last = late[-1]
    return Settled(rows=rows, last=Place(at=last["at"], tenant_id=last["tenant_id"], shopper_no=last["shopper_no"]))


def _no_user(user_id: str) -> UserNotFound:
    return UserNotFound(f"There is no user {user_id!r}: no event names it, and nobody has described it.")
