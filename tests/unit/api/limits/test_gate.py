"""What calls cost, and how the limits are told."""

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import get, post

from api.app import ROUTES
from api.contract import contract
from api.edge import MAX_BODY
from api.limits.cost import Cost, costs_of
from api.limits.gate import Standing, key_rate, too_many
from billing.plans import FREE, PLANS, UNLIMITED
from infra.db import TenantId
from tenants.limits.gcra import Bucket, Rate
from tenants.limits.leases import Refusal


def test_a_call_costs_one_and_more_by_its_body() -> None:
    """Of a body whose length is not said, as much as the largest; never more than that."""
    cost = Cost(body_bytes=100)
    assert [cost.of(length, 1_000) for length in (0, 99, 100, 999, 10**30, None)] == [1, 1, 2, 10, 11, 11]
    assert Cost().of(10**9, 1_000) == 1


def test_the_costs_of_the_routes() -> None:
    """Of those that are known before a call is routed."""
    costs = costs_of(ROUTES, MAX_BODY)
    assert {key: cost.of(None, limit) for key, (cost, limit) in costs.items()} == {
        ("POST", "/v1/items/bulk"): 101,
        ("POST", "/v1/events"): 101,
    }


def test_a_cost_by_the_body_needs_a_whole_path() -> None:
    """Else the edge could not look it up."""

    @post("/x/{name:str}", opt=contract(scope="public", tag="t", summary="s", cost=Cost(body_bytes=1)))
    async def parts(name: str) -> None: ...

    @post("/y", opt=contract(scope="public", tag="t", summary="s", max_body=None, cost=Cost(body_bytes=1)))
    async def endless() -> None: ...

    @get("/z", opt=contract(scope="public", tag="t", summary="s"))
    async def plain() -> None: ...

    for route in (parts, endless):
        with pytest.raises(TypeError, match="whole path"):
            costs_of([route], 10)
    assert costs_of([plain], 10) == {}


@given(now=st.floats(0, 1e7), used=st.lists(st.integers(1, 700), max_size=3))
def test_the_fields_say_no_more_than_would_pass(now: float, used: list[int]) -> None:
    """And when all of it is free again."""
    buckets = [Bucket((TenantId(UUID(int=7)), rate.name), rate) for rate in FREE.rates]
    for cost in used:
        for bucket in buckets:
            bucket.spend(now, cost)
    told = dict(Standing(FREE, None, buckets).fields(now))
    assert told[b"ratelimit-policy"] == b'"burst";q=25;w=1, "sustained";q=600;w=60'
    for bucket, field in zip(buckets, told[b"ratelimit"].split(b", "), strict=True):
        name, left, reset = field.split(b";")
        assert name == f'"{bucket.rate.name}"'.encode()
        assert int(left[2:]) == bucket.left(now)[0]
        assert not bucket.late(now + int(reset[2:]), bucket.rate.burst)


def test_without_limits_the_fields_are_there() -> None:
    """A client needs no special case."""
    assert dict(Standing(UNLIMITED, None, ()).fields(0.0))[b"ratelimit"] == b'"unlimited";r=999999999;t=0'


def test_a_refusal_says_how_long() -> None:
    """In whole seconds, one at least."""
    rate = Rate(name="key", quota=60, window_s=60, burst=2)
    assert [too_many(Refusal(rate, seconds, 0.0)).retry_s for seconds in (0.01, 1.0, 1.01, 59.5)] == [1, 1, 2, 60]


@pytest.mark.parametrize(("per_min", "burst"), [(1, 1), (59, 1), (60, 2), (600, 20), (10_000_000, 333_333)])
def test_the_rate_of_a_key(per_min: int, burst: int) -> None:
    """Two seconds of it at once, and one call at least."""
    assert key_rate(per_min) == Rate(name="key", quota=per_min, window_s=60, burst=burst)


def test_every_plan_has_more_than_the_one_before() -> None:
    """Of every rate and meter."""
    plans = list(PLANS.values())
    for smaller, larger in pairwise(plans):
        for one, other in zip(smaller.rates, larger.rates, strict=True):
            assert (one.name, one.window_s) == (other.name, other.window_s)
            assert one.quota < other.quota
            assert one.burst < other.burst
        for meter, quota in larger.quotas.items():
            assert smaller.quotas[meter].limit < quota.limit
        assert smaller.features <= larger.features
