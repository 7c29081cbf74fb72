"""The elements of one JSON array, cut out of a stream."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.feeds.json_array import ArrayElements
from workers.feeds.types import MAX_RECORD_BYTES


def elements(data: bytes, step: int = 100_000, depth: int = 1) -> tuple[list[tuple[int, bytes | None]], bool]:
    array = ArrayElements((data[i : i + step] for i in range(0, len(data), step)), depth)
    return [(element.line, element.text) for element in array], array.closed


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=6), st.integers(1, 30), st.sampled_from([None, 2]))
def test_elements_are_those_of_the_array(values: list[object], step: int, indent: int | None) -> None:
    """Whatever the blocks and the layout, each element is cut out whole."""
    got, closed = elements(json.dumps(values, indent=indent).encode(), step)
    assert [json.loads(text or b"") for _, text in got] == values
    assert closed


def test_the_line_is_where_an_element_begins() -> None:
    """Faults name the line of their element."""
    assert [line for line, _ in elements(b'[\n{"a":1},\n\n{"a":\n2},\n{"a":3}\n]')[0]] == [2, 4, 6]


def test_an_array_within_an_object() -> None:
    """Exports wrap their list in an object with one key."""
    got, closed = elements(b'{"products": [{"id": 1}, {"id": 2}], "total": 2}', depth=2)
    assert [text for _, text in got] == [b'{"id": 1}', b'{"id": 2}']
    assert closed


def test_an_element_never_closed_is_given_up_at_the_next() -> None:
    """Where elements begin on lines of their own, one with an open quote does not swallow the others."""
    got, closed = elements(b'[\n  {"id": 1},\n  {"id": "2},\n  {"id": 3}\n]')
    assert [text for _, text in got] == [b'{"id": 1}', None, b'{"id": 3}']
    assert closed


def test_an_array_that_stops_is_not_closed() -> None:
    """The last element is told as unfinished."""
    got, closed = elements(b'[{"id": 1}, {"id": ')
    assert [text for _, text in got] == [b'{"id": 1}', None]
    assert not closed


@pytest.mark.parametrize("filling", [b'"' + b'\\"x' * 900_000 + b'"', b"[" + b"1," * 900_000 + b"1]"])
def test_an_element_too_large_is_passed_over(filling: bytes) -> None:
    """An element beyond the limit is skipped to its end, in pieces."""
    data = b'[{"id": 1}, {"x": ' + filling + b'}, {"id": 3}]'
    assert len(filling) > MAX_RECORD_BYTES
    assert [text for _, text in elements(data)[0]] == [b'{"id": 1}', None, b'{"id": 3}']


@given(st.text(alphabet='[]{}",\\ \n1a', max_size=60), st.integers(1, 9))
def test_any_soup_ends(text: str, step: int) -> None:
    """No sequence of brackets and quotes hangs or raises."""
    elements(b"[" + text.encode(), step)
