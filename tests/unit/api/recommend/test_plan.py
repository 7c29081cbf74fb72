"""What a request and a tenant's state make of a strategy."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from api.recommend.plan import plan, plan_rerank
from api.recommend.types import Plan, Query, RerankQuery
from infra.db import TenantId
from infra.secret import Secret
from tenants.lifecycle import Generation, SpaceRef, TenantRef
from tenants.placements import PlacementSource

_SPACE = SpaceRef(space_id=1, name="s", dim=8, mean=0.0, dev=1.0)


def _tenant(**generation: Any) -> TenantRef:
    return TenantRef(
        tenant_id=TenantId(UUID(int=1)),
        name="x",
        shard=0,
        currency="EUR",
        generation=Generation(
            gen=1,
            layout_id=1,
            text=_SPACE,
            ngrams=_SPACE,
            image=_SPACE,
            text_weight=0.5,
            image_weight=0.5,
            **generation,
        ),
    )


def _plan(query: dict[str, Any], sources: list[PlacementSource] | None = None, **generation: Any) -> Plan:
    now = datetime(2026, 1, 15, tzinfo=UTC)
    return plan(
        msgspec.convert(query, Query),
        _tenant(**generation),
        now=now,
        secret=Secret(current=b"s" * 32),
        sources=sources or [],
    )


def _weights(planned: Plan) -> dict[str, float]:
    return {chosen.name: round(chosen.weight, 9) for chosen in planned.asked.sources}


def test_nobody_known_gets_what_is_popular() -> None:
    """No shopper, no session, no item: nothing personal is tried."""
    assert _weights(_plan({})) == {"popular": 1.0}


def test_without_a_model_content_serves() -> None:
    """The default before anything is learned."""
    names = _weights(_plan({"session": {"recent_items": ["a"]}}))
    assert set(names) == {"similar", "popular"}


def test_the_fitted_blend_serves() -> None:
    """Of the sources that there are, those with a weight; others are left out."""
    blend = {"graph": 3.0, "popular": 1.0, "similar": 0.0, "unheard_of": 5.0}
    planned = _plan({"user_id": "ann"}, behaviour_model=1, blend=blend)
    assert _weights(planned) == {"graph": 0.75, "popular": 0.25}


def test_the_dial_turns_content_and_behaviour() -> None:
    """`text` + `image` is what all content weighs, `behaviour` all behaviour; popularity stays."""
    blend = {"graph": 2.0, "item_cf": 2.0, "similar": 3.0, "popular": 1.0}
    body = {"user_id": "ann", "weights": {"text": 1.0, "image": 1.0, "behaviour": 4.0}}
    planned = _plan(body, behaviour_model=1, blend=blend)
    assert _weights(planned) == {"graph": 2.0, "item_cf": 2.0, "similar": 2.0, "popular": 0.125}
    off = _plan({"user_id": "ann", "weights": {"behaviour": 0.0}}, behaviour_model=1, blend=blend)
    assert set(_weights(off)) == {"similar", "popular"}


def test_a_source_reads_the_model_that_it_names() -> None:
    """Side by side with the one that serves, which needs no name; `for_you` takes the blend of its model."""
    tenant = msgspec.structs.replace(
        _tenant(behaviour_model=2, blend={"graph": 1.0}), models={1: {"als": 3.0, "popular": 1.0}, 2: {"graph": 1.0}}
    )
    sources = [
        PlacementSource(strategy="for_you"),
        PlacementSource(strategy="for_you", model="1"),
        PlacementSource(strategy="graph", model="2"),
    ]
    now = datetime(2026, 1, 15, tzinfo=UTC)
    planned = plan(Query(user_id="ann"), tenant, now=now, secret=Secret(current=b"s" * 32), sources=sources)
    assert {chosen.label: chosen.weight for chosen in planned.asked.sources} == {
        "graph": 2.0,
        "als@1": 0.75,
        "popular": 0.25,
    }
    assert not planned.degraded


@pytest.mark.parametrize("others", [[], [PlacementSource(strategy="new")]])
def test_a_source_whose_model_is_gone_is_left_out(others: list[PlacementSource]) -> None:
    """A warning names it, and the answer counts as a fallback; popular items answer where nothing else is left."""
    planned = _plan({"user_id": "ann"}, [PlacementSource(strategy="graph", model="9"), *others], behaviour_model=1)
    assert _weights(planned) == ({"new": 1.0} if others else {"popular": 1.0})
    assert planned.degraded
    assert "'9'" in planned.warnings[0]


def test_behaviour_joins_a_likeness() -> None:
    """`similar` with a weight of behaviour reads the graph too, where there is a model."""
    body = {"strategy": "similar", "item_ids": ["a"], "weights": {"text": 1.0, "behaviour": 1.0}}
    assert set(_weights(_plan(body, behaviour_model=1))) == {"similar", "graph"}
    assert set(_weights(_plan(body))) == {"similar"}


def test_a_placement_is_names_weights_and_limits() -> None:
    """Strategies made of several sources are taken apart; the same source twice has both weights."""
    sources = [
        PlacementSource(strategy="for_you", weight=1.0, limit=50),
        PlacementSource(strategy="similar", weight=0.5),
        PlacementSource(strategy="cart", weight=0.0),
    ]
    planned = _plan({"user_id": "ann"}, sources, behaviour_model=1, blend={"graph": 1.0, "similar": 1.0})
    assert _weights(planned) == {"graph": 0.5, "similar": 1.0}
    assert {chosen.name: chosen.limit for chosen in planned.asked.sources}["graph"] == 50


@pytest.mark.parametrize(
    ("body", "anchor", "leave_out"),
    [
        ({"strategy": "similar", "item_ids": ["a"]}, "seeds", "anchor"),
        ({"strategy": "similar", "user_id": "ann"}, "history", "history"),
        ({"strategy": "cart", "user_id": "ann"}, "cart", "anchor"),
        ({"strategy": "cart", "item_ids": ["a"], "user_id": "ann"}, "seeds", "anchor"),
        ({"strategy": "for_you", "user_id": "ann"}, "history", "history"),
        ({"strategy": "recently_viewed", "user_id": "ann"}, "history", "nothing"),
        ({"strategy": "popular", "user_id": "ann"}, "history", "nothing"),
    ],
)
def test_where_a_list_starts_and_what_it_leaves_out(body: dict[str, Any], anchor: str, leave_out: str) -> None:
    """At the items asked about, the shopper's history or the cart."""
    asked = _plan(body).asked
    assert (asked.anchor, asked.leave_out) == (anchor, leave_out)


def test_who_asks_for_a_least_score_wants_no_fallback() -> None:
    """Fewer items rather than others."""
    assert not _plan({"min_score": 0.5}).fallback
    assert _plan({}).fallback


def test_reranking_is_among_the_given_items() -> None:
    """Each once, none left out for having been met."""
    query = RerankQuery(item_ids=["b", "a", "b"], user_id="ann")
    planned = plan_rerank(query, _tenant(), now=datetime(2026, 1, 15, tzinfo=UTC), secret=Secret(current=b"s" * 32))
    assert planned.asked.among == ["b", "a"]
    assert planned.count == 2
    assert planned.asked.leave_out == "nothing"
