"""Shoppers' histories as the service folds them in (tenants/learned/history.py)."""

from scipy.sparse import csr_array

from tenants.learned.history import HALF_LIFE_DAYS, ITEMS, REACH_DAYS
from workers.training.behaviour.interactions import DAY, Interactions, Ints, Longs, cap_rows, shopper_items


def served_history(log: Interactions, *, items: Ints, shoppers: Longs, now: int) -> csr_array:
    """float32[shoppers, items] in 0..1: how much each item of a shopper's past counts at `now`, at most ITEMS a row."""
    summed = shopper_items(
        log.take(log.ts > now - REACH_DAYS * DAY),
        items=items,
        shoppers=shoppers,
        now=now,
        half_life_days=HALF_LIFE_DAYS,
    )
    weights = summed.like(summed.weights.data / (1 + summed.weights.data))
    return cap_rows(weights, weights.data, ITEMS)
