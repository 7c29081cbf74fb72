"""Cursors of answers."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.recommend.cursor import LIFE, MAX_SHOWN, BadCursor, read_cursor, write_cursor
from infra.db import TenantId
from infra.secret import Secret

_NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
_SECRET = b"s" * 32
_TENANT = TenantId(UUID(int=7))


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=300))
def test_a_cursor_carries_what_was_shown(shown: list[int]) -> None:
    """What was written is read back."""
    cursor = write_cursor(_SECRET, _TENANT, shown, now=_NOW)
    assert cursor is not None
    assert read_cursor(Secret(current=_SECRET), _TENANT, cursor, now=_NOW) == shown


def test_a_cursor_of_another_tenant_or_secret_is_refused() -> None:
    """The signature covers the tenant."""
    cursor = write_cursor(_SECRET, _TENANT, [1, 2, 3], now=_NOW)
    assert cursor is not None
    with pytest.raises(BadCursor):
        read_cursor(Secret(current=_SECRET), TenantId(UUID(int=8)), cursor, now=_NOW)
    with pytest.raises(BadCursor):
        read_cursor(Secret(current=b"t" * 32), _TENANT, cursor, now=_NOW)


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    """Nothing made up passes, and nothing raises anything else."""
    with pytest.raises(BadCursor):
        read_cursor(Secret(current=_SECRET), _TENANT, text, now=_NOW)


def test_a_list_ends_when_its_cursor_would_grow_without_bound() -> None:
    """Paging stops after 2,000 items."""
    assert write_cursor(_SECRET, _TENANT, range(MAX_SHOWN), now=_NOW) is None


def test_a_cursor_lives_for_a_day() -> None:
    """To the minute; then it is refused."""
    cursor = write_cursor(_SECRET, _TENANT, [1, 2, 3], now=_NOW)
    assert cursor is not None
    assert read_cursor(Secret(current=_SECRET), _TENANT, cursor, now=_NOW + LIFE) == [1, 2, 3]
    with pytest.raises(BadCursor):
        read_cursor(Secret(current=_SECRET), _TENANT, cursor, now=_NOW + LIFE + timedelta(minutes=1))
