"""Batches are planned by padded size."""

from hypothesis import given
from hypothesis import strategies as st

from workers.encoders.batcher import plan_batches

lengths_of_texts = st.lists(st.integers(0, 300), max_size=200)


@given(lengths_of_texts, st.integers(1, 2000), st.integers(1, 64))
def test_each_text_is_planned_once(lengths: list[int], tokens: int, rows: int) -> None:
    """Every index occurs in exactly one batch."""
    planned = [i for batch in plan_batches(lengths, tokens=tokens, rows=rows) for i in batch]
    assert sorted(planned) == list(range(len(lengths)))


@given(lengths_of_texts, st.integers(1, 2000), st.integers(1, 64))
def test_no_batch_is_larger_than_allowed(lengths: list[int], tokens: int, rows: int) -> None:
    """Padded tokens and rows stay within the budget, save a single text that is itself too long."""
    for batch in plan_batches(lengths, tokens=tokens, rows=rows):
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


@given(lengths_of_texts)
def test_like_lengths_share_a_batch(lengths: list[int]) -> None:
    """Batches come in order of length, so that padding is the least."""
    order = [lengths[i] for batch in plan_batches(lengths) for i in batch]
    assert order == sorted(lengths, reverse=True)
