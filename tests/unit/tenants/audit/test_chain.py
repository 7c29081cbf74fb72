"""The chain of the audit log: whatever is changed, removed, added or swapped is found, and named."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.db import TenantId
from tenants.audit.chain import Checked, Seal, check_export, make_seal, seal_hash
from tenants.audit.log import Actor, Entry, line_of, network_hash

TENANT = TenantId(UUID("01993b6e-0000-7000-8000-000000000001"))
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


def entry(number: int, **changed: object) -> Entry:
    """An entry that differs from every other by its number."""
    made = Entry(
        id=UUID(int=(7 << 76) | (2 << 62) | number),
        at=NOON + timedelta(microseconds=number),
        actor=Actor(kind="key", id="k"),
        action="key.create",
        subject=str(number),
        details={"name": "x", "scopes": ["admin"]},
        network=None,
        request_id=None,
    )
    return msgspec.structs.replace(made, **changed)


def export(sizes: list[int], unsealed: int = 0) -> list[bytes]:
    """An export of seals of so many entries each, and some entries after the last."""
    lines: list[bytes] = []
    last: Seal | None = None
    number = 0
    for size in sizes:
        batch = [line_of(entry(number + at)) for at in range(size)]
        number += size
        last = make_seal(TENANT, last, batch, now=NOON + timedelta(minutes=len(lines)))
        lines += [*batch, msgspec.json.encode(last)]
    return [*lines, *(line_of(entry(number + at)) for at in range(unsealed))]


SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=5)


@given(SIZES, st.integers(0, 3))
def test_a_log_that_nobody_touched_is_whole(sizes: list[int], unsealed: int) -> None:
    """However many seals and entries; what is not sealed yet is counted apart."""
    checked = check_export(export(sizes, unsealed))
    assert checked == Checked(
        first=1,
        last=len(sizes),
        entries=sum(sizes),
        unsealed=unsealed,
        head=checked.head,
        difference=None,
    )


@given(st.data())
def test_whatever_is_changed_is_found(data: st.DataObject) -> None:
    """One byte anywhere; at most the entries before it count as whole."""
    lines = export(data.draw(SIZES))
    at = data.draw(st.sampled_from(range(len(lines))))
    place = data.draw(st.integers(0, len(lines[at]) - 1))
    other = data.draw(st.integers(0x20, 0x7E).filter(lambda value: value != lines[at][place]))
    changed = [*lines]
    changed[at] = lines[at][:place] + bytes([other]) + lines[at][place + 1 :]
    checked = check_export(changed)
    # A last seal that is no seal any more leaves its entries unsealed: seen by who remembers the head.
    assert checked.difference is not None or checked.head != check_export(lines).head
    assert checked.entries <= sum(1 for line in lines[:at] if b'"seal":' not in line)


@given(st.data())
def test_whatever_is_removed_is_found(data: st.DataObject) -> None:
    """An entry, or a seal. Without its first seals a log says that it begins later, as after their time."""
    lines = export(data.draw(SIZES))
    at = data.draw(st.sampled_from(range(len(lines))))
    checked = check_export([*lines[:at], *lines[at + 1 :]])
    assert checked.difference is not None or checked.head != check_export(lines).head or checked.first == 2


@given(st.data())
def test_whatever_is_added_is_found(data: st.DataObject) -> None:
    """A made-up entry before any seal."""
    lines = export(data.draw(SIZES))
    at = data.draw(st.sampled_from(range(len(lines))))
    checked = check_export([*lines[:at], line_of(entry(10_000)), *lines[at:]])
    assert checked.difference is not None


@given(st.data())
def test_whatever_is_swapped_is_found(data: st.DataObject) -> None:
    """Any two different lines."""
    lines = export(data.draw(SIZES.filter(lambda sizes: len(sizes) + sum(sizes) > 1)))
    first, second = sorted(data.draw(st.lists(st.sampled_from(range(len(lines))), min_size=2, max_size=2, unique=True)))
    swapped = [*lines]
    swapped[first], swapped[second] = lines[second], lines[first]
    checked = check_export(swapped)
    assert checked.difference is not None or checked.head != check_export(lines).head


@given(st.data())
def test_the_first_entry_that_differs_is_named(data: st.DataObject) -> None:
    """By its seal, its place in it and its id, also where others differ after it."""
    sizes = data.draw(SIZES.filter(any))
    lines = export(sizes)
    entries = [at for at, line in enumerate(lines) if b'"seal":' not in line]
    chosen = sorted(data.draw(st.lists(st.sampled_from(entries), min_size=1, unique=True)))
    for at in chosen:
        lines[at] = line_of(msgspec.structs.replace(msgspec.json.decode(lines[at], type=Entry), action="key.revoke"))
    found = check_export(lines).difference
    assert found is not None
    number = entries.index(chosen[0])
    seal = 1
    while number >= sizes[seal - 1]:
        number -= sizes[seal - 1]
        seal += 1
    assert (found.seal, found.place) == (seal, number + 1)
    assert found.entry == msgspec.json.decode(lines[chosen[0]], type=Entry).id


def test_a_seal_that_was_made_anew_does_not_fit_the_next() -> None:
    """Whoever changes an entry and its seal must change every seal after it, and the head that somebody remembers."""
    lines = export([1, 1, 1])
    forged = line_of(entry(0, action="key.revoke"))
    made = make_seal(TENANT, None, [forged], now=NOON)
    checked = check_export([forged, msgspec.json.encode(made), *lines[2:]])
    assert checked.difference is not None
    assert (checked.difference.seal, checked.difference.message) == (2, "The seal does not follow the one before it.")


def test_a_chain_whose_beginning_was_kept_no_longer_is_whole() -> None:
    """Seals from a later number on: what was before is taken on trust, and the number says so."""
    lines = export([2, 2, 2])
    checked = check_export(lines[3:])
    assert (checked.first, checked.last, checked.entries, checked.difference) == (2, 3, 4, None)


@pytest.mark.parametrize("spoil", [b"x", b"", b"zz"])
def test_a_hash_that_is_none_is_a_difference(spoil: bytes) -> None:
    """Not an error of ours."""
    lines = export([1])
    seal = msgspec.json.decode(lines[1])
    for field in ("previous", "hash"):
        bad = msgspec.json.encode({**seal, field: spoil.decode()})
        assert check_export([lines[0], bad]).difference is not None
    assert check_export([lines[0], msgspec.json.encode({**seal, "seal": -1})]).difference is not None


def test_the_hash_is_what_the_documentation_says() -> None:
    """Two known values, so that exports of today can be checked for ever."""
    line = line_of(entry(1))
    assert line == (
        b'{"action":"key.create","actor":{"id":"k","kind":"key"},"at":"2026-01-15T12:00:00.000001Z",'
        b'"details":{"name":"x","scopes":["admin"]},"id":"00000000-0000-7000-8000-000000000001","network":null,'
        b'"request_id":null,"subject":"1"}'
    )
    assert seal_hash(b"\0" * 32, 1, NOON, [b"\1" * 32]).hex() == (
        "3a2ae83630b38630aa7ea9b29478c46de64c40a93b3b2369abd069c11864e799"
    )


def test_a_network_is_a_keyed_hash() -> None:
    """The same for all of a network; another under another secret."""
    assert network_hash(b"secret", "192.0.2.0/24") == network_hash(b"secret", "192.0.2.0/24")
    assert network_hash(b"secret", "192.0.2.0/24") != network_hash(b"secret", "192.0.3.0/24")
    assert network_hash(b"secret", "192.0.2.0/24") != network_hash(b"another", "192.0.2.0/24")
    assert len(network_hash(b"secret", "192.0.2.0/24")) == 16
