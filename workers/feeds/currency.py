"""What is known of currencies: decimals, former codes, symbols (ISO 4217)."""

from tenants.catalog.currency import exponent_of

__all__ = ["currency_of_symbol", "exponent_of", "renewed"]

_FORMER = {"RUR": "RUB", "BYR": "BYN", "BYB": "BYN", "UAK": "UAH", "KZR": "KZT", "TL": "TRY", "NIS": "ILS"}
_SYMBOLS = {
    "€": "EUR", "£": "GBP", "₽": "RUB", "руб": "RUB", "р": "RUB", "₴": "UAH", "грн": "UAH", "₸": "KZT", "тг": "KZT",
    "₹": "INR", "rs": "INR", "₫": "VND", "đ": "VND", "฿": "THB", "₱": "PHP", "r$": "BRL", "zł": "PLN", "kč": "CZK",
    "ft": "HUF", "₩": "KRW", "₺": "TRY", "₪": "ILS", "rp": "IDR", "rm": "MYR", "us$": "USD", "лв": "BGN", "₦": "NGN",
    "s/": "PEN", "₾": "GEL", "₼": "AZN", "сум": "UZS", "br": "BYN",
}  # fmt: skip
# Currencies that share a symbol, and the one that is meant where the shop has none of them.
_SHARED = {
    "$": (
        ("USD", "CAD", "AUD", "NZD", "SGD", "HKD", "TWD", "MXN", "ARS", "CLP", "COP", "UYU", "DOP", "BSD", "BBD",
         "BZD", "JMD", "TTD", "FJD"),
        "USD",
    ),
    "¥": (("JPY", "CNY"), "JPY"),
    "kr": (("SEK", "NOK", "DKK", "ISK"), None),
}  # fmt: skip


def renewed(code: str) -> str:
    """The present code of a former one (RUR is RUB); any other as it is."""
    return _FORMER.get(code, code)


def currency_of_symbol(symbol: str, default_currency: str) -> str | None:
    """The currency that a symbol or abbreviation means, in any case, with or without a point at its end.

    A symbol of several currencies means ``default_currency`` where it is one of them. None where it is unknown.
    """
    symbol = symbol.casefold().rstrip(".")
    if symbol in _SYMBOLS:
        return _SYMBOLS[symbol]
    candidates, usual = _SHARED.get(symbol, ((), None))
    return default_currency if default_currency in candidates else usual
