"""API keys: their form and what a mistyped one is told."""

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.keys import (
    KEY_LENGTH,
    KEY_PATTERN,
    PUBLISHABLE_SCOPES,
    SCOPES,
    Kind,
    MistypedKey,
    default_scopes,
    find_keys,
    hash_key,
    make_key,
    parse_key,
)

BASE62 = string.digits + string.ascii_letters
KINDS = st.sampled_from(["secret", "publishable"])


@given(KINDS, st.text(BASE62, min_size=2, max_size=2))
def test_a_made_key_says_its_kind_cell_and_id(kind: Kind, cell: str) -> None:
    """What `make_key` makes, `parse_key` reads."""
    key, key_id = make_key(kind, cell=cell)
    parsed = parse_key(key)
    assert (parsed.kind, parsed.cell, parsed.key_id) == (kind, cell, key_id)
    assert len(key) == KEY_LENGTH


@given(KINDS, st.integers(3, KEY_LENGTH - 1), st.sampled_from(BASE62))
def test_every_single_wrong_character_is_told_offline(kind: Kind, at: int, wrong: str) -> None:
    """CRC-32 finds every change of one character."""
    key, _ = make_key(kind, cell="00")
    changed = key[:at] + wrong + key[at + 1 :]
    if changed != key:
        with pytest.raises(MistypedKey, match="looks mistyped"):
            parse_key(changed)


@given(st.text(max_size=80))
def test_whatever_is_no_key_is_mistyped(text: str) -> None:
    """No string but a key passes, and none breaks the parser."""
    with pytest.raises(MistypedKey):
        parse_key(text)


@pytest.mark.parametrize("cut", [1, 6, 40])
def test_a_cut_key_is_told_its_length(cut: int) -> None:
    """Somebody who copied half of it learns so."""
    key, _ = make_key("secret", cell="00")
    with pytest.raises(MistypedKey, match=f"{KEY_LENGTH - cut} characters"):
        parse_key(key[:-cut])


def test_the_hash_depends_on_the_key_and_on_the_secret() -> None:
    """A stolen table says nothing without the secret."""
    key, other = (make_key("secret", cell="00")[0] for _ in range(2))
    hashes = {hash_key(b"a" * 32, key), hash_key(b"b" * 32, key), hash_key(b"a" * 32, other)}
    assert len(hashes) == 3
    assert {len(each) for each in hashes} == {32}


def test_two_keys_are_never_the_same() -> None:
    """160 random bits."""
    assert len({make_key("secret", cell="00")[0] for _ in range(1000)}) == 1000


def test_only_who_asks_for_it_gets_admin() -> None:
    """The usual secret key may do everything but administer; the usual publishable key only what a page needs."""
    assert set(default_scopes("secret")) == set(SCOPES) - {"admin"}
    assert default_scopes("publishable") == PUBLISHABLE_SCOPES


def test_keys_are_found_in_a_text_by_the_documented_pattern() -> None:
    """A scanner of logs and repositories needs the pattern; the checksum then tells what only looks like a key."""
    secret, secret_id = make_key("secret", cell="00")
    public, public_id = make_key("publishable", cell="e1")
    wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    text = f'curl -H "Authorization: Bearer {secret}"\nkey={public};\n{wrong} x{secret} {secret}x task_{"0" * 45}\n'
    assert len(re.findall(KEY_PATTERN, text)) == 3
    found = list(find_keys(text))
    assert [(each.kind, each.cell, each.key_id) for _, each in found] == [
        ("secret", "00", secret_id),
        ("publishable", "e1", public_id),
    ]
    assert text[found[1][0] :].startswith(public)
    assert KEY_PATTERN in (Path(__file__).parents[3] / "docs" / "keys.md").read_text()


def test_a_very_long_string_is_told_its_length() -> None:
    """And costs nothing."""
    with pytest.raises(MistypedKey, match="10000 characters"):
        parse_key("sk_" + "0" * 9_997)
