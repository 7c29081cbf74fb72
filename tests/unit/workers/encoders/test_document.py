"""The text of an item."""

import json

from hypothesis import given
from hypothesis import strategies as st

from workers.encoders.document import item_text


def test_the_parts_come_in_the_recipe_order() -> None:
    """Title, brand, category path, attributes, description."""
    item = {
        "id": "1",
        "title": "Red shoe",
        "brand": "Acme",
        "categories": ["Shoes > Running", "Sale"],
        "attributes": {"material": "mesh", "color": ["red", "white"]},
        "description": "Light.\nFast.",
        "price": 1999,
    }
    assert item_text(item) == (
        "Red shoe. Acme. Shoes > Running; Sale. color: red, white; material: mesh. Light. Fast"
    )


def test_missing_parts_leave_no_trace() -> None:
    """An item with a title alone is its title; one with nothing is the empty text."""
    assert item_text({"title": "Mug", "brand": None, "categories": []}) == "Mug"
    assert item_text({"id": "1"}) == ""


def test_codes_numbers_links_and_prose_are_no_attributes() -> None:
    """Only attributes whose value is a few words are kept."""
    attributes = {
        "sku": "AB-1",
        "weight": 12,
        "new": True,
        "size": "42",
        "manual": "https://example.org/m.pdf",
        "story": "word " * 40,
        "fit": "slim",
    }
    assert item_text({"title": "T", "attributes": attributes}) == "T. fit: slim"


def test_markup_is_dropped_and_entities_are_read() -> None:
    """HTML descriptions become their words; a comparison is not taken for a tag."""
    text = item_text({"description": "<p>Fish &amp; chips</p><br/>2 < 3 and 4 > 3"})
    assert text == "Fish & chips 2 < 3 and 4 > 3"


def test_a_huge_description_is_cut() -> None:
    """A 64 KB text does not reach the tokenizer whole."""
    assert len(item_text({"title": "T", "description": "x " * 32_000})) <= 6_000


words = st.text("aB1 <>&;/\n\x00\u00e9\u0436", max_size=20)
scalars = st.none() | st.booleans() | st.integers() | words
values = scalars | st.lists(scalars, max_size=4) | st.dictionaries(words, scalars, max_size=4)
items = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("title", "brand", "categories", "attributes", "description"), values),
)


@given(items)
def test_any_item_has_a_text_on_one_line(item: dict[str, object]) -> None:
    """Whatever JSON is stored, the text is one line without NUL and does not depend on the keys' order."""
    text = item_text(item)
    assert "\n" not in text
    assert "\x00" not in text
    turned = json.loads(json.dumps(item, sort_keys=True))
    assert item_text(turned) == text
