"""Seals made, checked against the rows, exported, and taken away when their time is over."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from infra.apart import apart
from infra.db import Database, TenantId, driver, fetch
from tenants.audit.chain import DIGEST, Checked, Difference, Seal, check_seal, make_seal
from tenants.audit.log import COLUMNS, entry_of, line_of

KEPT: Final = timedelta(days=400)
"""How long entries are kept, and their seals with them."""

_READ: Final = timedelta(days=1)
"""How long an export may be read: what is to go before that is not in it, lest it goes half-way."""

MOST: Final = 1000
"""Entries of one seal."""

_AT_ONCE: Final = 100


async def unsealed_tenants(database: Database) -> list[TenantId]:
    """Tenants with entries that are in no seal yet."""
    async with database.system_session(reason="entries to be sealed") as conn:
        records = await fetch(conn, "select distinct tenant_id from audit_unsealed")
    return [TenantId(record["tenant_id"]) for record in records]


async def _turn(raw: Any, tenant_id: TenantId) -> bool:
    """Whether this transaction alone writes the tenant's chain."""
    mine: bool = await raw.fetchval(
        "select pg_try_advisory_xact_lock(hashtextextended('audit seals of ' || $1::text, 0))", str(tenant_id)
    )
    return mine


# Committed rows alone: one whose transaction is still open is taken by a later seal, whatever its id.
_TAKE: Final = f"""
with due as (
    delete from audit_unsealed u where u.tenant_id = $1 and u.audit_id = any(array(
        select w.audit_id from audit_unsealed w join audit a on a.tenant_id = $1 and a.audit_id = w.audit_id
        where w.tenant_id = $1 order by w.audit_id limit $2)) returning u.audit_id
)
select {COLUMNS} from due join audit a on a.tenant_id = $1 and a.audit_id = due.audit_id order by a.at, a.audit_id
"""


async def seal(database: Database, tenant_id: TenantId, *, now: datetime, most: int = MOST) -> int:
    """Seal what is in no seal yet, at most so many; how many entries. 0 too where another process is at it."""
    async with database.system_session(reason="seal the audit log") as conn:
        raw = await driver(conn)
        if not await _turn(raw, tenant_id):
            return 0
        entries = [entry_of(record) for record in await raw.fetch(_TAKE, tenant_id, most)]
        if entries:
            made = make_seal(tenant_id, await _last(raw, tenant_id), [line_of(entry) for entry in entries], now=now)
            await _store(raw, made, [entry.id for entry in entries])
    return len(entries)


async def _last(raw: Any, tenant_id: TenantId) -> Seal | None:
    record = await raw.fetchrow(f"{_SEALS} order by s.seal desc limit 1", tenant_id)
    return None if record is None else _seal_of(record)


async def _store(raw: Any, made: Seal, ids: Sequence[UUID]) -> None:
    await raw.execute(
        "insert into audit_seals (tenant_id, seal, previous, ids, digests, hash, sealed_at) "
        "values ($1, $2, $3, $4, $5, $6, $7)",
        made.tenant_id,
        made.seal,
        bytes.fromhex(made.previous),
        list(ids),
        bytes.fromhex("".join(made.digests)),
        bytes.fromhex(made.hash),
        made.sealed_at,
    )


_SEALS: Final = """
select s.tenant_id, s.seal, s.previous, s.ids, s.digests, s.hash, s.sealed_at from audit_seals s where s.tenant_id = $1
"""


def _seal_of(record: Any) -> Seal:
    digests: bytes = record["digests"]
    return Seal(
        seal=record["seal"],
        tenant_id=UUID(int=record["tenant_id"].int),
        previous=record["previous"].hex(),
        digests=[digests[at : at + DIGEST].hex() for at in range(0, len(digests), DIGEST)],
        hash=record["hash"].hex(),
        sealed_at=record["sealed_at"],
    )


_ROWS: Final = f"""
select {COLUMNS} from unnest($2::uuid[]) with ordinality g(audit_id, place)
left join audit a on a.tenant_id = $1 and a.audit_id = g.audit_id order by g.place
"""


_Found = tuple[Seal, list[bytes | None], list[UUID]]
"""A seal, the lines of its entries as they are now (None: gone), and their ids."""


async def _next_seal(raw: Any, tenant_id: TenantId, after: int) -> _Found | None:
    record = await raw.fetchrow(f"{_SEALS} and s.seal > $2 order by s.seal limit 1", tenant_id, after)
    if record is None:
        return None
    rows = await raw.fetch(_ROWS, tenant_id, record["ids"])
    lines = [None if row["audit_id"] is None else line_of(entry_of(row)) for row in rows]
    return _seal_of(record), lines, [UUID(int=each.int) for each in record["ids"]]


_UNSEALED: Final = f"""
select {COLUMNS} from audit_unsealed u join audit a on a.tenant_id = $1 and a.audit_id = u.audit_id
where u.tenant_id = $1 order by a.at, a.audit_id
"""

# Noted and gone before a seal; or put in around the log: in no seal, and not waiting for one.
_ASTRAY: Final = """
select u.audit_id, 'The entry was noted, and is gone.' as message from audit_unsealed u
where u.tenant_id = $1 and not exists (select 1 from audit a where a.tenant_id = $1 and a.audit_id = u.audit_id)
union all select a.audit_id, 'The entry is in no seal, and was not noted by the log.' from audit a
where a.tenant_id = $1
and not exists (select 1 from audit_unsealed u where u.tenant_id = $1 and u.audit_id = a.audit_id)
and a.audit_id not in (select unnest(s.ids) from audit_seals s where s.tenant_id = $1)
order by audit_id limit 1
"""


_BEFORE: Final = """
select coalesce(min(s.seal) filter (where s.sealed_at >= $2), max(s.seal), 1) - 1 from audit_seals s
where s.tenant_id = $1
"""


async def export_lines(database: Database, tenant_id: TenantId, *, now: datetime) -> AsyncIterator[bytes]:
    """The whole log, from the oldest entry on: the lines of each seal's entries, then the seal's; last, unsealed ones.

    No line ends with its line break. An entry that is gone has no line, which a check of the file finds. Read in one
    transaction per seal: whoever takes the lines may be slow. So it begins behind what is taken away within a day.
    """
    async with database.tenant_session(tenant_id) as conn:
        after: int = await (await driver(conn)).fetchval(_BEFORE, tenant_id, now - KEPT + _READ)
    while True:
        async with database.tenant_session(tenant_id) as conn:
            # Read first: what is sealed meanwhile comes with its seal instead.
            unsealed = [line_of(entry_of(record)) for record in await fetch(conn, _UNSEALED, tenant_id)]
            found = await _next_seal(await driver(conn), tenant_id, after)
        if found is None:
            break
        made, lines, _ = found
        after = made.seal
        for line in lines:
            if line is not None:
                yield line
        yield msgspec.json.encode(made)
    for line in unsealed:
        yield line


async def check(database: Database, tenant_id: TenantId) -> Checked:
    """Check every entry of a tenant against the seals, up to the first difference, all as they are at one moment."""
    first = entries = 0
    last: Seal | None = None
    difference: Difference | None = None
    after = 0
    # One snapshot: else what is sealed or taken away meanwhile would look like tampering.
    async with database.tenant_snapshot(tenant_id) as conn:
        raw = await driver(conn)
        while (found := await _next_seal(raw, tenant_id, after)) is not None:
            seal_, lines, ids = found
            after = seal_.seal
            difference = check_seal(seal_, lines, last)
            if difference is not None:
                if difference.entry is None and difference.place is not None and difference.place <= len(ids):
                    difference = msgspec.structs.replace(difference, entry=ids[difference.place - 1])
                break
            first = first or seal_.seal
            entries += len(lines)
            last = seal_
        if difference is None and (astray := await raw.fetchrow(_ASTRAY, tenant_id)) is not None:
            number = 1 if last is None else last.seal + 1
            difference = Difference(seal=number, entry=UUID(int=astray["audit_id"].int), message=astray["message"])
        unsealed: int = await raw.fetchval("select count(*) from audit_unsealed where tenant_id = $1", tenant_id)
    return Checked(
        first=first,
        last=0 if last is None else last.seal,
        entries=entries,
        unsealed=unsealed,
        head=None if last is None else last.hash,
        difference=difference,
    )


async def prune(database: Database, *, now: datetime, kept: timedelta = KEPT) -> int:
    """Take away the entries that were sealed longer ago, with their seals; how many entries.

    What is left is a chain still: its first seal refers to one that is gone. Where all of it would go, an empty seal is
    added first, which the next one can follow.
    """
    before = now - kept
    async with database.system_session(reason="audit entries whose time is over") as conn:
        records = await fetch(
            conn, "select distinct tenant_id from audit_seals where sealed_at < $1 and ids <> '{}'", before
        )
    removed = 0
    for record in records:
        with apart("prune the audit log", record["tenant_id"]):
            while count := await _prune(database, TenantId(record["tenant_id"]), before, now):
                removed += count
    return removed


async def _prune(database: Database, tenant_id: TenantId, before: datetime, now: datetime) -> int:
    async with database.system_session(reason="audit entries whose time is over") as conn:
        raw = await driver(conn)
        if not await _turn(raw, tenant_id):
            return 0
        last = await _last(raw, tenant_id)
        if last is not None and last.sealed_at < before and last.digests:
            await _store(raw, make_seal(tenant_id, last, [], now=now), [])
        done: str = await raw.execute(
            "with old as (delete from audit_seals s where s.tenant_id = $1 and s.seal = any(array("
            "select o.seal from audit_seals o where o.tenant_id = $1 and o.sealed_at < $2 order by o.seal limit $3)) "
            "and s.seal < (select max(m.seal) from audit_seals m where m.tenant_id = $1) returning s.ids) "
            "delete from audit a where a.tenant_id = $1 and a.audit_id in (select unnest(ids) from old)",
            tenant_id,
            before,
            _AT_ONCE,
        )
    return int(done.rpartition(" ")[2])
