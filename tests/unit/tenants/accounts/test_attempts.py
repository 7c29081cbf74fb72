"""What an attempt costs."""

from hypothesis import given
from hypothesis import strategies as st

from tenants.accounts.attempts import Limit
from tenants.accounts.proof import MAX_BITS

_LIMITS = st.builds(
    lambda free, more: Limit(span_s=60, free=free, most=free + more), st.integers(1, 500), st.integers(0, 100_000)
)


@given(limit=_LIMITS, number=st.integers(1, 200_000), bits=st.one_of(st.just(0), st.integers(16, MAX_BITS)))
def test_what_was_paid_lets_in_as_many_as_its_price_says(limit: Limit, number: int, bits: int) -> None:
    """The number of the last attempt that is let in, and the price of each, are one rule."""
    assert (number <= limit.last(bits)) == (number <= limit.most and limit.price(number) <= bits)


@given(limit=_LIMITS, by=st.integers(1, 10))
def test_a_part_of_a_limit_lets_somebody_in(limit: Limit, by: int) -> None:
    """And not more than the whole."""
    part = limit.divided(by)
    assert 1 <= part.free <= max(1, limit.free)
    assert 1 <= part.most <= max(1, limit.most)
