"""Addresses: what is one, how it is kept, and when two are the same."""

import hmac
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.accounts.email import MAX_LENGTH, InvalidEmail, hash_email, is_same_address, normalise

SECRET = b"s" * 32


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("ada@shop.example", "ada@shop.example"),
        ("  Ada@SHOP.Example\n", "Ada@shop.example"),
        ("ada+shop@a.b.example", "ada+shop@a.b.example"),
        ("u\u0308ber@bu\u0308cher.example", "\u00fcber@xn--bcher-kva.example"),
        ("ada@B\u00dcCHER\u3002Example", "ada@xn--bcher-kva.example"),
        ("ada@XN--bcher-KVA.example", "ada@xn--bcher-kva.example"),
        ("ada@stra\u00dfe.example", "ada@xn--strae-oqa.example"),
        ("o'neil_1-2.x@shop.example", "o'neil_1-2.x@shop.example"),
    ],
)
def test_an_address_is_kept_in_one_form(typed: str, kept: str) -> None:
    """NFC, trimmed, the domain as the DNS has it: in lower case and A-labels."""
    assert normalise(typed) == kept


@pytest.mark.parametrize(
    "typed",
    ["", "@", "ada", "ada@", "@shop.example", "a@b", "a@@b.example", "a b@c.example", "a@b..example", "a@-b.example",
     "a@b-.example", ".a@b.example", "a.@b.example", "a..b@c.example", "a@[127.0.0.1]", "a@127.0.0.1",
     '"a b"@c.example',
     "a@b.example\r\nBcc: x@y.example", "a\0@b.example", "a,b@c.example", "<a@b.example>", "x" * 65 + "@b.example",
     "a@b\u00fc\u200dcher.example", "a@\u2603.example", "a@-b\u00fc.example", "a@b\u00fc..example",
     "a@b_\u00fc.example", "a@" + "x" * 64 + ".example", "a@" + "\u00fc" * 64 + ".example",
     "a@" + "x." * 130 + "example"],
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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("boss@stra\u00dfe.example", "boss@strasse.example"),
        ("boss@\u03bf\u03b4\u03cc\u03c2.example", "boss@\u03bf\u03b4\u03cc\u03c3.example"),  # two sigmas
        ("strau\u00df@shop.example", "strauss@shop.example"),
    ],
)
def test_what_looks_alike_is_two_people(one: str, other: str) -> None:
    """Domains that may have two owners (IDNA 2008), and names that may have too."""
    assert hash_email(SECRET, normalise(one)) != hash_email(SECRET, normalise(other))
    assert not is_same_address(normalise(one), normalise(other))


@pytest.mark.parametrize("address", ["ada@shop.example", "Ada.O'Neil+x@Sub.SHOP.example"])
def test_a_plain_address_is_found_as_ever(address: str) -> None:
    """By the hash that is stored since the first release."""
    assert hash_email(SECRET, normalise(address)) == hmac.digest(
        SECRET, b"email\0" + address.casefold().encode(), "sha256"
    )
