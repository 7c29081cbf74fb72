"""Whose turn it is."""

from uuid import UUID

import pytest

from infra.db import TenantId
from workers.turns import Turns

pytestmark = pytest.mark.anyio

A, B, C = (TenantId(UUID(int=number)) for number in (1, 2, 3))


async def test_the_least_recently_served_goes_first() -> None:
    """One that comes new goes before all that were served."""
    turns = Turns(rest_s=60)
    turns.served(A)
    turns.served(B)
    assert turns.order([B, A]) == [A, B]
    assert turns.order([B, A, C]) == [C, A, B]
    turns.served(A)
    assert turns.order([A, B]) == [B, A]


async def test_one_with_nothing_to_claim_is_passed_over() -> None:
    """Until its rest is over."""
    turns = Turns(rest_s=60)
    turns.rest(A)
    assert turns.order([A, B]) == [B]
    awake = Turns(rest_s=0)
    awake.rest(A)
    assert awake.order([A, B]) == [A, B]
