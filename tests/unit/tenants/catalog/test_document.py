"""The text of an item."""

from hypothesis import given
from hypothesis import strategies as st

from tenants.catalog.document import item_text
from tenants.catalog.item import AttributeValue, Item


def test_the_parts_come_in_the_recipe_order() -> None:
    """Title, brand, category path, attributes, description."""
    item = Item(
        id="1",
        title="Red shoe",
        brand="Acme",
        categories=["Shoes > Running", "Sale"],
        attributes={"material": "mesh", "color": ["red", "white"]},
        description="Light.\nFast.",
        price=1999,
    )
    assert item_text(item) == ("Red shoe. Acme. Shoes > Running; Sale. color: red, white; material: mesh. Light. Fast")


def test_missing_parts_leave_no_trace() -> None:
    """An item with a title alone is its title; one with nothing is the empty text."""
    assert item_text(Item(id="1", title="Mug")) == "Mug"
    assert item_text(Item(id="1")) == ""


def test_codes_numbers_links_and_prose_are_no_attributes() -> None:
    """Only attributes whose value is a few words are kept."""
    attributes: dict[str, AttributeValue] = {
        "sku": "AB-1",
        "weight": 12,
        "new": True,
        "size": "42",
        "manual": "https://example.org/m.pdf",
        "story": "word " * 40,
        "fit": "slim",
    }
    assert item_text(Item(id="1", title="T", attributes=attributes)) == "T. fit: slim"


def test_markup_is_dropped_and_entities_are_read() -> None:
    """HTML descriptions become their words; a comparison is not taken for a tag."""
    text = item_text(Item(id="1", description="<p>Fish &amp; chips</p><br/>2 < 3 and 4 > 3"))
    assert text == "Fish & chips 2 < 3 and 4 > 3"


def test_a_huge_description_is_cut() -> None:
    """A 64 KB text does not reach the tokenizer whole."""
    assert len(item_text(Item(id="1", title="T", description="x " * 32_000))) <= 6_000


words = st.text("aB1 <>&;/\n\x00\u00e9\u0436", max_size=20)
scalars = st.booleans() | st.integers() | words
values = scalars | st.lists(st.integers() | words, max_size=4)


@given(words, st.lists(words, max_size=3), st.dictionaries(words, values, max_size=4), words)
def test_any_item_has_a_text_on_one_line(
    title: str, categories: list[str], attributes: dict[str, AttributeValue], description: str
) -> None:
    """Whatever is stored, the text is one line without NUL and does not depend on the attributes' order."""
    item = Item(id="1", title=title, categories=categories, attributes=attributes, description=description)
    text = item_text(item)
    assert "\n" not in text
    assert "\x00" not in text
    turned = Item(
        id="1",
        title=title,
        categories=categories,
        attributes=dict(reversed(attributes.items())),
        description=description,
    )
    assert item_text(turned) == text
