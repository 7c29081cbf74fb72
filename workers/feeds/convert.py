"""From the text of a cell to the value that the API wants."""

import math
import re
import unicodedata
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from workers.feeds.currency import currency_of_symbol, exponent_of, renewed
from workers.feeds.html import html_to_text

MAX_ID_CHARACTERS = 128
MAX_MINOR_UNITS = 10**15

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ConversionError(ValueError):
    """A value that cannot be read; the text says what it should look like."""


class Money(NamedTuple):
    """An amount in minor units of ``currency`` (ISO 4217); the currency is None where the text names none."""

    amount: int
    currency: str | None


_PLAIN_PRICE = re.compile(r"(\d{1,12})(?:\.(\d\d))?(?: ?([A-Z]{3}))?", re.ASCII)
_PRICE = re.compile(r"([^\d\s.,'+-]{0,4}\.?)\s*([0-9][0-9.,'’\s]*?)\s*([^\d\s,'+-]{0,4}\.?)")
_PRICE_HELP = "Write an amount with a point, such as 1234.50 or 1234.50 EUR."


def to_currency(text: str) -> str:
    """An ISO 4217 code in capitals, former codes renewed (RUR is RUB).

    Raises:
        ConversionError: not three letters.
    """
    code = renewed(text.strip().upper())
    if len(code) != 3 or not (code.isascii() and code.isalpha()):
        raise ConversionError("is not a currency; write an ISO 4217 code such as USD.")
    return code


def to_money(text: str, default_currency: str) -> Money:
    """An amount in major units, as people and feeds write it, in minor units.

    ``1234.5``, ``1 234,50 ₽``, ``1.234,56 EUR``, ``USD 9.99``, ``$1,299``. One comma before three digits parts
    thousands; one point before three digits may be either, so it is refused (unless the currency decides).
    More decimals than the currency has are rounded half up. ``default_currency`` decides decimals and shared
    symbols only; the answer's currency is None where the text names none.

    Raises:
        ConversionError: not an amount, negative, ambiguous, or beyond 10**15 minor units.
    """
    text = text.strip()
    if len(text) > 40:
        raise ConversionError(f"is not a price. {_PRICE_HELP}")
    return _read_money(text, default_currency)


# Prices repeat within a shop; only short texts are kept.
@lru_cache(maxsize=8192)
def _read_money(text: str, default_currency: str) -> Money:
    plain = _PLAIN_PRICE.fullmatch(text)
    if plain is not None:
        whole, cents, code = plain.groups()
        currency = renewed(code) if code else None
        if exponent_of(currency or default_currency) == 2:
            return _checked(int(whole) * 100 + int(cents or 0), currency)
    found = _PRICE.fullmatch(text)
    if found is None or (found[1] and found[3]):
        raise ConversionError(f"is not a price. {_PRICE_HELP}")
    symbol = found[1] or found[3]
    currency = _named_currency(symbol, default_currency) if symbol else None
    digits = re.sub(r"[\s'’]", "", found[2])
    amount = Decimal(_with_point(digits, exponent_of(currency or default_currency)))
    return _checked(_minor(amount, currency or default_currency), currency)


def number_to_money(value: int | float, currency: str) -> int:
    """A JSON number of major units in minor units of ``currency``, rounded half up.

    Raises:
        ConversionError: negative, not finite, or beyond 10**15 minor units.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ConversionError(f"is not a price. {_PRICE_HELP}")
    if abs(value) > 10 * MAX_MINOR_UNITS:
        # Python refuses to print whole numbers of thousands of digits.
        raise ConversionError("is too large for a price.")
    return _checked(_minor(Decimal(str(value)), currency), currency).amount


def minor_units(value: int) -> int:
    """An amount that is in minor units already, checked.

    Raises:
        ConversionError: negative, or beyond 10**15.
    """
    return _checked(value, None).amount


def _minor(amount: Decimal, currency: str) -> int:
    if abs(amount) > MAX_MINOR_UNITS:
        raise ConversionError("is too large for a price.")
    return int(amount.scaleb(exponent_of(currency)).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _checked(amount: int, currency: str | None) -> Money:
    if amount < 0:
        raise ConversionError("is below zero, which no price may be.")
    if amount > MAX_MINOR_UNITS:
        raise ConversionError("is too large for a price.")
    return Money(amount, currency)


def _named_currency(symbol: str, default_currency: str) -> str:
    known = currency_of_symbol(symbol, default_currency)
    if known is not None:
        return known
    try:
        return to_currency(symbol)
    except ConversionError:
        raise ConversionError(f"names a currency that is not known. {_PRICE_HELP}") from None


def _with_point(digits: str, exponent: int) -> str:
    """``digits`` with the separators of thousands taken out and a point before the decimals."""
    digits = digits.rstrip(".,")
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0:
        return digits
    mark, other = digits[last], "," if digits[last] == "." else "."
    head, tail = digits[:last], digits[last + 1 :]
    if other in head:
        # Both occur: the last one is the decimal mark, and the other must stand before every third digit.
        if mark in head or not _grouped(head, other):
            raise ConversionError(f"is not a price. {_PRICE_HELP}")
        return f"{head.replace(other, '')}.{tail}"
    if mark in head:
        if not _grouped(digits, mark):
            raise ConversionError(f"is not a price. {_PRICE_HELP}")
        return digits.replace(mark, "")
    if len(tail) == 3 and head not in {"", "0"} and len(head) <= 3:
        if exponent == 0 or (exponent == 2 and mark == ","):
            return head + tail
        if not (exponent == 3 and mark == "."):
            raise ConversionError(
                f"may mean {head}{tail} or {head}.{tail}. Write thousands without a mark and cents with two digits."
            )
    return f"{head or '0'}.{tail}"


def _grouped(digits: str, mark: str) -> bool:
    first, *rest = digits.split(mark)
    return 1 <= len(first) <= 3 and all(len(group) == 3 for group in rest)


_IN_STOCK, _OUT_OF_STOCK, _PREORDER, _BACKORDER = "in_stock", "out_of_stock", "preorder", "backorder"
_AVAILABILITY = {
    **dict.fromkeys(
        ("instock", "available", "yes", "true", "y", "t", "availablefororder", "limitedavailability", "lowstock",
         "instoreonly", "onlineonly", "active", "вналичии", "есть", "естьвналичии", "да",
         "disponible", "enstock", "auflager", "lieferbar", "tersedia", "emestoque", "disponível"),
        _IN_STOCK,
    ),
    **dict.fromkeys(
        ("outofstock", "outstock", "soldout", "no", "false", "n", "f", "unavailable", "notavailable", "discontinued",
         "нетвналичии", "нет", "отсутствует", "agotado", "sinstock", "rupturedestock", "ausverkauft", "habis",
         "esgotado", "indisponible", "indisponível"),
        _OUT_OF_STOCK,
    ),
    **dict.fromkeys(("preorder", "presale", "предзаказ", "comingsoon"), _PREORDER),
    **dict.fromkeys(("backorder", "backordered", "onbackorder", "onorder", "подзаказ", "onrequest"), _BACKORDER),
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:[.,]\d{1,6})?", re.ASCII)


def to_availability(text: str) -> str:
    """``in_stock``, ``out_of_stock``, ``preorder`` or ``backorder``, from a word, a yes or no, or a quantity.

    Raises:
        ConversionError: none of them.
    """
    found = _read_availability(text.strip()) if len(text) <= 100 else None
    if found is None:
        raise ConversionError(
            "is not an availability; write in_stock, out_of_stock, preorder or backorder, or a quantity."
        )
    return found


@lru_cache(maxsize=1024)
def _read_availability(text: str) -> str | None:
    if _NUMBER.fullmatch(text):
        return _IN_STOCK if float(text.replace(",", ".")) > 0 else _OUT_OF_STOCK
    word = text.casefold()
    if "schema.org/" in word:
        word = word.rsplit("/", 1)[1]
    return _AVAILABILITY.get(re.sub(r"[\W_]+", "", word))


_TRUE = frozenset(("true", "yes", "y", "t", "1", "on", "да", "1.0"))
_FALSE = frozenset(("false", "no", "n", "f", "0", "off", "нет", "0.0", ""))


def to_bool(value: object) -> bool:
    """A yes or no: a JSON boolean, or one of the usual words in any case.

    Raises:
        ConversionError: anything else.
    """
    if isinstance(value, bool):
        return value
    word = str(value).strip().casefold() if isinstance(value, (str, int, float)) else "?"
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConversionError("is neither yes nor no; write true or false.")


_SHOWN = frozenset(("published", "active", "visible", "enabled", "public", "publish"))
_NOT_SHOWN = frozenset(
    ("draft", "proposed", "rejected", "archived", "inactive", "hidden", "private", "unpublished", "disabled", "-1")
)


def to_published(value: object) -> bool:
    """Whether shoppers may see the item: a yes or no, or a status such as ``active`` or ``draft``.

    Raises:
        ConversionError: anything else.
    """
    word = value.strip().casefold() if isinstance(value, str) else ""
    if word in _SHOWN or word in _NOT_SHOWN:
        return word in _SHOWN
    return to_bool(value)


def to_id(value: object) -> str:
    """An id as the API takes it: 1 to 128 characters, none of them a control character.

    Raises:
        ConversionError: empty, longer, with control characters, or not a text or whole number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**40 else "9" * (MAX_ID_CHARACTERS + 1)
    if not isinstance(value, str):
        raise ConversionError("is not an id; write a text of 1 to 128 characters.")
    if not value:
        raise ConversionError("is empty; every item needs an id of 1 to 128 characters.")
    if len(value) > MAX_ID_CHARACTERS:
        raise ConversionError("is longer than the 128 characters that an id may have.")
    if CONTROL.search(value):
        raise ConversionError("holds a control character, which an id may not have.")
    return value


_PATH_MARK = re.compile(r"\s*(?:>|»|›|→)\s*")


def to_category(text: str) -> str:
    """One category path as ``A > B``: ``A>B``, ``A » B`` and, where none of these occurs, ``A/B``.

    Empty levels are left out; empty where nothing is left.
    """
    text = " ".join(text.split())
    levels = _PATH_MARK.split(text)
    if len(levels) == 1:
        levels = text.split("/")
    return " > ".join(level.strip() for level in levels if level.strip())


def split_categories(text: str, separators: str) -> tuple[str, ...]:
    """The category paths of one cell, in order, without repeats; ``separators`` are single characters."""
    # Paths repeat within a shop; only those of a sensible length are kept.
    return _split_categories(text, separators) if len(text) <= 500 else _split_paths(text, separators)


def _split_paths(text: str, separators: str) -> tuple[str, ...]:
    parts = re.split(f"[{re.escape(separators)}]", text) if separators else [text]
    return tuple(dict.fromkeys(path for part in parts if (path := to_category(part))))


_split_categories = lru_cache(maxsize=4096)(_split_paths)


_LEGACY_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(.*)", re.ASCII | re.DOTALL)


def to_datetime(value: object) -> datetime:
    """A moment with an offset, from ISO 8601, RFC 3339, ``2024-12-31 09:00:01+0300`` or ``31.12.2024``.

    A day alone begins at midnight, and a time without an offset is UTC. Day and month parted by slashes mean
    different days in different countries and are refused, and so are numbers.

    Raises:
        ConversionError: not a moment.
    """
    text = value.strip() if isinstance(value, str) else ""
    dotted = _LEGACY_DATE.fullmatch(text)
    if dotted is not None:
        day, month, year, rest = dotted.groups()
        text = f"{year}-{month:0>2}-{day:0>2}{rest}"
    try:
        if len(text) < 8 or text.isdigit():
            raise ValueError
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        # An offset may push the ends of the calendar over the edge.
        moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConversionError("is not a time; write it as 2026-01-31T09:00:00Z.") from None
    return moment


def to_timestamp(value: object) -> str:
    """``to_datetime`` as RFC 3339 text, ``Z`` for UTC.

    Raises:
        ConversionError: not a moment.
    """
    return rfc3339(to_datetime(value))


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 text, ``Z`` for UTC, whole minutes of offset."""
    offset = moment.utcoffset()
    if offset is not None and offset.total_seconds() % 60:
        moment = moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


def to_gtin(value: object) -> str:
    """A GTIN of 8, 12, 13 or 14 digits with a right check digit (GS1 General Specifications 7.9).

    Raises:
        ConversionError: another length, another character, or a wrong check digit.
    """
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    # Spreadsheets are told by an apostrophe that the digits are text.
    digits = re.sub(r"[\s-]", "", text).lstrip("'")
    if not (digits.isascii() and digits.isdigit()) or len(digits) not in {8, 12, 13, 14}:
        raise ConversionError("is not a GTIN; write its 8, 12, 13 or 14 digits.")
    weighted = sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(reversed(digits)))
    if weighted % 10:
        raise ConversionError("is not a GTIN: its last digit does not fit the others.")
    return digits


_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}", re.ASCII)


def to_language(value: object) -> str:
    """A language tag (BCP 47), ``en_US`` written as ``en-US``.

    Raises:
        ConversionError: not a language tag.
    """
    text = value.strip().replace("_", "-") if isinstance(value, str) else ""
    if _LANGUAGE.fullmatch(text) is None:
        raise ConversionError("is not a language; write a tag such as en or pt-BR.")
    return text


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def to_url(text: str) -> str:
    """A web address; ``//host/path`` is given ``https:``.

    Raises:
        ConversionError: no http or https address with a host, or longer than 2,000 characters.
    """
    text = text.strip()
    if text.startswith("//"):
        text = "https:" + text
    try:
        parts = urlsplit(text)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        fits = False
    if not fits or len(text) > 2000 or CONTROL.search(text):
        raise ConversionError("is not a web address; write it whole, as https://shop.example/page.")
    return text.replace(" ", "%20")


def is_local_photo(text: str) -> bool:
    """True where ``text`` names a file rather than an address."""
    return not (text.startswith("//") or _SCHEME.match(text))


def to_photo_name(text: str) -> str:
    """The name of a photo in the shop's own folder: a relative path with ``/``.

    Raises:
        ConversionError: absolute, climbing out by ``..``, longer than 500 characters, or with control characters.
    """
    name = text.strip().replace("\\", "/").removeprefix("./")
    if not name or len(name) > 500 or CONTROL.search(name) or name.startswith(("/", "~")) or ".." in name.split("/"):
        raise ConversionError("is not a photo's name; write a path inside the folder of photos, or a web address.")
    return name


_TAG = re.compile(
    r"</?(?:p|br|div|span|ul|ol|li|b|strong|i|em|u|a|h[1-6]|table|thead|tbody|tr|t[dh]|img|font|section|article"
    r"|blockquote|pre|code|sup|sub|small|hr|style|script|iframe|video|center|dl|d[td])\b[^<>]*>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:nbsp|amp|quot|lt|gt|apos|laquo|raquo|mdash|ndash|#\d{2,7}|#x[0-9a-f]{2,6});", re.IGNORECASE)
_BLANKS = re.compile(r"[^\S\n]+")


def to_text(text: str, *, html: bool) -> str:
    """Readable text: HTML is undone, NFC, no control characters, no blanks at the ends.

    ``html``: the column is HTML by its format's rules. Elsewhere text is taken for HTML only where it holds a
    common tag or entity, so that ``a < b`` stays.
    """
    if ("<" in text and (_TAG.search(text) or (html and "<!" in text))) or (
        "&" in text and (html or _ENTITY.search(text))
    ):
        text = html_to_text(text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if CONTROL.search(text):
        text = CONTROL.sub(lambda c: c.group() if c.group() == "\n" else " ", text.replace("\r\n", "\n"))
        text = _BLANKS.sub(" ", text)
    return text.strip()
