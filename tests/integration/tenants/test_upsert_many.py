"""Large writes of the catalogue, in several transactions at once."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.db import Database, driver
from tenants.catalog import store as catalog
from tenants.catalog.item import Item
from tenants.catalog.words import binary_tsvector, lexemes
from tenants.lifecycle import TenantRef
from tests.integration.tenants.conftest import MakeTenant

pytestmark = pytest.mark.anyio

_NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
_MANY = catalog.CHUNK * 2 + 100


async def _count(database: Database, tenant: TenantRef) -> tuple[int, ...]:
    tables = ("item_ids", "items", "item_facets", "item_text", "item_attrs")
    async with database.tenant_session(tenant.tenant_id) as connection:
        raw = await driver(connection)
        return tuple(
            [
                await raw.fetchval(f"select count(*) from {table} where tenant_id = $1", tenant.tenant_id)
                for table in tables
            ]
        )


async def test_a_large_call_is_stored_whole_and_told_row_by_row(database: Database, make_tenant: MakeTenant) -> None:
    """New, changed, unchanged, refused and repeated rows are told apart, whatever chunk they fall into."""
    tenant = await make_tenant()
    items = [Item(id=str(number), title=f"lamp {number}", tags=["t"]) for number in range(_MANY)]
    first = await catalog.upsert_many(database, tenant, items, now=_NOW)
    assert Counter(outcome.status for outcome in first) == {"created": _MANY}
    assert [outcome.id for outcome in first] == [item.id for item in items]
    changed = [*items, Item(id="new"), Item(id="bad", title="a\0b"), Item(id="0", title="another", tags=["u"])]
    second = await catalog.upsert_many(database, tenant, changed, now=_NOW)
    assert Counter(outcome.status for outcome in second) == {
        "unchanged": _MANY - 1,
        "created": 1,
        "rejected": 1,
        "updated": 2,
    }
    assert await _count(database, tenant) == (_MANY + 1, _MANY + 1, _MANY + 1, _MANY + 1, _MANY)


async def test_two_large_calls_of_the_same_items_both_end(database: Database, make_tenant: MakeTenant) -> None:
    """Their transactions wait for each other in one order only, and each item is stored once."""
    tenant = await make_tenant()
    there = [Item(id=str(number), title="here") for number in range(_MANY)]
    back = [Item(id=str(number), title="there") for number in reversed(range(_MANY))]
    await asyncio.gather(*(catalog.upsert_many(database, tenant, items, now=_NOW) for items in (there, back)))
    assert (await _count(database, tenant))[:4] == (_MANY,) * 4


async def test_an_item_stored_meanwhile_under_a_number_of_ours_is_overwritten(
    database: Database, make_tenant: MakeTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are committed before the rows, so another writer may be first; the later call still wins."""
    tenant = await make_tenant()
    items = [Item(id=str(number), title="ours", tags=["a"]) for number in range(_MANY)]
    commit = catalog._commit_chunk

    async def late(database: Database, tenant: TenantRef, chunk: catalog._Chunk, now: datetime) -> None:
        async with database.tenant_session(tenant.tenant_id) as connection:
            other = Item(id=chunk.writes[7].item.id, title="theirs", tags=["b", "c"])
            await catalog.upsert_items(connection, tenant, [other], now=now)
        await commit(database, tenant, chunk, now)

    monkeypatch.setattr(catalog, "_commit_chunk", late)
    outcomes = await catalog.upsert_many(database, tenant, items, now=_NOW)
    assert {outcome.status for outcome in outcomes} == {"created"}
    assert await _count(database, tenant) == (_MANY,) * 5
    async with database.tenant_session(tenant.tenant_id) as connection:
        raw = await driver(connection)
        titles = await raw.fetch(
            "select distinct doc ->> 'title' as title from items where tenant_id = $1", tenant.tenant_id
        )
    assert [record["title"] for record in titles] == ["ours"]


async def test_a_failure_is_told_as_itself(
    database: Database, make_tenant: MakeTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a group of failures, which nobody would know an answer to."""
    tenant = await make_tenant()

    async def away(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(catalog, "_commit_chunk", away)
    with pytest.raises(ConnectionResetError):
        await catalog.upsert_many(database, tenant, [Item(id=str(number)) for number in range(_MANY)], now=_NOW)


@given(title=st.text(max_size=40), rest=st.text(max_size=120))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_binary_words_are_those_that_the_server_would_make(database: Database, title: str, rest: str) -> None:
    """Whatever the text, the bytes are read as the very tsvector of its lexemes."""
    words = lexemes(title, rest)
    async with database.anonymous_session() as connection:
        raw = await driver(connection)
        ours, made = await raw.fetchrow(
            "select ($1::tsvector[])[1]::text, array_to_tsvector($2::text[])::text",
            [binary_tsvector(words)],
            [word.decode() for word in words],
        )
    assert ours == made
