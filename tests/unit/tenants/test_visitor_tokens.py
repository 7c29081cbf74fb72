"""Visitor tokens: what a shop's server may say, and what nobody else can."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.db import TenantId
from tenants.visitor_secrets import derive_secret, kid_of, secret_no_of
from tenants.visitor_tokens import (
    LEEWAY,
    LIFE,
    MAX_TOKEN,
    Claims,
    VisitorTokenExpired,
    VisitorTokenRefused,
    sign,
    verify,
)

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
TENANT = TenantId(UUID(int=7))
SECRET = derive_secret(b"i" * 32, TENANT, 1)
SECRETS = {"v1": SECRET}


def _claims(**changes: Any) -> dict[str, Any]:
    exp = int((NOW + timedelta(hours=1)).timestamp())
    claims = {"aud": "kindred", "tenant": str(TENANT), "exp": exp, "user": "u-1", **changes}
    return {name: value for name, value in claims.items() if value is not None}


def _token(header: Mapping[str, Any] | None = None, secret: str = SECRET, **changes: Any) -> str:
    return jwt.PyJWS().encode(
        json.dumps(_claims(**changes)).encode(), secret, algorithm="HS256", headers={"kid": "v1", **(header or {})}
    )


def _read(token: str, now: datetime = NOW) -> Claims:
    return verify(token, SECRETS, TENANT, now=now)


def test_what_the_server_signs_is_read() -> None:
    """Every claim, by our own signer and by any other library."""
    claims = msgspec.convert(
        _claims(placements=["home"], filter={"eq": ["brand", "lumo"]}, iat=int(NOW.timestamp())), Claims
    )
    assert _read(sign(claims, kid="v1", secret=SECRET)) == claims
    made = jwt.encode(_claims(), SECRET, algorithm="HS256", headers={"kid": "v1"})
    assert _read(made).user == "u-1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aud": "other"}, "aud"),
        ({"aud": None}, "aud"),
        ({"tenant": str(UUID(int=8))}, "another tenant"),
        ({"tenant": None}, "tenant"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"exp": int((NOW + LIFE + LEEWAY).timestamp()) + 1}, "24 hours"),
        ({"iat": int((NOW + LEEWAY).timestamp()) + 1}, "future"),
        ({"user": None}, "`user` or a `visitor`"),
        ({"visitor": "v"}, "not both"),
        ({"user": ""}, "user"),
        ({"user": "a\nb"}, "user"),
        ({"user": 7}, "user"),
        ({"admin": True}, "admin"),
        ({"placements": "home"}, "placements"),
        ({"placements": ["x"] * 101}, "placements"),
        ({"filter": {"eq": ["nothing_known", 1]}}, "filter"),
        ({"filter": []}, "filter"),
    ],
)
def test_a_claim_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    """Whoever signs learns which."""
    with pytest.raises(VisitorTokenRefused, match=said):
        _read(_token(**changes))


@pytest.mark.parametrize(
    "header",
    [{"alg": "HS256", "kid": "v2"}, {"kid": ""}, {"crit": ["b64"]}, {"jku": "https://evil.example"}, {"jwk": {}}],
)
def test_a_header_says_nothing_but_its_secret(header: dict[str, Any]) -> None:
    """No other secret, no address of one, nothing critical that nobody knows."""
    with pytest.raises(VisitorTokenRefused):
        _read(_token(header))


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512", "hs256", "RS256", ""])
def test_no_other_algorithm_is_believed(algorithm: str) -> None:
    """Least of all none; the key is never taken for one of another kind."""
    _, payload, signature = _token().split(".")
    header = urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "v1"}).encode()).decode().rstrip("=")
    for each in (signature, ""):
        with pytest.raises(VisitorTokenRefused):
            _read(f"{header}.{payload}.{each}")


def test_another_secret_signs_nothing() -> None:
    """Nor the same number's of another tenant, or under another installation's secret."""
    for secret in (
        derive_secret(b"i" * 32, TENANT, 2),
        derive_secret(b"i" * 32, TenantId(UUID(int=8)), 1),
        derive_secret(b"j" * 32, TENANT, 1),
    ):
        with pytest.raises(VisitorTokenRefused, match="signature"):
            _read(_token(secret=secret))


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_token_passes(at: int, byte: int) -> None:
    """Whatever character is put wherever."""
    token = _token(user="u" * 20)
    place = at % len(token)
    changed = token[:place] + chr(byte) + token[place + 1 :]
    if changed != token:
        try:
            # The last character of base64 has bits that say nothing: the token is the same one.
            assert _read(changed).user == "u" * 20
            assert place in (len(token) - 1, token.index(".") - 1, token.rindex(".") - 1)
        except VisitorTokenRefused:
            pass


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}"))
def test_whatever_is_no_token_is_refused(text: str) -> None:
    """And breaks nothing."""
    with pytest.raises(VisitorTokenRefused):
        _read(text)


def test_a_token_is_short() -> None:
    """4 KB, whatever is in it."""
    token = _token(filter={"in": ["brand", ["b" * 40] * 100]})
    assert len(token) > MAX_TOKEN
    with pytest.raises(VisitorTokenRefused, match=r"4,096"):
        _read(token)


@pytest.mark.parametrize(("off", "good"), [(LEEWAY - timedelta(seconds=1), True), (LEEWAY, False)])
def test_a_clock_may_be_off_by_five_minutes(off: timedelta, good: bool) -> None:
    """Either way; beyond, the browser is told to fetch another."""
    token = _token(exp=int(NOW.timestamp()))
    if good:
        assert _read(token, NOW + off).user == "u-1"
        assert _read(_token(iat=int((NOW + off).timestamp()))).user == "u-1"
        assert _read(_token(exp=int((NOW + LIFE + off).timestamp()))).user == "u-1"
    else:
        with pytest.raises(VisitorTokenExpired):
            _read(token, NOW + off)


@given(st.integers(1, 2**31 - 1))
def test_a_kid_is_its_number(number: int) -> None:
    """And nothing else is one."""
    assert secret_no_of(kid_of(number)) in (number, None)
    assert (secret_no_of(kid_of(number)) == number) is (number < 10**9)


@pytest.mark.parametrize("kid", ["", "v", "1", "v-1", "v1x", "vv1", "v²", "v" + "1" * 30])
def test_other_kids_are_none(kid: str) -> None:
    """Whatever they look like."""
    assert secret_no_of(kid) is None
