"""The catalogue of a tenant: items stored, changed, listed and removed.

Every function takes the connection of a `tenant_session` and never commits.
An item lives in five tables (document, facets, attributes, words, photos) that
are written by one statement, so that readers see all of it or nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any, Final, Literal

import asyncpg
import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.changes import record_items
from infra.db import Database, TenantId, driver
from infra.decode import convert
from infra.errors import FieldError, Invalid
from tenants.catalog.filters import Compiler, Filter
from tenants.catalog.item import Item, ItemNotFound, digest, document, too_large_or_unstorable
from tenants.catalog.photos import Photo
from tenants.catalog.rows import ABSENT, Write, payload
from tenants.lifecycle import TenantRef
from tenants.vectors.shards import hold_shard

CHUNK: Final = 1000
"""Rows per statement: larger ones are no faster and hold more memory."""

_WRITERS: Final = 2
"""Transactions of one large call at once; fewer than a process has, so that others go on meanwhile."""

State = Literal["pending", "done", "failed", "absent"]
STATES: Final[tuple[State, ...]] = ("pending", "done", "failed", "absent")


class InvalidItem(Invalid):
    """One item cannot be stored."""

    code = "invalid_item"
    title = "The item cannot be stored"


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one row of a write; `index` is its place in the call."""

    index: int
    id: str | None
    status: Literal["created", "updated", "unchanged", "rejected"]
    error: FieldError | None = None


class Encoding(Struct, frozen=True, kw_only=True):
    """Where the encoding of one modality stands, with a reason a shop owner understands."""

    state: State
    reason: str | None


class StoredItem(Struct, frozen=True, kw_only=True):
    """An item as it is stored: `item` is the document's JSON, byte for byte."""

    item: msgspec.Raw
    text: Encoding
    image: Encoding
    photos: list[Photo]
    created_at: datetime
    updated_at: datetime


# Lateral with a limit: always index probes, also when the statistics do not know a tenant's first rows yet.
_KNOWN = """
select d.item_no, i.content_hash
from unnest($2::text[]) with ordinality as given(external_id, at)
left join lateral (select d.item_no from item_ids d
    where d.tenant_id = $1 and d.external_id = given.external_id limit 1) d on true
left join lateral (select i.content_hash from items i
    where i.tenant_id = $1 and i.item_no = d.item_no limit 1) i on true
order by given.at
"""

_TAKE_NUMBERS = """
update tenant_counters set next_item_no = next_item_no + $2 where tenant_id = $1
returning next_item_no - $2
"""

# Whoever names an item holds the lock on the counter, so nobody does between this statement's look and its write:
# `on conflict` would look in both indexes and write a second record of WAL for each row, twice the cost of the insert.
_NAME = """
insert into item_ids (tenant_id, item_no, external_id)
select $1, $2 + at - 1, given.external_id
from unnest($3::text[]) with ordinality given(external_id, at)
left join lateral (select true as found from item_ids d
    where d.tenant_id = $1 and d.external_id = given.external_id limit 1) d on true
where d.found is null
"""

_NUMBERS = "select external_id, item_no from item_ids where tenant_id = $1 and external_id = any($2::text[])"

_LOCK = "select 1 from items where tenant_id = $1 and item_no = any($2::int4[]) order by item_no for update"

# A changed text or photo list is pending even when nothing is left of it: the worker then takes the vector away.
_CHANGE_DOC = """
    on conflict (tenant_id, item_no) do update set
        doc = excluded.doc, content_hash = excluded.content_hash, updated_at = excluded.updated_at,
        text_hash = excluded.text_hash, image_hash = excluded.image_hash,
        text_version = items.text_version + (items.text_hash <> excluded.text_hash)::int,
        image_version = items.image_version + (items.image_hash <> excluded.image_hash)::int,
        text_state = case when items.text_hash <> excluded.text_hash then 0 else items.text_state end,
        text_reason = case when items.text_hash <> excluded.text_hash then null else items.text_reason end,
        text_due = case when items.text_hash <> excluded.text_hash then '-infinity' else items.text_due end,
        text_attempts = case when items.text_hash <> excluded.text_hash then 0 else items.text_attempts end,
        image_state = case when items.image_hash <> excluded.image_hash then 0 else items.image_state end,
        image_reason = case when items.image_hash <> excluded.image_hash then null else items.image_reason end,
        image_due = case when items.image_hash <> excluded.image_hash then '-infinity' else items.image_due end,
        image_attempts = case when items.image_hash <> excluded.image_hash then 0 else items.image_attempts end"""

_CHANGE_FACETS = """
    on conflict (tenant_id, item_no) do update set
        group_id = excluded.group_id, brand = excluded.brand, seller_id = excluded.seller_id,
        price = excluded.price, sale_price = excluded.sale_price, currency = excluded.currency,
        availability = excluded.availability, hidden = excluded.hidden,
        available_from = excluded.available_from, expires_at = excluded.expires_at,
        language = excluded.language, gtin = excluded.gtin"""

_CHANGE_WORDS = """
    on conflict (tenant_id, item_no, shard) do update set words = excluded.words"""

_FORGET_ATTRS = """
), gone as (
    delete from item_attrs where tenant_id = $1 and item_no = any($4)"""

# By columns, which PostgreSQL reads in half the time of rows of JSON, and of which those that are null cost nothing.
_STORE = """
with doc as (
    insert into items (tenant_id, item_no, doc, content_hash, text_hash, image_hash,
        text_state, image_state, created_at, updated_at)
    select $1, n, d, c, t, m, case when t = $3 then 3 else 0 end, case when m = $3 then 3 else 0 end, $2, $2
    from unnest($4::int4[], $5::jsonb[], $6::bytea[], $7::bytea[], $8::bytea[]) r(n, d, c, t, m){change_doc}
), facets as (
    insert into item_facets (tenant_id, item_no, group_id, brand, seller_id, price, sale_price, currency,
        availability, hidden, available_from, expires_at, language, gtin, created_at)
    select $1, n, g, b, s, p, q, coalesce(u, $21), coalesce(v, 0), coalesce(h, false), coalesce(f, '-infinity'),
        coalesce(e, 'infinity'), l, k, $2
    from unnest($4::int4[], $9::text[], $10::text[], $11::text[], $12::int8[], $13::int8[], $14::text[], $15::int2[],
        $16::bool[], $17::timestamptz[], $18::timestamptz[], $19::text[], $20::text[])
        r(n, g, b, s, p, q, u, v, h, f, e, l, k){change_facets}
), words as (
    insert into item_text (shard, tenant_id, item_no, words)
    select {shard}, $1, n, words from unnest($4::int4[], $22::tsvector[]) w(n, words){change_words}{forget_attrs}
)
insert into item_attrs (tenant_id, item_no, name, value_text, value_num)
select $1, n, name, value_text, value_num
from unnest($23::text::int4[], $24::text[], $25::text[], $26::float8[]) a(n, name, value_text, value_num)
"""


def _insert_statement(shard: int) -> str:
    """Stores items whose numbers this transaction has just handed out: nobody else can have stored them."""
    return _STORE.format(shard=shard, change_doc="", change_facets="", change_words="", forget_attrs="")


def _upsert_statement(shard: int) -> str:
    """Stores items that may be there already."""
    return _STORE.format(
        shard=shard,
        change_doc=_CHANGE_DOC,
        change_facets=_CHANGE_FACETS,
        change_words=_CHANGE_WORDS,
        forget_attrs=_FORGET_ATTRS,
    )


async def upsert_items(
    conn: AsyncConnection, tenant: TenantRef, items: Sequence[Item], *, now: datetime
) -> list[Outcome]:
    """Store items whole; of two rows with one id the later wins. Returns one outcome per row, in order.

    Rows whose content is unchanged are found by hash and not written. Every
    row is committed or none: the transaction is the caller's.
    """
    raw = await driver(conn)
    call = _Call(items)
    changed, ours = await _look_up(raw, tenant.tenant_id, call, call.effective)
    if changed:
        # Before any lock on items: a move of the tenant waits for us, or we for it.
        shard = await hold_shard(conn, tenant.tenant_id)
        for chunk in _chunks(changed):
            await _store(conn, tenant, _Chunk(chunk, ours, call.numbers, tenant.currency), shard, now)
    return call.outcomes()


async def upsert_many(database: Database, tenant: TenantRef, items: Sequence[Item], *, now: datetime) -> list[Outcome]:
    """The same for a call of any size, in transactions of its own, `_WRITERS` at a time; all are committed on return.

    A call of one chunk is one transaction. A larger one that fails in between leaves what it stored until then, and
    the same call again stores the rest. Two transactions at once, because one keeps a single core of PostgreSQL busy.
    """
    if len(items) <= CHUNK:
        async with database.tenant_session(tenant.tenant_id) as conn:
            return await upsert_items(conn, tenant, items, now=now)
    call = _Call(items)
    waiting = iter(_chunks(call.effective))

    async def write() -> None:
        for chunk in waiting:
            async with database.tenant_session(tenant.tenant_id) as conn:
                # Committed apart: the lock on the tenant's counter would make the writers wait for each other.
                changed, ours = await _look_up(await driver(conn), tenant.tenant_id, call, chunk)
            if changed:
                made = await asyncio.to_thread(_Chunk, changed, ours, call.numbers, tenant.currency)
                await _commit_chunk(database, tenant, made, now)

    try:
        async with asyncio.TaskGroup() as writers:
            for _ in range(_WRITERS):
                writers.create_task(write())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # told as it would be of one transaction
    return call.outcomes()


def _chunks(writes: Sequence[Write]) -> list[Sequence[Write]]:
    return [writes[start : start + CHUNK] for start in range(0, len(writes), CHUNK)]


async def _commit_chunk(database: Database, tenant: TenantRef, chunk: "_Chunk", now: datetime) -> None:
    try:
        async with database.tenant_session(tenant.tenant_id) as conn:
            shard = await hold_shard(conn, tenant.tenant_id)
            await _store(conn, tenant, chunk, shard, now)
    except asyncpg.UniqueViolationError:
        # Somebody stored an item under a number of ours, which they could see by then.
        again = _Chunk(chunk.writes, set(), chunk.numbers, tenant.currency)
        async with database.tenant_session(tenant.tenant_id) as conn:
            shard = await hold_shard(conn, tenant.tenant_id)
            await _store(conn, tenant, again, shard, now)


class _Call:
    """One call's rows on their way: what is refused, what is changed, and which numbers the items have."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._outcomes: list[Outcome | None] = [None] * len(items)
        self._writes: list[Write] = []
        for index, item in enumerate(items):
            encoded = document(item)
            fault = too_large_or_unstorable(item, encoded)
            if fault is not None:
                self._outcomes[index] = Outcome(index=index, id=item.id, status="rejected", error=fault)
            else:
                self._writes.append(Write(index, item, encoded, digest(encoded)))
        self._last = {write.item.id: write.at for write in self._writes}
        self.effective = [write for write in self._writes if self._last[write.item.id] == write.at]
        self.numbers: dict[str, int] = {}

    def tell(self, write: Write, status: Literal["created", "updated", "unchanged"]) -> None:
        """Say what becomes of a row, once this is sure to be committed or all is to fail."""
        self._outcomes[write.at] = Outcome(index=write.at, id=write.item.id, status=status)

    def outcomes(self) -> list[Outcome]:
        """One per row, in order."""
        for write in self._writes:  # earlier rows of a repeated id share the outcome of the last
            if self._outcomes[write.at] is None:
                winner = self._outcomes[self._last[write.item.id]]
                assert winner is not None
                self._outcomes[write.at] = Outcome(index=write.at, id=write.item.id, status=winner.status)
        return [outcome for outcome in self._outcomes if outcome is not None]


async def _look_up(raw: Any, tenant_id: TenantId, call: _Call, writes: Sequence[Write]) -> tuple[list[Write], set[str]]:
    """Find what of `writes` is changed, and give every item of it a number.

    Returns the changed ones in the order of their numbers, so that two writers of the same items never wait in a
    ring, and the ids whose numbers were handed out here.
    """
    changed = []
    known = await raw.fetch(_KNOWN, tenant_id, [write.item.id for write in writes])
    for write, (item_no, stored_hash) in zip(writes, known, strict=True):
        if item_no is not None:
            call.numbers[write.item.id] = item_no
        if stored_hash == write.content_hash:
            call.tell(write, "unchanged")
        else:
            call.tell(write, "created" if stored_hash is None else "updated")
            changed.append(write)
    ours = await _number(raw, tenant_id, changed, call.numbers)
    changed.sort(key=lambda write: call.numbers[write.item.id])
    return changed, ours


class _Chunk:
    """Changed items as the statements take them; made without the database, where wanted in a thread.

    `ours` are the ids whose numbers this call handed out: nobody else has stored them, unless they saw the numbers.
    """

    def __init__(self, writes: Sequence[Write], ours: Set[str], numbers: Mapping[str, int], currency: str) -> None:
        self.writes = writes
        self.numbers = numbers
        known = [write for write in writes if write.item.id not in ours]
        fresh = [write for write in writes if write.item.id in ours]
        self.lock = [numbers[write.item.id] for write in known]
        self.known = payload(known, numbers, currency) if known else None
        self.fresh = payload(fresh, numbers, currency) if fresh else None


async def _store(conn: AsyncConnection, tenant: TenantRef, chunk: _Chunk, shard: int, now: datetime) -> None:
    raw = await driver(conn)
    if chunk.known is not None:
        await raw.execute(_LOCK, tenant.tenant_id, chunk.lock)
    for statement, made in ((_upsert_statement(shard), chunk.known), (_insert_statement(shard), chunk.fresh)):
        if made is not None:
            columns = (made.numbers, *made.documents, *made.facets, made.words, *made.attributes)
            await raw.execute(statement, tenant.tenant_id, now, ABSENT, *columns)
    # A number without an item may be of one that was deleted, or that only events have named.
    await record_items(conn, tenant.tenant_id, chunk.lock)


async def _number(raw: Any, tenant_id: TenantId, changed: Sequence[Write], numbers: dict[str, int]) -> set[str]:
    """Give a number to every id that has none; all of them at once, before any item is locked.

    Returns the ids whose numbers were handed out here; nobody else sees them before this transaction ends.
    """
    nameless = [write.item.id for write in changed if write.item.id not in numbers]
    if not nameless:
        return set()
    first: int = await raw.fetchval(_TAKE_NUMBERS, tenant_id, len(nameless))
    named: str = await raw.execute(_NAME, tenant_id, first, nameless)
    if named.endswith(f" {len(nameless)}"):
        numbers.update(zip(nameless, range(first, first + len(nameless)), strict=True))
        return set(nameless)
    # Some got their number elsewhere since we looked.
    numbers.update(await raw.fetch(_NUMBERS, tenant_id, nameless))
    # Numbers rise and are never reused, so one at or above `first` was handed out here.
    return {external_id for external_id in nameless if numbers[external_id] >= first}


_GET = """
select i.doc::text, i.text_state, i.text_reason, i.image_state, i.image_reason, i.created_at, i.updated_at,
    coalesce((select jsonb_agg(jsonb_build_object('position', p.position, 'content_type', p.content_type,
        'size', p.size, 'sha256', encode(p.sha256, 'hex')) order by p.position)
        from item_photos p where p.tenant_id = $1 and p.item_no = i.item_no), '[]')::text as photos, d.external_id
from item_ids d join items i on i.tenant_id = $1 and i.item_no = d.item_no
where d.tenant_id = $1 and {which}
"""


def _stored(record: Any) -> StoredItem:
    return StoredItem(
        item=msgspec.Raw(record["doc"].encode()),
        text=Encoding(state=STATES[record["text_state"]], reason=record["text_reason"]),
        image=Encoding(state=STATES[record["image_state"]], reason=record["image_reason"]),
        photos=msgspec.json.decode(record["photos"], type=list[Photo]),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )


async def get_item(conn: AsyncConnection, tenant_id: TenantId, external_id: str) -> StoredItem:
    """The item with that id. Raises ItemNotFound."""
    raw = await driver(conn)
    record = await raw.fetchrow(_GET.format(which="d.external_id = $2"), tenant_id, external_id)
    if record is None:
        raise ItemNotFound(f"There is no item {external_id!r}. Store it with PUT /v1/items/{{id}}.")
    return _stored(record)


async def put_item(conn: AsyncConnection, tenant: TenantRef, item: Item, *, now: datetime) -> Outcome:
    """Store one item. Raises InvalidItem."""
    (outcome,) = await upsert_items(conn, tenant, [item], now=now)
    if outcome.error is not None:
        raise InvalidItem(outcome.error.message, errors=[outcome.error])
    return outcome


async def patch_item(
    conn: AsyncConnection, tenant: TenantRef, external_id: str, patch: dict[str, Any], *, now: datetime
) -> Outcome:
    """Apply a JSON merge patch (RFC 7396) under the item's lock. Raises ItemNotFound, InvalidFields, InvalidItem."""
    raw = await driver(conn)
    stored = await raw.fetchval(
        "select i.doc::text from item_ids d join items i on i.tenant_id = $1 and i.item_no = d.item_no "
        "where d.tenant_id = $1 and d.external_id = $2 for update of i",
        tenant.tenant_id,
        external_id,
    )
    if stored is None:
        raise ItemNotFound(f"There is no item {external_id!r}. Store it with PUT /v1/items/{{id}}.")
    if patch.get("id", external_id) != external_id:
        fault = FieldError(pointer="/id", code="immutable_field", message="The id of an item cannot be changed.")
        raise InvalidItem("Leave `id` out of the patch, or store a new item.", errors=[fault])
    merged = merge_patch(msgspec.json.decode(stored), patch)
    return await put_item(conn, tenant, convert(merged, Item), now=now)


def merge_patch(target: object, patch: object) -> object:
    """RFC 7396: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, object] = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


async def item_numbers(conn: AsyncConnection, tenant_id: TenantId, external_ids: Sequence[str]) -> dict[str, int]:
    """The numbers of those ids that name a stored item."""
    raw = await driver(conn)
    return dict(
        await raw.fetch(
            "select d.external_id, d.item_no from item_ids d "
            "join items i on i.tenant_id = $1 and i.item_no = d.item_no "
            "where d.tenant_id = $1 and d.external_id = any($2::text[])",
            tenant_id,
            list(external_ids),
        )
    )


async def find_items(conn: AsyncConnection, tenant_id: TenantId, filter_: Filter) -> list[int]:
    """The numbers of the items that match, ascending."""
    compiler = Compiler([tenant_id], tenant="$1::uuid")
    where = compiler.sql(filter_)
    raw = await driver(conn)
    records = await raw.fetch(
        f"select f.item_no from item_facets f where f.tenant_id = $1 and {where} order by f.item_no", *compiler.args
    )
    return [record["item_no"] for record in records]


class Page(Struct, frozen=True, kw_only=True):
    """Items in the order of their numbers; `last_no` continues the list, None at its end."""

    items: list[StoredItem]
    last_no: int | None


async def list_items(
    conn: AsyncConnection, tenant_id: TenantId, *, filter_: Filter | None, after_no: int, limit: int
) -> Page:
    """The next `limit` items after a number."""
    compiler = Compiler([tenant_id, after_no, limit + 1], tenant="$1::uuid")
    where = "true" if filter_ is None else compiler.sql(filter_)
    raw = await driver(conn)
    which = (
        f"d.item_no in (select f.item_no from item_facets f where f.tenant_id = $1 and f.item_no > $2 and {where} "
        "order by f.item_no limit $3) order by d.item_no"
    )
    statement = _GET.replace("select ", "select d.item_no, ", 1).format(which=which)
    records = await raw.fetch(statement, *compiler.args)
    more = len(records) > limit
    records = records[:limit]
    return Page(items=[_stored(record) for record in records], last_no=records[-1]["item_no"] if more else None)


_COUNT = """
select text_state, image_state, count(*) as items from items where tenant_id = $1 group by text_state, image_state
"""


async def count_states(conn: AsyncConnection, tenant_id: TenantId) -> dict[str, dict[State, int]]:
    """How many items are in which state of encoding, by modality."""
    raw = await driver(conn)
    counts: dict[str, dict[State, int]] = {kind: dict.fromkeys(STATES, 0) for kind in ("text", "image")}
    for record in await raw.fetch(_COUNT, tenant_id):
        counts["text"][STATES[record["text_state"]]] += record["items"]
        counts["image"][STATES[record["image_state"]]] += record["items"]
    return counts


_DELETE = (
    "delete from fused_vectors where shard = {shard} and tenant_id = $1 and item_no = any($2::int4[])",
    "delete from item_vectors where tenant_id = $1 and item_no = any($2::int4[])",
    "delete from item_text where shard = {shard} and tenant_id = $1 and item_no = any($2::int4[])",
    "delete from item_attrs where tenant_id = $1 and item_no = any($2::int4[])",
    "delete from item_facets where tenant_id = $1 and item_no = any($2::int4[])",
    # item_photos go with the item; the number stays in item_ids and is never given to another id.
    "delete from items where tenant_id = $1 and item_no = any($2::int4[])",
)


async def delete_items(conn: AsyncConnection, tenant_id: TenantId, item_nos: Sequence[int]) -> int:
    """Remove items everywhere; returns how many there were."""
    raw = await driver(conn)
    numbers = sorted(set(item_nos))
    removed = 0
    shard = await hold_shard(conn, tenant_id) if numbers else 0
    for start in range(0, len(numbers), CHUNK):
        chunk = numbers[start : start + CHUNK]
        await raw.execute(_LOCK, tenant_id, chunk)
        for statement in _DELETE:
            done: str = await raw.execute(statement.format(shard=shard), tenant_id, chunk)
        removed += int(done.rpartition(" ")[2])
    if removed:
        await record_items(conn, tenant_id, numbers)
    return removed
