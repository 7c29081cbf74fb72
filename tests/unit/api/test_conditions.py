"""If-Match and If-None-Match as RFC 9110 writes them, and nothing else."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Request

from api.conditions import condition_of, not_modified
from api.problems import BadRequest
from tenants.versions import ALWAYS, AlreadyThere, Condition, VersionChanged, etag_of, expect


def request(*headers: tuple[str, str]) -> Any:
    """A request with these headers."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": raw})


TAGS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f'), max_size=20).filter(
    lambda tag: all(ord(each) not in range(0x7F, 0x80) for each in tag)
)


@given(st.lists(st.tuples(st.booleans(), TAGS), min_size=1, max_size=4), st.sampled_from([",", ", ", " , "]))
def test_every_list_of_tags_is_read(tags: list[tuple[bool, str]], comma: str) -> None:
    """If-Match heeds the strong ones alone, If-None-Match all; commas inside quotes divide nothing."""
    header = comma.join(f'W/"{tag}"' if weak else f'"{tag}"' for weak, tag in tags)
    read = condition_of(request(("if-match", header), ("if-none-match", header)))
    assert read.match == {f'"{tag}"' for weak, tag in tags if not weak}
    assert read.none_match == {f'"{tag}"' for _, tag in tags}


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30))
def test_any_other_text_is_refused_or_read(text: str) -> None:
    """400, never an error of ours."""
    with suppress(BadRequest):
        condition_of(request(("if-match", text)))


@pytest.mark.parametrize("text", ["", "abc", '"abc', 'w/"abc"', '"a" "b"', '"a",', "**", '*, "a"', '"a"b"'])
def test_a_tag_without_its_quotes_is_refused(text: str) -> None:
    """Rather than taken for one that matches nothing."""
    with pytest.raises(BadRequest):
        condition_of(request(("if-match", text)))


def test_headers_that_are_given_twice_are_one_list() -> None:
    """RFC 9110, 5.3."""
    assert condition_of(request(("if-match", '"a"'), ("if-match", '"b"'))).match == {'"a"', '"b"'}
    assert condition_of(request()) == ALWAYS


def test_what_a_write_expects() -> None:
    """The table of RFC 9110, 13.1: of a stored version, of another one, and of nothing."""
    stored = etag_of(b"x")
    star, this, other = frozenset({"*"}), frozenset({stored}), frozenset({'"other"'})
    for condition, etag, error in (
        (ALWAYS, stored, None),
        (ALWAYS, None, None),
        (Condition(match=star), stored, None),
        (Condition(match=star), None, VersionChanged),
        (Condition(match=this), stored, None),
        (Condition(match=this | other), stored, None),
        (Condition(match=other), stored, VersionChanged),
        (Condition(match=this), None, VersionChanged),
        (Condition(match=frozenset()), stored, VersionChanged),
        (Condition(none_match=star), None, None),
        (Condition(none_match=star), stored, AlreadyThere),
        (Condition(none_match=this), stored, AlreadyThere),
        (Condition(none_match=other), stored, None),
        (Condition(match=this, none_match=this), stored, AlreadyThere),
    ):
        if error is None:
            expect(condition, etag)
        else:
            with pytest.raises(error):
                expect(condition, etag)


def test_what_is_known_is_not_sent_again() -> None:
    """304 with the tag; else nothing."""
    same = not_modified(request(("if-none-match", 'W/"a"')), '"a"')
    assert same is not None
    assert (same.status_code, same.headers["etag"]) == (304, '"a"')
    assert not_modified(request(("if-none-match", '"b"')), '"a"') is None
    assert not_modified(request(), '"a"') is None
