"""Messages are signed as Standard Webhooks 1.0 says, checked by a reader that was written from the specification."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.webhooks.signature import headers, new_secret, shown

NOW = datetime(2026, 1, 15, 12, 0, 0, 999_000, tzinfo=UTC)
TOLERANCE = timedelta(minutes=5)


def verified(secret: str, given: Mapping[str, str], body: bytes, *, now: datetime) -> bool:
    """What a receiver does, by the specification: the timestamp within bounds, one signature of version 1 that fits."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    assert 24 <= len(key) <= 64
    stamp = given["webhook-timestamp"]
    if not stamp.isdecimal() or abs(now.timestamp() - int(stamp)) > TOLERANCE.total_seconds():
        return False
    content = f"{given['webhook-id']}.{stamp}.".encode() + body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    for each in given["webhook-signature"].split(" "):
        version, _, signature = each.partition(",")
        if version == "v1" and hmac.compare_digest(signature, expected):
            return True
    return False


@given(st.binary(max_size=300), st.text("0123456789abcdef-", min_size=1, max_size=40))
def test_a_message_is_verified(body: bytes, message_id: str) -> None:
    """Whatever it says."""
    key = new_secret()
    assert verified(shown(key), headers([key], message_id, NOW, body), body, now=NOW)


@given(st.binary(min_size=1, max_size=100), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_body_is_refused(body: bytes, place: int, by: int) -> None:
    """By a single byte."""
    key = new_secret()
    changed = bytearray(body)
    changed[place % len(body)] ^= by
    assert not verified(shown(key), headers([key], "id", NOW, body), bytes(changed), now=NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_a_changed_header_is_refused(name: str) -> None:
    """The id and the time are signed with the body."""
    key = new_secret()
    made = headers([key], "1234", NOW, b"{}")
    assert not verified(shown(key), made | {name: made[name][:-1] + "7"}, b"{}", now=NOW)


def test_another_secret_is_refused() -> None:
    """Nobody else's signature fits."""
    assert not verified(shown(new_secret()), headers([new_secret()], "id", NOW, b"{}"), b"{}", now=NOW)


@pytest.mark.parametrize("late", [timedelta(minutes=6), timedelta(minutes=-6)])
def test_an_old_message_is_refused(late: timedelta) -> None:
    """One that was kept and is sent again by somebody else; each attempt of ours has a time of its own."""
    key = new_secret()
    assert not verified(shown(key), headers([key], "id", NOW - late, b"{}"), b"{}", now=NOW)


def test_in_a_rotation_both_secrets_verify() -> None:
    """Each half of the receivers knows another one."""
    new, old = new_secret(), new_secret()
    made = headers([new, old], "id", NOW, b"{}")
    assert len(made["webhook-signature"].split(" ")) == 2
    assert verified(shown(new), made, b"{}", now=NOW)
    assert verified(shown(old), made, b"{}", now=NOW)


def test_a_known_signature() -> None:
    """The example of the specification's reference implementations, so that we do not agree with ourselves alone."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    at = datetime.fromtimestamp(1614265330, UTC)
    made = headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
