"""From the text of a cell to the value that the API wants."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.feeds import convert
from workers.feeds.convert import ConversionError, Money
from workers.feeds.currency import exponent_of


@pytest.mark.parametrize(
    ("text", "currency", "amount", "named"),
    [
        ("9.99 USD", "EUR", 999, "USD"),
        ("USD 9.99", "EUR", 999, "USD"),
        ("1.234,56", "EUR", 123456, None),
        ("1,234.56", "USD", 123456, None),
        ("1 234,50 ₽", "RUB", 123450, "RUB"),
        ("1\u00a0234,5 руб.", "USD", 123450, "RUB"),
        ("1'234.50", "CHF", 123450, None),
        ("$1,299", "USD", 129900, "USD"),
        ("$5", "MXN", 500, "MXN"),
        ("$5", "EUR", 500, "USD"),
        ("R$ 10,00", "USD", 1000, "BRL"),
        ("1.299.000", "IDR", 129900000, None),
        ("19", "USD", 1900, None),
        ("34.0000", "USD", 3400, None),
        ("19.995", "JPY", 19995, None),
        ("0.125", "USD", 13, None),
        (".5", "USD", None, None),
        ("1980", "JPY", 1980, None),
        ("1,980", "JPY", 1980, None),
        ("1.500 KWD", "USD", 1500, "KWD"),
        ("12 kr", "SEK", 1200, "SEK"),
        ("100 RUR", "USD", 10000, "RUB"),
    ],
)
def test_money_is_read_as_people_write_it(text: str, currency: str, amount: int | None, named: str | None) -> None:
    """Separators, symbols and codes of many countries come out as minor units."""
    if amount is None:
        with pytest.raises(ConversionError):
            convert.to_money(text, currency)
    else:
        assert convert.to_money(text, currency) == Money(amount, named)


@pytest.mark.parametrize(
    "text", ["", "free", "1.234", "1,23,4", "1.2.3", "-5", "9.99 XYZW", "12,345.6.7", "$ 5 EUR", "9" * 50, "1e5", "٣"]
)
def test_what_may_be_a_wrong_price_is_refused(text: str) -> None:
    """Anything that reads in two ways, or in none, is no price."""
    with pytest.raises(ConversionError):
        convert.to_money(text, "USD")


@given(st.integers(0, 10**11), st.sampled_from(["USD", "JPY", "KWD", "EUR"]), st.booleans())
def test_a_written_amount_reads_back(amount: int, currency: str, named: bool) -> None:
    """Major units with the currency's decimals and a point give the same minor units again."""
    exponent = exponent_of(currency)
    text = f"{amount // 10**exponent}.{amount % 10**exponent:0{exponent}}" if exponent else str(amount)
    suffix = f" {currency}" if named else ""
    assert convert.to_money(text + suffix, currency) == Money(amount, currency if named else None)


@given(st.text(max_size=60))
def test_no_text_breaks_a_conversion(text: str) -> None:
    """Every conversion gives a value or a ConversionError, whatever the text."""
    for to in (
        convert.to_currency,
        convert.to_availability,
        convert.to_bool,
        convert.to_published,
        convert.to_id,
        convert.to_category,
        convert.to_timestamp,
        convert.to_gtin,
        convert.to_language,
        convert.to_url,
        convert.to_photo_name,
        lambda t: convert.to_money(t, "USD"),
        lambda t: convert.to_text(t, html=True),
    ):
        with contextlib.suppress(ConversionError):
            to(text)


@pytest.mark.parametrize(
    ("value", "currency", "amount"), [(19.0, "USD", 1900), (9.99, "USD", 999), (5, "KWD", 5000), (0.1 + 0.2, "USD", 30)]
)
def test_a_json_number_is_in_major_units(value: float, currency: str, amount: int) -> None:
    """A number is scaled by the currency's exponent and rounded half up."""
    assert convert.number_to_money(value, currency) == amount


@pytest.mark.parametrize("value", [-0.01, float("inf"), float("nan"), 1e300, 10**40])
def test_a_json_number_that_is_no_price_is_refused(value: float) -> None:
    """Negative, endless and absurd numbers are no prices."""
    with pytest.raises(ConversionError):
        convert.number_to_money(value, "USD")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("in stock", "in_stock"),
        ("In_Stock", "in_stock"),
        ("https://schema.org/OutOfStock", "out_of_stock"),
        ("pre-order", "preorder"),
        ("on backorder", "backorder"),
        ("в наличии", "in_stock"),
        ("Нет в наличии", "out_of_stock"),
        ("true", "in_stock"),
        ("0", "out_of_stock"),
        ("12", "in_stock"),
        ("-3", "out_of_stock"),
        ("0.0", "out_of_stock"),
    ],
)
def test_availability_is_a_word_a_yes_or_a_quantity(text: str, word: str) -> None:
    """The words of shops and feeds mean one of the API's four."""
    assert convert.to_availability(text) == word


def test_an_unknown_availability_is_refused() -> None:
    """Nobody guesses whether "perhaps" may be sold."""
    with pytest.raises(ConversionError):
        convert.to_availability("perhaps")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("A > B", "A > B"),
        ("A>B>C", "A > B > C"),
        ("Men/Tops/Hoodies & Sweatshirts", "Men > Tops > Hoodies & Sweatshirts"),
        ("Audio/Video > Cables", "Audio/Video > Cables"),
        ("A » B", "A > B"),
        (" / A // ", "A"),
        (">", ""),
    ],
)
def test_category_paths_are_parted_by_greater_than(text: str, path: str) -> None:
    """A slash parts levels only where nothing else does."""
    assert convert.to_category(text) == path


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-01", "2024-01-01T00:00:00Z"),
        ("2023-12-15 09:00:01+0300", "2023-12-15T09:00:01+03:00"),
        ("2024-01-01T13:00-0800", "2024-01-01T13:00:00-08:00"),
        ("2024-07-31T16:07:55.102Z", "2024-07-31T16:07:55.102000Z"),
        ("31.12.2024", "2024-12-31T00:00:00Z"),
        ("1.2.2024 10:30", "2024-02-01T10:30:00Z"),
    ],
)
def test_moments_get_an_offset(text: str, moment: str) -> None:
    """ISO days and times, and days with points, come out as RFC 3339."""
    assert convert.to_timestamp(text) == moment


@pytest.mark.parametrize("value", ["01/02/2024", "20240101", "soon", "", 1700000000, "0001-01-01T00:00+14:00"])
def test_an_unclear_moment_is_refused(value: object) -> None:
    """Day and month by slashes differ between countries, and a number has no unit."""
    with pytest.raises(ConversionError):
        convert.to_timestamp(value)


@given(st.datetimes(timezones=st.sampled_from([UTC])))
def test_a_moment_reads_back(moment: datetime) -> None:
    """What is written as RFC 3339 is the same moment when read."""
    assert convert.to_datetime(convert.rfc3339(moment)) == moment


@pytest.mark.parametrize("value", ["", "x" * 129, "a\nb", "a\x00", "a\x85b", 1.5, True, None, [], 10**200])
def test_bad_ids_are_refused(value: object) -> None:
    """An id is a text or whole number of 1 to 128 characters without control characters."""
    with pytest.raises(ConversionError):
        convert.to_id(value)


def test_a_whole_number_is_an_id() -> None:
    """Databases number their products."""
    assert convert.to_id(42) == "42"


@pytest.mark.parametrize(
    "value", ["4006381333931", "036000291452", "'4006381333931", "978-0-306-40615-7", 4006381333931]
)
def test_a_gtin_keeps_its_digits(value: object) -> None:
    """Blanks, hyphens and the apostrophe of spreadsheets are taken off."""
    assert convert.to_gtin(value).isdigit()


@pytest.mark.parametrize("value", ["4006381333932", "123", "4.00638E+12", "", None])
def test_a_wrong_gtin_is_refused(value: object) -> None:
    """Its check digit and length tell."""
    with pytest.raises(ConversionError):
        convert.to_gtin(value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("//cdn.example/a.jpg", "https://cdn.example/a.jpg"),
        ("https://shop.example/a b.jpg", "https://shop.example/a%20b.jpg"),
        (" http://shop.example ", "http://shop.example"),
    ],
)
def test_an_address_is_made_whole(text: str, url: str) -> None:
    """A missing scheme and blanks are mended."""
    assert convert.to_url(text) == url


@pytest.mark.parametrize(
    "text", ["ftp://a.example/x", "javascript:alert(1)", "file:///etc/passwd", "https://", "http://["]
)
def test_other_schemes_are_no_addresses(text: str) -> None:
    """Only http and https lead to a page or a photo."""
    with pytest.raises(ConversionError):
        convert.to_url(text)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "~/x.jpg", "..\\x.jpg", "a\x00.jpg", ""]
)
def test_a_photo_name_stays_in_its_folder(name: str) -> None:
    """No name climbs out of the folder that holds the photos."""
    with pytest.raises(ConversionError):
        convert.to_photo_name(name)


def test_a_windows_photo_name_gets_slashes() -> None:
    """Folders are parted by a slash everywhere."""
    assert convert.to_photo_name(".\\photos\\a.jpg".replace(".\\", "./")) == "photos/a.jpg"


@pytest.mark.parametrize(
    ("text", "html", "plain"),
    [
        ("a < b & c", False, "a < b & c"),
        ("<p>One</p><p>Two</p>", False, "One\nTwo"),
        ("Fish &amp; chips", False, "Fish & chips"),
        ("x &reg; y", True, "x ® y"),
        ("<script>alert(1)</script>Safe", True, "Safe"),
        ("a\x07b", False, "a b"),
        ("caf\u0065\u0301", False, "café"),
        ("<ul><li>a<li>b</ul>", True, "a\nb"),
    ],
)
def test_text_is_what_a_shopper_reads(text: str, html: bool, plain: str) -> None:
    """HTML is undone where it is HTML, and left alone where it is not."""
    assert convert.to_text(text, html=html) == plain


@pytest.mark.parametrize(
    ("value", "answer"), [("draft", False), ("active", True), ("TRUE", True), ("0", False), (False, False)]
)
def test_a_status_says_whether_an_item_is_shown(value: object, answer: bool) -> None:
    """Shops write yes and no, or the name of a status."""
    assert convert.to_published(value) is answer


def test_a_language_tag_has_a_hyphen() -> None:
    """Locales with an underscore are BCP 47 tags in disguise."""
    assert convert.to_language("pt_BR") == "pt-BR"
