"""Addresses: what is one, how it is kept, and when two are the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.accounts.email import MAX_LENGTH, InvalidEmail, hash_email, normalise

SECRET = b"s" * 32


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("ada@shop.example", "ada@shop.example"),
        ("  Ada@SHOP.Example\n", "Ada@shop.example"),
        ("ada+shop@a.b.example", "ada+shop@a.b.example"),
        ("u\u0308ber@b\u00fccher.example", "\u00fcber@b\u00fccher.example"),
        ("o'neil_1-2.x@shop.example", "o'neil_1-2.x@shop.example"),
    ],
)
def test_an_address_is_kept_in_one_form(typed: str, kept: str) -> None:
    """NFC, trimmed, the domain in lower case."""
    assert normalise(typed) == kept


@pytest.mark.parametrize(
    "typed",
    ["", "@", "ada", "ada@", "@shop.example", "a@b", "a@@b.example", "a b@c.example", "a@b..example", "a@-b.example",
     "a@b-.example", ".a@b.example", "a.@b.example", "a..b@c.example", "a@[127.0.0.1]", "a@127.0.0.1",
     '"a b"@c.example',
     "a@b.example\r\nBcc: x@y.example", "a\0@b.example", "a,b@c.example", "<a@b.example>", "x" * 65 + "@b.example",
     "a@" + "x" * 64 + ".example", "a@" + "x." * 130 + "example"],
)  # fmt: skip
def test_what_is_no_address_is_refused(typed: str) -> None:
    """With what to type instead."""
    with pytest.raises(InvalidEmail, match=r"name@shop\.example"):
        normalise(typed)


@given(st.text(max_size=300) | st.from_regex(r"[^@\s]{1,10}@[\w.-]{1,20}\.[a-z]{2,5}", fullmatch=True))
def test_a_kept_address_stays_as_it_is(typed: str) -> None:
    """Whatever is taken is in its final form, has one line, and is bounded."""
    try:
        kept = normalise(typed)
    except InvalidEmail:
        return
    assert normalise(kept) == kept
    assert unicodedata.is_normalized("NFC", kept)
    assert len(kept) <= MAX_LENGTH
    assert not any(ord(letter) < 33 or ord(letter) == 127 for letter in kept)


def test_case_does_not_make_another_person() -> None:
    """And the key makes another hash."""
    assert hash_email(SECRET, "Ada@shop.example") == hash_email(SECRET, "aDA@shop.example")
    assert hash_email(SECRET, "ada@shop.example") != hash_email(SECRET, "eda@shop.example")
    assert hash_email(SECRET, "ada@shop.example") != hash_email(b"t" * 32, "ada@shop.example")
