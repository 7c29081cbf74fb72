"""Groups and caps of a list."""

from hypothesis import given
from hypothesis import strategies as st

from api.recommend.diversify import diversify
from api.recommend.types import Candidate
from tenants.retrieval.wanted import Hit


def _candidate(number: int, group: str | None, *capped: str | None) -> Candidate:
    hit = Hit(number, str(number), group, 1.0, None, None, None, None, capped, None, None)
    return Candidate(hit=hit, source="similar")


def test_a_cap_lets_the_next_best_through() -> None:
    """With two of a brand, the third gives way to another brand; items without a brand are not capped."""
    brands = ["a", "a", "a", "b", None, None, None]
    candidates = [_candidate(number, None, brand) for number, brand in enumerate(brands)]
    taken = diversify(candidates, count=5, max_per={"brand": 2})
    assert [candidate.hit.item_no for candidate in taken] == [0, 1, 3, 4, 5]


@given(
    st.lists(st.tuples(st.none() | st.sampled_from("gh"), st.none() | st.sampled_from("abc"))),
    st.integers(1, 10),
    st.integers(1, 3),
)
def test_the_list_is_the_greedy_one(rows: list[tuple[str | None, str | None]], count: int, cap: int) -> None:
    """No group twice, no brand over its cap, no longer than asked, and nothing that fits is left out."""
    candidates = [_candidate(number, group, brand) for number, (group, brand) in enumerate(rows)]
    taken = diversify(candidates, count=count, max_per={"brand": cap})
    groups = [candidate.hit.group_id for candidate in taken if candidate.hit.group_id]
    brands = [candidate.hit.capped[0] for candidate in taken if candidate.hit.capped[0]]
    assert len(groups) == len(set(groups))
    assert all(brands.count(brand) <= cap for brand in brands)
    assert len(taken) <= count
    if len(taken) < count:
        left = [candidate for candidate in candidates if candidate not in taken]
        assert all(
            candidate.hit.group_id in groups or brands.count(candidate.hit.capped[0]) == cap for candidate in left
        )
