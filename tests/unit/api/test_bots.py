"""Programs are told from people."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest

from api.bots import PER_MINUTE, Rates
from infra.db import TenantId
from tenants.events.agents import is_bot
from tenants.events.event import BOT, Event

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
TENANT = TenantId(uuid4())


@pytest.mark.parametrize(
    ("agent", "bot"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True),
        ("Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0", True),
        ("python-requests/2.32", True),
        ("", True),
        (None, True),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Safari/604.1", False),
        ("Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) Chrome/110 Mobile", False),
    ],
)
def test_agents(agent: str | None, bot: bool) -> None:
    """A browser always says something, and a telephone called Cubot is none."""
    assert is_bot(agent) == bot


def clicks(count: int, **more: object) -> list[Event]:
    """As many of one shopper."""
    return [msgspec.convert({"type": "click", "item_id": "i", "user_id": "u", **more}, Event)] * count


def test_events_over_an_hour_are_no_bots() -> None:
    """A server that sends them at once tells when they happened."""
    spread = [event for minute in range(60) for event in clicks(PER_MINUTE, ts=NOW - timedelta(minutes=minute))]
    assert not any(Rates().flags(TENANT, spread, agent=None, now=NOW))


def test_a_flagged_shopper_stays_flagged_for_a_while() -> None:
    """An hour; then it may show that it is a person."""
    rates = Rates()
    assert rates.flags(TENANT, clicks(PER_MINUTE + 1), agent=None, now=NOW)[-1] == BOT
    assert rates.flags(TENANT, clicks(1), agent=None, now=NOW + timedelta(minutes=30)) == [BOT]
    assert rates.flags(TENANT, clicks(1), agent=None, now=NOW + timedelta(minutes=61)) == [0]
    assert rates.flags(TenantId(uuid4()), clicks(1), agent=None, now=NOW) == [0]


def test_impressions_have_no_rate() -> None:
    """A page shows a hundred items at once."""
    shown = clicks(1000, type="impression")
    assert not any(Rates().flags(TENANT, shown, agent=None, now=NOW))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old minutes go first."""
    monkeypatch.setattr("api.bots._SHOPPERS", 100)
    rates = Rates()
    for n in range(1000):
        rates.flags(TENANT, clicks(1, user_id=f"u{n}"), agent=None, now=NOW + timedelta(minutes=n))
    assert sum(len(counts) for counts in rates._counts.values()) <= 101
