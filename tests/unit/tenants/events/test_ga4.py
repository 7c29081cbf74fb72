"""Events of Google Analytics 4, put into ours."""

from typing import Any

import pytest

from tenants.events.ga4 import is_ga4, translate


def one(name: str, params: Any = None, *, currency: str = "EUR", **body: Any) -> Any:
    """The event of a body with this one."""
    return translate(body, {"name": name, "params": params or {}}, currency=currency)


@pytest.mark.parametrize(
    ("body", "theirs"),
    [
        ({"client_id": "1.2", "events": []}, True),
        ({"events": [{"name": "purchase"}]}, True),
        ({"events": [{"type": "purchase"}]}, False),
        ({"events": []}, False),
        ([], False),
    ],
)
def test_a_body_is_known_by_its_form(body: object, theirs: bool) -> None:
    """A client id, or events with names."""
    assert is_ga4(body) == theirs


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("view_item_list", "impression"),
        ("select_item", "click"),
        ("view_item", "view"),
        ("add_to_wishlist", "favorite"),
        ("page_view", "page_view"),
    ],
)
def test_names_are_put_over(theirs: str, ours: str) -> None:
    """An unknown one stays, as a type of the shop's own."""
    assert one(theirs)["type"] == ours


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [(12.5, "EUR", 1250), (19.99, "USD", 1999), (500, "JPY", 500), (1.234, "KWD", 1234), ("7.10", "EUR", 710)],
)
def test_amounts_become_minor_units(amount: object, currency: str, minor: int) -> None:
    """By the event's currency, exactly; floats do not lose a cent."""
    assert one("purchase", {"value": amount, "currency": currency})["value"] == minor
    assert one("purchase", {"value": amount}, currency=currency)["value"] == minor


def test_what_is_no_number_is_left_to_be_named() -> None:
    """The checks of our own events say what is wrong."""
    assert one("purchase", {"value": "much"})["value"] == "much"
    assert one("purchase", {"items": ["x"]})["items"] == ["x"]


def test_the_rest_is_kept_as_context() -> None:
    """Words searched for under our name."""
    assert one("search", {"search_term": "lamp", "engine": 2})["context"] == {"query": "lamp", "engine": 2}
