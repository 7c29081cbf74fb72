"""Events: their limits, and the rows they become."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.events.event import (
    DEFAULT_WEIGHTS,
    TYPES,
    Event,
    check,
    ids_of,
    live_window,
    numbered,
    rows_of,
    weights_of,
)
from tenants.events.event import suspicious as holds_controls

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
WINDOW = live_window(NOW)
SECRET = b"0123456789abcdef0123456789abcdef"


def event(**fields: Any) -> Event:
    """An event of these fields, decoded as requests are."""
    return msgspec.convert({"type": "view", "item_id": "i", **fields}, Event)


def row(one: Event, **options: Any) -> Any:
    """Its first row."""
    shoppers, items = ids_of([one])
    given = {
        "shoppers": dict.fromkeys(shoppers, 1),
        "items": {item: n for n, item in enumerate(sorted(items), 1)},
        "now": NOW,
        "secret": SECRET,
        **options,
    }
    return rows_of(uuid4(), [one], numbered(1), [0], **given)[0][0]


@pytest.mark.parametrize("seconds", [0, 299, 300, -7 * 86400])
def test_a_live_event_is_of_the_last_week(seconds: int) -> None:
    """Five minutes ahead for clocks that are wrong."""
    assert check(event(ts=NOW + timedelta(seconds=seconds)), WINDOW, texts=False) == []


@pytest.mark.parametrize("seconds", [301, -7 * 86400 - 1])
def test_other_times_are_named(seconds: int) -> None:
    """With what to do."""
    (fault,) = check(event(ts=NOW + timedelta(seconds=seconds)), WINDOW, texts=False)
    assert (fault.pointer, fault.code) == ("/ts", "out_of_range")


@given(st.text(max_size=70))
def test_a_type_is_known_or_plain(name: str) -> None:
    """Whatever is sent, it is taken or named."""
    try:
        made = msgspec.convert({"type": name, "item_id": "i", "rating": 1}, Event)
    except msgspec.ValidationError:
        assert not 1 <= len(name) <= 64
        return
    good = name in TYPES or (
        name.isascii() and name.islower() and name.replace("_", "a").isalnum() and name[0].isalpha()
    )
    faults = check(made, WINDOW, texts=False)
    assert [fault.pointer for fault in faults] == ([] if good else ["/type"])


@given(
    st.text(
        alphabet=st.characters(min_codepoint=0, max_codepoint=0x200, exclude_categories=["Cs"]), min_size=1, max_size=20
    )
)
def test_no_control_character_passes(item_id: str) -> None:
    """Neither by the quick look at the body nor by the one at the event."""
    body = msgspec.json.encode({"type": "view", "item_id": item_id})
    bad = any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F for char in item_id)
    if not holds_controls(body):
        assert not bad
        return
    assert bool(check(msgspec.json.decode(body, type=Event), WINDOW, texts=True)) == bad


def test_numbers_are_uuid7_and_rise() -> None:
    """A thousand of one millisecond."""
    numbers = numbered(1000)
    assert numbers == sorted(set(numbers))
    assert {(UUID(number).version, UUID(number).variant) for number in (numbers[0], numbers[-1])} == {
        (7, "specified in RFC 4122")
    }


def test_the_hash_of_the_body_is_keyed() -> None:
    """Of one event the same, of another another; without the key nobody can tell."""
    one = row(event(event_id="e", user_id="u"))
    assert one.h == row(event(event_id="e", user_id="u")).h
    assert one.h != row(event(event_id="e", user_id="v")).h
    assert one.h != row(event(event_id="e", user_id="u"), secret=b"another" * 8).h
    assert row(event(user_id="u")).h is None


def test_a_user_wins_over_a_visitor() -> None:
    """An event with both is the user's."""
    assert ids_of([event(user_id="u", visitor_id="v")])[0] == {"uu"}


def test_an_event_without_a_time_is_of_now() -> None:
    """And one with a time of then."""
    assert row(event()).m == NOW
    assert row(event(ts=NOW - timedelta(days=1))).m == NOW - timedelta(days=1)


def test_weights_can_be_set_per_tenant() -> None:
    """Zero and negative ones too; what is not set is the default."""
    weights = weights_of({"view": 0, "quiz_done": -1.5})
    assert (weights["view"], weights["quiz_done"], weights["purchase"]) == (0, -1.5, DEFAULT_WEIGHTS["purchase"])
