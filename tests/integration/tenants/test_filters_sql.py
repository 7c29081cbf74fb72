"""Filters mean the same in SQL as in their definition."""

import asyncio
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.db import Database
from tenants.catalog import store as catalog
from tenants.catalog.filters import Condition, Filter, Group, Not, parse_filter
from tenants.catalog.item import Item, category_ancestors
from tests.integration.tenants.conftest import MakeTenant

pytestmark = pytest.mark.anyio

_NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
_ITEMS = [
    Item(id="1", brand="a", price=100, attributes={"c": "red", "n": 5}, categories=["A > B"], tags=["x"]),
    Item(id="2", brand="b", price=200, sale_price=150, attributes={"c": ["red", "blue"]}, categories=["A"]),
    Item(id="3", price=300, hidden=True, availability="out_of_stock", attributes={"n": 7.5, "w": True}),
    Item(id="4", brand="A", seller_id="s", language="de", available_from=_NOW, categories=["B > A"]),
    Item(id="5", gtin="0", expires_at=_NOW, tags=["x", "y"], attributes={"c": "x" * 300, "n": "5"}),
    Item(id="6", group_id="g", currency="USD", price=0, attributes={"w": False, "n": [1, 2]}),
]
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def _values(item: Item, field: str) -> list[Any]:
    """All values that a field of an item has, for the filter's purposes."""
    if field == "categories":
        return [ancestor for path in item.categories for ancestor in category_ancestors(path)]
    if field.startswith("attributes."):
        value = item.attributes.get(field.removeprefix("attributes."))
        singles = value if isinstance(value, list) else [] if value is None else [value]
        return [single[:256] if isinstance(single, str) else single for single in singles]
    value = getattr(item, field)
    if field == "currency" and value is None:
        value = "EUR"
    return value if isinstance(value, list) else [] if value is None else [value]


def _same(left: Any, right: Any) -> bool:
    """Equality within a kind: 5 is not "5", and true is the text "true"."""

    def plain(value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value

    left, right = plain(left), plain(right)
    return isinstance(left, str) == isinstance(right, str) and bool(left == right)


def _matches(item: Item, part: Filter) -> bool:
    match part:
        case Group("and", parts):
            return all(_matches(item, inner) for inner in parts)
        case Group(_, parts):
            return any(_matches(item, inner) for inner in parts)
        case Not(inner):
            return not _matches(item, inner)
        case Condition(op, field, wanted):
            values = _values(item, field)
            if op == "exists":
                return bool(values)
            if op == "in":
                if field == "hidden":
                    return item.hidden in wanted
                cut = [value[:256] if isinstance(value, str) else value for value in wanted]
                return any(_same(value, want) for value in values for want in cut)
            numeric = [value for value in values if not isinstance(value, str | bool)]
            want: Any = wanted[0]
            if field in ("available_from", "expires_at"):
                want = datetime.fromisoformat(want)
            return any(_ORDER[op](value, want) for value in numeric)


_TEXT = st.tuples(
    st.sampled_from(["brand", "seller_id", "group_id", "language", "gtin", "currency", "id", "tags", "categories"]),
    st.lists(st.sampled_from(["a", "b", "A", "A > B", "B", "x", "s", "g", "EUR", "1", "6", "de", "0", ""]), max_size=3),
).map(lambda pair: {"in": list(pair)})
_MONEY = st.tuples(
    st.sampled_from(["lt", "lte", "gt", "gte", "eq"]),
    st.sampled_from(["price", "sale_price"]),
    st.sampled_from([0, 100, 150, 199.5, 200, 300, -1, 1e18]),
).map(lambda triple: {triple[0]: [triple[1], triple[2]]})
_ATTRIBUTE = st.tuples(
    st.sampled_from(["c", "n", "w", "zz"]),
    st.sampled_from(["red", "blue", "5", 5, 7.5, True, False, "true", "x" * 300]),
).map(lambda pair: {"eq": [f"attributes.{pair[0]}", pair[1]]})
_NUMBER = st.tuples(st.sampled_from(["lt", "gte"]), st.sampled_from([1, 2, 5, 7.5])).map(
    lambda pair: {pair[0]: ["attributes.n", pair[1]]}
)
_EXISTS = st.sampled_from(
    ["brand", "price", "attributes.c", "attributes.zz", "tags", "categories", "available_from", "expires_at", "gtin"]
).map(lambda field: {"exists": field})
_OTHER = st.sampled_from(
    [
        {"eq": ["hidden", True]},
        {"in": ["availability", ["out_of_stock", "preorder"]]},
        {"lte": ["available_from", "2026-01-15T13:00:00+01:00"]},
        {"gt": ["expires_at", "2026-01-15T12:00:00Z"]},
    ]
)
_LEAVES = st.one_of(_TEXT, _MONEY, _ATTRIBUTE, _NUMBER, _EXISTS, _OTHER)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"and": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"or": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)


async def test_sql_finds_what_the_definition_matches(database: Database, make_tenant: MakeTenant) -> None:
    """Any filter over items with and without each field gives the same items in SQL as by hand."""
    tenant = await make_tenant()
    async with database.tenant_session(tenant.tenant_id) as connection:
        await catalog.upsert_items(connection, tenant, _ITEMS, now=_NOW)
        numbers = await catalog.item_numbers(connection, tenant.tenant_id, [item.id for item in _ITEMS])
    trees: list[dict[str, Any]] = []

    @settings(max_examples=150)
    @given(_TREES)
    def collect(tree: dict[str, Any]) -> None:
        trees.append(tree)

    await asyncio.to_thread(collect)
    async with database.tenant_session(tenant.tenant_id) as connection:
        for tree in trees:
            parsed = parse_filter(tree)
            found = await catalog.find_items(connection, tenant.tenant_id, parsed)
            assert found == sorted(numbers[item.id] for item in _ITEMS if _matches(item, parsed)), tree
