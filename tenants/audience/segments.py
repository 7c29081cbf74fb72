"""Segments: users named by the shop, or found by a saved filter over what they are and what they did.

    {"and": [{"eq": ["attributes.country", "DE"]}, {"gte": ["events.purchase.30d", 2]}]}

The grammar is that of item filters. Fields: `id`, `seller_id`, `segments` (as the shop gave them), `attributes.<name>`
and `events.<type>.<days>d`, how many events of a type a shopper had in so many days (without days: 90).
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.db import TenantId, driver
from infra.errors import NotFound
from tenants.audience.shoppers import USER
from tenants.catalog.filters import (
    SQL_OPERATOR,
    Condition,
    Filter,
    Parser,
    Scalar,
    TreeCompiler,
    is_number,
    names_attribute,
)

MAX_SEGMENTS: Final = 200
_DAYS: Final = 90
_EVENTS: Final = re.compile(r"events\.([a-z][a-z0-9_]{0,63})(?:\.([1-9][0-9]{0,2})d)?", re.ASCII)
_TEXTS: Final = frozenset({"id", "seller_id", "segments"})


class SegmentNotFound(NotFound):
    """The tenant has no such segment."""

    code = "segment_not_found"
    title = "There is no such segment"


class Segment(Struct, frozen=True, kw_only=True):
    """A saved filter."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    filter: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class _SegmentParser(Parser):
    fields = "id, seller_id, segments, attributes.<name> and events.<type>.<days>d"

    def known(self, field: object, at: str) -> bool:
        named = isinstance(field, str) and (
            field in _TEXTS or names_attribute(field) or _EVENTS.fullmatch(field) is not None
        )
        if not named:
            self.fail(
                at,
                "unknown_field",
                f"Cannot filter shoppers on {field!r}; the fields are {self.fields}.",
            )
        return named

    def value(self, field: str, value: object, ordered: bool, at: str) -> Scalar | None:
        expected: str | None = None
        if field.startswith("events."):
            if not is_number(value):
                expected = "a number"
        elif field in _TEXTS:
            if not isinstance(value, str) or ordered:
                expected = "a string, with eq or in"
        elif ordered and not is_number(value):
            expected = "a number"
        elif not isinstance(value, str | bool) and not is_number(value):
            expected = "a string, a number or a boolean"
        if expected is None and isinstance(value, str) and "\0" in value:
            expected = "no NUL character"
        if expected is not None:
            self.fail(at, "wrong_type", f"`{field}` takes {expected}.")
            return None
        assert isinstance(value, str | bool | int | float)
        return value


def parse_segment(tree: object) -> Filter:
    """Check a segment's filter as it came over the wire. Raises InvalidFilter naming every fault."""
    return _SegmentParser().read(tree)


class SegmentCompiler(TreeCompiler):
    """Over `shopper_ids p left join users u`; `tenant` is how the statement writes the tenant."""

    def __init__(self, args: list[Any], *, tenant: str, now: datetime) -> None:
        super().__init__(args)
        self._tenant = tenant
        self._now = now

    def condition(self, c: Condition) -> str:
        """One comparison of a shopper."""
        return f"coalesce({self._condition(c)}, false)"

    def _condition(self, c: Condition) -> str:
        if c.field.startswith("events."):
            return self._count(c)
        if c.field.startswith("attributes."):
            return self._attribute(c)
        if c.op == "exists":
            return {"id": "true", "seller_id": "u.seller_id is not null", "segments": "cardinality(u.segments) > 0"}[
                c.field
            ]
        values = self.bind([str(value) for value in c.values], "text[]")
        if c.field == "segments":
            return f"u.segments && {values}"
        column = "p.external_id" if c.field == "id" else "u.seller_id"
        return f"(p.kind = {USER} and {column} = any({values}))"

    def _count(self, c: Condition) -> str:
        parsed = _EVENTS.fullmatch(c.field)
        assert parsed is not None
        since = self._now - timedelta(days=int(parsed[2] or _DAYS))
        count = (
            f"(select count(*) from events e where e.tenant_id = {self._tenant} and e.shopper_no = p.shopper_no "
            f"and e.ts > {self.bind(since, 'timestamptz')} and e.type = {self.bind(parsed[1], 'text')} "
            "and e.line = 0 and e.flags = 0)"
        )
        if c.op == "exists":
            return f"{count} > 0"
        numbers = [float(value) for value in c.values]
        if c.op == "in":
            return f"{count}::float8 = any({self.bind(numbers, 'float8[]')})"
        return f"{count}::float8 {SQL_OPERATOR[c.op]} {self.bind(numbers[0], 'float8')}"

    def _attribute(self, c: Condition) -> str:
        value = f"(u.attributes -> {self.bind(c.field.removeprefix('attributes.'), 'text')})"
        if c.op == "exists":
            return f"{value} is not null"
        number = f"case when jsonb_typeof({value}) = 'number' then {value}::float8 end"
        if c.op != "in":
            return f"({number} {SQL_OPERATOR[c.op]} {self.bind(float(c.values[0]), 'float8')})"
        # A list holds each of its values.
        texts = [str(value).lower() if isinstance(value, bool) else value for value in c.values]
        wanted = [text for text in texts if isinstance(text, str)]
        numbers = [float(value) for value in c.values if is_number(value)]
        tests = ["false"]
        if wanted:
            bound = self.bind(wanted, "text[]")
            tests += [
                f"({value} #>> '{{}}') = any({bound})",
                f"(jsonb_typeof({value}) = 'array' and {value} ?| {bound})",
            ]
        if numbers:
            tests.append(f"({number}) = any({self.bind(numbers, 'float8[]')})")
        return "(" + " or ".join(tests) + ")"


async def store_segment(
    conn: AsyncConnection, tenant_id: TenantId, segment_id: str, tree: dict[str, Any], *, now: datetime
) -> bool:
    """Store a segment; whether it is new. Raises InvalidFilter."""
    parse_segment(tree)
    new: bool = await (await driver(conn)).fetchval(
        "insert into segments (tenant_id, segment_id, filter, created_at, updated_at) "
        "values ($1, $2, $3::text::jsonb, $4, $4) on conflict (tenant_id, segment_id) do update set "
        "filter = excluded.filter, updated_at = excluded.updated_at returning xmax = 0",
        tenant_id,
        segment_id,
        msgspec.json.encode(tree).decode(),
        now,
    )
    return new


_COLUMNS: Final = "segment_id, filter::text as filter, created_at, updated_at"


def _segment(record: Any) -> Segment:
    return Segment(
        id=record["segment_id"],
        filter=msgspec.json.decode(record["filter"]),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )


async def get_segment(conn: AsyncConnection, tenant_id: TenantId, segment_id: str) -> Segment:
    """One segment. Raises SegmentNotFound."""
    record = await (await driver(conn)).fetchrow(
        f"select {_COLUMNS} from segments where tenant_id = $1 and segment_id = $2", tenant_id, segment_id
    )
    if record is None:
        raise _no_segment(segment_id)
    return _segment(record)


async def list_segments(conn: AsyncConnection, tenant_id: TenantId) -> list[Segment]:
    """All saved filters, by name."""
    records = await (await driver(conn)).fetch(
        f"select {_COLUMNS} from segments where tenant_id = $1 order by segment_id limit $2", tenant_id, MAX_SEGMENTS
    )
    return [_segment(record) for record in records]


async def delete_segment(conn: AsyncConnection, tenant_id: TenantId, segment_id: str) -> None:
    """Forget a saved filter; the users stay. Raises SegmentNotFound."""
    gone = await (await driver(conn)).fetchval(
        "delete from segments where tenant_id = $1 and segment_id = $2 returning 1", tenant_id, segment_id
    )
    if gone is None:
        raise _no_segment(segment_id)


_FROM: Final = (
    "from shopper_ids p left join users u on u.tenant_id = $1 and u.shopper_no = p.shopper_no "
    "where p.tenant_id = $1 and p.merged_into is null"
)


async def members(conn: AsyncConnection, tenant_id: TenantId, segment_id: str, *, now: datetime) -> list[int]:
    """The numbers of the shoppers in a segment: whom the shop has put there, and whom its saved filter finds.

    Raises SegmentNotFound for a name that is neither.
    """
    raw = await driver(conn)
    args: list[Any] = [tenant_id, segment_id]
    named = f"select p.shopper_no {_FROM} and u.segments && array[$2::text]"
    tree = await raw.fetchval(
        "select filter::text from segments where tenant_id = $1 and segment_id = $2", tenant_id, segment_id
    )
    if tree is None:
        found = await raw.fetch(f"{named} order by 1", *args)
        if not found:
            raise _no_segment(segment_id)
    else:
        condition = SegmentCompiler(args, tenant="$1", now=now).sql(parse_segment(msgspec.json.decode(tree)))
        found = await raw.fetch(f"{named} union select p.shopper_no {_FROM} and {condition} order by 1", *args)
    return [record["shopper_no"] for record in found]


async def segments_of(
    conn: AsyncConnection, tenant_id: TenantId, shopper_no: int, segments: Sequence[Segment], *, now: datetime
) -> list[str]:
    """Which segments a shopper is in: those the shop has named, and of these saved filters those that it passes."""
    raw = await driver(conn)
    args: list[Any] = [tenant_id, shopper_no]
    compiler = SegmentCompiler(args, tenant="$1", now=now)
    tests = [
        f"select {at} as at {_FROM} and p.shopper_no = $2 and {compiler.sql(parse_segment(segment.filter))}"
        for at, segment in enumerate(segments)
    ]
    passed = await raw.fetch(" union all ".join(tests), *args) if tests else []
    given = await raw.fetchval("select segments from users where tenant_id = $1 and shopper_no = $2", *args[:2])
    return sorted({*(given or ()), *(segments[record["at"]].id for record in passed)})


def _no_segment(segment_id: str) -> SegmentNotFound:
    return SegmentNotFound(f"There is no segment {segment_id!r}: no saved filter of that name.")
