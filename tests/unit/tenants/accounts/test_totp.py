"""Codes of an authenticator app: the vectors of RFC 6238, the window, and recovery codes as people type them."""

from base64 import b32encode
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.accounts.totp import (
    enrolment_uri,
    hash_recovery_code,
    is_totp_code,
    matched_step,
    new_recovery_codes,
    new_totp_secret,
    plain_code,
)

RFC = b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ],
)
def test_the_vectors_of_the_standard(at: int, code: str) -> None:
    """RFC 6238, appendix B, the last six digits; the step says which it was."""
    assert matched_step(RFC, code, now=datetime.fromtimestamp(at, UTC)) == at // 30


@given(st.integers(1_000, 4_000_000_000), st.integers(-200, 200))
def test_a_code_is_good_for_three_steps(at: int, off: int) -> None:
    """Its own, and where the phone's clock is a step early or late."""
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    now = datetime.fromtimestamp(at, UTC)
    code = pyotp.TOTP(secret).generate_otp(at // 30)
    found = matched_step(secret, code, now=now + timedelta(seconds=off))
    if abs((at + off) // 30 - at // 30) <= 1:
        assert found is not None
    else:  # one of a million is right by chance
        assert found is None or found != at // 30


def test_a_secret_is_never_the_same() -> None:
    """160 bits in base32."""
    made = {new_totp_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(each) for each in made} == {32}


def test_what_the_app_is_told() -> None:
    """Issuer and address name the account; nothing that only some apps heed."""
    address = urlsplit(enrolment_uri(RFC, "ada+x@shop.example"))
    assert (address.scheme, address.netloc) == ("otpauth", "totp")
    assert parse_qs(address.query) == {"secret": [RFC], "issuer": ["Kindred"]}


def test_ten_recovery_codes_that_differ() -> None:
    """None looks like a code of the app."""
    codes = new_recovery_codes()
    assert len(set(codes)) == 10
    assert not any(is_totp_code(plain_code(code)) for code in codes)


@given(st.data())
def test_a_recovery_code_is_known_however_it_is_typed(data: st.DataObject) -> None:
    """Upper case, spaces, hyphens, the letter O for a zero."""
    code = new_recovery_codes()[0]
    typed = "".join(
        data.draw(st.sampled_from(["", " ", "-"]))
        + data.draw(st.sampled_from([char, char.upper(), "O" if char == "0" else char]))
        for char in code.replace("-", "")
    )
    assert plain_code(typed) == code.replace("-", "")
    assert hash_recovery_code(RFC, plain_code(typed)) == hash_recovery_code(RFC, code.replace("-", ""))
    assert hash_recovery_code(RFC[::-1], plain_code(typed)) != hash_recovery_code(RFC, code.replace("-", ""))
