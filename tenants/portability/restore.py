"""A bundle into a new tenant: checked whole first, then filled out of everybody's sight, then shown all at once.

While it is filled the tenant counts as deleted, and upkeep is told to wait: whoever is killed leaves what upkeep erases
within the hour, and begins anew with another tenant. Only the last transaction gives it its name.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import asyncpg
import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.blob import BlobStore
from infra.changes import record_change
from infra.clock import Clock
from infra.db import Database, TenantId, driver
from infra.errors import Conflict, KindredError
from infra.ids import uuid7
from infra.partitions import make_partition
from infra.secret import Secret
from tenants.audience.shoppers import USER, VISITOR
from tenants.audience.tombstones import read_tombstones
from tenants.audience.users import erase_shoppers, subject_hash
from tenants.catalog.photos import photo_key
from tenants.erasure import RESTORING
from tenants.lifecycle import NGRAMS_PREFIX, NO_GENERATION, TenantNameTaken, TenantRef, check_name
from tenants.portability import load
from tenants.portability.archive import Bundle, open_bundle
from tenants.portability.format import (
    GENERATION,
    PHOTOS,
    SHOP,
    BehaviourRow,
    BundleMismatch,
    EventRow,
    Generation,
    ItemIdRow,
    ItemRow,
    LikeShoppersRow,
    ModelRow,
    NeighbourRow,
    PhotoRow,
    PlacementRow,
    ScoreRow,
    SegmentRow,
    Shop,
    ShopperRow,
    UserRow,
    VectorRow,
    corrupt,
)
from tenants.vectors.generations import Layout, ensure_layout

T = TypeVar("T")
Progress = Callable[[str], None]
"""Told the name of each file before it is read."""

LEASE: Final = timedelta(hours=1)
"""A restore that says nothing for so long counts as dead."""

_RENEWED: Final = timedelta(minutes=5)
"""How long it says nothing while photos are copied."""

_BATCH: Final = 500


class RestoreLost(Conflict):
    """The tenant that was being filled was taken for dead and erased."""

    code = "restore_lost"
    title = "The restore took too long between two steps"


class Restored(Struct, frozen=True, kw_only=True):
    """What a bundle became. `erased`: ids in it of people who were erased here since, and are not back."""

    tenant_id: TenantId
    name: str
    items: int
    events: int
    photos: int
    erased: int


async def restore(
    database: Database,
    blobs: BlobStore,
    path: Path,
    *,
    secret: Secret,
    clock: Clock,
    name: str | None = None,
    plan: str = "free",
    progress: Progress | None = None,
) -> Restored:
    """Make a tenant of a bundle; it serves what the exported one served. Its keys are to be made.

    Raises BundleCorrupt, BundleTooNew, BundleTooLarge, BundleMismatch, InvalidTenant, TenantNameTaken, RestoreLost.
    """
    bundle = await asyncio.to_thread(open_bundle, path)
    shop = bundle.document(SHOP, Shop)
    wanted = name or shop.name
    check_name(wanted, shop.currency)
    tenant_id = TenantId(uuid7())
    async with database.system_session(reason="begin to restore a tenant") as conn:
        raw = await driver(conn)
        if await raw.fetchval("select 1 from tenants where name = $1 and org_id is null", wanted):
            raise TenantNameTaken(f"There is a tenant named {wanted!r} already; give another with --name.")
        now = clock()
        await raw.execute(
            "insert into tenants (tenant_id, name, plan, currency, settings, created_at, deleted_at, erase_after) "
            "values ($1, $2, $3, $4, $5::text::jsonb, $6, $7, $8)",
            tenant_id,
            f"{RESTORING}{tenant_id}",
            plan,
            shop.currency,
            _settings(shop),
            shop.created_at,
            now,
            now + LEASE,
        )
        await raw.execute("insert into tenant_counters (tenant_id) values ($1)", tenant_id)
    try:
        filling = _Filling(database, blobs, bundle, shop, tenant_id, secret=secret, clock=clock, progress=progress)
        restored = await filling.run(wanted)
    except BaseException:
        # Not shielded from a kill: then the lease ends by itself.
        async with database.system_session(reason="give up a restore") as conn:
            await (await driver(conn)).execute(
                "update tenants set erase_after = $2 where tenant_id = $1 and deleted_at is not null",
                tenant_id,
                clock(),
            )
        raise
    return restored


def _settings(shop: Shop) -> str:
    chosen = {"event_weights": shop.event_weights, "retention": msgspec.to_builtins(shop.retention)}
    return msgspec.json.encode({key: value for key, value in chosen.items() if value}).decode()


class _Filling:
    """One restore under way."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        bundle: Bundle,
        shop: Shop,
        tenant_id: TenantId,
        *,
        secret: Secret,
        clock: Clock,
        progress: Progress | None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._bundle = bundle
        self._shop = shop
        self._tenant_id = tenant_id
        self._secret = secret
        self._clock = clock
        self._tell = progress or (lambda file: None)
        self._count: dict[str, int] = {}

    async def run(self, name: str) -> Restored:
        """Fill the tenant, and show it."""
        generation = self._bundle.document(GENERATION, Generation | None)  # type: ignore[arg-type]
        await self._plain("item_ids", ItemIdRow)
        await self._items()
        await self._plain("photos", PhotoRow)
        await self._photos()
        await self._plain("shoppers", ShopperRow)
        await self._plain("users", UserRow)
        await self._plain("segments", SegmentRow, load.checked_segment)
        if generation is not None:
            await self._vectors(generation)
        await self._plain("models", ModelRow, load.checked_model)
        await self._plain("learned/neighbours", NeighbourRow)
        await self._behaviour()
        await self._plain("learned/scores", ScoreRow)
        await self._plain("learned/shoppers", LikeShoppersRow)
        await self._plain("placements", PlacementRow, load.checked_placement)
        for file in sorted(each for each in self._bundle.names if each.startswith("events/")):
            await self._events(file)
        erased = await self._leave_out_erased()
        await self._show(name, 1 if generation is None else generation.gen)
        return Restored(
            tenant_id=self._tenant_id,
            name=name,
            items=self._count.get("items", 0),
            events=self._count.get("events", 0),
            photos=self._bundle.manifest.photos,
            erased=erased,
        )

    @asynccontextmanager
    async def _session(self, file: str) -> AsyncIterator[AsyncConnection]:
        """A transaction of the new tenant, which keeps upkeep off it; what PostgreSQL refuses is the file's fault."""
        try:
            async with self._database.tenant_session(self._tenant_id) as conn:
                now = self._clock()
                if not await load.hold_on(conn, self._tenant_id, now=now, until=now + LEASE):
                    raise RestoreLost("The tenant that was being filled was erased meanwhile. Start the restore again.")
                yield conn
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise corrupt(file, None, f"The database refuses a row ({error.sqlstate}).") from error

    async def _batches(self, file: str, kind: type[T]) -> AsyncIterator[list[T]]:
        rows = self._bundle.rows(file, kind)
        while batch := await asyncio.to_thread(_take, rows):
            yield batch

    async def _plain(self, name: str, kind: type[T], check: Callable[[T, str], T] | None = None) -> None:
        file = f"{name}.ndjson.gz"
        self._tell(file)
        async for rows in self._batches(file, kind):
            try:
                checked = rows if check is None else [check(row, file) for row in rows]
            except KindredError as error:
                raise corrupt(file, None, error.detail) from error
            async with self._session(file) as conn:
                await load.insert_rows(conn, self._tenant_id, kind, checked)

    async def _items(self) -> None:
        file = "items.ndjson.gz"
        self._tell(file)
        tenant = TenantRef(
            tenant_id=self._tenant_id, name="", shard=0, currency=self._shop.currency, generation=NO_GENERATION
        )
        async for rows in self._batches(file, ItemRow):
            async with self._session(file) as conn:
                await load.insert_items(conn, tenant, rows, file)
            self._count["items"] = self._count.get("items", 0) + len(rows)

    async def _photos(self) -> None:
        """The bytes after the rows: upkeep sweeps those that no row names, and nobody sees the shop before both are
        there.
        """
        self._tell("photos")
        held = self._clock()
        photos = self._bundle.photos()
        while (photo := await asyncio.to_thread(next, photos, None)) is not None:
            sha, data = photo
            await self._blobs.put(photo_key(self._tenant_id, sha), data)
            if self._clock() - held > _RENEWED:
                held = self._clock()
                async with self._session(PHOTOS):
                    pass

    async def _vectors(self, generation: Generation) -> None:
        layout, spaces = await self._layout(generation)
        for space in generation.spaces:
            self._tell(space.file)
            async for rows in self._batches(space.file, VectorRow):
                async with self._session(space.file) as conn:
                    await load.insert_vectors(conn, self._tenant_id, spaces[space.name], space.dim, rows, space.file)
        self._tell("fused vectors")
        async for items in self._batches("items.ndjson.gz", ItemRow):
            async with self._session(GENERATION) as conn:
                await load.fuse_items(conn, self._tenant_id, layout, [row.no for row in items])
        async with self._session(GENERATION) as conn:
            await load.insert_generation(conn, self._tenant_id, generation, layout, spaces)

    async def _layout(self, generation: Generation) -> tuple[Layout, dict[str, int]]:
        """Our numbers of the spaces. Raises BundleMismatch where one of that name is another here, or none.

        They are all tenants', and only workers make them, of their packs: no bundle takes a name before its pack does.
        """
        named = {space.name: space for space in generation.spaces}
        text, image = named.get(generation.text), named.get(generation.image)
        if text is None or image is None or (text.kind, image.kind) != ("text", "image"):
            raise corrupt(GENERATION, None, "It names a space that it does not describe.")
        spaces: dict[str, int] = {}
        async with self._database.system_session(reason="spaces of a restored tenant") as conn:
            for space in generation.spaces:
                known = await (await driver(conn)).fetchrow(
                    "select space_id, kind, dim from spaces where name = $1", space.name
                )
                if known is None:
                    raise BundleMismatch(
                        f"No worker here has had the model pack of the space {space.name!r}. Install the packs of "
                        "where the bundle was exported, start a worker with them, and restore then."
                    )
                if (known["kind"], known["dim"]) != (space.kind, space.dim):
                    raise BundleMismatch(
                        f"The space {space.name!r} has {known['dim']} dimensions here and {space.dim} in the bundle: "
                        "install the same model pack as where it was exported."
                    )
                spaces[space.name] = known["space_id"]
            layout_id = await ensure_layout(conn, spaces[text.name], spaces[image.name])
        ngrams = [
            spaces[space.name]
            for space in generation.spaces
            if space.kind == "text" and space.dim == text.dim and space.name.startswith(NGRAMS_PREFIX)
        ]
        layout = Layout(
            layout_id=layout_id,
            text_space=spaces[text.name],
            ngrams_space=max(ngrams, default=spaces[text.name]),
            image_space=spaces[image.name],
            text_dim=text.dim,
            image_dim=image.dim,
        )
        return layout, spaces

    async def _behaviour(self) -> None:
        file = "learned/behaviour.ndjson.gz"
        self._tell(file)
        async for rows in self._batches(file, BehaviourRow):
            async with self._session(file) as conn:
                await load.insert_behaviour(conn, self._tenant_id, rows, file)

    async def _events(self, file: str) -> None:
        self._tell(file)
        try:
            month = datetime.fromisoformat(f"{file.removeprefix('events/')[:7]}-01T00:00:00+00:00")
        except ValueError as error:
            raise corrupt(file, None, "Its name is not a month.") from error
        if not month.year >= 2000 or month > self._clock() + timedelta(days=40):
            raise corrupt(file, None, "No event is of that month.")
        async with self._database.system_session(reason="partitions of restored events") as conn:
            await make_partition(await driver(conn), "events", "month", month)
        async for rows in self._batches(file, EventRow):
            async with self._session(file) as conn:
                await load.insert_rows(conn, self._tenant_id, EventRow, rows)
            self._count["events"] = self._count.get("events", 0) + len(rows)

    async def _leave_out_erased(self) -> int:
        """Erase again who was erased here after the export: an old file brings nobody back; how many ids."""
        source = TenantId(self._bundle.manifest.tenant_id)
        erased_at = await read_tombstones(self._blobs, source, secret=self._secret)
        if not erased_at:
            return 0
        numbers = []
        async for rows in self._batches("shoppers.ndjson.gz", ShopperRow):
            for row in rows:
                kind = USER if row.kind == "user" else VISITOR
                subjects = [subject_hash(each, source, kind, row.id) for each in self._secret.every]
                last = max((erased_at[each] for each in subjects if each in erased_at), default=None)
                if last is not None and row.created_at < last + timedelta(seconds=1):
                    numbers.append(row.no)
        for start in range(0, len(numbers), _BATCH):
            async with self._session("shoppers.ndjson.gz") as conn:
                await erase_shoppers(conn, self._tenant_id, numbers[start : start + _BATCH])
        return len(numbers)

    async def _show(self, name: str, gen: int) -> None:
        """From here on it is a tenant like any other."""
        self._tell("done")
        try:
            async with self._session(SHOP) as conn:
                await load.set_counters(conn, self._tenant_id, self._shop.next_item_no, self._shop.next_shopper_no)
                await (await driver(conn)).execute(
                    "update tenants set name = $2, active_gen = $3, deleted_at = null, erase_after = null "
                    "where tenant_id = $1",
                    self._tenant_id,
                    name,
                    gen,
                )
                await record_change(conn, self._tenant_id, "tenant")
        except KindredError as error:
            if isinstance(error.__cause__, asyncpg.UniqueViolationError):
                raise TenantNameTaken(
                    f"A tenant named {name!r} was made meanwhile; give another with --name."
                ) from error
            raise


def _take(rows: Iterator[T]) -> list[T]:
    return list(islice(rows, _BATCH))
