"""The filter grammar, before SQL."""

import pytest

from tenants.catalog.filters import Condition, Group, InvalidFilter, Not, parse_filter


def test_a_tree_is_parsed() -> None:
    """Groups nest, and eq is an in of one."""
    tree = {"and": [{"eq": ["brand", "a"]}, {"not": {"lt": ["price", 5.5]}}, {"exists": "attributes.colour"}]}
    assert parse_filter(tree) == Group(
        "and",
        (
            Condition("in", "brand", ("a",)),
            Not(Condition("lt", "price", (5.5,))),
            Condition("exists", "attributes.colour", ()),
        ),
    )


@pytest.mark.parametrize(
    ("tree", "pointer", "code"),
    [
        ([], "/filter", "wrong_type"),
        ({"eq": ["brand"]}, "/filter/eq", "wrong_type"),
        ({"is": ["brand", 1]}, "/filter/is", "unknown_operator"),
        ({"eq": ["colour", "x"]}, "/filter/eq/0", "unknown_field"),
        ({"eq": ["attributes.", "x"]}, "/filter/eq/0", "unknown_field"),
        ({"lt": ["brand", "x"]}, "/filter/lt/1", "wrong_type"),
        ({"in": ["price", [1, "2"]]}, "/filter/in/1/1", "wrong_type"),
        ({"eq": ["price", True]}, "/filter/eq/1", "wrong_type"),
        ({"eq": ["hidden", 1]}, "/filter/eq/1", "wrong_type"),
        ({"eq": ["availability", "gone"]}, "/filter/eq/1", "wrong_type"),
        ({"lt": ["expires_at", "2026-01-01"]}, "/filter/lt/1", "wrong_type"),
        ({"eq": ["brand", "a\0"]}, "/filter/eq/1", "wrong_type"),
        ({"in": ["brand", ["a"] * 1001]}, "/filter/in/1", "too_many"),
        ({"or": [{"eq": ["brand", "a"]}] * 101}, "/filter/or", "too_many"),
    ],
)
def test_each_fault_is_named_by_pointer_and_code(tree: object, pointer: str, code: str) -> None:
    """The caller learns where the filter is wrong, and what would be right."""
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(tree)
    assert (pointer, code) in [(fault.pointer, fault.code) for fault in caught.value.errors]


def test_several_faults_are_named_at_once() -> None:
    """Both bad conditions of one filter are reported."""
    with pytest.raises(InvalidFilter) as caught:
        parse_filter({"and": [{"eq": ["x", 1]}, {"lt": ["price", "y"]}]})
    assert len(caught.value.errors) == 2


def test_a_filter_that_nests_without_end_is_refused() -> None:
    """Depth is bounded, so that no request exhausts the stack."""
    tree: dict[str, object] = {"eq": ["brand", "a"]}
    for _ in range(5000):
        tree = {"not": tree}
    with pytest.raises(InvalidFilter):
        parse_filter(tree)
