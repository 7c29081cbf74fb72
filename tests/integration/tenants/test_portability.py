"""A tenant out into one file and back: the same rows, of everything; and files that mean harm."""

import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId, driver
from infra.partitions import ensure_partitions
from infra.secret import Secret
from tenants.audience.shoppers import number_ids, user_key, visitor_key
from tenants.audience.tombstones import put_tombstones
from tenants.audience.users import User, erase_user, merge_visitor, store_user
from tenants.catalog.item import Item
from tenants.catalog.photos import photo_key, store_photo
from tenants.catalog.store import upsert_items
from tenants.erasure import deleted_tenants
from tenants.events.event import Event, numbered, rows_of
from tenants.events.history import store_history
from tenants.lifecycle import TenantNameTaken, create_tenant, find_tenant, load_tenant
from tenants.placements import Placement, put_placement
from tenants.portability import load
from tenants.portability.archive import open_bundle
from tenants.portability.dump import INCLUDED, LEFT_OUT, bundle, dump
from tenants.portability.format import BundleCorrupt, BundleMismatch, BundleTooLarge, BundleTooNew
from tenants.portability.restore import restore
from tenants.vectors.generations import ensure_generation, ensure_layout, ensure_space
from tests.conftest import START, FrozenClock
from workers.jobs.upkeep import Upkeep

pytestmark = pytest.mark.anyio

SECRET = Secret(current=b"s" * 32)
JPEG = b"\xff\xd8\xff photo"


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[FolderBlobs]:
    """A blob store of the test's own."""
    store = FolderBlobs(tmp_path / "blobs")
    yield store
    await store.aclose()


@pytest.fixture
async def tenant_id(database: Database, blobs: FolderBlobs, clock: Callable[[], datetime]) -> TenantId:
    """A shop with a row of everything that a bundle holds."""
    made = await create_tenant(database, f"shop {uuid4()}", currency="EUR")
    async with database.system_session(reason="test set-up") as conn:
        await ensure_partitions(await driver(conn), START)
        text = await ensure_space(conn, name="test-text", kind="text", dim=384)
        ngrams = await ensure_space(conn, name="char-ngrams-test", kind="text", dim=384)
        image = await ensure_space(conn, name="test-image", kind="image", dim=256)
        layout = await ensure_layout(conn, text, image)
    now = clock()
    async with database.tenant_session(made) as conn:
        raw = await driver(conn)
        calibration = {text: (0.1, 0.3), ngrams: (0.2, 0.25), image: (1 / 3, 0.1)}
        await ensure_generation(conn, made, layout, calibration)
        tenant = await load_tenant(conn, made)
        items = [
            Item(id=f"i{n}/ü", title=f"Lämp {n}", tags=["a"], price=n * 100, brand='B"\\', description="x\ny")
            for n in range(5)
        ]
        await upsert_items(conn, tenant, items[:3], now=now - timedelta(days=9))
        await upsert_items(conn, tenant, items[3:], now=now)
        await raw.execute("update items set text_state = 1, image_reason = 'why' where tenant_id = $1", made)
        digest = sha256(JPEG)
        await blobs.put(photo_key(made, digest.hexdigest()), JPEG)
        await store_photo(conn, made, "i1/ü", 2, sha256=digest.digest(), content_type="image/jpeg", size=len(JPEG))
        for no in (1, 2, 4):
            for space, dim in ((text if no < 4 else ngrams, 384), (image, 256)):
                await raw.execute(
                    "insert into item_vectors (tenant_id, space_id, item_no, content_hash, vec, encoded_at) "
                    "values ($1, $2, $3, 'hash', $4::text::halfvec, $5)",
                    made,
                    space,
                    no,
                    "[" + ",".join(str((no * 7 + at) % 13 / 17 - 0.3) for at in range(dim)) + "]",
                    now - timedelta(hours=no),
                )
        await _people(conn, raw, made, now)
        await _learned(raw, made, layout)
        doc = Placement(defaults={"strategy": "similar", "filter": {"eq": ["brand", 'B"\\']}})
        await put_placement(conn, made, "home", doc, now=now)
        await raw.execute(
            'update tenants set settings = \'{"event_weights": {"view": 0.75}}\' where tenant_id = $1', made
        )
    return made


async def _people(conn: Any, raw: Any, tenant_id: TenantId, now: datetime) -> None:
    user = User(id="ünser", segments=["vip"], attributes={"city": "Rīga", "age": 7})
    await store_user(conn, tenant_id, user, now=now)
    await merge_visitor(conn, tenant_id, "ünser", "v" * 32, now=now)
    events = [
        Event(type="view", user_id="ünser", item_id="i1/ü", ts=now - timedelta(days=day), context={"a": None, "b": 1.5})
        for day in (0, 20, 40)
    ]
    events.append(Event(type="purchase", visitor_id="w" * 32, item_id="unknown", value=7, ts=now, event_id="o"))
    events = [msgspec.structs.replace(event, event_id=f"e{at}") for at, event in enumerate(events)]
    shoppers, items = await number_ids(raw, tenant_id, [user_key("ünser"), visitor_key("w" * 32)], ["i1/ü", "unknown"])
    made = rows_of(tenant_id, events, numbered(4), [0, 1, 0, 0], shoppers=shoppers, items=items, now=now, secret=None)
    await store_history(raw, tenant_id, made)
    await raw.execute(
        "insert into segments (tenant_id, segment_id, filter) values ($1, 's', '{\"eq\": [\"attributes.age\", 7]}')",
        tenant_id,
    )


async def _learned(raw: Any, tenant_id: TenantId, layout: int) -> None:
    for statement in (
        "insert into behaviour_models (tenant_id, model, status, code_version, settings, counts, metrics, sha256) "
        "values ($1, 3, 'ready', 'v', '{\"blend\": {\"graph\": 0.7}}', '{\"rows\": 4}', '{\"a\": [1]}', 'x')",
        "insert into neighbour_builds (tenant_id, build, layout_id, recipe, watermark, items, status) "
        f"values ($1, 2, {layout}, 'x', '2026-01-14 01:02:03.000004Z', 2, 'ready')",
        "insert into item_neighbours (tenant_id, kind, build, item_no, others, scores) "
        "values ($1, 1, 2, 1, '{2,4}', '{9,-3}'), ($1, 3, 3, 1, '{2}', '{32767}')",
        "insert into behaviour_vectors (tenant_id, model, item_no, own, vec) "
        "values ($1, 3, 1, 0.25, '[0.1,0.000061,-65504,6e-8]')",
        "insert into item_scores (tenant_id, model, segment, item_no, popularity, trend, events, repurchase_days) "
        "values ($1, 3, 'vip', 1, 0.1, 0.3333333, 4, 30.1), ($1, 0, '', 2, 1, 0, 1, null)",
        "insert into shopper_neighbours (tenant_id, model, shopper_no, others, scores) values ($1, 3, 1, '{2}', '{9}')",
        "update generations set behaviour_model = 3, neighbours_build = 2, "
        'weights = \'{"text": 0.6, "image": 0.4, "blend": {"graph": 0.7}}\' where tenant_id = $1',
    ):
        await raw.execute(statement, tenant_id)


@pytest.fixture
async def file(database: Database, blobs: FolderBlobs, tenant_id: TenantId, tmp_path: Path) -> Path:
    """The shop's bundle."""
    return await _export(database, blobs, tenant_id, tmp_path / "bundle.tar")


async def _export(database: Database, blobs: FolderBlobs, tenant_id: TenantId, out: Path) -> Path:
    folder = out.with_suffix(".scratch")
    folder.mkdir()
    dumped = await dump(database, tenant_id, folder, now=START)
    with out.open("wb") as written:
        async for piece in bundle(dumped, blobs):
            written.write(piece)
    return out


async def _restore(database: Database, blobs: FolderBlobs, file: Path, **options: Any) -> Any:
    options = {"name": f"back {uuid4()}", "secret": SECRET, "clock": lambda: START, **options}
    return await restore(database, blobs, file, **options)


# What differs by right: numbers of this installation, and what is derived of them.
_IGNORED = {
    "tenants": {"tenant_id", "name", "plan"},
    "generations": {"status"},
    "neighbour_builds": {"recipe"},
}


async def _rows(database: Database, tenant_id: TenantId, tables: Any) -> dict[str, list[dict[str, Any]]]:
    found = {}
    async with database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        for table in sorted(tables):
            records = await raw.fetch(f"select to_jsonb(t)::text from {table} t where tenant_id = $1", tenant_id)
            rows = [msgspec.json.decode(record[0]) for record in records]
            for row in rows:
                for column in {"tenant_id", *_IGNORED.get(table, ())}:
                    row.pop(column, None)
            found[table] = sorted(rows, key=repr)
    return found


async def test_what_was_exported_comes_back(
    database: Database, blobs: FolderBlobs, tenant_id: TenantId, file: Path
) -> None:
    """Every table that a bundle holds, and every one that is derived, has the same rows under the same numbers."""
    async with database.tenant_session(tenant_id) as conn:
        await load.fuse_items(conn, tenant_id, await _layout(database), [1, 2, 3, 4, 5])
    made = await _restore(database, blobs, file)
    tables = [*INCLUDED, "item_facets", "item_attrs", "item_text", "fused_vectors"]
    before, after = await _rows(database, tenant_id, tables), await _rows(database, made.tenant_id, tables)
    for table in tables:
        assert before[table], table
        assert after[table] == before[table], table
    assert (made.items, made.events, made.photos, made.erased) == (5, 4, 1, 0)
    assert await blobs.get(photo_key(made.tenant_id, sha256(JPEG).hexdigest())) == JPEG
    shown = await find_tenant(database, made.name)
    assert (shown.plan, shown.currency, shown.items) == ("free", "EUR", 5)


async def _layout(database: Database) -> Any:
    from tenants.vectors.generations import Layout

    async with database.system_session(reason="test look") as conn:
        raw = await driver(conn)
        ids = {
            name: await raw.fetchval("select space_id from spaces where name = $1", name)
            for name in ("test-text", "char-ngrams-test", "test-image")
        }
        layout_id = await raw.fetchval(
            "select layout_id from layouts where text_space = $1 and image_space = $2",
            ids["test-text"],
            ids["test-image"],
        )
    return Layout(
        layout_id=layout_id,
        text_space=ids["test-text"],
        ngrams_space=ids["char-ngrams-test"],
        image_space=ids["test-image"],
        text_dim=384,
        image_dim=256,
    )


async def test_a_second_export_is_the_same(
    database: Database, blobs: FolderBlobs, tenant_id: TenantId, file: Path, tmp_path: Path
) -> None:
    """Of the restored shop, too, but for its name and its day: nothing is lost on the way, and nothing comes in."""
    made = await _restore(database, blobs, file)
    again = await _export(database, blobs, made.tenant_id, tmp_path / "again.tar")
    first, second = _members(file), _members(again)
    assert first.keys() == second.keys()
    for name in first.keys() - {"manifest.json", "shop.json"}:
        assert _plain(name, second[name]) == _plain(name, first[name]), name


def _plain(name: str, data: bytes) -> bytes:
    return gzip.decompress(data) if name.endswith(".gz") else data


def _members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


async def test_a_bundle_holds_nothing_of_another_shop_and_no_secret(
    database: Database, blobs: FolderBlobs, tenant_id: TenantId, tmp_path: Path
) -> None:
    """Neither a word of the other, nor its id, nor a key or hash of either."""
    other = await create_tenant(database, f"ofthevictim {uuid4()}")
    async with database.tenant_session(other) as conn:
        tenant = await load_tenant(conn, other)
        await upsert_items(conn, tenant, [Item(id="ofthevictim", title="ofthevictim")], now=START)
        await store_user(conn, other, User(id="ofthevictim"), now=START)
    members = _members(await _export(database, blobs, tenant_id, tmp_path / "x.tar"))
    text = b"".join(_plain(name, data) for name, data in members.items())
    assert b"ofthevictim" not in text
    assert str(other).encode() not in text
    assert "Lämp".encode() in text
    assert not [name for name in members if "key" in name]


async def test_every_table_of_tenants_is_in_a_bundle_or_left_out_for_a_reason(database: Database) -> None:
    """A new table must be named in tenants/portability/dump.py."""
    async with database.system_session(reason="test look") as conn:
        records = await (await driver(conn)).fetch(
            "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' "
            "where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition "
            "and has_table_privilege('kindred_app', c.oid, 'select')"
        )
    assert {record["relname"] for record in records} == INCLUDED | LEFT_OUT.keys()
    assert not INCLUDED & LEFT_OUT.keys()


async def test_who_was_erased_stays_erased(
    database: Database, blobs: FolderBlobs, tenant_id: TenantId, file: Path
) -> None:
    """An old file brings nobody back: the person, the merged visitor, and all they did are left out."""
    async with database.tenant_session(tenant_id) as conn:
        at = START + timedelta(days=400)
        erased = await erase_user(conn, tenant_id, "ünser", now=at, secret=SECRET.current)
    await put_tombstones(blobs, tenant_id, erased.subjects, at, secret=SECRET.current)
    made = await _restore(database, blobs, file)
    assert made.erased == 2
    rows = await _rows(database, made.tenant_id, ["shopper_ids", "users", "events", "shopper_neighbours"])
    assert [row["external_id"] for row in rows["shopper_ids"]] == ["w" * 32]
    assert (rows["users"], rows["shopper_neighbours"], len(rows["events"])) == ([], [], 1)


async def test_a_killed_restore_leaves_nothing_visible(
    database: Database, blobs: FolderBlobs, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No tenant of the name, no rows once upkeep has been, and the same file again makes it whole."""
    name = f"back {uuid4()}"

    async def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    before = set(await deleted_tenants(database, START))  # of other tests
    with monkeypatch.context() as broken:
        broken.setattr(load, "insert_behaviour", killed)
        with pytest.raises(KeyboardInterrupt):
            await _restore(database, blobs, file, name=name)
    with pytest.raises(Exception, match="There is no tenant"):
        await find_tenant(database, name)
    (left,) = set(await deleted_tenants(database, START)) - before
    await Upkeep(database, blobs, clock=lambda: START, secret=SECRET).erase()
    assert {table: rows for table, rows in (await _rows(database, left, INCLUDED)).items() if rows} == {}
    assert [key async for key in blobs.iter_keys(f"tenants/{left}/")] == []
    assert (await _restore(database, blobs, file, name=name)).items == 5
    with pytest.raises(TenantNameTaken):
        await _restore(database, blobs, file, name=name)


async def test_photos_may_take_their_time(
    database: Database, blobs: FolderBlobs, tenant_id: TenantId, tmp_path: Path, clock: FrozenClock
) -> None:
    """The lease is renewed while they are copied; and no sweep finds one of them that no row names."""
    async with database.tenant_session(tenant_id) as conn:
        for n in range(5):
            data = b"\xff\xd8\xff photo %d" % n
            digest = sha256(data)
            await blobs.put(photo_key(tenant_id, digest.hexdigest()), data)
            await store_photo(
                conn, tenant_id, "i2/ü", n, sha256=digest.digest(), content_type="image/jpeg", size=len(data)
            )
    file = await _export(database, blobs, tenant_id, tmp_path / "many.tar")
    upkeep = Upkeep(database, blobs, clock=clock, secret=SECRET)
    swept = []

    class Slow(FolderBlobs):
        async def put(self, key: str, data: Any, **options: Any) -> Any:
            clock.advance(12 * 60 + 1)
            stored = await super().put(key, data, **options)
            await upkeep.erase()
            swept.extend([await upkeep.sweep(), await upkeep.sweep()])
            return stored

    slow = Slow(tmp_path / "blobs")
    made = await _restore(database, slow, file, clock=clock)
    assert (made.photos, set(swept)) == (6, {0})
    assert len([key async for key in slow.iter_keys(f"tenants/{made.tenant_id}/photos/")]) == 6
    await slow.aclose()


Change = Callable[[dict[str, bytes]], None]


def _seal(members: dict[str, bytes]) -> None:
    """Make the manifest say what the files are, as somebody who means harm would."""
    manifest = msgspec.json.decode(members["manifest.json"])
    manifest["files"] = {}
    for name, data in members.items():
        if name.startswith("photos/") or name == "manifest.json":
            continue
        manifest["files"][name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        if name.endswith(".gz"):
            plain = gzip.decompress(data)
            manifest["files"][name] |= {"rows": plain.count(b"\n"), "unpacked": len(plain)}
    members["manifest.json"] = msgspec.json.encode(manifest)


def _edit(name: str, old: bytes, new: bytes) -> Change:
    def change(members: dict[str, bytes]) -> None:
        plain = _plain(name, members[name])
        assert old in plain, (name, plain[:500])
        plain = plain.replace(old, new)
        members[name] = gzip.compress(plain) if name.endswith(".gz") else plain
        if name != "manifest.json":
            _seal(members)

    return change


def _add(name: str, data: bytes) -> Change:
    def change(members: dict[str, bytes]) -> None:
        members[name] = data

    return change


def _drop(name: str) -> Change:
    def change(members: dict[str, bytes]) -> None:
        del members[name]

    return change


def _bomb(members: dict[str, bytes]) -> None:
    members["users.ndjson.gz"] = gzip.compress(b" " * 60_000_000)
    _seal(members)


def _bomb_by_lines(members: dict[str, bytes]) -> None:
    members["users.ndjson.gz"] = gzip.compress(b"{}\n" * 20_000_000, 9)
    _seal(members)


def _liar(members: dict[str, bytes]) -> None:
    """The manifest says that little comes out."""
    _bomb_by_lines(members)
    manifest = msgspec.json.decode(members["manifest.json"])
    manifest["files"]["users.ndjson.gz"] |= {"rows": 1, "unpacked": 3}
    members["manifest.json"] = msgspec.json.encode(manifest)


SPOILT: dict[str, tuple[Change, type[Exception]]] = {
    "a newer format": (_edit("manifest.json", b'"format": 1', b'"format": 2, "new": 1'), BundleTooNew),
    "no manifest": (_drop("manifest.json"), BundleCorrupt),
    "a file is missing": (_drop("items.ndjson.gz"), BundleCorrupt),
    "a file too many": (_add("extra.json", b"{}"), BundleCorrupt),
    "a path upwards": (_add("../../etc/passwd", b"x"), BundleCorrupt),
    "an absolute path": (_add("/etc/passwd", b"x"), BundleCorrupt),
    "a photo of another hash": (_add("photos/" + "0" * 64, JPEG), BundleCorrupt),
    "a photo less": (_drop("photos/" + sha256(JPEG).hexdigest()), BundleCorrupt),
    "a byte changed": (lambda members: members.update({"shop.json": members["shop.json"] + b" "}), BundleCorrupt),
    "no gzip": (lambda members: members.update({"users.ndjson.gz": b"{}\n"}), BundleCorrupt),
    "a bomb": (_bomb, BundleTooLarge),
    "a bomb of lines": (_bomb_by_lines, BundleTooLarge),
    "a bomb that lies": (_liar, BundleTooLarge),
    "an unknown field": (
        _edit("users.ndjson.gz", b'"segments"', b'"sql": "drop table tenants", "segments"'),
        BundleCorrupt,
    ),
    "a wrong type": (_edit("items.ndjson.gz", b'"text_state": 1', b'"text_state": "1"'), BundleCorrupt),
    "a number out of range": (_edit("item_ids.ndjson.gz", b'"no": 3', b'"no": 99999999999'), BundleCorrupt),
    "a number twice": (_edit("item_ids.ndjson.gz", b'"no": 3', b'"no": 2'), BundleCorrupt),
    "another number": (_edit("items.ndjson.gz", b'"no": 3', b'"no": 44'), BundleCorrupt),
    "a bad item": (_edit("items.ndjson.gz", b'"price": 100', b'"price": -1'), BundleCorrupt),
    "a NUL": (_edit("users.ndjson.gz", b'"city"', b'"ci\\u0000ty"'), BundleCorrupt),
    "a NUL in an event": (_edit("events/2026-01.ndjson.gz", b'"e0"', b'"e\\u0000"'), BundleCorrupt),
    "an event of another month": (_edit("events/2026-01.ndjson.gz", b"2026-01-15T", b"1999-01-15T"), BundleCorrupt),
    "a bad filter": (_edit("segments.ndjson.gz", b"attributes.age", b"price"), BundleCorrupt),
    "a bad placement": (_edit("placements.ndjson.gz", b'"defaults"', b'"no such"'), BundleCorrupt),
    "counts that break a cast": (_edit("models.ndjson.gz", b'"rows": 4', b'"rows": "x"'), BundleCorrupt),
    "counts beyond every cast": (
        _edit("models.ndjson.gz", b'"rows": 4', b'"rows": 99999999999999999999'),
        BundleCorrupt,
    ),
    "counts below nothing": (_edit("models.ndjson.gz", b'"rows": 4', b'"rows": -4'), BundleCorrupt),
    "a blend of words": (_edit("models.ndjson.gz", b'"graph": 0.7', b'"graph": "x"'), BundleCorrupt),
    "a short vector": (_edit("vectors/0.ndjson.gz", b'"vec": "', b'"vec": "AAAA'), BundleCorrupt),
    "no base64": (_edit("vectors/0.ndjson.gz", b'"vec": "', b'"vec": "!'), BundleCorrupt),
    "not a number": (
        lambda members: (
            members.update(
                {"learned/behaviour.ndjson.gz": gzip.compress(b'{"model": 3, "item_no": 1, "own": 0, "vec": "fAA="}\n')}
            ),
            _seal(members),
        )[1],
        BundleCorrupt,
    ),
    "a space of another size": (_edit("generation.json", b'"dim":256', b'"dim":257'), BundleMismatch),
    "a space that is not described": (_edit("generation.json", b'"image":"test-image"', b'"image":"x"'), BundleCorrupt),
    "a space of no pack": (_edit("generation.json", b'"test-text"', b'"multilingual-e5-small@1"'), BundleMismatch),
    "days of a class that nobody chooses": (
        _edit("shop.json", b'"retention": {}', b'"retention": {"clicks": 30}'),
        BundleCorrupt,
    ),
    "more days than there are": (
        _edit("shop.json", b'"retention": {}', b'"retention": {"events": 99999}'),
        BundleCorrupt,
    ),
    "a bad currency": (_edit("shop.json", b'"EUR"', b'"eur"'), BundleCorrupt),
    "no JSON": (_edit("shop.json", b"{", b""), BundleCorrupt),
}


def _write(members: dict[str, bytes], out: Path) -> Path:
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out


@pytest.mark.parametrize("what", SPOILT)
async def test_a_spoilt_bundle_is_refused_and_leaves_nothing(
    database: Database, blobs: FolderBlobs, file: Path, tmp_path: Path, what: str
) -> None:
    """By an error that names the place; no tenant is made that anybody sees, and what was begun is erased."""
    members = _members(file)
    spoil, expected = SPOILT[what]
    spoil(members)
    name = f"back {uuid4()}"
    late = START + timedelta(days=1)
    before = await deleted_tenants(database, late)  # of other tests
    with pytest.raises(expected) as refused:
        await _restore(database, blobs, _write(members, tmp_path / "bad.tar"), name=name)
    assert len(str(refused.value)) < 500
    with pytest.raises(Exception, match="There is no tenant"):
        await find_tenant(database, name)
    await Upkeep(database, blobs, clock=lambda: START, secret=SECRET).erase()
    assert set(await deleted_tenants(database, late)) <= set(before)


async def test_a_refused_bundle_leaves_no_space(
    database: Database, blobs: FolderBlobs, file: Path, tmp_path: Path
) -> None:
    """They are all tenants': one that took the name of a pack of tomorrow would keep it from whoever installs that."""
    members = _members(file)
    generation = msgspec.json.decode(members["generation.json"])
    generation["spaces"].append({**generation["spaces"][0], "name": "multilingual-e5-small@2", "dim": 7})
    members["generation.json"] = msgspec.json.encode(generation)
    _seal(members)
    with pytest.raises(BundleMismatch, match="start a worker"):
        await _restore(database, blobs, _write(members, tmp_path / "bad.tar"))
    async with database.system_session(reason="test look") as conn:
        taken = await (await driver(conn)).fetchval("select count(*) from spaces where name like 'multilingual%'")
    assert taken == 0


async def test_links_and_special_files_are_refused(
    database: Database, blobs: FolderBlobs, file: Path, tmp_path: Path
) -> None:
    """A symbolic link, a hard link, a device, a folder, a name in a PAX header."""
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        out = tmp_path / f"link{kind.decode()}.tar"
        with tarfile.open(out, "w") as tar:
            info = tarfile.TarInfo("shop.json")
            info.type = kind
            info.linkname = "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(BundleCorrupt):
            await _restore(database, blobs, out)
    out = tmp_path / "pax.tar"
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("shop.json")
        info.pax_headers = {"comment": "x"}
        tar.addfile(info)
    with pytest.raises(BundleCorrupt):
        await _restore(database, blobs, out)


def test_a_tar_of_long_names_is_refused(tmp_path: Path) -> None:
    """Two thousand in a row, each of which names the next; a bundle has none."""
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 5
    out = tmp_path / "long.tar"
    out.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"name\0" + bytes(507)) * 2000 + bytes(1024))
    with pytest.raises(BundleCorrupt):
        open_bundle(out)


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 1000, 0.25, 0.5, 0.9, -512, -1024, -1100, -1600])
async def test_a_bundle_cut_short_is_refused(
    database: Database, blobs: FolderBlobs, file: Path, tmp_path: Path, cut: float
) -> None:
    """Wherever it was cut, but for the closing zeros."""
    data = file.read_bytes()  # noqa: ASYNC240 - a small file of the test's own
    at = int(len(data) * cut) if isinstance(cut, float) else cut if cut >= 0 else len(data) + cut
    out = tmp_path / "cut.tar"
    out.write_bytes(data[:at])
    if cut in (-512, -1024):
        assert (await _restore(database, blobs, out)).items == 5
        return
    with pytest.raises(BundleCorrupt):
        await _restore(database, blobs, out)
