"""What is known of currencies."""

import pytest

from workers.feeds.currency import currency_of_symbol, exponent_of, renewed


@pytest.mark.parametrize(("currency", "exponent"), [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("XXX", 2)])
def test_decimals_follow_iso_4217(currency: str, exponent: int) -> None:
    """Most currencies have cents; some have none, or mills."""
    assert exponent_of(currency) == exponent


def test_a_former_code_is_renewed() -> None:
    """Old feeds say RUR."""
    assert renewed("RUR") == "RUB"


@pytest.mark.parametrize(
    ("symbol", "default", "currency"),
    [("€", "USD", "EUR"), ("$", "CAD", "CAD"), ("$", "EUR", "USD"), ("руб.", "USD", "RUB"), ("kr", "USD", None)],
)
def test_a_shared_symbol_means_the_shops_currency(symbol: str, default: str, currency: str | None) -> None:
    """A dollar is the shop's own dollar where it has one; a krone of nobody is unknown."""
    assert currency_of_symbol(symbol, default) == currency
