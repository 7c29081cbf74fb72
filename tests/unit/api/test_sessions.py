"""What a request says of its session and its site, read from headers that anybody may write."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.sessions import Cookies, CrossSite, Sessions, cookies_of
from infra.clock import utc_now
from infra.db import Database
from infra.secret import Secret

SESSIONS = Sessions(
    Database("postgresql://nobody@localhost/none", hot=0),
    secret=Secret(current=b"s" * 32),
    origin="https://kindred.example",
    clock=utc_now,
)


def _scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("kindred=a; other=b", {"kindred": "a", "other": "b"}),
        ("kindred=a; kindred=b", {"kindred": "a"}),
        ("kindred", {}),
        ("kindred==; =x", {"kindred": "=", "": "x"}),
        (";;;", {}),
    ],
)
def test_cookies_are_read(header: str, found: dict[str, str]) -> None:
    """Of two with one name the first."""
    assert cookies_of(_scope(cookie=header)) == found


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_any_header_is_read(header: str) -> None:
    """Whatever it holds."""
    cookies_of(_scope(cookie=header))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://kindred.example"},
        {"origin": "https://KINDRED.example", "sec_fetch_site": "same-origin"},
        {"origin": "http://localhost:8000", "host": "localhost:8000"},
        {"origin": "http://[::1]:8000", "host": "[::1]:8000"},
        {"sec_fetch_site": "none"},
    ],
)
def test_our_pages_are_ours(headers: dict[str, str]) -> None:
    """By the address that people use, or by the host that the browser asked."""
    SESSIONS.check_same_site(_scope(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "null"},
        {"origin": ""},
        {"origin": "https://kindred.example.evil.example"},
        {"origin": "https://evil.example", "host": "kindred.example"},
        {"origin": "http://a", "host": "b@a"},
        {"origin": "http://[", "host": "["},
        {"origin": "http://", "host": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "https://kindred.example"},
        {"sec_fetch_site": ""},
    ],
)
def test_other_sites_are_others(headers: dict[str, str]) -> None:
    """Also those that look like ours, and those that a browser does not name."""
    with pytest.raises(CrossSite):
        SESSIONS.check_same_site(_scope(**headers))


@given(st.text(st.characters(max_codepoint=255), max_size=50), st.text(st.characters(max_codepoint=255), max_size=50))
def test_no_header_breaks_the_check(origin: str, host: str) -> None:
    """It says yes or no."""
    with suppress(CrossSite):
        SESSIONS.check_same_site(_scope(origin=origin, host=host))


def test_a_form_token_is_of_one_binding() -> None:
    """And of this installation."""
    other = Sessions(
        Database("postgresql://x@y/z", hot=0), secret=Secret(current=b"t" * 32), origin="http://x", clock=utc_now
    )
    tokens = {SESSIONS.form_token("a"), SESSIONS.form_token("b"), other.form_token("a")}
    assert len(tokens) == 3


def test_cookies_of_https_are_of_the_host() -> None:
    """`__Host-` and Secure go together."""
    assert Cookies(secure=True).session.startswith("__Host-")
    assert not Cookies(secure=False).session.startswith("__Host-")
