"""What remembers an erased person outside of the database: so that a backup from before is put right when it returns.

A tombstone is an empty blob whose name says all: the shop, when the person was erased, a mark of the secret, and the
hash of the id that is keyed with it. It names nobody to whoever lacks that secret. `replay` erases again whoever a
restored database has back; what it did, it notes where an erasure does, so that the next time there is nothing to do.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from infra.apart import apart
from infra.blob import BlobStore
from infra.db import Database, TenantId, driver
from infra.secret import Secret, mark_of
from tenants.audience.users import erase_shoppers, note_erased, subject_hash
from tenants.lifecycle import TenantNotFound, load_tenant

PREFIX: Final = "erasures/"
_AT_ONCE: Final = 1000
_HASHED_AT_ONCE: Final = 10_000
_SECOND: Final = timedelta(seconds=1)
_NOBODY: Final = 0


class Replayed(Struct, frozen=True, kw_only=True):
    """`erased`: how many ids were erased again. `foreign`: tombstones of another secret, which nobody here can read.
    `failed`: how often a shop's could not be replayed; the log says why.
    """

    erased: int
    foreign: int
    failed: int


async def put_tombstones(
    blobs: BlobStore, tenant_id: TenantId, subjects: Iterable[bytes], at: datetime, *, secret: bytes
) -> None:
    """Remember these, durably on return; again changes nothing. Raises BlobsUnavailable."""
    for subject in subjects:
        await blobs.put(f"{PREFIX}{tenant_id}/{int(at.timestamp())}-{mark_of(secret)}-{subject.hex()}", b"")


async def replay(database: Database, blobs: BlobStore, secret: Secret) -> Replayed:
    """Erase again every person who was erased after the database's backup was made.

    Whoever came back after the erasure is another person to us, and stays. A tombstone that the database knows costs
    its part of a listing, and one look into an index.
    """
    erased = foreign = failed = 0
    async for tenant_id, batch in _batches(blobs):
        failed += 1
        with apart("replay", tenant_id):
            unknown = await _unknown(database, tenant_id, batch)
            foreign += len(unknown)
            for each in secret.every:
                readable = {stone.subject: stone.at for stone in unknown if stone.mark == mark_of(each)}
                foreign -= len(readable)
                if readable:
                    erased += await _erase_again(database, tenant_id, readable, each)
            failed -= 1
    return Replayed(erased=erased, foreign=foreign, failed=failed)


async def read_tombstones(blobs: BlobStore, tenant_id: TenantId, *, secret: Secret) -> dict[bytes, datetime]:
    """The keyed hash of everybody who was erased of a shop under our secrets, and when; the last time of each."""
    marks = {mark_of(each) for each in secret.every}
    erased: dict[bytes, datetime] = {}
    async for key in blobs.iter_keys(f"{PREFIX}{tenant_id}/"):
        stone = _read(key)
        if stone.mark in marks:
            erased[stone.subject] = max(stone.at, erased.get(stone.subject, stone.at))
    return erased


async def count_tombstones(blobs: BlobStore) -> Counter[str]:
    """Tombstones of all shops by the mark of the secret that their hashes are keyed with."""
    counts: Counter[str] = Counter()
    async for _, batch in _batches(blobs):
        counts.update(each.mark for each in batch)
    return counts


class _Tombstone(Struct, frozen=True):
    subject: bytes
    at: datetime
    mark: str


async def _unknown(database: Database, tenant_id: TenantId, batch: Sequence[_Tombstone]) -> list[_Tombstone]:
    """Those of an erasure that the database has no note of; none where the shop itself is gone."""
    async with database.tenant_session(tenant_id) as conn:
        try:
            await load_tenant(conn, tenant_id)
        except TenantNotFound:
            return []
        records = await (await driver(conn)).fetch(
            "select g.place from unnest($2::bytea[], $3::timestamptz[]) with ordinality g(subject, at, place) "
            "where not exists (select 1 from erasures e where e.tenant_id = $1 and e.subject = g.subject "
            "and e.erased_at >= g.at)",
            tenant_id,
            [each.subject for each in batch],
            [each.at for each in batch],
        )
    return [batch[record["place"] - 1] for record in records]


async def _batches(blobs: BlobStore) -> AsyncIterator[tuple[TenantId, list[_Tombstone]]]:
    """The tombstones of a shop, a thousand at a time at most."""
    held: dict[TenantId, list[_Tombstone]] = {}
    async for key in blobs.iter_keys(PREFIX):
        tenant_id = TenantId(UUID(key.split("/")[1]))
        of_tenant = held.setdefault(tenant_id, [])
        of_tenant.append(_read(key))
        if len(of_tenant) == _AT_ONCE:
            yield tenant_id, held.pop(tenant_id)
    for tenant_id, of_tenant in held.items():
        yield tenant_id, of_tenant


def _read(key: str) -> _Tombstone:
    at, mark, subject = key.rpartition("/")[2].split("-")
    return _Tombstone(bytes.fromhex(subject), datetime.fromtimestamp(int(at), UTC), mark)


async def _erase_again(
    database: Database, tenant_id: TenantId, unknown: Mapping[bytes, datetime], secret: bytes
) -> int:
    """Look for these among all ids of the shop, which only their hashes can tell; how many were there."""
    found: dict[bytes, int] = {}
    after = -1
    while True:
        async with database.tenant_session(tenant_id) as conn:
            records = await (await driver(conn)).fetch(
                "select s.shopper_no, s.kind, s.external_id, s.created_at from shopper_ids s "
                "where s.tenant_id = $1 and s.shopper_no > $2 order by s.shopper_no limit $3",
                tenant_id,
                after,
                _HASHED_AT_ONCE,
            )
            met = {}
            for record in records:
                subject = subject_hash(secret, tenant_id, record["kind"], record["external_id"])
                at = unknown.get(subject)
                # A tombstone tells seconds: whoever came back within the same one is taken for the same person.
                if at is not None and record["created_at"] < at + _SECOND:
                    met[subject] = record["shopper_no"]
            if met:
                await erase_shoppers(conn, tenant_id, list(met.values()))
        found |= met
        if len(records) < _HASHED_AT_ONCE:
            break
        after = records[-1]["shopper_no"]
    async with database.tenant_session(tenant_id) as conn:
        for subject, at in unknown.items():
            await note_erased(conn, tenant_id, {subject: found.get(subject, _NOBODY)}, at + _SECOND)
    return len(found)
