"""JSON feeds."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Read = Callable[..., Any]

PHOTOS = st.integers(0, 99).map("https://cdn.example/{}.jpg".format)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"id": st.from_regex(r"[a-zA-Z0-9_:/.-]{1,128}", fullmatch=True)},
        optional={
            "group_id": st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True),
            "title": st.from_regex(r"[a-zäя日]{1,12}( [a-z]{1,5})?", fullmatch=True),
            "url": st.just("https://shop.example/p?a=1&b=2"),
            "seller_id": st.from_regex(r"[a-z]{1,9}", fullmatch=True),
            "price": st.integers(0, 10**12),
            "currency": st.sampled_from(["EUR", "JPY", "KWD"]),
            "availability": st.sampled_from(["in_stock", "out_of_stock", "preorder", "backorder"]),
            "gtin": st.just("4006381333931"),
            "language": st.sampled_from(["en", "pt-BR"]),
            "hidden": st.booleans(),
            "available_from": st.just("2026-01-01T00:00:00Z"),
            "categories": st.lists(st.sampled_from(["A > B", "C", "A & B > C"]), min_size=1, unique=True),
            "tags": st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, unique=True),
            "images": st.lists(PHOTOS, min_size=1, max_size=10, unique=True),
            "attributes": st.dictionaries(
                st.from_regex(r"[a-z]{1,9}", fullmatch=True),
                st.booleans() | st.integers(-(2**50), 2**50) | st.floats(-1e9, 1e9) | st.just("text")
                | st.lists(st.just("a") | st.integers(0, 9), min_size=1),
                min_size=1,
            ),
        },
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(ITEMS, st.booleans())
def test_the_apis_own_items_read_back(read: Read, items: list[dict[str, Any]], as_array: bool) -> None:
    """Items in the API's form, one per line or as an array, are the same items when read."""
    text = json.dumps(items, indent=1) if as_array else "".join(json.dumps(item) + "\n" for item in items)
    reading = read(text, "ndjson", currency="EUR")
    expected = [{"currency": "EUR", **item} if "price" in item else item for item in items]
    assert reading.faults == []
    assert reading.items == expected


def test_a_catalogue_of_decimals_and_local_photos(read: Read) -> None:
    """Decimal prices, A/B categories, photo names and unknown columns of a plain export are taken."""
    line = {
        "id": 7,
        "title": "Joust Duffle Bag",
        "price": 34.0,
        "special_price": 24.5,
        "categories": ["Gear/Bags"],
        "images": ["images/b.jpg"],
        "image": "images/a.jpg",
        "type": "simple",
        "members": ["a", "b"],
        "attributes": {"material": ["Nylon"]},
    }
    (row,) = read(json.dumps(line)).rows
    assert row.local_images == ["images/a.jpg", "images/b.jpg"]
    assert row.item == {
        "id": "7",
        "title": "Joust Duffle Bag",
        "categories": ["Gear > Bags"],
        "price": 3400,
        "currency": "USD",
        "sale_price": 2450,
        "attributes": {"type": "simple", "members": ["a", "b"], "material": ["Nylon"]},
    }


def test_whole_numbers_among_decimals_are_major_units(read: Read) -> None:
    """JavaScript writes 34.00 as 34; where the feed's beginning has decimals, 34 is no 34 cents."""
    reading = read('{"id":1,"price":19.99}\n{"id":2,"price":34}\n')
    assert [item["price"] for item in reading.items] == [1999, 3400]


def test_whole_numbers_alone_are_minor_units(read: Read) -> None:
    """The API's own form is taken as it is."""
    assert read('{"id":1,"price":1999}\n').item["price"] == 1999


def test_a_price_as_text_is_in_major_units(read: Read) -> None:
    """Text is what people write: 34 is thirty-four."""
    assert read('{"id":1,"price":"34"}\n').item["price"] == 3400


def test_prices_by_currency_in_an_object(read: Read) -> None:
    """Of a table of prices the tenant's currency is read, else the first."""
    line = '{"id":1,"prices":{"PLN":40.0,"USD":10.0}}'
    assert read(line, currency="USD").item["price"] == 1000
    assert read(line, currency="EUR").item["currency"] == "PLN"


def test_columns_of_objects_are_dropped_once(read: Read) -> None:
    """What no attribute can hold is told at its first row, and in the report."""
    reading = read('{"id":1,"translations":{"de":{"title":"x"}}}\n{"id":2,"translations":{"de":{"title":"y"}}}\n')
    assert reading.ids == ["1", "2"]
    assert reading.codes == ["dropped_column"]
    assert reading.report.columns["translations"].use == "dropped"


def test_an_object_of_values_is_spread_out(read: Read) -> None:
    """One level of names is kept as attributes with a point."""
    item = read('{"id":1,"size":{"w":2,"h":3},"options":{"Color":"Red"}}').item
    assert item["attributes"] == {"size.w": 2, "size.h": 3, "Color": "Red"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"id": 1,,}', "malformed_json"),
        ("[1, 2]", "not_an_object"),
        ('"id"', "not_an_object"),
        ('{"id": "a\\u0000"}', "nul_byte"),
        ('{"id": "a", "tags": ["x\\u0000y"]}', "nul_byte"),
        ("{" * 100_000, "malformed_json"),
        ('{"id": "a\\ud800"}', "malformed_json"),
        ('{"id": {}}', "bad_id"),
        ('{"title": "no id"}', "missing_id"),
        ('{"id": "1", "price": "x"}', "bad_price"),
        ('{"id": "1", "price": [1]}', "bad_price"),
        ('{"id": "1", "price": true}', "bad_price"),
        ('{"id": "1", "hidden": "maybe"}', "bad_boolean"),
        ('{"id": "1", "availability": "perhaps"}', "bad_availability"),
        ('{"id": "1", "x": "' + "a" * 2_000_000 + '"}', "line_too_long"),
    ],
)
def test_a_bad_line_costs_itself_only(read: Read, line: str, code: str) -> None:
    """Every kind of bad line is one error with its number; the lines around it are items."""
    reading = read('{"id": "before"}\n' + line + '\n{"id": "after"}\n', "ndjson")
    assert reading.ids == ["before", "after"]
    assert (reading.fault.code, reading.fault.line, reading.fault.severity) == (code, 2, "error")


def test_bad_utf_8_costs_its_line(read: Read) -> None:
    """JSON is UTF-8; a line that is not is an error."""
    reading = read(b'{"id": "1"}\n{"id": "\xff"}\n{"id": "3"}\n')
    assert reading.ids == ["1", "3"]
    assert reading.codes == ["bad_encoding"]


def test_a_feed_that_stops_half_way_is_told_once(read: Read) -> None:
    """The whole lines are items, the cut one is truncated."""
    reading = read('{"id": "1"}\n{"id": "2"}\n{"id": "3", "ti')
    assert reading.ids == ["1", "2"]
    assert reading.codes == ["truncated"]


def test_an_array_that_stops_half_way_is_told(read: Read) -> None:
    """The whole elements are items."""
    reading = read('[{"id": "1"},\n{"id": "2"},\n{"id": "3", "ti')
    assert reading.ids == ["1", "2"]
    assert "truncated" in reading.codes


def test_a_bad_element_costs_itself_only(read: Read) -> None:
    """An array's elements are as independent as lines."""
    reading = read('[{"id": "1"}, {"id": 2,,}, 5, {"id": "3"}]')
    assert reading.ids == ["1", "3"]
    assert reading.codes == ["malformed_json", "not_an_object"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("text", ['{"id":"ж"}\n{"id":"2"}', '[{"id":"ж"},{"id":"2"}]'])
def test_marks_and_wide_letters_are_read(read: Read, encoding: str, text: str) -> None:
    """A byte order mark or UTF-16 is no obstacle."""
    assert read(text.encode(encoding)).ids == ["ж", "2"]


def test_a_list_wrapped_in_an_object(read: Read) -> None:
    """An export of the form {"products": […]} is read as its list."""
    assert read('{\n "products": [\n  {"id": 1},\n  {"id": 2}\n ],\n "total": 2}').ids == ["1", "2"]


def test_attributes_are_cleaned(read: Read) -> None:
    """Nulls and empty values are absent; names with control characters are left out with a warning."""
    reading = read(
        json.dumps({"id": 1, "attributes": {"a": None, "b": "", "c\n\x01": "x", "d": [1, "y", None], "e": True}})
    )
    assert reading.item["attributes"] == {"d": [1, "y"], "e": True}
    assert reading.codes == ["bad_attribute"]


def test_the_201st_attribute_is_left_out(read: Read) -> None:
    """An item keeps 200 attributes, and a warning tells of the rest."""
    reading = read(json.dumps({"id": 1, "attributes": {f"a{n}": n for n in range(201)}}))
    assert len(reading.item["attributes"]) == 200
    assert reading.codes == ["too_many_attributes"]
