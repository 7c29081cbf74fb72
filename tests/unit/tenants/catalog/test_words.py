"""Tokens of any language."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.catalog.words import MAX_TOKEN_CHARS, MAX_TOKENS, lexemes, query_tokens, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red Desk-Lamp 40W", ["red", "desk", "lamp", "40w"]),
        ("Café-Stühle", ["cafe", "stuhle"]),
        ("Ёлка ёлка", ["елка", "елка"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("北京烤鸭", ["北京", "京烤", "烤鸭"]),
        ("灯", ["灯"]),
        ("iPhone手机壳", ["iphone", "手机", "机壳"]),
        ("ﬁne Ⅷ", ["fine", "viii"]),
        ("a_b", ["a", "b"]),
        ("", []),
        ("!!!", []),
    ],
)
def test_tokens_of_a_text(text: str, expected: list[str]) -> None:
    """Case, accents and compatibility forms fold; scripts without spaces become bigrams."""
    assert tokens(text) == expected


@given(st.text(max_size=200))
def test_tokens_never_hold_what_a_tsvector_literal_would_misread(text: str) -> None:
    """Whatever comes in, a token has letters and digits only and is short."""
    for token in tokens(text):
        assert 0 < len(token) <= MAX_TOKEN_CHARS
        assert not set(token) & set("':\\\0 ")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_composed_and_decomposed_spellings_are_one(text: str) -> None:
    """NFC and NFD of a text have the same tokens."""
    assert tokens(unicodedata.normalize("NFC", text)) == tokens(unicodedata.normalize("NFD", text))


def test_the_title_weighs_more_and_survives_the_cap() -> None:
    """The title's tokens stay, and once more with their mark; the rest is cut."""
    found = lexemes("Lamp", " ".join(f"w{number}" for number in range(MAX_TOKENS * 2)) + " lamp")
    assert b"lamp" in found
    assert found[-1] == b"^lamp"
    assert len(found) == MAX_TOKENS + 1
    assert found.count(b"lamp") == 1


def test_a_query_keeps_each_token_once() -> None:
    """Repeats in a query do not count twice."""
    assert query_tokens("red red lamp") == ["red", "lamp"]
