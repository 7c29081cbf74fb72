"""Plans batches of texts for an encoder session: by padded size, not by count."""

from collections.abc import Sequence

TOKENS = 1536
"""Padded tokens per run. Measured best between 1,000 and 2,000: larger runs leave the cache, smaller ones
pay the fixed cost of a run more often."""

ROWS = 64
"""Texts per run at most, so that a run of very short texts still ends soon."""


def plan_batches(lengths: Sequence[int], *, tokens: int = TOKENS, rows: int = ROWS) -> list[list[int]]:
    """Indices into `lengths`, grouped so that each group is one run of the session.

    Texts of like length share a run (longest first), so that padding is small: rows x longest <= `tokens`
    for every group of more than one text. Each index occurs exactly once; equal lengths keep their order.
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == rows or (len(batch) + 1) * longest > tokens):
            batches.append(batch)
            batch = []
        if not batch:
            longest = max(1, lengths[index])
        batch.append(index)
    if batch:
        batches.append(batch)
    return batches
