"""Query strings and path parts to structs."""

from typing import Annotated
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from api.problems import BadRequest
from api.wire import convert_text, decode_id
from infra.decode import InvalidFields


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query with one field of each kind."""

    limit: Annotated[int, Meta(ge=1, le=10)] = 5
    dry_run: bool = False
    cursor: str | None = None


def test_text_becomes_what_the_field_is() -> None:
    """Numbers and booleans are read from their text."""
    assert convert_text({"limit": "7", "dry_run": "true", "cursor": "7"}, Query) == Query(
        limit=7, dry_run=True, cursor="7"
    )


def test_every_bad_parameter_is_named() -> None:
    """Unknown, mistyped and out of range, all at once; the good ones are not."""
    with pytest.raises(InvalidFields) as caught:
        convert_text({"limit": "99", "dry_run": "maybe", "cursor": "x", "other": "1"}, Query)
    assert {(fault.pointer, fault.code) for fault in caught.value.errors} == {
        ("/limit", "out_of_range"),
        ("/dry_run", "wrong_type"),
        ("/other", "unknown_field"),
    }


IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=128)


@given(IDS)
def test_an_escaped_id_is_read_back(external_id: str) -> None:
    """Whatever characters it has, slashes and percent signs included."""
    assert decode_id(quote(external_id, safe="")) == external_id


@pytest.mark.parametrize("segment", ["a%00b", "a%0Ab", "x" * 129, ""])
def test_an_id_outside_the_limits_is_refused(segment: str) -> None:
    """1 to 128 characters without control characters."""
    with pytest.raises(InvalidFields, match="1 to 128"):
        decode_id(segment)


def test_an_id_that_is_not_utf_8_is_refused() -> None:
    """Latin-1 in an address is a mistake that would else make another id."""
    with pytest.raises(BadRequest, match="UTF-8"):
        decode_id("caf%E9")
