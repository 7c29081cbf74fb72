"""Whom a caller may speak for, and that what a token keeps out is part of what a kept list is known by."""

from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import structs

from api.auth import Caller, ShopperRefused, UserIdRefused
from api.recommend.asked import Asked, key_of, logged, own_key_of
from api.recommend.speaking import narrow, speak_for
from api.recommend.types import Query
from infra.db import TenantId
from infra.decode import InvalidFields
from tenants.visitor_tokens import Visitor
from tests.unit.api.recommend.test_plan import _tenant

_encode = msgspec.json.Encoder(order="deterministic").encode
_LEAVES = st.builds(
    lambda op, field, value: {op: [field, value]},
    st.sampled_from(["eq", "lt", "gte"]),
    st.sampled_from(["price", "sale_price"]),
    st.integers(0, 3),
) | st.sampled_from(["brand", "gtin"]).map(lambda field: {"exists": field})
FILTERS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=2).flatmap(lambda parts: st.sampled_from([{"and": parts}, {"or": parts}])),
    max_leaves=4,
)


def _caller(kind: int = 1, name: str = "u", filter_: dict[str, Any] | None = None, *, token: bool = True) -> Caller:
    return Caller(
        tenant_id=TenantId(UUID(int=1)),
        key_id="k",
        kind="publishable",
        scopes=frozenset({"recommend"}),
        placements=None,
        rate_per_min=None,
        visitor=Visitor(kind=kind, id=name, placements=None, filter=filter_) if token else None,
    )


def _key(caller: Caller, query: Query, *, own: bool) -> bytes:
    query = structs.replace(speak_for(caller, query), filter=narrow(caller, query.filter))
    asked = Asked(query=query)
    return (own_key_of if own else key_of)(_tenant(), asked, logged(query))[2]


@given(FILTERS, FILTERS, st.none() | FILTERS, st.booleans())
def test_two_tokens_with_other_filters_never_share_a_list(
    one: dict[str, Any], two: dict[str, Any], own: dict[str, Any] | None, personal: bool
) -> None:
    """Whatever the request itself filters by: a kept list of one token is never found by the other."""
    assume(_encode(one) != _encode(two))
    query = Query(strategy="new", filter=own)
    keys = [_key(_caller(filter_=each), query, own=personal) for each in (one, two)]
    assert keys[0] != keys[1]


@given(FILTERS, st.none() | FILTERS)
def test_what_a_list_is_known_by_holds_the_tokens_filter(token: dict[str, Any], own: dict[str, Any] | None) -> None:
    """As what every item must pass, alone or beside the request's own."""
    known = msgspec.json.decode(_key(_caller(filter_=token), Query(strategy="new", filter=own), own=False))["filter"]
    assert known == (token if own is None else {"and": [token, own]})


@given(st.sampled_from([0, 1]), st.text("uv", min_size=1, max_size=3), st.text("uv", min_size=1, max_size=3))
def test_two_shoppers_never_share_a_list_of_their_own(kind: int, one: str, two: str) -> None:
    """By their names and kinds."""
    keys = {_key(_caller(each_kind, name), Query(), own=True) for each_kind in (0, 1) for name in (one, two)}
    assert len(keys) == 2 * len({one, two})


@given(
    st.sampled_from([0, 1]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([None, "a", "b"]),
)
def test_a_token_speaks_for_its_shopper_alone(kind: int, name: str, user: str | None, visitor: str | None) -> None:
    """Named by the request or not; any other name is refused, of whichever kind."""
    said = (name, None) if kind else (None, name)
    query = Query(user_id=user, visitor_id=visitor)
    if user in (None, said[0]) and visitor in (None, said[1]):
        spoken = speak_for(_caller(kind, name), query)
        assert (spoken.user_id, spoken.visitor_id) == said
    else:
        with pytest.raises(ShopperRefused):
            speak_for(_caller(kind, name), query)


def test_without_a_token_a_publishable_key_names_random_visitors_alone() -> None:
    """A name that can be guessed, or a user, is nobody's to say."""
    caller = _caller(token=False)
    assert speak_for(caller, Query(visitor_id="0" * 32)).visitor_id == "0" * 32
    with pytest.raises(UserIdRefused):
        speak_for(caller, Query(user_id="u"))
    with pytest.raises(InvalidFields):
        speak_for(caller, Query(visitor_id="short"))
