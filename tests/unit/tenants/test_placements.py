"""Placements: what they fill in, and what a request may not set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.decode import InvalidFields
from tenants.placements import REQUESTS_OWN, Placement, PlacementSource, apply, source_faults

_NAMES = st.sampled_from(["count", "filter", "strategy", "fields", "diversity", "user_id", "item_ids", "cursor"])
_FIELDS = st.dictionaries(_NAMES, st.integers(0, 3))


def test_a_default_fills_in_what_the_request_leaves_out() -> None:
    """The request's own word stands."""
    placement = Placement(defaults={"count": 12, "filter": {"exists": "brand"}})
    assert apply(placement, {"count": 3}) == {"count": 3, "filter": {"exists": "brand"}}


def test_a_refused_override_is_named() -> None:
    """Every one of them, each by its pointer."""
    placement = Placement(defaults={"count": 12}, override=["filter"])
    with pytest.raises(InvalidFields) as error:
        apply(placement, {"count": 3, "fields": ["title"], "filter": {}, "user_id": "u"})
    assert [fault.pointer for fault in error.value.errors] == ["/count", "/fields"]


def test_saying_the_same_is_no_override() -> None:
    """A client that repeats the default is not punished."""
    placement = Placement(defaults={"count": 12}, override=[])
    assert apply(placement, {"count": 12}) == {"count": 12}


@given(defaults=_FIELDS, sent=_FIELDS, override=st.none() | st.lists(_NAMES))
def test_what_is_refused_is_exactly_what_may_not_be_set(
    defaults: dict[str, int], sent: dict[str, int], override: list[str] | None
) -> None:
    """Either every field of the request is kept as it is, or each forbidden one is named."""
    placement = Placement(defaults=defaults, override=override)
    forbidden = {
        name
        for name, value in sent.items()
        if override is not None
        and name not in override
        and name not in REQUESTS_OWN
        and defaults.get(name, object()) != value
    }
    if not forbidden:
        assert apply(placement, sent) == {**defaults, **sent}
        return
    with pytest.raises(InvalidFields) as error:
        apply(placement, sent)
    assert {fault.pointer.removeprefix("/") for fault in error.value.errors} == forbidden


def test_weights_that_sum_to_nothing_are_refused() -> None:
    """Nothing could be blended."""
    zero = [PlacementSource(strategy="popular", weight=0), PlacementSource(strategy="new", weight=0)]
    assert [fault.pointer for fault in source_faults(Placement(sources=zero))] == ["/sources"]


@pytest.mark.parametrize(
    ("source", "pointer"),
    [
        (PlacementSource(strategy="graph", fields={"brand": 1}), "/sources/0/fields"),
        (PlacementSource(strategy="attributes", fields={"colour": 1, "brand": 1}), "/sources/0/fields/colour"),
        (
            PlacementSource(strategy="attributes", fields={"attributes.": 1, "brand": 1}),
            "/sources/0/fields/attributes.",
        ),
        (PlacementSource(strategy="attributes", fields={"brand": 0, "tags": 0}), "/sources/0/fields"),
        (PlacementSource(strategy="attributes", fields={"price": 1}), "/sources/0/fields"),
    ],
)
def test_fields_that_cannot_be_compared_are_named(source: PlacementSource, pointer: str) -> None:
    """Of another source, unknown, or weighing nothing together."""
    assert [fault.pointer for fault in source_faults(Placement(sources=[source]))] == [pointer]


def test_a_source_is_named_once() -> None:
    """Two weights of one source would contradict each other."""
    twice = [PlacementSource(strategy="popular"), PlacementSource(strategy="popular")]
    assert [fault.pointer for fault in source_faults(Placement(sources=twice))] == ["/sources/1/strategy"]


def test_two_models_of_a_source_are_two_sources() -> None:
    """What learns nothing has no model."""
    two = [PlacementSource(strategy="graph"), PlacementSource(strategy="graph", model="3")]
    assert source_faults(Placement(sources=two)) == []
    none = [PlacementSource(strategy="popular", model="3")]
    assert [fault.pointer for fault in source_faults(Placement(sources=none))] == ["/sources/0/model"]
