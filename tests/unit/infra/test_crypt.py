"""infra.crypt: nobody reads or moves a stored value without the installation's secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.crypt import Undecipherable, decrypt, encrypt

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(max_size=100), st.binary(max_size=40))
def test_what_is_encrypted_comes_back(plain: bytes, about: bytes) -> None:
    """Under the secret it was encrypted with, also while that is an old one."""
    stored = encrypt(OLD, plain, purpose="test", about=about)
    assert decrypt([NEW, OLD], stored, purpose="test", about=about) == plain


def test_two_of_one_value_differ() -> None:
    """A copy of the database does not even tell which values are equal."""
    first, second = (encrypt(NEW, b"same", purpose="test", about=b"") for _ in range(2))
    assert first != second
    assert b"same" not in first


@pytest.mark.parametrize(
    ("secrets", "purpose", "about"),
    [([NEW], "test", b"row 1"), ([], "test", b"row 1"), ([OLD], "other", b"row 1"), ([OLD], "test", b"row 2")],
)
def test_anything_else_does_not_decrypt_it(secrets: list[bytes], purpose: str, about: bytes) -> None:
    """Another secret, another purpose, another row."""
    stored = encrypt(OLD, b"plain", purpose="test", about=b"row 1")
    with pytest.raises(Undecipherable):
        decrypt(secrets, stored, purpose=purpose, about=about)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_seen(place: int, by: int) -> None:
    """Wherever it is; a value that was cut, too."""
    stored = bytearray(encrypt(OLD, b"plain", purpose="test", about=b""))
    stored[place % len(stored)] ^= by
    for spoilt in (bytes(stored), bytes(stored)[: place % len(stored)]):
        with pytest.raises(Undecipherable):
            decrypt([OLD], spoilt, purpose="test", about=b"")
