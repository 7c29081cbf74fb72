"""What a browser carries between two steps of signing in: nobody reads, forges or keeps it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from api.console.carried import CARRIED_S, AtProvider, Halfway, open_carried, seal_carried
from infra.oidc import Flow
from infra.secret import Secret
from tenants.accounts.sessions import SignedIn

SECRET, NOW = Secret(current=b"s" * 32), datetime(2026, 1, 15, 12, tzinfo=UTC)
HALFWAY = Halfway(signed_in=SignedIn(person_id=uuid4(), method="password", credentials=3), then="/console")


def test_what_is_carried_comes_back_for_ten_minutes() -> None:
    """Then it is nothing."""
    text = seal_carried(SECRET, "step", HALFWAY, now=NOW)
    last = NOW + timedelta(seconds=CARRIED_S - 1)
    assert open_carried(SECRET, "step", text, Halfway, now=last) == HALFWAY
    assert open_carried(SECRET, "step", text, Halfway, now=NOW + timedelta(seconds=CARRIED_S)) is None


def test_it_tells_nothing() -> None:
    """The verifier and the nonce of a sign-in are nobody's to read; the text fits a cookie."""
    flow = Flow(state="s" * 43, nonce="n" * 43, verifier="v" * 64)
    text = seal_carried(SECRET, "sso", AtProvider(flow=flow, then="/console"), now=NOW)
    assert not any(part in text for part in ("sss", "nnn", "vvv", "console"))
    assert len(text) < 1000


def test_each_is_good_for_its_own_step() -> None:
    """Under another name, or another installation's secret, it is nothing."""
    text = seal_carried(SECRET, "step", HALFWAY, now=NOW)
    assert open_carried(SECRET, "sso", text, Halfway, now=NOW) is None
    rotated = Secret(current=b"t" * 32, others=(b"s" * 32,))
    assert open_carried(rotated, "step", text, Halfway, now=NOW) == HALFWAY
    assert open_carried(Secret(current=b"t" * 32), "step", text, Halfway, now=NOW) is None


def test_what_another_release_carried_is_nothing() -> None:
    """In the minutes of an upgrade: who stood between two steps begins again."""
    flow = Flow(state="s" * 43, nonce="n" * 43, verifier="v" * 64)
    text = seal_carried(SECRET, "step", AtProvider(flow=flow, then="/console"), now=NOW)
    assert open_carried(SECRET, "step", text, Halfway, now=NOW) is None


@given(st.text(max_size=300))
def test_whatever_else_a_browser_sends_is_nothing(text: str) -> None:
    """Never an error."""
    assert open_carried(SECRET, "step", text, Halfway, now=NOW) is None
