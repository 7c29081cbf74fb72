"""Addresses of roles and databases, and the password verifier."""

import base64
import hashlib
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.roles import APP, SYSTEM, database_url, role_url, scram_verifier, url_password


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://a:pw@/kindred?host=/run/pg&port=5432",
            "postgresql://kindred_app:pw@/kindred?host=/run/pg&port=5432",
        ),
        ("postgres://a:p%40w@db.example:5433/shop", "postgres://kindred_app:p%40w@db.example:5433/shop"),
        ("postgresql://a@[::1]:5432/shop", "postgresql://kindred_app@[::1]:5432/shop"),
        ("postgresql://db.example/shop", "postgresql://kindred_app@db.example/shop"),
        (
            "postgresql://a:pw@h1:1,h2:2/shop?sslmode=require",
            "postgresql://kindred_app:pw@h1:1,h2:2/shop?sslmode=require",
        ),
    ],
)
def test_role_url_replaces_the_user_alone(url: str, expected: str) -> None:
    """Server, password, database and options stay, whatever form the address has."""
    assert role_url(url, APP) == expected


def test_database_url_replaces_the_database_alone() -> None:
    """User, password, server and options stay."""
    url = "postgresql://a:pw@/kindred?host=/run/pg"
    assert database_url(url, "other one") == "postgresql://a:pw@/other%20one?host=/run/pg"


@given(st.text("aZ0%@:/?#[]& \\é𝄞ж", min_size=1))
def test_any_password_survives_the_change_of_role(password: str) -> None:
    """A password of any characters, quoted as an address needs it, comes back as it was."""
    url = f"postgresql://a:{quote(password, safe='')}@db/shop"
    assert url_password(role_url(url, SYSTEM)) == password


def test_no_password() -> None:
    """An address without a password has none (peer authentication)."""
    assert url_password("postgresql://a@/kindred") is None


def test_scram_verifier_proves_the_password() -> None:
    """The stored key is H(HMAC(salted password, "Client Key")), as RFC 5802 section 3 has it."""
    method, parameters, keys = scram_verifier("pencil", salt=b"0123456789abcdef").split("$")
    rounds, salt = parameters.split(":")
    stored, server = (base64.b64decode(key) for key in keys.split(":"))
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), int(rounds))
    assert method == "SCRAM-SHA-256"
    assert stored == hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    assert server == hmac.digest(salted, b"Server Key", "sha256")


def test_scram_verifier_is_salted() -> None:
    """The same password never gives the same verifier."""
    assert scram_verifier("pencil") != scram_verifier("pencil")
