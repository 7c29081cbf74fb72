"""Texts that are longer than the API takes them are cut, told of, and cost no item."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.catalog.item import MAX_ITEM_BYTES, Item
from workers.feeds import build
from workers.feeds.lengths import MAX_CHARACTERS, MAX_VALUES, cut, cut_path

Read = Callable[..., Any]


def _limits(kind: Any) -> Any:
    """The constrained type within a field's type."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _limits(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        (kind,) = (part for part in kind.types if not isinstance(part, msgspec.inspect.NoneType))
        return _limits(kind)
    return kind


def test_the_limits_are_the_apis() -> None:
    """Of texts, of lists and of the texts within them, and of the whole."""
    fields = {field.name: _limits(field.type) for field in msgspec.inspect.type_info(Item).fields}  # type: ignore[attr-defined]
    texts = {name: _limits(getattr(fields[name], "item_type", fields[name])).max_length for name in MAX_CHARACTERS}
    assert texts == dict(MAX_CHARACTERS)
    assert {name: fields[name].max_length for name in MAX_VALUES} == dict(MAX_VALUES)
    assert build.MAX_ITEM_BYTES == MAX_ITEM_BYTES


@pytest.mark.parametrize("name", ["title", "description", "brand"])
def test_a_text_that_is_too_long_is_cut_with_a_warning(read: Read, name: str) -> None:
    """The warning names the line and the column, and the report counts it."""
    limit = MAX_CHARACTERS[name]
    reading = read(json.dumps({"id": "a", name: "x" * (limit + 1)}) + "\n", "ndjson")
    assert reading.item == {"id": "a", name: "x" * limit}
    assert (reading.fault.line, reading.fault.code, reading.fault.pointer) == (1, "too_long", f"/{name}")
    assert reading.fault.severity == "warning"
    assert (reading.report.rejected, reading.report.warnings, reading.report.faults) == (0, 1, {"too_long": 1})


def test_a_text_of_the_very_length_is_left_alone(read: Read) -> None:
    """The limit itself is allowed."""
    reading = read(json.dumps({"id": "a", "title": "я" * MAX_CHARACTERS["title"]}) + "\n", "ndjson")
    assert len(reading.item["title"]) == MAX_CHARACTERS["title"]
    assert reading.faults == []


@pytest.mark.parametrize("name", ["id", "group_id", "seller_id"])
def test_ids_are_never_cut(read: Read, name: str) -> None:
    """Another id is another product: the row is refused, or the field left out."""
    reading = read(json.dumps({"id": "a", "title": "t"} | {name: "x" * 129}) + "\n", "ndjson")
    assert reading.items == ([] if name == "id" else [{"id": "a", "title": "t"}])
    assert reading.codes == ["bad_id"]


def test_long_and_many_categories_and_tags(read: Read) -> None:
    """A path loses its deepest levels, a tag its end, a list its rest; each is told once."""
    deep = " > ".join(["level"] * 100)
    line = {
        "id": "a",
        "categories": [deep, *map(str, range(60))],
        "tags": ["x" * 200, "x" * 201, *map(str, range(120))],
    }
    reading = read(json.dumps(line) + "\n", "ndjson")
    assert len(reading.item["categories"][0]) <= MAX_CHARACTERS["categories"]
    assert deep.startswith(reading.item["categories"][0] + " > ")
    assert len(reading.item["categories"]) == MAX_VALUES["categories"]
    assert reading.item["tags"][:2] == ["x" * 128, "0"]
    assert len(reading.item["tags"]) == MAX_VALUES["tags"]
    assert reading.codes == ["too_long", "too_many_categories", "too_long", "too_many_tags"]


@pytest.mark.parametrize("letter", ["x", "я", "\n.", '"'])
def test_an_item_above_64_kb_loses_the_end_of_its_description(read: Read, letter: str) -> None:
    """Whatever its letters take as bytes of JSON, what is left fits, and is most of what could be left."""
    attributes = {f"a{number}": "y" * 1000 for number in range(30)}
    line = {"id": "a", "title": "t", "description": letter * 40_000, "attributes": attributes}
    reading = read(json.dumps(line) + "\n", "ndjson")
    assert reading.item["attributes"] == attributes
    assert MAX_ITEM_BYTES - 2000 < len(msgspec.json.encode(reading.item)) <= MAX_ITEM_BYTES
    assert "too_long" in reading.codes
    msgspec.convert(reading.item, Item)


@given(st.text(max_size=30), st.integers(1, 30))
def test_a_cut_text_is_a_beginning(text: str, limit: int) -> None:
    """Of the length at most."""
    kept = cut(text, limit)
    assert len(kept) <= limit
    assert text.startswith(kept)


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("cafe\u0301 au lait", 4, "caf"),
        ("cafe\u0301 au lait", 5, "cafe\u0301"),
        ("a \U0001f469\u200d\U0001f467", 3, "a"),
        ("a \U0001f469\u200d\U0001f467", 4, "a"),
        ("one two", 4, "one"),
    ],
)
def test_where_a_text_is_cut(text: str, limit: int, kept: str) -> None:
    """Before a letter whose accent would be lost, and before what is joined to it."""
    assert cut(text, limit) == kept


@pytest.mark.parametrize(
    ("path", "limit", "kept"),
    [("A > B > C", 9, "A > B > C"), ("A > B > C", 8, "A > B"), ("A > B > C", 5, "A > B"), ("Abcdef", 4, "Abcd")],
)
def test_where_a_path_is_cut(path: str, limit: int, kept: str) -> None:
    """Between two levels."""
    assert cut_path(path, limit) == kept
