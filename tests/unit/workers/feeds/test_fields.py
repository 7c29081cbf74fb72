"""Which of our fields a column means."""

from hypothesis import given
from hypothesis import strategies as st

from workers.feeds.fields import LISTS, PRIVATE, SYNONYMS, add_pair, normalised, plan_columns
from workers.feeds.types import FeedReport


def test_the_best_name_is_taken_and_the_others_are_kept() -> None:
    """Of id and sku the id is the id; the SKU stays as an attribute."""
    report = FeedReport()
    plan = plan_columns(["sku", "id", "title"], report)
    assert plan.columns["id"] == "id"
    assert plan.attributes == [(0, "sku")]
    assert report.columns["sku"].use == "attribute"


def test_columns_of_one_list_are_ordered_by_name() -> None:
    """The main image comes before the others, whatever the order of columns."""
    plan = plan_columns(["id", "additional_image_link", "image_link", "Image 2", "Image 1"], FeedReport())
    assert [index for index, field in plan.lists if field == "images"] == [3, 4, 2, 1]


def test_a_prefix_names_an_attribute() -> None:
    """attributes.colour, attr:colour and param[colour] mean colour."""
    plan = plan_columns(["id", "attributes.colour", "attr:size", "param[fit]"], FeedReport())
    assert [name for _, name in plan.attributes] == ["colour", "size", "fit"]


def test_a_second_column_of_one_name_is_dropped() -> None:
    """Nobody knows which of the two is meant."""
    report = FeedReport()
    plan = plan_columns(["id", "title", "Title"], report)
    assert plan.scalars == [(0, "id"), (1, "title")]
    assert report.columns["Title"].reason == "another column has the same name"


def test_every_synonym_is_in_its_compared_form() -> None:
    """A synonym with a capital or an underscore would never be found."""
    names = [name for table in (SYNONYMS, LISTS) for group in table.values() for name in group] + sorted(PRIVATE)
    assert [name for name in names if normalised(name) != name] == []


def test_no_synonym_means_two_fields() -> None:
    """The order of a table must not decide what a column means."""
    names = [name for table in (SYNONYMS, LISTS) for group in table.values() for name in group]
    assert sorted(set(names)) == sorted(names)


def test_a_pair_that_occurs_again_makes_a_list() -> None:
    """Two values of one name are both kept, the same value once."""
    attributes: dict[str, object] = {}
    for name, value in [("a", "1"), ("a", "2"), ("a", "3"), ("b", "x"), ("b", "x"), ("", "y"), ("c", "")]:
        add_pair(attributes, name, value)
    assert attributes == {"a": ["1", "2", "3"], "b": "x"}


@given(st.lists(st.text(max_size=12), max_size=8))
def test_every_column_is_accounted_for(names: list[str]) -> None:
    """Whatever the header, the report has each column once, and no column is used twice."""
    report = FeedReport()
    plan = plan_columns(names, report)
    assert set(report.columns) == set(names)
    used = [index for index, _ in plan.scalars + plan.lists + plan.attributes + plan.prices]
    used += plan.containers + [index for pair in plan.pairs for index in pair]
    assert len(used) == len(set(used))
