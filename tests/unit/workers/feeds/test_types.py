"""What a feed reader yields."""

from workers.feeds.types import MAX_COLUMNS_REPORTED, FeedReport, error, pointer, show, warning


def test_a_pointer_escapes_slashes_and_tildes() -> None:
    """RFC 6901 gives both a meaning of their own."""
    assert pointer("Google Shopping / Gender~x") == "/Google Shopping ~1 Gender~0x"


def test_a_shown_value_is_short_and_on_one_line() -> None:
    """A fault quotes no control character and no megabyte."""
    assert show("a\nb\x00") == '"a\\u000ab\\u0000"'
    assert len(show("x" * 10_000)) < 70


def test_the_report_counts_faults_by_code() -> None:
    """Warnings are counted as such, errors by their code only."""
    report = FeedReport()
    report.count(error(1, "bad_price", "…"))
    report.count(warning(2, "bad_gtin", "…"))
    assert (report.warnings, report.faults) == (1, {"bad_price": 1, "bad_gtin": 1})


def test_a_column_once_of_use_is_not_called_dropped() -> None:
    """The report says what became of a column at its best."""
    report = FeedReport()
    report.keep("variants", "variants")
    report.drop("variants", "it holds objects")
    report.drop("other", "it holds objects")
    report.keep("other", "other")
    assert [use.use for use in report.columns.values()] == ["attribute", "attribute"]


def test_the_report_is_bounded() -> None:
    """A feed that invents columns cannot fill the memory."""
    report = FeedReport()
    for n in range(MAX_COLUMNS_REPORTED + 10):
        report.keep(f"c{n}" + "x" * 500, "c")
    assert len(report.columns) == MAX_COLUMNS_REPORTED
    assert max(map(len, report.columns)) <= 200
