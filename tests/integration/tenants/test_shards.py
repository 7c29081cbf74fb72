"""A tenant moves to its own shard while it is used, and is found there as before."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from infra.db import Database, TenantId, driver, fetch, owner_engine
from infra.roles import APP, role_url
from tenants.catalog import store as catalog
from tenants.catalog.filters import parse_filter
from tenants.catalog.item import Item
from tenants.lifecycle import TenantNotFound, TenantRef
from tenants.retrieval.likeness import Likeness, find_similar
from tenants.retrieval.search import Spoken, find_spoken
from tenants.retrieval.wanted import Wanted
from tenants.vectors import shards
from tenants.vectors.form import halfvec_text
from tenants.vectors.generations import ensure_layout, ensure_space
from tests.integration.tenants.conftest import MakeTenant

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
_AT_ONCE = timedelta(0)


async def make_shop(database: Database, make_tenant: MakeTenant, count: int, *, items: bool = True) -> TenantRef:
    """A tenant with `count` vectors, a tenth of them without a photo, and as many items."""
    tenant = await make_tenant()
    async with database.system_session(reason="test set-up") as conn:
        text = await ensure_space(conn, name="text8", kind="text", dim=8)
        ngrams = await ensure_space(conn, name="ngrams8", kind="text", dim=8)
        image = await ensure_space(conn, name="image4", kind="image", dim=4)
        layout = await ensure_layout(conn, text, image)
    generation = replace(
        tenant.generation,
        layout_id=layout,
        text=replace(tenant.generation.text, space_id=text),
        ngrams=replace(tenant.generation.ngrams, space_id=ngrams),
        image=replace(tenant.generation.image, space_id=image),
    )
    tenant = replace(tenant, generation=generation)
    async with database.tenant_session(tenant.tenant_id) as conn:
        if items:
            stored = [Item(id=str(n), title=f"item {n}", brand=f"b{n % 100}", price=n) for n in range(count)]
            await catalog.upsert_items(conn, tenant, stored, now=NOW)
        await _encode(conn, tenant, list(range(1, count + 1)), seed=1)
    return tenant


def vectors_of(numbers: list[int], seed: int) -> NDArray[np.float32]:
    """Three hundred crowds, as real catalogues have them; every tenth item has no photo."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(300, 12)).astype(np.float32)
    rows = centres[np.array(numbers) % 300] + 0.4 * rng.normal(size=(len(numbers), 12)).astype(np.float32)
    rows[:, :8] /= np.linalg.norm(rows[:, :8], axis=1, keepdims=True)
    rows[:, 8:] /= np.linalg.norm(rows[:, 8:], axis=1, keepdims=True)
    rows[np.array(numbers) % 10 == 0, 8:] = 0
    return np.asarray(rows, dtype=np.float32)


async def _encode(conn: Any, tenant: TenantRef, numbers: list[int], *, seed: int) -> None:
    """Write fused rows as the worker does: to the shard that is held."""
    shard = await shards.hold_shard(conn, tenant.tenant_id)
    generation = tenant.generation
    await (await driver(conn)).execute(
        "insert into fused_vectors (shard, tenant_id, layout_id, item_no, text_space, image_space, vec) "
        "select $1, $2, $3, n, $4, case when n % 10 = 0 then 0 else $5 end, v::halfvec "
        "from unnest($6::int4[], $7::text[]) x(n, v) on conflict (tenant_id, layout_id, item_no, shard) "
        "do update set vec = excluded.vec",
        shard,
        tenant.tenant_id,
        generation.layout_id,
        generation.text.space_id,
        generation.image.space_id,
        numbers,
        [halfvec_text(row) for row in vectors_of(numbers, seed)],
    )


async def _contents(database: Database, tenant: TenantRef, shard: int) -> list[tuple[Any, ...]]:
    """Everything of the tenant in that shard, but the shard."""
    async with database.system_session(reason="test") as conn:
        fused = await fetch(
            conn,
            "select layout_id, item_no, text_space, image_space, vec::text from fused_vectors "
            "where shard = $1 and tenant_id = $2 order by 1, 2",
            shard,
            tenant.tenant_id,
        )
        words = await fetch(
            conn,
            "select item_no, words::text from item_text where shard = $1 and tenant_id = $2 order by 1",
            shard,
            tenant.tenant_id,
        )
    return [tuple(record) for record in [*fused, *words]]


async def _similar(
    database: Database, tenant: TenantRef, seed: int, weights: tuple[float, float], count: int, tree: Any = None
) -> list[str]:
    wanted = Wanted(now=NOW, limit=count, filter=parse_filter(tree) if tree else None)
    likeness = Likeness(seeds=[str(seed)], text_weight=weights[0], image_weight=weights[1])
    return [hit.id for hit in (await find_similar(database, tenant, wanted, likeness)).hits]


async def test_the_move_takes_everything_and_leaves_nothing(database: Database, make_tenant: MakeTenant) -> None:
    """After it the tenant has a shard of its own with the same rows; the old ones go a minute later, not before."""
    tenant, other = await make_shop(database, make_tenant, 200), await make_shop(database, make_tenant, 50)
    before, others = await _contents(database, tenant, 0), await _contents(database, other, 0)
    shard = await shards.move_to_own_shard(database, tenant.tenant_id, memory_mb=64)
    assert shard > 0
    assert await _contents(database, tenant, shard) == before
    assert await _contents(database, tenant, 0) == before
    assert await shards.move_to_own_shard(database, tenant.tenant_id) == shard
    await shards.remove_old_rows(database)
    assert await _contents(database, tenant, 0) == before
    assert await shards.remove_old_rows(database, after=_AT_ONCE) >= len(before)
    assert await _contents(database, tenant, 0) == []
    assert await _contents(database, tenant, shard) == before
    assert await _contents(database, other, 0) == others
    async with database.system_session(reason="test") as conn:
        (serving,) = await fetch(conn, "select shard from tenants where tenant_id = $1", other.tenant_id)
        assert serving["shard"] == 0
        told = await fetch(conn, "select kind from changes where tenant_id = $1", tenant.tenant_id)
    assert "tenant" in [record["kind"] for record in told]


async def test_an_interrupted_move_goes_on(database: Database, make_tenant: MakeTenant) -> None:
    """Stopped before any step, with writes in between, it can be run again and loses none of them."""
    tenant = await make_shop(database, make_tenant, 60)
    steps: list[str] = []
    await shards.move_to_own_shard(
        database, (await make_shop(database, make_tenant, 1)).tenant_id, progress=steps.append
    )
    assert steps[-2:] == ["switch", "done"]

    class Stopped(Exception):
        pass

    for number, stop in enumerate(steps):

        def stop_here(step: str, stop: str = stop) -> None:
            if step == stop:
                raise Stopped

        with pytest.raises(Stopped):
            await shards.move_to_own_shard(database, tenant.tenant_id, memory_mb=64, progress=stop_here)
        if stop == "done":
            break
        async with database.tenant_session(tenant.tenant_id) as conn:
            changed = Item(id=str(number), title=f"changed {number}")
            await catalog.upsert_items(conn, tenant, [changed, Item(id=f"new {number}")], now=NOW)
            await _encode(conn, tenant, [number + 1, 40 + number, 61 + number], seed=number + 2)
            await catalog.delete_items(conn, tenant.tenant_id, [20 + number])
        expected = await _contents(database, tenant, 0)
    shard = await shards.move_to_own_shard(database, tenant.tenant_id)
    assert await _contents(database, tenant, shard) == expected


async def test_nothing_written_during_the_move_is_lost(database: Database, make_tenant: MakeTenant) -> None:
    """Writers that never pause: what each acknowledged last is what the new shard has."""
    tenant = await make_shop(database, make_tenant, 300)
    stop = asyncio.Event()
    last: dict[int, int] = {}
    gone: set[int] = set()

    async def write(worker: int) -> int:
        rounds = 0
        while not stop.is_set():
            rounds += 1
            numbers = [1 + (worker * 100 + rounds * 7 + k) % 90 + worker * 100 for k in range(5)]
            async with database.tenant_session(tenant.tenant_id) as conn:
                items = [Item(id=str(n - 1), title=f"round {rounds}") for n in numbers if n not in gone]
                await catalog.upsert_items(conn, tenant, items, now=NOW)
                await _encode(conn, tenant, [n for n in numbers if n not in gone], seed=rounds)
                removed = 91 + worker * 100 + rounds % 10
                await catalog.delete_items(conn, tenant.tenant_id, [removed])
            gone.add(removed)
            last.update(dict.fromkeys(numbers, rounds))
        return rounds

    writers = [asyncio.create_task(write(worker)) for worker in range(2)]
    shard = await shards.move_to_own_shard(database, tenant.tenant_id, memory_mb=64)
    await asyncio.sleep(0)
    stop.set()
    assert all([await writer > 0 for writer in writers])
    async with database.system_session(reason="test") as conn:
        rows = await fetch(conn, "select item_no, words::text from item_text where shard = $1", shard)
        vectors = await fetch(conn, "select item_no from fused_vectors where shard = $1", shard)
    words = dict(tuple(row) for row in rows)
    assert not gone & set(words)
    assert {row["item_no"] for row in vectors} == set(words) == set(range(1, 301)) - gone
    for number, rounds in last.items():
        assert f"'{rounds}'" in words[number], number


async def test_one_move_at_a_time(database: Database, make_tenant: MakeTenant) -> None:
    """A second move of the same tenant is refused, and says so."""
    tenant = await make_shop(database, make_tenant, 3)
    engine = owner_engine(database.direct_url)
    async with engine.connect() as owner:
        await (await driver(owner)).execute(
            f"select pg_advisory_lock(hashtextextended('move of {tenant.tenant_id}', 0))"
        )
        with pytest.raises(shards.ShardBusy):
            await shards.move_to_own_shard(database, tenant.tenant_id)
    await engine.dispose()


async def test_a_tenant_that_is_not_there_is_not_moved(database: Database, make_tenant: MakeTenant) -> None:
    """Unknown and deleted tenants are refused; writers of an unknown tenant are, too."""
    unknown = TenantId((await make_tenant()).tenant_id)
    async with database.system_session(reason="test") as conn:
        await fetch(conn, "update tenants set deleted_at = now() where tenant_id = $1", unknown)
    with pytest.raises(TenantNotFound):
        await shards.move_to_own_shard(database, unknown)
    async with database.system_session(reason="test") as conn:
        await fetch(conn, "delete from tenants where tenant_id = $1", unknown)
        with pytest.raises(TenantNotFound):
            await shards.hold_shard(conn, unknown)


async def test_large_tenants_are_those_of_the_shared_shard(database: Database, make_tenant: MakeTenant) -> None:
    """Above the threshold, counted by the items that are left, and not moved yet."""
    tenant, shrunk = await make_shop(database, make_tenant, 30), await make_shop(database, make_tenant, 30)
    async with database.tenant_session(shrunk.tenant_id) as conn:
        await catalog.delete_items(conn, shrunk.tenant_id, list(range(1, 20)))

    async def large() -> set[TenantId]:
        async with database.system_session(reason="test") as conn:
            return {tenant.tenant_id, shrunk.tenant_id} & set(await shards.large_tenants(conn, above=29))

    assert await large() == {tenant.tenant_id}
    await shards.move_to_own_shard(database, tenant.tenant_id)
    assert await large() == set()


async def test_the_shard_of_an_erased_tenant_is_dropped(database: Database, make_tenant: MakeTenant) -> None:
    """Its tables are gone and its number is forgotten; nobody else's are."""
    tenant, kept = await make_shop(database, make_tenant, 5), await make_shop(database, make_tenant, 5)
    shard = await shards.move_to_own_shard(database, tenant.tenant_id)
    other = await shards.move_to_own_shard(database, kept.tenant_id)
    async with database.system_session(reason="test") as conn:
        await fetch(conn, "delete from tenants where tenant_id = $1", tenant.tenant_id)
    assert shard in await shards.drop_orphans(database)
    assert await shards.drop_orphans(database) == []
    async with database.system_session(reason="test") as conn:
        for table in ("fused_vectors", "item_text"):
            (record,) = await fetch(
                conn,
                "select to_regclass($1) is null as gone, to_regclass($2) is null as other",
                f"{table}_shard_{shard}",
                f"{table}_shard_{other}",
            )
            assert tuple(record) == (True, False)


async def test_the_application_cannot_read_a_shard_directly(
    database: Database, make_tenant: MakeTenant, database_url: str
) -> None:
    """A partition has no policy of its own, so it has no grant either."""
    tenant = await make_shop(database, make_tenant, 5)
    shard = await shards.move_to_own_shard(database, tenant.tenant_id)
    connection = await asyncpg.connect(role_url(database_url, APP))
    try:
        for table in ("fused_vectors", "item_text"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"select * from {table}_shard_{shard}")
            assert await connection.fetch(f"select * from {table} where shard = {shard}") == []
    finally:
        await connection.close()


async def test_a_new_layout_is_indexed_by_upkeep(
    database: Database, make_tenant: MakeTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spaces get their index once they have rows enough; a second run builds nothing."""
    monkeypatch.setattr(shards, "INDEXED_FROM", 20)
    tenant = await make_shop(database, make_tenant, 30)
    shard = await shards.move_to_own_shard(database, tenant.tenant_id, memory_mb=64)
    own = f"fused_vectors_shard_{shard}_l"

    async def built() -> list[str]:
        return sorted(name for name in await shards.index_shards(database, memory_mb=64) if name.startswith(own))

    assert await built() == []
    async with database.system_session(reason="test") as conn:
        text = await ensure_space(conn, name="newer8", kind="text", dim=8)
        layout = await ensure_layout(conn, text, tenant.generation.image.space_id)
        await fetch(
            conn,
            "insert into fused_vectors select shard, tenant_id, $2::int2, item_no, $3::int2, image_space, vec "
            "from fused_vectors where shard = $1",
            shard,
            layout,
            text,
        )
    assert await built() == sorted([f"{own}{layout}_s{text}", f"{own}{layout}_s{tenant.generation.image.space_id}"])
    assert await built() == []


_SIZE = 5700


async def test_lists_are_as_before(database: Database, make_tenant: MakeTenant) -> None:
    """Filtered lists are the same, unfiltered ones nearly, and all are as long as they can be."""
    tenant = await make_shop(database, make_tenant, _SIZE)
    one_percent = {"eq": ["brand", "b7"]}
    half = {"lt": ["price", _SIZE // 2]}
    few = {"lt": ["price", 30]}
    cases = [(seed, weights) for seed in (7, 1509) for weights in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))]
    shapes: list[tuple[int, Any]] = [(50, None), (50, one_percent), (50, half), (50, few), (1000, None)]
    before = {case: [await _similar(database, tenant, *case, *shape) for shape in shapes] for case in cases}
    vector = vectors_of([8], 1)[0, :8]
    spoken = Spoken(tokens=["item", "7"], text=vector, ngrams=np.zeros(8, dtype=np.float32))
    said = await find_spoken(database, tenant, Wanted(now=NOW, limit=20), spoken)
    shard = await shards.move_to_own_shard(database, tenant.tenant_id, memory_mb=64)
    moved = replace(tenant, shard=shard)
    recalls = []
    for case, lists in before.items():
        for shape, expected in zip(shapes, lists, strict=True):
            found = await _similar(database, moved, *case, *shape)
            assert len(found) == len(expected)
            if shape[1] is None:
                recalls.append(len(set(found) & set(expected)) / len(expected) if expected else 1.0)
            else:
                assert found == expected, (case, shape)
    assert np.mean(recalls) >= 0.98
    again = await find_spoken(database, moved, Wanted(now=NOW, limit=20), spoken)
    assert len(again.hits) == 20
    assert len({hit.id for hit in again.hits} & {hit.id for hit in said.hits}) >= 19
    filtered = await find_spoken(database, moved, Wanted(now=NOW, limit=70, filter=parse_filter(one_percent)), spoken)
    assert len(filtered.hits) == _SIZE // 100


async def test_a_wide_filter_walks_the_graph_and_still_fills(
    database: Database, make_tenant: MakeTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a filter passes many items the graph is walked on; where that is in vain the list is exact."""
    monkeypatch.setattr("tenants.retrieval.nearest.FEW", 50)
    tenant = await make_shop(database, make_tenant, _SIZE)
    half, tenth = {"lt": ["price", _SIZE // 2]}, {"lt": ["price", _SIZE // 10]}
    expected = {
        name: await _similar(database, tenant, 5699, (0.5, 0.5), 50, tree)
        for name, tree in (("half", half), ("tenth", tenth))
    }
    shard = await shards.move_to_own_shard(database, tenant.tenant_id, memory_mb=64)
    moved = replace(tenant, shard=shard)
    for name, tree in (("half", half), ("tenth", tenth)):
        found = await _similar(database, moved, 5699, (0.5, 0.5), 50, tree)
        assert len(found) == 50
        assert len(set(found) & set(expected[name])) >= 48
    wanted = Wanted(now=NOW, limit=50)
    for minimum in (0.2, 0.9):
        likeness = Likeness(seeds=["5699"], text_weight=0.5, image_weight=0.5, min_score=minimum)
        strict = await find_similar(database, moved, wanted, likeness)
        exact = await find_similar(database, tenant, wanted, likeness)
        assert abs(len(strict.hits) - len(exact.hits)) <= 1
        assert all(hit.score >= minimum for hit in strict.hits)
