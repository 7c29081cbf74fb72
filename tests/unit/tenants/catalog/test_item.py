"""Items: limits, text and hashes."""

import pytest

from infra.decode import InvalidFields, MalformedJson, decode_json
from tenants.catalog.document import text_hash
from tenants.catalog.item import (
    Item,
    category_ancestors,
    check_items,
    document,
    image_hash,
    too_large_or_unstorable,
)


def test_every_bad_field_is_named_not_only_the_first() -> None:
    """Unknown, missing, mistyped and out-of-range fields are all reported, each by its pointer."""
    body = b'{"price": -1, "colour": "x", "images": ["ftp://a"], "attributes": {"a": {"b": 1}}, "hidden": 1}'
    with pytest.raises(InvalidFields) as caught:
        decode_json(body, Item)
    assert {(fault.pointer, fault.code) for fault in caught.value.errors} == {
        ("/id", "missing_field"),
        ("/colour", "unknown_field"),
        ("/price", "out_of_range"),
        ("/images/0", "invalid_value"),
        ("/attributes/a", "wrong_type"),
        ("/hidden", "wrong_type"),
    }


@pytest.mark.parametrize("body", [b"{", b'{"id": "a\xff"}', b'{"id": "\\ud800"}', b"", b"nul"])
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """Syntax and encoding faults are not field faults."""
    with pytest.raises(MalformedJson):
        decode_json(body, Item)


@pytest.mark.parametrize("bad", ["", "a\nb", "a\x00", "a\x7f", "a\u0085", "x" * 129])
def test_an_id_has_1_to_128_characters_and_no_control_character(bad: str) -> None:
    """Ids that would break logs, URLs or the store are refused."""
    items, faults = check_items([{"id": bad}])
    assert items == [None]
    assert [fault.pointer for fault in faults] == ["/id"]


def test_one_bad_row_never_loses_the_good_ones() -> None:
    """Rows are judged one by one, and a fault says which row it is of."""
    items, faults = check_items([{"id": "a"}, {"id": 1}, "text", {"id": "d"}])
    assert [item and item.id for item in items] == ["a", None, None, "d"]
    assert {fault.index for fault in faults} == {1, 2}


def test_limits_of_photos_attributes_and_size() -> None:
    """11 photos, 201 attributes and 65 KB are refused."""
    photos = [f"https://example.com/{number}.jpg" for number in range(11)]
    attributes = {f"a{number}": 1 for number in range(201)}
    items, faults = check_items([{"id": "a", "images": photos}, {"id": "b", "attributes": attributes}])
    assert items == [None, None]
    assert [fault.pointer for fault in faults] == ["/images", "/attributes"]
    large = Item(id="a", attributes={f"a{number}": "x" * 500 for number in range(150)})
    fault = too_large_or_unstorable(large, document(large))
    assert fault is not None
    assert fault.code == "item_too_large"


def test_a_nul_character_anywhere_is_refused() -> None:
    """PostgreSQL stores no NUL; the text backslash-u-0000 is none."""
    bad = Item(id="a", attributes={"x": ["fine", "no\0t"]})
    fault = too_large_or_unstorable(bad, document(bad))
    assert fault is not None
    assert fault.code == "nul_character"
    fine = Item(id="a", title="the text \\u0000")
    assert too_large_or_unstorable(fine, document(fine)) is None


def test_hashes_tell_absence_from_content() -> None:
    """Nothing hashes to zeros, so the writer knows an absent modality without looking."""
    assert text_hash(Item(id="a", price=5)) == image_hash(Item(id="a")) == bytes(16)
    assert text_hash(Item(id="a", title="x")) != text_hash(Item(id="a", title="y")) != bytes(16)


def test_a_category_is_found_by_its_ancestors() -> None:
    """Paths unfold, and untidy spaces do not matter."""
    assert category_ancestors("Home >Lamps>  Desk") == ["Home", "Home > Lamps", "Home > Lamps > Desk"]
