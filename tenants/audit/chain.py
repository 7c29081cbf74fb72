"""The chain of hashes over the audit log, pure: nothing here asks a database.

An entry's digest is the SHA-256 of its line. A seal holds the digests of some entries in order, and a hash over them,
its number, its moment and the hash of the seal before; so each seal vouches for all before it. Entries are sealed in
batches: whoever notes one waits for nobody. It is the hash chain of a timestamping log (Haber and Stornetta, 1991),
without a tree: whoever checks reads all of it anyway.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from infra.db import TenantId

DIGEST: Final = 32
"""Bytes."""


class Seal(Struct, frozen=True, kw_only=True):
    """One link: as a line of an export it follows the lines of its entries. Hashes are hexadecimal; numbers from 1."""

    seal: int
    tenant_id: UUID
    previous: str
    digests: list[str]
    hash: str
    sealed_at: datetime


class Difference(Struct, frozen=True, kw_only=True):
    """Where a log first differs from what was sealed: the seal, the entry's place in it from 1, its id if known."""

    seal: int
    place: int | None = None
    entry: UUID | None = None
    message: str


def digest(line: bytes) -> bytes:
    """What is sealed of an entry's line."""
    return sha256(line).digest()


def beginning(tenant_id: TenantId) -> bytes:
    """What the first seal refers to as the one before."""
    return sha256(b"kindred audit " + tenant_id.bytes).digest()


def seal_hash(previous: bytes, number: int, sealed_at: datetime, digests: Iterable[bytes]) -> bytes:
    """The hash of a seal."""
    whole = sha256(previous + number.to_bytes(8) + _microseconds(sealed_at).to_bytes(8))
    for each in digests:
        whole.update(each)
    return whole.digest()


def _microseconds(moment: datetime) -> int:
    seconds = int(moment.astimezone(UTC).replace(microsecond=0).timestamp())
    return seconds * 1_000_000 + moment.microsecond


def make_seal(tenant_id: TenantId, last: Seal | None, lines: Sequence[bytes], *, now: datetime) -> Seal:
    """The seal of these lines after `last`."""
    previous = beginning(tenant_id) if last is None else bytes.fromhex(last.hash)
    number = 1 if last is None else last.seal + 1
    digests = [digest(line) for line in lines]
    return Seal(
        seal=number,
        tenant_id=tenant_id,
        previous=previous.hex(),
        digests=[each.hex() for each in digests],
        hash=seal_hash(previous, number, now, digests).hex(),
        sealed_at=now,
    )


def check_seal(seal: Seal, lines: Sequence[bytes | None], last: Seal | None) -> Difference | None:
    """The first thing that is not as it was sealed. `lines`: what is there now, None for an entry that is gone.

    `last` is the seal before, None for the first that there is: numbers above 1 then mean that those before were
    removed when their time was over, and what they were is taken on trust.
    """
    if last is not None and seal.seal != last.seal + 1:
        return Difference(seal=last.seal + 1, message="The seal is missing.")
    for place, (sealed, line) in enumerate(zip(seal.digests, lines, strict=False), 1):
        if line is None:
            return Difference(seal=seal.seal, place=place, message="The entry is gone.")
        if digest(line).hex() != sealed:
            return Difference(
                seal=seal.seal, place=place, entry=_id_of(line), message="The entry is not the one that was sealed."
            )
    if len(lines) < len(seal.digests):
        return Difference(seal=seal.seal, place=len(lines) + 1, message="The entry is gone.")
    if len(lines) > len(seal.digests):
        extra = lines[len(seal.digests)]
        entry = None if extra is None else _id_of(extra)
        return Difference(seal=seal.seal, place=len(seal.digests) + 1, entry=entry, message="The entry was added.")
    try:
        previous, digests = bytes.fromhex(seal.previous), [bytes.fromhex(each) for each in seal.digests]
        computed = seal_hash(previous, seal.seal, seal.sealed_at, digests).hex()
    except (ValueError, OverflowError):
        computed = None
    if computed != seal.hash:
        return Difference(seal=seal.seal, message="The seal was changed: its hash is not that of what it holds.")
    before = beginning(TenantId(seal.tenant_id)).hex() if seal.seal == 1 else None if last is None else last.hash
    if before is not None and seal.previous != before:
        return Difference(seal=seal.seal, message="The seal does not follow the one before it.")
    return None


class _OnlyId(Struct):
    id: UUID


def _id_of(line: bytes) -> UUID | None:
    try:
        return msgspec.json.decode(line, type=_OnlyId).id
    except msgspec.MsgspecError:
        return None


class Checked(Struct, frozen=True, kw_only=True):
    """What a check found: `first` and `last` are numbers of seals (0: there are none), `head` the hash of the last one.

    `entries` are sealed ones, `unsealed` came after the last seal and are vouched for by nobody yet.
    """

    first: int
    last: int
    entries: int
    unsealed: int
    head: str | None
    difference: Difference | None


_decode_seal: Final = msgspec.json.Decoder(Seal).decode


def read_export(lines: Iterable[bytes]) -> Iterator[tuple[list[bytes], Seal | None]]:
    """The entries of each seal of an exported file, with the seal; at the end those without one, and None."""
    waiting: list[bytes] = []
    for line in lines:
        stripped = line.rstrip(b"\r\n")
        if not stripped:
            continue
        try:
            seal = _decode_seal(stripped)
        except msgspec.MsgspecError:
            waiting.append(stripped)
        else:
            yield waiting, seal
            waiting = []
    yield waiting, None


def check_export(lines: Iterable[bytes]) -> Checked:
    """Check an exported file against its own seals, up to the first difference."""
    first = entries = unsealed = 0
    last: Seal | None = None
    difference: Difference | None = None
    for found, seal in read_export(lines):
        if seal is None:
            unsealed = len(found)
            break
        if last is not None and seal.tenant_id != last.tenant_id:
            difference = Difference(seal=seal.seal, message="The seal is of another tenant.")
        else:
            difference = check_seal(seal, found, last)
        if difference is not None:
            break
        first = first or seal.seal
        entries += len(found)
        last = seal
    return Checked(
        first=first,
        last=0 if last is None else last.seal,
        entries=entries,
        unsealed=unsealed,
        head=None if last is None else last.hash,
        difference=difference,
    )
